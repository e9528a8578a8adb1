"""DAGs that fail in ways which Airflow 3.3 can tell apart; below it there are none."""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.providers.common.compat.sdk import AirflowOptionalProviderFeatureException
from airflow.sdk import dag

from airflow_provider_redbrick.operators.list_tasks import RedBrickListTasksOperator

START = pendulum.datetime(2026, 1, 1)


def listing(conn_id: str):
    RedBrickListTasksOperator(task_id="list", redbrick_conn_id=conn_id, stage_name="Label")


try:
    from airflow_provider_redbrick.retry_policy import RedBrickRetryPolicy
except AirflowOptionalProviderFeatureException:
    pass
else:
    RULES = {"retries": 3, "retry_policy": RedBrickRetryPolicy()}

    @dag(schedule=None, start_date=START, default_args={**RULES, "retry_delay": timedelta(seconds=0)})
    def wrong_key():
        """Nothing to wait for between its tries, if there were any."""
        listing("redbrick_wrong_key")

    @dag(schedule=None, start_date=START, default_args={**RULES, "retry_delay": timedelta(hours=1)})
    def limited():
        """Its own retries come too late for the test."""
        listing("redbrick_limited")

    wrong_key()
    limited()
