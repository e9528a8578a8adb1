"""A DAG that RedBrick's webhook wakes."""

from __future__ import annotations

import pendulum
from airflow.sdk import Asset, dag, task

ORG, PROJECT = "0a9c6e10-5b1d-4c8e-9f00-000000000001", "0a9c6e10-5b1d-4c8e-9f00-000000000002"
TRUTH = Asset(name="truth_by_webhook", uri=f"redbrick://{ORG}/{PROJECT}/Ground%20Truth")


@dag(schedule=[TRUTH], start_date=pendulum.datetime(2026, 1, 1), catchup=False)
def woken_by_webhook():
    """Says what it was woken with."""

    @task
    def tell(triggering_asset_events=None):
        return [event.extra for event in triggering_asset_events[TRUTH]]

    tell()


woken_by_webhook()
