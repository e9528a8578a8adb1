"""Every night, let rules review what they can, and share what is left among the reviewers.

Retry policies need Airflow 3.3 or newer. Below that, Airflow's own `retries` hold for every error.
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
    from airflow_provider_redbrick.api.models import Task


def decide(scan: Task) -> Review:
    """Reject what is certainly wrong, accept what is certainly right, and leave the rest to people."""
    if too_large(scan):
        return Review.reject("A box covers more than a quarter of the picture.")
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
    """First the rules, then the sharing: nobody begins the day with everybody's queue."""
    review = RedBrickAutoReviewOperator(
        task_id="review",
        stage_name="Review_1",
        reviewer=decide,
        report_path="{{ params.reports }}/{{ dag_run.run_after.strftime('%Y-%m-%d') }}-{{ ti.task_id }}.jsonl",
    )

    @task
    def reviewers() -> list[str]:
        """Return the e-mails of all labelers with access to the stage."""
        members = RedBrickHook().project().members()
        return sorted(m.user.email for m in members if m.role == "LABELER" and m.may_work_in("Review_1"))

    share = RedBrickBalanceAssignmentsOperator(task_id="share", stage_name="Review_1", emails=reviewers())
    review >> share


nightly_quality_control()
