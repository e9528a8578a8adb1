"""DAGs that the tests let Airflow run."""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.sdk import dag, task

from airflow_provider_redbrick.hooks.redbrick import RedBrickHook
from airflow_provider_redbrick.operators.auto_review import RedBrickAutoReviewOperator, Review
from airflow_provider_redbrick.operators.balance_assignments import RedBrickBalanceAssignmentsOperator
from airflow_provider_redbrick.operators.export_tasks import RedBrickExportTasksOperator
from airflow_provider_redbrick.operators.list_tasks import RedBrickListTasksOperator
from airflow_provider_redbrick.operators.prelabel import RedBrickPrelabelOperator
from airflow_provider_redbrick.operators.put_labels import RedBrickPutLabelsOperator
from airflow_provider_redbrick.operators.reopen_ground_truth import RedBrickReopenGroundTruthOperator
from airflow_provider_redbrick.operators.upload_tasks import RedBrickUploadTasksOperator
from airflow_provider_redbrick.sensors.stage_queue import RedBrickStageQueueSensor
from airflow_provider_redbrick.sensors.tasks import RedBrickTasksSensor

START = pendulum.datetime(2026, 1, 1)
PEOPLE = ["alice@example.com", "bob@example.com", "carol@example.com"]
OFTEN = {"poke_interval": 0.1, "timeout": 60}
BOX = {"pointTopLeft": {"xNorm": 0.1, "yNorm": 0.2}, "wNorm": 0.3, "hNorm": 0.4, "category": "finding"}


def labeler(redbrick_task):
    return {"series": [{"boundingBoxes": [BOX]}]}


def reviewer(redbrick_task):
    return Review.accept()


def handed_back(redbrick_task):
    return {"series": list(redbrick_task.series), "classification": redbrick_task.classification}


def everything(redbrick_task):
    return True


@dag(schedule=None, start_date=START)
def prelabel_in_chunks():
    """Prelabel mapped over the chunks of a listing."""
    queue = RedBrickListTasksOperator(task_id="queue", stage_name="Label", state="UNASSIGNED", chunk_size=4)
    RedBrickPrelabelOperator.partial(task_id="prelabel", stage_name="Label", labeler=labeler).expand(
        task_ids=queue.output
    )


@dag(schedule=None, start_date=START)
def pick_what_has_no_labels():
    """Two ways to choose what a model labels: by a listing, which knows no labels, and by what was read in full."""

    @task
    def listed():
        return [each.task_id for each in RedBrickHook().stage("Label").tasks() if not each.has_labels]

    @task
    def read():
        stage = RedBrickHook().stage("Label")
        return [each.task_id for each in stage.read([each.task_id for each in stage.tasks()]) if not each.has_labels]

    for name, chosen in (("by_listing", listed()), ("by_reading", read())):
        RedBrickPrelabelOperator(task_id=name, stage_name="Label", labeler=labeler, task_ids=chosen, write="draft")


@dag(schedule=None, start_date=START)
def wait_in_each_mode():
    """One sensor after the other, each in another mode."""
    grown = {"stage_name": "Review_1", **OFTEN}
    poke = RedBrickStageQueueSensor(task_id="poke", at_least=1, **grown)
    reschedule = RedBrickStageQueueSensor(task_id="reschedule", at_least=2, mode="reschedule", **grown)
    deferred = RedBrickStageQueueSensor(task_id="deferred", at_least=3, deferrable=True, **grown)
    queue = RedBrickListTasksOperator(task_id="queue", stage_name="Review_1")
    reviewed = RedBrickTasksSensor(
        task_id="reviewed", task_ids=queue.output, reached_stage="Ground Truth", deferrable=True, **OFTEN
    )
    poke >> reschedule >> deferred >> queue >> reviewed


