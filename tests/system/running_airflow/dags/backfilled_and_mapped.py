"""DAGs for dates and chunks: a week of days, each with its own ground truth, and a queue in twenty parts."""

from __future__ import annotations

import pendulum
from airflow.sdk import dag
from airflow.timetables.interval import CronDataIntervalTimetable

from airflow_provider_redbrick.operators.list_tasks import RedBrickListTasksOperator
from airflow_provider_redbrick.operators.prelabel import RedBrickPrelabelOperator
from airflow_provider_redbrick.operators.reopen_ground_truth import RedBrickReopenGroundTruthOperator

PROJECT = "{{ params.project }}"
BOX = {"pointTopLeft": {"xNorm": 0.1, "yNorm": 0.2}, "wNorm": 0.3, "hNorm": 0.4, "category": "finding"}


@dag(
    schedule=CronDataIntervalTimetable("0 0 * * *", timezone="UTC"),
    start_date=pendulum.datetime(2026, 3, 1, tz="UTC"),
    # Over by now: it runs for a backfill only.
    end_date=pendulum.datetime(2026, 3, 31, tz="UTC"),
    catchup=False,
    params={"project": ""},
)
def reopened_by_date():
    """As the example: each date reopens what was last updated on it."""
    RedBrickReopenGroundTruthOperator(task_id="reopen", project_id=PROJECT, selector=lambda _task: True)


@dag(schedule=None, start_date=pendulum.datetime(2026, 1, 1, tz="UTC"), params={"project": ""})
def prelabelled_in_chunks():
    """As the example: a queue in chunks, one prelabel each."""
    queue = RedBrickListTasksOperator(
        task_id="list_queue", project_id=PROJECT, stage_name="Label", state="UNASSIGNED", chunk_size=100
    )
    RedBrickPrelabelOperator.partial(
        task_id="prelabel", project_id=PROJECT, stage_name="Label", labeler=lambda _task: [{"boundingBoxes": [BOX]}]
    ).expand(task_ids=queue.output)


reopened_by_date()
prelabelled_in_chunks()
