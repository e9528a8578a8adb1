"""Every night, send the day's implausible ground truth back for correction; backfill it over past dates."""

from __future__ import annotations

import pendulum
from airflow.sdk import dag
from airflow.timetables.interval import CronDataIntervalTimetable
from threshold_model import too_large

from airflow_provider_redbrick.operators.reopen_ground_truth import RedBrickReopenGroundTruthOperator


@dag(
    # With an interval: Airflow 3's plain cron schedules have an empty one, and then there is no "the day's".
    schedule=CronDataIntervalTimetable("0 0 * * *", timezone="UTC"),
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    default_args={"retries": 2},
    tags=["redbrick"],
)
def correct_ground_truth() -> None:
    """Reopen ground truth that was last updated within the run's day and has a box that is too large.

    `airflow backfill create --dag-id correct_ground_truth --from-date 2026-11-01 --to-date 2026-11-07` does a week.
    """
    RedBrickReopenGroundTruthOperator(task_id="reopen", selector=too_large)


correct_ground_truth()
