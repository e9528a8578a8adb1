"""DAGs that export what has changed since an earlier run."""

from __future__ import annotations

import pendulum
from airflow.sdk import dag, task

from airflow_provider_redbrick.operators.export_tasks import RedBrickExportTasksOperator

START = pendulum.datetime(2026, 1, 1)
FOLDER = {"export_path": "{{ params.folder }}/{{ run_id | replace(':', '') }}", "masks": False}


@dag(schedule=None, start_date=START, params={"folder": ""})
def exported_in_rounds():
    """The watermark is that of another task, which may not have left one."""
    export = RedBrickExportTasksOperator(task_id="export", watermark_from="train", **FOLDER)

    @task
    def train(exported):
        return {"watermark": exported["watermark"]}

    train(export.output)


@dag(schedule=None, start_date=START, params={"folder": ""})
def exported_one_after_the_other():
    """The watermark is that of the export itself, and all runs have one folder."""
    RedBrickExportTasksOperator(
        task_id="export", watermark_from="export", export_path="{{ params.folder }}/all", masks=False
    )


@dag(schedule=None, start_date=START, params={"folder": ""})
def exported_by_stage():
    """Each mapped export has its own watermark."""
    export = RedBrickExportTasksOperator.partial(
        task_id="export", watermark_from="train", masks=False, map_index_template="{{ task.stage_name }}"
    ).expand_kwargs(
        [
            {"stage_name": stage, "export_path": f"{FOLDER['export_path']}/{stage}"}
            for stage in ("Review_1", "Ground Truth")
        ]
    )

    @task
    def train(exported):
        return {"watermark": exported["watermark"]}

    train.expand(exported=export.output)


exported_in_rounds()
exported_one_after_the_other()
exported_by_stage()
