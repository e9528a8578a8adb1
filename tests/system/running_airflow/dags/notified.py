"""DAGs with notifications, which are written to the file ``messages`` in Airflow's home."""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.sdk import dag, task

from airflow_provider_redbrick.notifications.queue import RedBrickQueueNotifier

START = pendulum.datetime(2026, 1, 1)
TO_FILE = "message_file.write"
IN_PROJECT = {"project_id": "{{ params.project }}"}


@dag(schedule=None, start_date=START, params={"project": ""})
def notified():
    """One task that fails, and one that goes well."""
    options = {**IN_PROJECT, "send": TO_FILE}

    @task(on_failure_callback=RedBrickQueueNotifier(message="{{ ti.task_id }} failed.", **options))
    def fails():
        raise ValueError("as it should")

    @task(on_success_callback=RedBrickQueueNotifier(message="{{ ti.task_id }} is done.", **options))
    def succeeds(): ...

    fails()
    succeeds()


try:
    from airflow.sdk import AsyncCallback, DeadlineAlert, DeadlineReference
except ImportError:  # before Airflow 3.1
    pass
else:

    @dag(
        schedule=None,
        start_date=START,
        deadline=DeadlineAlert(
            reference=DeadlineReference.DAGRUN_QUEUED_AT,
            interval=timedelta(seconds=1),
            callback=AsyncCallback(RedBrickQueueNotifier, kwargs={"message": "It is late.", "send": TO_FILE}),
        ),
    )
    def late():
        """It takes longer than it may."""

        @task
        def slow():
            import time

            time.sleep(4)

        slow()

    late()

notified()
