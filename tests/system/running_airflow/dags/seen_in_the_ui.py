"""A DAG whose tasks a browser looks at."""

from __future__ import annotations

import pendulum
from airflow.sdk import dag

from airflow_provider_redbrick.operators.prelabel import RedBrickPrelabelOperator

START = pendulum.datetime(2026, 1, 1)


def labeler(redbrick_task):
    return {"series": [{"boundingBoxes": []}]}


@dag(schedule=None, start_date=START, params={"conn": "", "ids": []}, render_template_as_native_obj=True)
def seen_in_the_ui():
    """One that is about a single RedBrick task, one that is mapped, and one that fails at once."""
    common = {"redbrick_conn_id": "{{ params.conn }}", "labeler": labeler}
    RedBrickPrelabelOperator(task_id="one", stage_name="Label", task_ids=["{{ params.ids[0] }}"], **common)
    chunks = [["{{ params.ids[1] }}"], ["{{ params.ids[2] }}", "{{ params.ids[3] }}"]]
    RedBrickPrelabelOperator.partial(task_id="many", stage_name="Label", **common).expand(task_ids=chunks)
    RedBrickPrelabelOperator(task_id="lost", stage_name="Nowhere", **common)


seen_in_the_ui()
