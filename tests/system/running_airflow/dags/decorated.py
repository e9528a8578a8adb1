"""Decorated functions as labelers and reviewers."""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.sdk import dag, task

from airflow_provider_redbrick.operators.auto_review import Review
from airflow_provider_redbrick.operators.list_tasks import RedBrickListTasksOperator

BOX = {"pointTopLeft": {"xNorm": 0.1, "yNorm": 0.2}, "wNorm": 0.3, "hNorm": 0.4, "category": "finding"}


# A busy machine is no defect.
RETRIES = {"retries": 3, "retry_delay": timedelta(seconds=1)}


@dag(schedule=None, start_date=pendulum.datetime(2026, 1, 1), params={"project": ""}, default_args=RETRIES)
def decorated():
    """A mapped labeler, and then a reviewer that is told what to accept by another task."""
    in_project = {"project_id": "{{ params.project }}"}
    chunks = RedBrickListTasksOperator(task_id="chunks", stage_name="Label", chunk_size=3, **in_project)

    @task
    def widest() -> float:
        return 0.25

    @task.redbrick_prelabel(stage_name="Label", **in_project)
    def label(task, day, width: float) -> dict:
        assert day.startswith("20")
        wide = int(task.name.rpartition("-")[2]) % 2
        return {"series": [{"boundingBoxes": [{**BOX, "wNorm": width * (2 if wide else 1)}]}]}

    @task.redbrick_auto_review(stage_name="Review_1", **in_project)
    def review(scan, most, run_id=None):
        assert run_id
        (box,) = scan.series[0]["boundingBoxes"]
        return Review.accept() if box["wNorm"] <= most else Review.leave()

    labelled = label.partial(day="{{ dag_run.run_after }}", width=0.2).expand(task_ids=chunks.output)
    labelled >> review(widest())


decorated()
