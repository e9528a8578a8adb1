"""A DAG whose lineage and metrics are looked at."""

from __future__ import annotations

import pendulum
from airflow.providers.openlineage.utils.selective_enable import enable_lineage
from airflow.sdk import DAG

from airflow_provider_redbrick.operators.list_tasks import RedBrickListTasksOperator
from airflow_provider_redbrick.operators.prelabel import RedBrickPrelabelOperator
from airflow_provider_redbrick.operators.put_labels import RedBrickPutLabelsOperator

PROJECT = "{{ params.project }}"
BOX = {"pointTopLeft": {"xNorm": 0.1, "yNorm": 0.2}, "wNorm": 0.3, "hNorm": 0.4, "category": "finding"}
NAMELESS = {**BOX, "category": "no such thing"}


def choosy(redbrick_task):
    return None if redbrick_task.name.endswith("7") else [{"boundingBoxes": [BOX]}]


with DAG(
    "observed",
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    params={"project": ""},
) as dag:
    queue = RedBrickListTasksOperator(task_id="queue", project_id=PROJECT, stage_name="Label", name="model")
    RedBrickPrelabelOperator(
        task_id="model",
        project_id=PROJECT,
        stage_name="Label",
        task_ids=queue.output,
        labeler=choosy,
        write="anywhere",
        take_from_people=True,
        model_name="lungs",
        model_version="2.1",
    )
    RedBrickPrelabelOperator(task_id="submit", project_id=PROJECT, stage_name="Label", labeler=choosy)
    RedBrickPutLabelsOperator(
        task_id="wrong",
        project_id=PROJECT,
        stage_name="Label",
        tasks=[{"name": "wrong-000001", "series": [{"boundingBoxes": [NAMELESS]}]}],
    )

enable_lineage(dag)
