"""Retrain a model when enough tasks are finished, and predict the rest again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pendulum
from airflow.sdk import AssetWatcher, Param, dag, task
from threshold_model import predict

from airflow_provider_redbrick.assets.stages import stage_asset
from airflow_provider_redbrick.operators.export_tasks import RedBrickExportTasksOperator
from airflow_provider_redbrick.operators.prelabel import RedBrickPrelabelOperator
from airflow_provider_redbrick.triggers.redbrick import RedBrickGroundTruthEventTrigger

if TYPE_CHECKING:
    from airflow_provider_redbrick.client.models.task import Task

# The sandbox's project. An asset names its project, independent of the connection.
PROJECT = {"org_id": "0a9c6e10-5b1d-4c8e-9f00-000000000001", "project_id": "0a9c6e10-5b1d-4c8e-9f00-000000000002"}
FINISHED = stage_asset(
    **PROJECT,
    stage_name="Ground Truth",
    watchers=[
        AssetWatcher(name="newly_finished", trigger=RedBrickGroundTruthEventTrigger(poke_interval=300, **PROJECT))
    ],
)


def predict_again(scan: Task) -> dict[str, Any] | None:
    """Replace a model's labels, and keep a person's, such as reopened ground truth."""
    if scan.labels_by is not None and not scan.labels_by.is_api_key:
        return None
    return predict(scan)


@dag(
    schedule=[FINISHED],
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2},
    params={
        "folder": Param("/data/rounds", type="string", description="A local folder, or e.g. s3://bucket/key"),
        "enough": Param(500, type="integer", minimum=1, description="Number of finished tasks in a round"),
    },
    tags=["redbrick"],
)
def active_learning() -> None:
    """Train and predict again if enough tasks became ground truth."""
    export = RedBrickExportTasksOperator(
        task_id="export",
        export_path="{{ params.folder }}/{{ dag_run.run_after.strftime('%Y-%m-%dT%H%M%S') }}",
        watermark_from="train",  # a run that did not train leaves no watermark
        **PROJECT,
    )

    @task.short_circuit
    def enough(exported: dict[str, Any], params: dict[str, Any]) -> bool:
        """Continue if the round is full.

        Otherwise, the next run starts from the same watermark.
        """
        return bool(exported["counts"]["tasks"] >= params["enough"])

    @task
    def train(exported: dict[str, Any]) -> dict[str, Any]:
        """Replace this with your training. Return the next round's watermark."""
        from airflow.sdk import ObjectStoragePath

        rows = [json.loads(line) for line in ObjectStoragePath(exported["uri"]).read_text().splitlines()]
        return {"watermark": exported["watermark"], "trained_on": len(rows)}

    second_prediction = RedBrickPrelabelOperator(
        task_id="predict_again",
        stage_name="Label",
        labeler=predict_again,
        write="draft_and_release",
        overwrite=True,
        **PROJECT,
    )
    enough(export.output) >> train(export.output) >> second_prediction


active_learning()
