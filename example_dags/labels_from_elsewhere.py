"""Put labels from another system on tasks, and wait until people review them."""

from __future__ import annotations

import json
from datetime import timedelta

import pendulum
from airflow.sdk import Param, dag, task

from airflow_provider_redbrick.operators.put_labels import RedBrickPutLabelsOperator
from airflow_provider_redbrick.sensors.tasks import RedBrickTasksSensor


@dag(
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    max_active_runs=1,
    default_args={"retries": 2},
    params={
        "labels": Param("/data/labels.jsonl", type="string", description="A local file, or e.g. s3://bucket/key"),
        "reports": Param("/data/reports", type="string", description="A local folder, or e.g. s3://bucket/key"),
    },
    tags=["redbrick"],
)
def labels_from_elsewhere() -> None:
    """Read one line per task: `{"name": "study-0001", "series": [...]}`.

    An invalid line does not affect the others.
    """
    put = RedBrickPutLabelsOperator(
        task_id="put",
        stage_name="Label",
        labels_path="{{ params.labels }}",
        report_path="{{ params.reports }}/{{ dag_run.run_after.strftime('%Y-%m-%dT%H%M%S') }}.jsonl",
        # Invalid lines are named in the log and the report. The DAG waits for the valid ones.
        fail_on="never",
        multiple_outputs=True,
    )

    @task
    def submitted(report: str) -> list[str]:
        """Return all labeled tasks. The manifest has only the first 1,000."""
        from airflow.providers.common.compat.sdk import AirflowSkipException
        from airflow.sdk import ObjectStoragePath

        rows = [json.loads(line) for line in ObjectStoragePath(report).read_text().splitlines()]
        ids = [row["task_id"] for row in rows if row["status"] in {"done", "already_done"}]
        if not ids:
            raise AirflowSkipException("No task received labels.")
        return ids

    RedBrickTasksSensor(
        task_id="reviewed",
        task_ids=submitted(put.output["report"]),
        reached_stage="Ground Truth",
        deferrable=True,
        poke_interval=300,
        timeout=timedelta(days=14),
    )


labels_from_elsewhere()
