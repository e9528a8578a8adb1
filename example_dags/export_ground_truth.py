"""Every night, write what was finished or corrected since the last time where a training job finds it."""

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
    """Fill a folder a run, with one JSON line a task and the masks beside it; each begins where the last one did."""
    RedBrickExportTasksOperator(
        task_id="export",
        export_path="{{ params.folder }}/{{ dag_run.run_after.strftime('%Y-%m-%dT%H%M%S') }}",
        mark_from="export",
    )


export_ground_truth()
