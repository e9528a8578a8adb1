"""Sensors that need no worker to wait, and DAGs that what happens in RedBrick starts."""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.sdk import Asset, AssetWatcher, dag, task

from airflow_provider_redbrick.assets.stages import stage_asset
from airflow_provider_redbrick.operators.prelabel import RedBrickPrelabelOperator
from airflow_provider_redbrick.sensors.stage_queue import RedBrickStageQueueSensor
from airflow_provider_redbrick.sensors.tasks import RedBrickTasksSensor
from airflow_provider_redbrick.triggers.redbrick import RedBrickGroundTruthEventTrigger, RedBrickStageQueueEventTrigger

CONNECTION = "redbrick_watched"
START = pendulum.datetime(2026, 1, 1, tz="UTC")
# The sandbox's first project, always the same.
PROJECT = {"org_id": "0a9c6e10-5b1d-4c8e-9f00-000000000001", "project_id": "0a9c6e10-5b1d-4c8e-9f00-000000000002"}
BOX = {"pointTopLeft": {"xNorm": 0.1, "yNorm": 0.2}, "wNorm": 0.3, "hNorm": 0.4, "category": "finding"}
OFTEN = {
    "redbrick_conn_id": CONNECTION,
    "project_id": "{{ params.project }}",
    "deferrable": True,
    "start_from_trigger": True,
    "poke_interval": 0.5,
    "timeout": 120,
}
WATCHED = {"redbrick_conn_id": CONNECTION, "poke_interval": 0.5, **PROJECT}
QUEUE = stage_asset(
    **PROJECT,
    stage_name="Label",
    watchers=[
        AssetWatcher(name="long", trigger=RedBrickStageQueueEventTrigger(stage_name="Label", at_least=3, **WATCHED))
    ],
)
TRUTH = Asset("watched_ground_truth", watchers=[AssetWatcher("new", RedBrickGroundTruthEventTrigger(**WATCHED))])
REVIEWS = stage_asset(**PROJECT, stage_name="Review_1")


@dag(
    schedule=None,
    start_date=START,
    params={"project": "", "stage": "Review_1", "at_least": 2, "id": ""},
    # A sensor that fails does so for good.
    default_args={"retries": 0},
)
def waiting_for_nothing():
    """No worker sees the sensors before their wait is over."""
    RedBrickStageQueueSensor(
        task_id="queue", stage_name="{{ params.stage }}", at_least="{{ params.at_least }}", **OFTEN
    )
    RedBrickTasksSensor(task_id="tasks", task_ids=["{{ params.id }}"], left_stage="{{ dag_run.conf['left'] }}", **OFTEN)
    RedBrickStageQueueSensor(task_id="short", stage_name="Review_1", at_least=1_000, **{**OFTEN, "timeout": 3})
    RedBrickStageQueueSensor(
        task_id="shorter", stage_name="Review_1", at_least=1_000, execution_timeout=timedelta(seconds=3), **OFTEN
    )


@dag(schedule=None, start_date=START, params={"project": "", "stage": "", "id": ""}, default_args={"retries": 0})
def waiting_in_vain():
    """Mistakes that no worker has seen before."""
    RedBrickStageQueueSensor(task_id="wrong_stage", stage_name="{{ params.stage }}", at_least=1, **OFTEN)
    RedBrickStageQueueSensor(task_id="nonsense", stage_name="Label", at_least="{{ params.stage }}", **OFTEN)
    RedBrickStageQueueSensor(
        task_id="no_connection", stage_name="Label", at_least=1, **{**OFTEN, "redbrick_conn_id": "there_is_none"}
    )


@dag(schedule=None, start_date=START, params={"project": ""})
def waiting_mapped():
    """Airflow cannot start these in the triggerer: a worker does."""
    RedBrickStageQueueSensor.partial(task_id="mapped", at_least=1, **OFTEN).expand(stage_name=["Label", "Review_1"])


@dag(schedule=[QUEUE], start_date=START, catchup=False, is_paused_upon_creation=True)
def started_by_a_queue():
    """Says what it was started with, and gives the queue to reviewers."""

    @task
    def tell(triggering_asset_events=None):
        return [event.extra for event in triggering_asset_events[QUEUE]]

    prelabel = RedBrickPrelabelOperator(
        task_id="prelabel",
        redbrick_conn_id=CONNECTION,
        stage_name="Label",
        labeler=lambda _task: {"series": [{"boundingBoxes": [BOX]}]},
        outlets=[REVIEWS],
        **PROJECT,
    )
    tell() >> prelabel


@dag(schedule=[TRUTH], start_date=START, catchup=False, is_paused_upon_creation=True)
def started_by_ground_truth():
    """Says what it was started with."""

    @task
    def tell(triggering_asset_events=None):
        return [event.extra for event in triggering_asset_events[TRUTH]]

    tell()


waiting_for_nothing()
waiting_in_vain()
waiting_mapped()
started_by_a_queue()
started_by_ground_truth()
