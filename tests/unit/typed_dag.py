"""A user's DAG for the type checker: templates and upstream outputs may stand for values. ``make lint`` checks it."""

from __future__ import annotations

from pathlib import Path

import pendulum
from airflow.sdk import dag

from airflow_provider_redbrick.operators.balance_assignments import RedBrickBalanceAssignmentsOperator
from airflow_provider_redbrick.operators.export_tasks import RedBrickExportTasksOperator
from airflow_provider_redbrick.operators.list_tasks import RedBrickListTasksOperator
from airflow_provider_redbrick.operators.put_labels import RedBrickPutLabelsOperator
from airflow_provider_redbrick.operators.reopen_ground_truth import RedBrickReopenGroundTruthOperator
from airflow_provider_redbrick.operators.upload_tasks import RedBrickUploadTasksOperator
from airflow_provider_redbrick.sensors.stage_queue import RedBrickStageQueueSensor
from airflow_provider_redbrick.sensors.tasks import RedBrickTasksSensor


@dag(schedule=None, start_date=pendulum.datetime(2026, 1, 1, tz="UTC"), render_template_as_native_obj=True)
def typed() -> None:
    """Hand over what is known at run time only."""
    queue = RedBrickListTasksOperator(task_id="queue", stage_name="Label", limit="{{ params.n }}")
    RedBrickStageQueueSensor(task_id="enough", stage_name="Label", at_least="{{ params.n }}")
    RedBrickTasksSensor(task_id="reviewed", task_ids=queue.output, left_stage="Label")
    RedBrickReopenGroundTruthOperator(task_id="reopen", task_ids=queue.output)
    RedBrickPutLabelsOperator(task_id="put", stage_name="Label", tasks=queue.output, report_path=Path("/reports/put"))
    RedBrickUploadTasksOperator(task_id="upload", tasks="{{ params.tasks }}")
    RedBrickBalanceAssignmentsOperator(
        task_id="share", stage_name="Label", emails=queue.output, ceiling="{{ params.n }}"
    )
    RedBrickExportTasksOperator(task_id="export", export_path=Path("/exports"), watermark_from="export")


typed()
