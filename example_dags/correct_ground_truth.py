"""Reopen each day's implausible ground truth. Backfill it for past dates."""

from __future__ import annotations

import pendulum
from airflow.sdk import dag
from airflow.timetables.interval import CronDataIntervalTimetable
from threshold_model import too_large

from airflow_provider_redbrick.operators.reopen_ground_truth import RedBrickReopenGroundTruthOperator


@dag(
    # A timetable with intervals: Airflow 3's plain cron schedules have an empty data interval.
    schedule=CronDataIntervalTimetable("0 0 * * *", timezone="UTC"),
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    default_args={"retries": 2},
    tags=["redbrick"],
)
def correct_ground_truth() -> None:
    """Reopen tasks updated on the run's day that have a box that is too large.

    Backfill a week:
    `airflow backfill create --dag-id correct_ground_truth --from-date 2026-11-01 --to-date 2026-11-07`
    """
    RedBrickReopenGroundTruthOperator(task_id="reopen", selector=too_large)


correct_ground_truth()
