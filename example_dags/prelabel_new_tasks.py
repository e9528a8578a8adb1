"""Save a model's predictions as drafts on new tasks, for people to correct."""

from __future__ import annotations

import pendulum
from airflow.sdk import dag
from threshold_model import predict

from airflow_provider_redbrick.operators.prelabel import RedBrickPrelabelOperator


@dag(
    schedule="*/30 * * * *",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2},
    tags=["redbrick"],
)
def prelabel_new_tasks() -> None:
    """Every half hour, save predictions on unassigned tasks in Label as drafts."""
    RedBrickPrelabelOperator(
        task_id="prelabel",
        stage_name="Label",
        labeler=predict,
        write="draft_and_release",
        limit=500,
    )


prelabel_new_tasks()
