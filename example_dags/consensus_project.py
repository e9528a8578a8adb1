"""In a consensus project: label what is assigned to the API key, as one of the several who label each task."""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.sdk import Param, dag
from threshold_model import predict

from airflow_provider_redbrick.operators.list_tasks import RedBrickListTasksOperator
from airflow_provider_redbrick.operators.prelabel import RedBrickPrelabelOperator
from airflow_provider_redbrick.sensors.tasks import RedBrickTasksSensor


@dag(
    # Whenever the key was assigned new tasks: a run lasts until the last of its labelers has submitted.
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    max_active_runs=1,
    default_args={"retries": 2},
    params={"project": Param("", type="string", description="The project's id; it is a consensus project")},
    tags=["redbrick"],
)
def consensus_project() -> None:
    """Submit the model's labels for the key's own tasks, and wait until the others have submitted theirs."""
    project = "{{ params.project }}"
    mine = RedBrickListTasksOperator(
        task_id="mine", project_id=project, stage_name="Label", assignee="me", limit=1000, chunk_size=100
    )
    label = RedBrickPrelabelOperator.partial(
        task_id="label", project_id=project, stage_name="Label", labeler=predict, claim=False
    ).expand(task_ids=mine.output)
    # Not left_stage: a task counts as on its way out as soon as the first of its labelers has submitted.
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
