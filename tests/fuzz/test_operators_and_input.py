"""Every operator and sensor with anything for any of its parameters: refused, or a failure of one task."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest
from airflow.exceptions import AirflowNotFoundException
from airflow.providers.common.compat.sdk import AirflowSensorTimeout, AirflowSkipException
from fixtures import Run
from fuzz.promises import promises, refuse_unsendable
from fuzz.values import ANYTHING, TEXTS, fuzzed, real, spoiled
from fuzz.works import SERIES, WAIT
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_redbrick.exceptions import RedBrickInputError
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

LABEL, REVIEWED, FINISHED = "LABEL", "REVIEWED", "FINISHED"
"""Stand for the ids of tasks, in the order in which they were made."""

PLACES = ("\0", "x" * 5000, "nope://x/y", "s3://", "s3://bucket/key", "file://", "http://localhost:1/x", "://", "", ".")
PLACES = (*PLACES, "a/b/c", "/proc/nope/x", "/dev/null/x", "\ud800", "{{ ds }}", "~", "a\nb")
PATHS = st.sampled_from(PLACES) | TEXTS.map(lambda text: text.replace("/", "_").replace("..", "_"))

STAGE = {"redbrick_conn_id": "redbrick_default", "stage_name": "Label", "fail_on": "any", "report_path": "report.jsonl"}
TASK = {"taskId": f"{LABEL}0", "series": SERIES}
BODY = {
    "series": [
        {
            **SERIES[0],
            "landmarks3d": [{"point": {"i": 1, "j": 2, "k": 3}, "category": "landmark"}],
            "segmentMap": {"1": "lesion"},
            "segmentations": ["mask.nii.gz"],
        }
    ],
    "classification": {"attributes": {"quality": "good"}},
}
NEW = {
    "name": "new",
    "series": [{"items": ["a.dcm"], "metaData": {"a": "b"}, **SERIES[0]}],
    "priority": 0.5,
    "metaData": {"age": "40"},
    "preAssign": {"Label": "bob@example.com"},
    "isGroundTruth": False,
}
OPERATORS: dict[str, tuple[type, dict[str, Any]]] = {
    "list": (
        RedBrickListTasksOperator,
        {"stage_name": "Label", "state": "ASSIGNED", "assignee": "me", "name": "task", "limit": 5, "chunk_size": 2},
    ),
    "prelabel": (
        RedBrickPrelabelOperator,
        {**STAGE, "task_ids": [f"{LABEL}0", f"{LABEL}1"], "write": "submit", "overwrite": True, "claim": True},
    ),
    "prelabel a queue": (RedBrickPrelabelOperator, {**STAGE, "limit": 1, "write": "draft", "take_from_people": False}),
    "prelabel anywhere": (
        RedBrickPrelabelOperator,
        {"task_ids": [f"{REVIEWED}0"], "write": "anywhere", "model_name": "m", "model_version": "1"},
    ),
    "put": (RedBrickPutLabelsOperator, {**STAGE, "tasks": [TASK, {"name": "no", **BODY}], "finalize": True}),
    "put existing": (RedBrickPutLabelsOperator, {**STAGE, "tasks": [f"{LABEL}0"], "existing_labels": True}),
    "review": (
        RedBrickAutoReviewOperator,
        {**STAGE, "stage_name": "Review_1", "task_ids": [f"{REVIEWED}0"], "review_result": True, "comment": "fine"},
    ),
    "reviews": (
        RedBrickAutoReviewOperator,
        {
            "stage_name": "Review_1",
            "reviews": [
                {"taskId": f"{REVIEWED}0", "reviewVal": False, "comment": "no"},
                {"taskId": f"{REVIEWED}1", "series": SERIES},
            ],
        },
    ),
    "balance": (
        RedBrickBalanceAssignmentsOperator,
        {
            **STAGE,
            "emails": ["alice@example.com", "bob@example.com"],
            "weights": {"bob@example.com": 0.5},
            "ceiling": 3,
        },
    ),
    "reopen": (RedBrickReopenGroundTruthOperator, {"task_ids": [f"{FINISHED}0"]}),
    "reopen some": (
        RedBrickReopenGroundTruthOperator,
        {"updated_after": "2000-01-01", "updated_before": "2100-01-01T00:00:00Z"},
    ),
    "upload": (RedBrickUploadTasksOperator, {"tasks": [NEW], "is_ground_truth": False, "validate": "warn"}),
    "upload known": (
        RedBrickUploadTasksOperator,
        {"tasks": [NEW], "storage_id": "11111111-1111-1111-1111-111111111111"},
    ),
    "export": (RedBrickExportTasksOperator, {"export_path": "out", "stage_name": None, "updated_after": "2000-01-01"}),
    "queue": (RedBrickStageQueueSensor, {"stage_name": "Label", "at_least": 1, "at_most": 9, "count_by": "listing"}),
    "tasks": (RedBrickTasksSensor, {"task_ids": [f"{LABEL}0"], "reached_stage": "Label", "left_stage": None}),
}
CALLABLES = {
    "prelabel": "labeler",
    "prelabel a queue": "labeler",
    "prelabel anywhere": "labeler",
    "reopen some": "selector",
}


def parameters(name: str) -> st.SearchStrategy[dict[str, Any]]:
    """The parameters of an operator, of which one or two are something else."""
    _, good = OPERATORS[name]

    def other(which: str) -> st.SearchStrategy[Any]:
        return PATHS if which.endswith("_path") else spoiled(good[which]) | st.none()

    which = st.lists(st.sampled_from(sorted(good)), min_size=1, max_size=2, unique=True)
    return which.flatmap(lambda names: st.fixed_dictionaries({each: other(each) for each in names}))


class Place:
    """A sandbox with tasks, and a folder to be in."""

    def __init__(self, meddler: Any, folder: Any) -> None:
        self.meddler = meddler
        self.folder = folder
        self.ids: dict[str, list[str]] = {}

    def renew(self) -> None:
        """Begin anew."""
        for each in self.folder.iterdir():
            shutil.rmtree(each) if each.is_dir() else each.unlink()
        (self.folder / "a.dcm").write_bytes(b"item")
        sandbox = self.meddler.sandbox
        sandbox.reset()
        self.ids = {
            LABEL: sandbox.seed_tasks(2, stage="Label", images=True),
            REVIEWED: sandbox.seed_tasks(2, stage="Review_1", images=True),
            FINISHED: sandbox.seed_tasks(1, ground_truth=True),
        }
        self.meddler.begin()

    def real(self, value: Any) -> Any:
        """Return a value with the ids in it for what stands for them, and the odd values."""
        if isinstance(value, str) and value[:-1] in self.ids:
            return self.ids[value[:-1]][int(value[-1])]
        if isinstance(value, list):
            return [self.real(each) for each in value]
        return {key: self.real(each) for key, each in value.items()} if isinstance(value, dict) else real(value)


@pytest.fixture
def place(meddler, tmp_path, monkeypatch):
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return Place(meddler, folder)


def executed(place, kind, given, changes):
    """Execute an operator whose parameters turn out to be others, as when templates are rendered."""
    run = Run()
    with promises(AirflowSensorTimeout, AirflowNotFoundException, AirflowSkipException) as watch:
        operator = kind(task_id="t", **given)
        vars(operator).update(changes)
        result = run.try_once(operator)
        refuse_unsendable(result)
        watch.tell(json.dumps(result))
    for manifest in run.xcoms.values():
        refuse_unsendable(manifest)
    if isinstance(watch.error, RedBrickInputError):
        assert place.meddler.mutations == []


@pytest.mark.parametrize("name", list(OPERATORS))
@fuzzed(10)
@given(data=st.data())
def test_whatever_a_user_says(place, name, data):
    kind, good = OPERATORS[name]
    place.renew()
    extra = (
        {CALLABLES[name]: lambda task: SERIES if CALLABLES[name] == "labeler" else True} if name in CALLABLES else {}
    )
    wait = WAIT if "Sensor" in kind.__name__ else {}
    changes = place.real(data.draw(parameters(name)))
    executed(place, kind, {**extra, **wait, **place.real(good)}, changes)


@pytest.mark.parametrize("name", list(OPERATORS))
def test_an_operator_does_not_keep_the_key(place, name):
    """Airflow stores what is rendered of it, and shows it to everybody."""
    kind, good = OPERATORS[name]
    place.renew()
    labeler = {"labeler": lambda _: SERIES} if CALLABLES.get(name) == "labeler" else {}
    wait = WAIT if "Sensor" in kind.__name__ else {}
    with promises(AirflowSensorTimeout) as watch:
        operator = kind(task_id="t", **labeler, **wait, **place.real(good))
        Run().try_once(operator)
        watch.tell({field: getattr(operator, field) for field in operator.template_fields}, vars(operator))


# ------------------------------------------------------------------ the same without an operator

IDS = [f"{LABEL}0", f"{LABEL}1"]
CALLS: dict[str, tuple[str, list[Any], dict[str, Any]]] = {
    "tasks": ("Label", [], {"assignee": "bob@example.com", "state": "ASSIGNED", "unassigned": False}),
    "find": ("Label", ["task"], {"prefix": True}),
    "claim": ("Label", [1], {}),
    "assign": ("Label", [IDS, "bob@example.com"], {}),
    "release": ("Label", [IDS], {}),
    "submit": ("Label", [{IDS[0]: BODY, IDS[1]: SERIES}], {}),
    "save_draft": ("Label", [{IDS[0]: {"series": SERIES}}], {}),
    "correct": ("Review_1", [{f"{REVIEWED}0": SERIES}], {}),
    "accept": ("Review_1", [[f"{REVIEWED}0"]], {"comment": "fine"}),
    "reject": ("Review_1", [[f"{REVIEWED}1"]], {"comment": "no"}),
}


@pytest.mark.parametrize("name", list(CALLS))
@fuzzed(10)
@given(data=st.data())
def test_whatever_a_program_says(place, name, data):
    stage, arguments, options = CALLS[name]
    place.renew()
    given_arguments = data.draw(st.tuples(*(st.just(each) | spoiled(each) for each in arguments)))
    given_options = data.draw(
        st.fixed_dictionaries({key: st.just(each) | spoiled(each) for key, each in options.items()})
    )
    with promises() as watch:
        act = getattr(RedBrickHook().stage(stage), name)
        watch.tell(list(act(*place.real(list(given_arguments)), **place.real(given_options))))
    if isinstance(watch.error, RedBrickInputError):
        assert place.meddler.mutations == []


# ------------------------------------------------------------------ what callables return and raise


class OddError(Exception):
    def __str__(self):
        raise RuntimeError("no words")


def answering(answers):
    """Return a callable that returns what is given, or raises it."""
    remaining = iter(answers)

    def answer(task):
        given = next(remaining, None)
        if given == "raise":
            raise OddError
        if given == "fetch":
            raise OSError(f"404 for url: {task.item_urls[0]}")
        return real(given)

    return answer


ANSWERS = st.sampled_from(["raise", "fetch", True, None]) | spoiled(BODY) | spoiled(SERIES)


@pytest.mark.parametrize("name", list(CALLABLES))
@fuzzed(10)
@given(answers=st.lists(ANSWERS, min_size=2, max_size=2))
def test_whatever_a_callable_answers(place, name, answers):
    kind, good = OPERATORS[name]
    place.renew()
    executed(place, kind, {**place.real(good), CALLABLES[name]: answering(answers)}, {})


@fuzzed(15)
@given(
    answers=st.lists(ANSWERS, min_size=2, max_size=2), decision=st.sampled_from(["accept", "correct", 5]), said=ANYTHING
)
def test_whatever_a_reviewer_answers(place, answers, decision, said):
    place.renew()
    answer = answering(answers)

    def reviewer(task):
        return Review(decision, real(said)) if task.task_id == place.ids[REVIEWED][0] else answer(task)

    executed(place, RedBrickAutoReviewOperator, {"stage_name": "Review_1", "reviewer": reviewer}, {})
