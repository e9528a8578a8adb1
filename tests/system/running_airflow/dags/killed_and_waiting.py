"""DAGs that a running Airflow works on while the tests kill parts of it."""

from __future__ import annotations

import time
from datetime import timedelta

import pendulum
from airflow.sdk import dag
from chaos.works import box

from airflow_provider_redbrick.operators.prelabel import RedBrickPrelabelOperator
from airflow_provider_redbrick.sensors.stage_queue import RedBrickStageQueueSensor
from airflow_provider_redbrick.sensors.tasks import RedBrickTasksSensor

START = pendulum.datetime(2026, 1, 1)
OFTEN = {"deferrable": True, "poke_interval": 0.5, "timeout": 120, "project_id": "{{ params.project }}"}


def labeler(redbrick_task):
    time.sleep(0.01)
    return {"series": [{"boundingBoxes": [box(redbrick_task.name)]}]}


@dag(schedule=None, start_date=START, default_args={"retries": 5, "retry_delay": timedelta(seconds=1)})
def killed_again_and_again():
    """Work that takes longer than its processes live."""
    RedBrickPrelabelOperator(task_id="prelabel", stage_name="Label", labeler=labeler)


@dag(schedule=None, start_date=START, params={"project": "", "ids": []}, render_template_as_native_obj=True)
def waiting():
    """Sensors that wait in the triggerer."""
    RedBrickStageQueueSensor(task_id="long", stage_name="Review_1", at_least=3, **OFTEN)
    RedBrickTasksSensor(task_id="left", task_ids="{{ params.ids }}", left_stage="Label", **OFTEN)


killed_again_and_again()
waiting()