@dag(schedule=None, start_date=START, default_args={"retries": 2, "retry_delay": timedelta(0)})
def give_up():
    """Sensors for something that does not happen."""
    never = {"stage_name": "Review_1", "at_least": 1, "poke_interval": 0.1}
    RedBrickStageQueueSensor(task_id="poke", timeout=0.3, **never)
    RedBrickStageQueueSensor(task_id="deferred", deferrable=True, timeout=0.3, **never)
    soft = {"timeout": 0.3, "soft_fail": True, **never}
    RedBrickStageQueueSensor(task_id="soft_poke", **soft)
    RedBrickStageQueueSensor(task_id="soft_deferred", deferrable=True, **soft)
    limited = {"execution_timeout": timedelta(seconds=1), "retries": 0, **never}
    RedBrickStageQueueSensor(task_id="limited_poke", **limited)
    RedBrickStageQueueSensor(task_id="limited_deferred", deferrable=True, **limited)


@dag(schedule=None, start_date=START, default_args={"retries": 1, "retry_delay": timedelta(0)})
def go_wrong_half_way():
    """Each operator once; the tests let each fail on its first try."""
    share = RedBrickBalanceAssignmentsOperator(task_id="share", stage_name="Review_1", emails=PEOPLE[1:])
    prelabel = RedBrickPrelabelOperator(task_id="prelabel", stage_name="Label", labeler=labeler)
    reopen = RedBrickReopenGroundTruthOperator(
        task_id="reopen",
        selector=everything,
        updated_after="2026-03-14",
        updated_before="2026-03-15",
    )
    share >> prelabel >> reopen


def templates():
    """Whatever names data may be a template, or come from another task."""

    @task
    def people(params=None) -> list[str]:
        return [params["who"]]

    @task
    def weights(params=None) -> dict[str, float]:
        return {params["who"]: 2}

    where = {
        "redbrick_conn_id": "{{ params.conn }}",
        "org_id": "{{ params.org }}",
        "project_id": "{{ params.project }}",
    }
    share = RedBrickBalanceAssignmentsOperator(
        task_id="share",
        stage_name="{{ params.stage }}",
        emails=people(),
        weights=weights(),
        ceiling="{{ params.n }}",
        report_path="{{ params.reports }}/{{ ti.task_id }}.jsonl",
        **where,
    )
    wait = RedBrickStageQueueSensor(
        task_id="wait", stage_name="{{ params.stage }}", at_least="{{ params.n }}", at_most="{{ params.n }}", **where
    )
    listed = {
        "stage_name": "{{ params.stage }}",
        "assignee": "{{ params.who }}",
        "state": "{{ 'ASSIGNED' }}",
        "name": "{{ params.prefix }}",
        "limit": "{{ params.n }}",
        **where,
    }
    chunks = RedBrickListTasksOperator(task_id="chunks", chunk_size="{{ params.n }}", **listed)
    held = RedBrickListTasksOperator(task_id="held", **listed)
    ids = held.output
    there = RedBrickTasksSensor(task_id="there", task_ids=ids, left_stage="{{ 'Review_1' }}", deferrable=True, **where)
    prelabel = RedBrickPrelabelOperator(
        task_id="prelabel",
        stage_name="{{ params.stage }}",
        task_ids=ids,
        labeler=labeler,
        take_from_people=True,
        **where,
    )
    review = RedBrickAutoReviewOperator(
        task_id="review", stage_name="{{ 'Review_1' }}", limit="{{ params.n }}", reviewer=reviewer, **where
    )
    done = RedBrickTasksSensor(task_id="done", task_ids=ids, reached_stage="{{ 'END' }}", deferrable=True, **where)
    reopen = RedBrickReopenGroundTruthOperator(
        task_id="reopen",
        selector=everything,
        updated_after="{{ params['after'] }}",
        updated_before="{{ params['before'] }}",
        **where,
    )
    share >> wait >> [chunks, held] >> there >> prelabel >> review >> done >> reopen


