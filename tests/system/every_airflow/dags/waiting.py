"""Sensors that wait in the triggerer, beside a trigger of Airflow's own, and a DAG that a queue starts."""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.providers.standard.sensors.time_delta import TimeDeltaSensor
from airflow.sdk import Asset, AssetWatcher, dag, task

from airflow_provider_redbrick.operators.export_tasks import RedBrickExportTasksOperator
from airflow_provider_redbrick.operators.upload_tasks import RedBrickUploadTasksOperator
from airflow_provider_redbrick.sensors.stage_queue import RedBrickStageQueueSensor
from airflow_provider_redbrick.sensors.tasks import RedBrickTasksSensor
from airflow_provider_redbrick.triggers.redbrick import RedBrickGroundTruthEventTrigger, RedBrickStageQueueEventTrigger

SENSORS = 4
START = pendulum.datetime(2026, 1, 1, tz="UTC")
# The sandbox's first project, always the same.
PROJECT = {"org_id": "0a9c6e10-5b1d-4c8e-9f00-000000000001", "project_id": "0a9c6e10-5b1d-4c8e-9f00-000000000002"}
WATCHED = {"poke_interval": 0.5, **PROJECT}
QUEUE = Asset(
    "watched_project",
    watchers=[
        AssetWatcher(name="long", trigger=RedBrickStageQueueEventTrigger(stage_name="Label", at_least=3, **WATCHED)),
        AssetWatcher(name="new", trigger=RedBrickGroundTruthEventTrigger(**WATCHED)),
    ],
)


@dag(
    schedule=None,
    start_date=START,
    params={"projects": [""], "ids": [""]},
    render_template_as_native_obj=True,
    # A sensor whose triggerer has died fails for good.
    default_args={"retries": 0},
)
def waiting():
    """Each sensor waits for a project of its own: each reads the connection."""
    often = {"deferrable": True, "poke_interval": 0.5, "timeout": 200}
    for number in range(SENSORS):
        project = f"{{{{ params.projects[{number}] }}}}"
        RedBrickStageQueueSensor(
            task_id=f"queue_{number}", project_id=project, stage_name="Review_1", at_least=1, **often
        )
        RedBrickTasksSensor(
            task_id=f"tasks_{number}",
            project_id=project,
            task_ids=[f"{{{{ params.ids[{number}] }}}}"],
            left_stage="Label",
            **often,
        )
    TimeDeltaSensor(task_id="of_another_team", delta=timedelta(seconds=20), deferrable=True)


@dag(schedule=[QUEUE], start_date=START, catchup=False, is_paused_upon_creation=True)
def watching():
    """Returns what it was started with."""

    @task
    def tell(triggering_asset_events=None):
        return [event.extra for event in triggering_asset_events[QUEUE]]

    tell()


@dag(schedule=None, start_date=START, params={"project": "", "folder": "", "image": ""}, default_args={"retries": 0})
def multiple_outputs():
    """The fields of manifests as XComs of their own; some have no value."""
    project = "{{ params.project }}"
    upload = RedBrickUploadTasksOperator(
        task_id="upload",
        project_id=project,
        tasks=[{"name": "one", "items": "{{ params.image }}"}],
        multiple_outputs=True,
    )
    export = RedBrickExportTasksOperator(
        task_id="export", project_id=project, export_path="{{ params.folder }}", stage_name=None, multiple_outputs=True
    )

    @task
    def tell(ids, report, uri, masks_uri):
        return {"ids": ids, "report": report, "uri": uri, "masks_uri": masks_uri}

    (
        upload
        >> export
        >> tell(upload.output["task_ids"], upload.output["report"], export.output["uri"], export.output["masks_uri"])
    )


waiting()
watching()
multiple_outputs()
