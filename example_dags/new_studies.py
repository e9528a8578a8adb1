"""Bring studies that have arrived in a folder into the labelling project; run it as often as you like."""

from __future__ import annotations

import pendulum
from airflow.sdk import Param, dag, task

from airflow_provider_redbrick.operators.upload_tasks import RedBrickUploadTasksOperator


@dag(
    schedule="@hourly",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2},
    params={"folder": Param("/data/new-studies", type="string", description="A local folder, or e.g. s3://bucket/key")},
    tags=["redbrick"],
)
def new_studies() -> None:
    """One task a file, called like the file: what is there already is left as it is."""

    @task
    def find(folder: str) -> list[dict[str, str]]:
        from airflow.providers.common.compat.sdk import AirflowSkipException
        from airflow.sdk import ObjectStoragePath

        place = ObjectStoragePath(folder)
        files = sorted(path for path in place.iterdir() if path.is_file()) if place.is_dir() else []
        if not files:
            raise AirflowSkipException(f"There is nothing in {folder}.")
        return [{"name": path.name.split(".")[0], "items": str(path)} for path in files]

    RedBrickUploadTasksOperator(task_id="upload", tasks=find("{{ params.folder }}"))


new_studies()
