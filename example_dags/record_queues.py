"""Record the queue of each stage, for the history on the page RedBrick."""

from __future__ import annotations

from typing import Any

import pendulum
from airflow.sdk import dag, task

from airflow_provider_redbrick.assets.stages import project_asset
from airflow_provider_redbrick.hooks.redbrick import RedBrickHook

# The sandbox's project. An asset names its project, independent of the connection.
PROJECT = {"org_id": "0a9c6e10-5b1d-4c8e-9f00-000000000001", "project_id": "0a9c6e10-5b1d-4c8e-9f00-000000000002"}
QUEUES = project_asset(**PROJECT)


@dag(
    schedule="*/15 * * * *",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    tags=["redbrick"],
)
def record_queues() -> None:
    """Count the tasks in each stage every 15 minutes."""

    @task(outlets=[QUEUES])
    def record(*, outlet_events: Any = None) -> None:
        """Add the counts to the event of the project's asset."""
        outlet_events[QUEUES].extra["queues"] = RedBrickHook().project(**PROJECT).queues()

    record()


record_queues()
