"""Inputs that were given and render to nothing are an error, not treated as left out."""

from __future__ import annotations

import inspect
from pathlib import Path

import jinja2
import pytest
from airflow.providers.common.compat.sdk import AirflowSkipException
from airflow.sdk import DAG
from fixtures import counts

from airflow_provider_redbrick.exceptions import RedBrickInputError
from airflow_provider_redbrick.operators.auto_review import RedBrickAutoReviewOperator
from airflow_provider_redbrick.operators.balance_assignments import RedBrickBalanceAssignmentsOperator
from airflow_provider_redbrick.operators.export_tasks import RedBrickExportTasksOperator
from airflow_provider_redbrick.operators.list_tasks import RedBrickListTasksOperator
from airflow_provider_redbrick.operators.prelabel import RedBrickPrelabelOperator
from airflow_provider_redbrick.operators.put_labels import RedBrickPutLabelsOperator
from airflow_provider_redbrick.operators.reopen_ground_truth import RedBrickReopenGroundTruthOperator
from airflow_provider_redbrick.operators.upload_tasks import RedBrickUploadTasksOperator
from airflow_provider_redbrick.sensors.stage_queue import RedBrickStageQueueSensor
from airflow_provider_redbrick.sensors.tasks import RedBrickTasksSensor

A_TASK = "00000000-0000-4000-8000-000000000001"
WHEN = {"updated_after": "2026-03-14", "updated_before": "2026-03-15"}
# Parameters of each operator besides the tested input. Further entries are other ways to use the same operator.
WORK = {
    "prelabel": (RedBrickPrelabelOperator, {"labeler": lambda _: None, "stage_name": "Label"}),
    "prelabel_anywhere": (
        RedBrickPrelabelOperator,
        {"labeler": lambda _: None, "write": "anywhere", "stage_name": "Label"},
    ),
    "auto_review": (RedBrickAutoReviewOperator, {"reviewer": lambda _: True, "stage_name": "Review_1"}),
    "review_as_told": (
        RedBrickAutoReviewOperator,
        {"review_result": True, "task_ids": [A_TASK], "stage_name": "Review_1"},
    ),
    "balance": (RedBrickBalanceAssignmentsOperator, {"emails": ["alice@example.com"], "stage_name": "Label"}),
    "export": (RedBrickExportTasksOperator, {"export_path": "/tmp/never-written"}),
    "list": (RedBrickListTasksOperator, {}),
    "put": (RedBrickPutLabelsOperator, {"tasks": [{"taskId": A_TASK, "series": []}], "stage_name": "Label"}),
    "put_from_file": (RedBrickPutLabelsOperator, {"labels_path": "/tmp/never-read", "stage_name": "Label"}),
    "reopen": (RedBrickReopenGroundTruthOperator, {"selector": lambda _: True, **WHEN}),
    "upload": (RedBrickUploadTasksOperator, {"tasks": [{"name": "one", "items": "/tmp/never-read"}]}),
    "upload_from_file": (RedBrickUploadTasksOperator, {"tasks_path": "/tmp/never-read"}),
    "queue": (RedBrickStageQueueSensor, {"stage_name": "Label", "at_least": 0, "timeout": 1}),
    "tasks": (RedBrickTasksSensor, {"task_ids": [A_TASK], "left_stage": "Label", "timeout": 1}),
}
INPUTS = [(work, name) for work, (kind, _) in WORK.items() for name in kind.template_fields]
# Values that a template without a value renders to.
NOTHING = {
    "None as text": ("{{ nothing }}", {}, {}),
    "None natively": ("{{ nothing }}", {}, {"native": True}),
    "empty text": ("{{ nothing or '' }}", {}, {}),
    "a line's end": ("{{ '' }}\n ", {}, {}),
    "undefined": ("{{ unknown }}", {}, {"template_undefined": jinja2.Undefined}),
    "undefined, natively": ("{{ unknown }}", {}, {"template_undefined": jinja2.ChainableUndefined, "native": True}),
    "what is called": (lambda **_: None, {}, {}),
    "a path": (Path("{{ nothing }}"), {}, {}),
    "an empty path": (Path("{{ '' }}"), {}, {}),
}


def rendered(operator, **context):
    operator.render_template_fields({"nothing": None, **context})
    return operator


