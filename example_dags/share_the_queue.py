"""Share a stage's queue evenly among the people who may work in it."""

from __future__ import annotations

import pendulum
from airflow.sdk import dag, task

from airflow_provider_redbrick.hooks.redbrick import RedBrickHook
from airflow_provider_redbrick.operators.balance_assignments import RedBrickBalanceAssignmentsOperator


@dag(
    schedule="0 7 * * 1-5",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2},
    tags=["redbrick"],
)
def share_the_queue() -> None:
    """Assign unassigned tasks in Label every weekday morning, evenly by queue."""

    @task
    def labelers() -> list[str]:
        """Return the email addresses of all labelers with access to the stage."""
        members = RedBrickHook().project().members()
        return sorted(
            member.user.email for member in members if member.role == "LABELER" and member.may_work_in("Label")
        )

    RedBrickBalanceAssignmentsOperator(task_id="share", stage_name="Label", emails=labelers())


share_the_queue()