@dag(schedule=None, start_date=START, params={"folder": "", "model": ""})
def from_files_to_files():
    """Images and labels come from a folder, and go as ground truth into another."""
    upload = RedBrickUploadTasksOperator(task_id="upload", tasks_path="{{ params.folder }}/tasks.json")
    put = RedBrickPutLabelsOperator(
        task_id="put",
        stage_name="Label",
        labels_path="{{ params.folder }}/labels.jsonl",
        fail_on="never",
        multiple_outputs=True,
    )
    ids = put.output["task_ids"]
    accept = RedBrickAutoReviewOperator(
        task_id="accept", stage_name="Review_1", task_ids=ids, review_result=True, comment="{{ run_id }}"
    )
    predict = RedBrickPrelabelOperator(
        task_id="predict", task_ids=ids, labeler=handed_back, write="anywhere", model_name="{{ params.model }}"
    )
    export = RedBrickExportTasksOperator(
        task_id="export", export_path="{{ params.folder }}/{{ dag.dag_id }}", updated_after="{{ dag_run.start_date }}"
    )
    upload >> put >> accept >> predict >> export


@dag(schedule=None, start_date=START)
def everything_there_is():
    """Never run: all operators and sensors, as they are written and as they are mapped."""
    RedBrickAutoReviewOperator(task_id="review", stage_name="Review_1", reviewer=reviewer)
    RedBrickAutoReviewOperator(task_id="review_2", stage_name="Review_1", reviewer=lambda one: Review.leave())
    RedBrickBalanceAssignmentsOperator(task_id="share", stage_name="Label", emails=PEOPLE, weights={PEOPLE[0]: 2})
    RedBrickExportTasksOperator(task_id="export", export_path="/nowhere")
    RedBrickListTasksOperator(task_id="list_tasks", stage_name="Label")
    RedBrickPrelabelOperator(task_id="prelabel", stage_name="Label", labeler=labeler)
    RedBrickPutLabelsOperator(task_id="put", stage_name="Label", tasks=[{"name": "one", "series": [{}]}])
    RedBrickReopenGroundTruthOperator(task_id="reopen", selector=lambda one: True, updated_after=START)
    RedBrickUploadTasksOperator(task_id="upload", tasks=[{"name": "one", "items": ["/nowhere/a.dcm"]}])
    RedBrickStageQueueSensor(task_id="queue", stage_name="Label", at_least=3, deferrable=True)
    RedBrickTasksSensor(task_id="tasks", task_ids=["a"], left_stage="Label")
    mapped = {"task_ids": [["a"], ["b"]]}
    RedBrickPrelabelOperator.partial(task_id="m_prelabel", stage_name="Label", labeler=labeler).expand(**mapped)
    RedBrickAutoReviewOperator.partial(task_id="m_review", stage_name="Review_1", reviewer=reviewer).expand(**mapped)
    RedBrickReopenGroundTruthOperator.partial(task_id="m_reopen").expand(**mapped)
    RedBrickTasksSensor.partial(task_id="m_tasks", left_stage="Label", deferrable=True).expand(**mapped)
    stages = {"stage_name": ["Label", "Review_1"]}
    RedBrickListTasksOperator.partial(task_id="m_list").expand(**stages)
    RedBrickStageQueueSensor.partial(task_id="m_queue", at_least=1).expand(**stages)
    RedBrickBalanceAssignmentsOperator.partial(task_id="m_share", emails=PEOPLE).expand(**stages)
    RedBrickExportTasksOperator.partial(task_id="m_export", export_path="/nowhere").expand(**stages)
    RedBrickUploadTasksOperator.partial(task_id="m_upload").expand(tasks_path=["/nowhere/a", "/nowhere/b"])
    RedBrickPutLabelsOperator.partial(task_id="m_put", stage_name="Label").expand(tasks=[[{"name": "one"}]])


prelabel_in_chunks()
pick_what_has_no_labels()
wait_in_each_mode()
give_up()
go_wrong_half_way()
from_files_to_files()
for native in (False, True):
    dag(
        dag_id="native_templates" if native else "templates",
        schedule=None,
        start_date=START,
        render_template_as_native_obj=native,
        params=dict.fromkeys(
            ("conn", "org", "project", "stage", "who", "n", "prefix", "reports", "after", "before"), ""
        ),
    )(templates)()
everything_there_is()
