"""Review by rules when the queue is long enough, and leave the rest to people."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pendulum
from airflow.sdk import dag
from threshold_model import plausible

from airflow_provider_redbrick.operators.auto_review import RedBrickAutoReviewOperator, Review
from airflow_provider_redbrick.sensors.stage_queue import RedBrickStageQueueSensor

if TYPE_CHECKING:
    from airflow_provider_redbrick.client.models.task import Task


def accept_plausible(redbrick_task: Task) -> Review:
    """Accept tasks that pass the rules, and leave the others to people."""
    return Review.accept() if plausible(redbrick_task) else Review.leave()


@dag(
    schedule="@daily",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2},
    tags=["redbrick"],
)
def auto_review_when_long() -> None:
    """Once a day, wait in the triggerer for ten tasks in review, then review them."""
    wait = RedBrickStageQueueSensor(
        task_id="wait_for_reviews",
        stage_name="Review_1",
        at_least=10,
        deferrable=True,
        poke_interval=5,
        timeout=pendulum.duration(hours=20),
    )
    review = RedBrickAutoReviewOperator(task_id="review", stage_name="Review_1", reviewer=accept_plausible)
    wait >> review


auto_review_when_long()
