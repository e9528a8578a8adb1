"""Label the API key's tasks in a consensus project, as one of several labelers."""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.sdk import Param, dag
from threshold_model import predict

from airflow_provider_redbrick.operators.list_tasks import RedBrickListTasksOperator
from airflow_provider_redbrick.operators.prelabel import RedBrickPrelabelOperator
from airflow_provider_redbrick.sensors.tasks import RedBrickTasksSensor


@dag(
    # Trigger it when the key has new tasks. A run lasts until the last labeler has submitted.
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    max_active_runs=1,
    default_args={"retries": 2},
    params={"project": Param("", type="string", description="Id of a consensus project")},
    tags=["redbrick"],
)
def consensus_project() -> None:
    """Submit the model's labels for the key's tasks, and wait for the other labelers."""
    project = "{{ params.project }}"
    mine = RedBrickListTasksOperator(
        task_id="mine", project_id=project, stage_name="Label", assignee="me", limit=1000, chunk_size=100
    )
    label = RedBrickPrelabelOperator.partial(
        task_id="label", project_id=project, stage_name="Label", labeler=predict, claim=False
    ).expand(task_ids=mine.output)
    # Not left_stage, which is met as soon as the first labeler has submitted.
    all_done = RedBrickTasksSensor.partial(
        task_id="all_done",
        project_id=project,
        reached_stage="Review_1",
        deferrable=True,
        poke_interval=600,
        timeout=timedelta(days=14),
    ).expand(task_ids=mine.output)
    label >> all_done


consensus_project()
