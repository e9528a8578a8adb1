"""Upload new studies from a folder. Repeated runs upload nothing twice."""

from __future__ import annotations

from pathlib import PurePosixPath

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
    """Create one task per file, named after the file. Existing tasks are unchanged."""

    @task
    def find(folder: str) -> list[dict[str, str]]:
        from airflow.providers.common.compat.sdk import AirflowSkipException

        from airflow_provider_redbrick.hooks.files import find_items

        files = find_items(folder)
        if not files:
            raise AirflowSkipException(f"The folder {folder!r} has no files.")
        return [{"name": PurePosixPath(path).name.split(".")[0], "items": path} for path in files]

    RedBrickUploadTasksOperator(task_id="upload", tasks=find("{{ params.folder }}"))


new_studies()
