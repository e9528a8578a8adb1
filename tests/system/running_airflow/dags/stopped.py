"""DAGs that people, or a limit, stop while they work or wait."""

from __future__ import annotations

import time
from datetime import timedelta
from itertools import count

import pendulum
from airflow.sdk import dag, get_current_context

from airflow_provider_redbrick.operators.prelabel import RedBrickPrelabelOperator
from airflow_provider_redbrick.sensors.stage_queue import RedBrickStageQueueSensor

CONNECTION = "redbrick_to_stop"
START = pendulum.datetime(2026, 1, 1, tz="UTC")
BOX = {"pointTopLeft": {"xNorm": 0.1, "yNorm": 0.2}, "wNorm": 0.3, "hNorm": 0.4, "category": "finding"}
STUCK_AT = 70
IN_PROJECT = {"redbrick_conn_id": CONNECTION, "project_id": "{{ params.project }}", "stage_name": "Label"}


labelled = count(1)


def labeler(_task):
    """Get stuck in the second fifty of a first try: that is when it is stopped, with tasks claimed and not finished."""
    stuck = next(labelled) == STUCK_AT and get_current_context()["ti"].try_number == 1
    time.sleep(120 if stuck else 0.01)
    return {"series": [{"boundingBoxes": [BOX]}]}


def work(**options):
    RedBrickPrelabelOperator(task_id="work", labeler=labeler, **IN_PROJECT, **options)


@dag(schedule=None, start_date=START, params={"project": ""})
def stopped_by_people():
    """Work that would go on for long."""
    work()


@dag(schedule=None, start_date=START, params={"project": ""})
def stopped_by_a_limit():
    """Work that takes longer than it may."""
    work(execution_timeout=timedelta(seconds=10))


@dag(schedule=None, start_date=START, params={"project": ""})
def given_up():
    """A wait that nothing will end."""
    RedBrickStageQueueSensor(
        task_id="wait", **IN_PROJECT, at_least=1_000_000, deferrable=True, poke_interval=0.2, timeout=600
    )


stopped_by_people()
stopped_by_a_limit()
given_up()
