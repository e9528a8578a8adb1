"""Prelabel a large queue in parallel, with one mapped task per chunk of ids."""

from __future__ import annotations

import pendulum
from airflow.sdk import dag
from threshold_model import predict

from airflow_provider_redbrick.operators.list_tasks import RedBrickListTasksOperator
from airflow_provider_redbrick.operators.prelabel import RedBrickPrelabelOperator


@dag(
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    max_active_runs=1,
    default_args={"retries": 2},
    tags=["redbrick"],
)
def prelabel_in_parallel() -> None:
    """List the queue in chunks of 100, and process the chunks on all workers."""
    queue = RedBrickListTasksOperator(
        task_id="list_queue", stage_name="Label", state="UNASSIGNED", limit=5000, chunk_size=100
    )
    RedBrickPrelabelOperator.partial(
        task_id="prelabel", stage_name="Label", labeler=predict, write="draft_and_release", overwrite=False
    ).expand(task_ids=queue.output)


prelabel_in_parallel()