@pytest.mark.parametrize(("work", "name"), INPUTS, ids=str)
def test_input_rendered_to_none_sends_no_request(sandbox, run, work, name):
    kind, others = WORK[work]
    for native in (False, True):
        with DAG("any", schedule=None, render_template_as_native_obj=native):
            operator = kind(task_id="one", **{**others, name: "{{ nothing }}"})
        with pytest.raises(RedBrickInputError, match=name):
            run.try_once(rendered(operator))
    assert sandbox.stats()["requests"] == 0


@pytest.mark.parametrize("nothing", list(NOTHING))
@pytest.mark.parametrize("name", ["task_ids", "limit", "project_id", "report_path"])
def test_input_rendered_to_nothing_is_refused(sandbox, run, name, nothing):
    template, how, options = NOTHING[nothing]
    ids = sandbox.seed_tasks(3, stage="Review_1")
    native = options.pop("native", False) if (options := dict(options)) else False
    with DAG("any", schedule=None, render_template_as_native_obj=native, **options):
        kind, others = WORK["auto_review"]
        operator = kind(task_id="one", **others, **{name: template}, **how)
    with pytest.raises(RedBrickInputError, match=f"{name} was given, but its value is "):
        run.try_once(rendered(operator))
    assert sandbox.stats()["applied"] == {}
    assert {sandbox.stage_of(task_id) for task_id in ids} == {"Review_1"}


def test_input_left_out_is_accepted(sandbox, run):
    sandbox.seed_tasks(3, stage="Review_1")
    kind, others = WORK["auto_review"]
    operator = kind(task_id="one", **others, task_ids=None, limit=None, project_id=None, report_path=None)
    assert run.try_once(rendered(operator))["counts"] == counts(done=3)


def test_input_set_to_none_after_construction_is_refused(sandbox, run):
    kind, others = WORK["auto_review"]
    operator = kind(task_id="one", **others, task_ids=[A_TASK])
    operator.task_ids = None
    with pytest.raises(RedBrickInputError, match="task_ids was given, but its value is None"):
        run.try_once(operator)


def test_subclass_constructor_may_leave_out_input(sandbox, run):
    class Mine(RedBrickAutoReviewOperator):
        def __init__(self, *, limit=None, **kwargs):
            super().__init__(limit=limit, **kwargs)
            self.limit = None

    _, others = WORK["auto_review"]
    assert run.try_once(rendered(Mine(task_id="one", limit=3, **others)))["counts"] == counts()


def test_input_from_default_args_counts_as_given(sandbox, run):
    kind, others = WORK["auto_review"]
    with DAG("any", schedule=None, default_args={"task_ids": "{{ nothing }}"}):
        operator = kind(task_id="one", **others)
    with pytest.raises(RedBrickInputError, match="task_ids was given"):
        run.try_once(rendered(operator))


def test_subclass_inputs_are_checked(sandbox, run):
    class Mine(RedBrickAutoReviewOperator):
        template_fields = (*RedBrickAutoReviewOperator.template_fields, "note")

        def __init__(self, *, note=None, limit=None, **kwargs):
            super().__init__(limit=limit, **kwargs)
            self.note = note

    _, others = WORK["auto_review"]
    with pytest.raises(RedBrickInputError, match="limit was given"):
        run.try_once(rendered(Mine(task_id="one", limit="{{ nothing }}", **others)))
    # Template fields of the subclass itself are not checked.
    with DAG("any", schedule=None, render_template_as_native_obj=True):
        mine = Mine(task_id="one", note="{{ nothing }}", **others)
    rendered(mine)
    assert mine.note is None
    assert run.try_once(mine)["counts"] == counts()


