"""A huge queue, prelabelled in chunks by as many workers as there are."""

from __future__ import annotations

import time
from datetime import timedelta

import pendulum
from airflow.sdk import dag
from chaos.works import box

from airflow_provider_redbrick.operators.list_tasks import RedBrickListTasksOperator
from airflow_provider_redbrick.operators.prelabel import RedBrickPrelabelOperator


def labeler(redbrick_task):
    time.sleep(0.005)
    return {"series": [{"boundingBoxes": [box(redbrick_task.name)]}]}


@dag(
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1),
    default_args={"retries": 5, "retry_delay": timedelta(seconds=1)},
)
def huge_queue():
    """One Airflow task for 250 tasks of the queue."""
    queue = RedBrickListTasksOperator(
        task_id="queue", stage_name="Label", state="UNASSIGNED", limit=10_000, chunk_size=250
    )
    prelabel = RedBrickPrelabelOperator.partial(task_id="prelabel", stage_name="Label", labeler=labeler)
    prelabel.expand(task_ids=queue.output)


huge_queue()
