"""Review by rules every night, and share the remaining tasks among reviewers.

Retry policies need Airflow 3.3 or newer. On older versions, Airflow's own `retries` apply to every error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pendulum
from airflow.providers.common.compat.sdk import AirflowOptionalProviderFeatureException
from airflow.sdk import Param, dag, task
from threshold_model import plausible, too_large

from airflow_provider_redbrick.hooks.redbrick import RedBrickHook
from airflow_provider_redbrick.operators.auto_review import RedBrickAutoReviewOperator, Review
from airflow_provider_redbrick.operators.balance_assignments import RedBrickBalanceAssignmentsOperator

try:
    from airflow_provider_redbrick.retry_policy import RedBrickRetryPolicy
except AirflowOptionalProviderFeatureException:
    RETRIES: dict[str, Any] = {"retries": 5}
else:
    RETRIES = {"retries": 5, "retry_policy": RedBrickRetryPolicy()}

if TYPE_CHECKING:
    from airflow_provider_redbrick.client.models.task import Task


def decide(scan: Task) -> Review:
    """Reject wrong tasks, accept plausible ones, and leave the rest to people."""
    if too_large(scan):
        return Review.reject("A box covers more than a quarter of the image.")
    return Review.accept() if plausible(scan) else Review.leave()


@dag(
    schedule="0 2 * * *",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    default_args=RETRIES,
    params={"reports": Param("/data/reports", type="string", description="A local folder, or e.g. s3://bucket/key")},
    tags=["redbrick"],
)
def nightly_quality_control() -> None:
    """Review by rules first, then share the rest evenly among the reviewers."""
    review = RedBrickAutoReviewOperator(
        task_id="review",
        stage_name="Review_1",
        reviewer=decide,
        report_path="{{ params.reports }}/{{ dag_run.run_after.strftime('%Y-%m-%d') }}-{{ ti.task_id }}.jsonl",
    )

    @task
    def reviewers() -> list[str]:
        """Return the email addresses of all labelers with access to the stage."""
        members = RedBrickHook().project().members()
        return sorted(
            member.user.email for member in members if member.role == "LABELER" and member.may_work_in("Review_1")
        )

    share = RedBrickBalanceAssignmentsOperator(task_id="share", stage_name="Review_1", emails=reviewers())
    review >> share


nightly_quality_control()
