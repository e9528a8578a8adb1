"""A DAG whose tasks a browser looks at."""

from __future__ import annotations

import pendulum
from airflow.sdk import AssetAlias, dag, task

from airflow_provider_redbrick.assets.stages import project_asset
from airflow_provider_redbrick.hooks.redbrick import RedBrickHook
from airflow_provider_redbrick.operators.prelabel import RedBrickPrelabelOperator

START = pendulum.datetime(2026, 1, 1)
QUEUES = AssetAlias("queues seen in the UI")


def labeler(redbrick_task):
    return {"series": [{"boundingBoxes": []}]}


@dag(schedule=None, start_date=START, params={"conn": "", "ids": []}, render_template_as_native_obj=True)
def seen_in_the_ui():
    """One for a single RedBrick task, one that is mapped, one that fails at once, and one that records the queues."""
    common = {"redbrick_conn_id": "{{ params.conn }}", "labeler": labeler}
    RedBrickPrelabelOperator(task_id="one", stage_name="Label", task_ids=["{{ params.ids[0] }}"], **common)
    chunks = [["{{ params.ids[1] }}"], ["{{ params.ids[2] }}", "{{ params.ids[3] }}"]]
    RedBrickPrelabelOperator.partial(task_id="many", stage_name="Label", **common).expand(task_ids=chunks)
    RedBrickPrelabelOperator(task_id="lost", stage_name="Nowhere", **common)

    @task(outlets=[QUEUES])
    def record(conn_id: str, *, outlet_events=None):
        project = RedBrickHook(conn_id).project()
        asset = project_asset(org_id=project.org_id, project_id=project.project_id)
        outlet_events[QUEUES].add(asset, extra={"queues": project.queues()})

    record("{{ params.conn }}")


seen_in_the_ui()