class TestOnEmpty:
    LISTS = [  # noqa: RUF012
        ("prelabel", "task_ids"),
        ("prelabel_anywhere", "task_ids"),
        ("auto_review", "task_ids"),
        ("review_as_told", "task_ids"),
        ("reviews", "reviews"),
        ("balance", "emails"),
        ("put", "tasks"),
        ("reopen_given", "task_ids"),
        ("upload", "tasks"),
    ]
    MORE = {  # noqa: RUF012
        "reviews": (RedBrickAutoReviewOperator, {"stage_name": "Review_1"}),
        "reopen_given": (RedBrickReopenGroundTruthOperator, {}),
    }

    def make(self, work, name, value, **options):
        kind, others = (WORK | self.MORE)[work]
        return kind(task_id="one", **{**others, name: value}, **options)

    @pytest.mark.parametrize(("work", "name"), LISTS)
    @pytest.mark.parametrize("value", [[], ()])
    def test_empty_list_skips_airflow_task(self, sandbox, run, work, name, value):
        sandbox.seed_tasks(1, stage="Review_1")
        with pytest.raises(AirflowSkipException, match=f"{name} is empty"):
            run.try_once(self.make(work, name, value))
        with pytest.raises(AirflowSkipException, match=f"{name} is empty"):
            run.try_once(self.make(work, name, value, on_empty="skip"))
        with pytest.raises(RedBrickInputError, match=f"{name} is empty.*on_empty"):
            run.try_once(self.make(work, name, value, on_empty="fail"))
        assert sandbox.stats()["applied"] == {}

    @pytest.mark.parametrize(("work", "name"), LISTS)
    def test_empty_list_with_on_empty_succeed_returns_manifest(self, sandbox, run, tmp_path, work, name):
        sandbox.seed_tasks(2)
        sandbox.seed_tasks(2, stage="Review_1")
        sandbox.seed_tasks(2, ground_truth=True)
        report = tmp_path / "report.jsonl"
        done = run.try_once(self.make(work, name, [], on_empty="succeed", report_path=str(report)))
        assert (done["counts"], done["task_ids"], done["report"]) == (counts(), [], str(report))
        assert report.read_text() == ""
        assert sandbox.stats()["applied"] == {}

    @pytest.mark.parametrize(("work", "name"), LISTS)
    def test_none_list_fails_without_on_empty(self, sandbox, run, work, name):
        sandbox.seed_tasks(2)
        sandbox.seed_tasks(2, stage="Review_1")
        for native in (False, True):

            def nothing(native=native, **options):
                with DAG("any", schedule=None, render_template_as_native_obj=native):
                    operator = self.make(work, name, "{{ nothing }}", **options)
                return rendered(operator)

            with pytest.raises(RedBrickInputError, match=name):
                run.try_once(nothing())
            with pytest.raises(RedBrickInputError, match=name):
                run.try_once(nothing(on_empty="fail"))
            with pytest.raises(AirflowSkipException, match=name):
                run.try_once(nothing(on_empty="skip"))
            assert run.try_once(nothing(on_empty="succeed"))["counts"] == counts()
        assert sandbox.stats()["applied"] == {}

    def test_on_empty_does_not_apply_to_other_inputs(self, sandbox, run):
        sandbox.seed_tasks(2, stage="Review_1")
        with pytest.raises(RedBrickInputError, match="limit was given"):
            run.try_once(rendered(self.make("auto_review", "limit", "{{ nothing }}", on_empty="succeed")))

    @pytest.mark.usefixtures("sandbox")
    @pytest.mark.parametrize(("work", "name"), [("put_from_file", "labels_path"), ("upload_from_file", "tasks_path")])
    @pytest.mark.parametrize("content", ["", "\n", "[]"])
    def test_empty_file_follows_on_empty(self, run, tmp_path, work, name, content):
        (tmp_path / "tasks.json").write_text(content)
        path = str(tmp_path / "tasks.json")
        for how in ({}, {"on_empty": "fail"}):
            with pytest.raises(RedBrickInputError, match="is empty"):
                run.try_once(self.make(work, name, path, **how))
        with pytest.raises(AirflowSkipException, match="is empty"):
            run.try_once(self.make(work, name, path, on_empty="skip"))
        assert run.try_once(self.make(work, name, path, on_empty="succeed"))["counts"] == counts()

    @pytest.mark.parametrize("value", ["Skip", "", True, [], "{{ params.x }}"])
    def test_unknown_on_empty_is_refused(self, sandbox, run, value):
        with pytest.raises(RedBrickInputError, match="on_empty"):
            run.try_once(self.make("prelabel", "task_ids", [A_TASK], on_empty=value))
        assert sandbox.stats()["requests"] == 0


def test_cases_cover_all_operators():
    from airflow_provider_redbrick import get_provider_info

    info = get_provider_info.get_provider_info()
    modules = [name for part in ("operators", "sensors") for entry in info[part] for name in entry["python-modules"]]
    assert {kind.__module__ for kind, _ in WORK.values()} == set(modules)
    assert all(inspect.isclass(kind) for kind, _ in WORK.values())
