"""Export tasks finished or corrected since the last run, for a training job."""

from __future__ import annotations

import pendulum
from airflow.sdk import Param, dag

from airflow_provider_redbrick.operators.export_tasks import RedBrickExportTasksOperator


@dag(
    schedule="@daily",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2},
    params={
        "folder": Param("/data/ground-truth", type="string", description="A local folder, or e.g. s3://bucket/key")
    },
    tags=["redbrick"],
)
def export_ground_truth() -> None:
    """Write one folder per run: a JSON line per task, and the masks.

    Each run starts at the watermark of the previous one.
    """
    RedBrickExportTasksOperator(
        task_id="export",
        export_path="{{ params.folder }}/{{ dag_run.run_after.strftime('%Y-%m-%dT%H%M%S') }}",
        watermark_from="export",
    )


export_ground_truth()
