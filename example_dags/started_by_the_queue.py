"""Start when enough new tasks wait, by a watcher instead of a schedule."""

from __future__ import annotations

import pendulum
from airflow.sdk import AssetWatcher, dag
from threshold_model import predict

from airflow_provider_redbrick.assets.stages import stage_asset
from airflow_provider_redbrick.operators.prelabel import RedBrickPrelabelOperator
from airflow_provider_redbrick.triggers.redbrick import RedBrickStageQueueEventTrigger

# The sandbox's project. An asset names its project, independent of the connection.
PROJECT = {"org_id": "0a9c6e10-5b1d-4c8e-9f00-000000000001", "project_id": "0a9c6e10-5b1d-4c8e-9f00-000000000002"}
NEW_TASKS = stage_asset(
    **PROJECT,
    stage_name="Label",
    watchers=[
        AssetWatcher(
            name="enough_new_tasks",
            trigger=RedBrickStageQueueEventTrigger(stage_name="Label", at_least=50, poke_interval=60, **PROJECT),
        )
    ],
)
# Another DAG may use this asset as its schedule. The event has the number of submitted tasks.
TO_REVIEW = stage_asset(**PROJECT, stage_name="Review_1")


@dag(
    schedule=[NEW_TASKS],
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2},
    tags=["redbrick"],
)
def started_by_the_queue() -> None:
    """Submit predictions for review whenever the queue of Label reaches 50 tasks."""
    RedBrickPrelabelOperator(
        task_id="prelabel", stage_name="Label", labeler=predict, write="submit", outlets=[TO_REVIEW], **PROJECT
    )


started_by_the_queue()
