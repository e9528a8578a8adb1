"""DAGs whose tasks are given inputs that are not there when they run."""

from __future__ import annotations

from pathlib import Path

import pendulum
from airflow.sdk import dag, task

from airflow_provider_redbrick.operators.auto_review import RedBrickAutoReviewOperator
from airflow_provider_redbrick.operators.export_tasks import RedBrickExportTasksOperator
from airflow_provider_redbrick.operators.reopen_ground_truth import RedBrickReopenGroundTruthOperator
from airflow_provider_redbrick.sensors.tasks import RedBrickTasksSensor

START = pendulum.datetime(2026, 1, 1)
REVIEW = {"stage_name": "Review_1"}


def accept(redbrick_task):
    return True


def absent_inputs():
    """Each of these worked on the whole queue."""

    @task
    def nothing():
        return None

    @task
    def skipped():
        from airflow.providers.common.compat.sdk import AirflowSkipException

        raise AirflowSkipException

    @task.redbrick_auto_review(**REVIEW)
    def decorated(scan):
        return True

    @task
    def none_of_two(params=None):
        return [params["ids"], None]

    @task
    def arguments(params=None):
        return [{"task_ids": params["ids"], "limit": None}, {"task_ids": None}, {"limit": None}]

    none = nothing()
    whatever = {"trigger_rule": "all_done", **REVIEW}
    RedBrickAutoReviewOperator(task_id="of_none", reviewer=accept, task_ids=none, **REVIEW)
    RedBrickAutoReviewOperator(task_id="of_skipped", reviewer=accept, task_ids=skipped(), **whatever)
    RedBrickAutoReviewOperator(task_id="limit", reviewer=accept, limit=none, **REVIEW)
    RedBrickAutoReviewOperator(task_id="param", reviewer=accept, task_ids="{{ params.nothing }}", **REVIEW)
    RedBrickAutoReviewOperator(task_id="lenient", reviewer=accept, task_ids=none, on_empty="skip", **REVIEW)
    decorated(task_ids=none)
    decorated.override(task_id="decorated_mapped").expand(task_ids=none_of_two())
    decorated.override(task_id="decorated_kwargs").expand_kwargs(arguments.override(task_id="a1")().map(only_ids))
    mapped = RedBrickAutoReviewOperator.partial(
        reviewer=accept, max_active_tis_per_dagrun=1, task_id="mapped", **REVIEW
    )
    mapped.expand(task_ids=none_of_two.override(task_id="n2")())
    literal = RedBrickAutoReviewOperator.partial(reviewer=accept, task_id="mapped_literal", **REVIEW)
    literal.expand(task_ids=[["{{ params.ids[0] }}"], None, []])
    RedBrickAutoReviewOperator.partial(reviewer=accept, task_id="mapped_kwargs", **REVIEW).expand_kwargs(arguments())
    RedBrickAutoReviewOperator.partial(reviewer=accept, limit=None, task_id="left_out", stage_name="Review_1").expand(
        task_ids=none_of_two.override(task_id="n3")().map(lambda ids: ids or [])
    )
    RedBrickReopenGroundTruthOperator(
        task_id="reopen", selector=accept, updated_after=none, updated_before="2100-01-01"
    )
    RedBrickTasksSensor(
        task_id="sensor", task_ids="{{ params.ids }}", left_stage=none, reached_stage="Label", deferrable=True
    )
    RedBrickExportTasksOperator(
        task_id="path", export_path=Path("{{ params.folder }}") / "{{ ds }}", stage_name="Review_1", masks=False
    )


def only_ids(arguments):
    return {"task_ids": arguments.get("task_ids")}


for native in (False, True):
    dag(
        dag_id="absent_natively" if native else "absent_inputs",
        schedule=None,
        start_date=START,
        render_template_as_native_obj=native,
        params={"ids": [], "nothing": None, "folder": ""},
    )(absent_inputs)()
