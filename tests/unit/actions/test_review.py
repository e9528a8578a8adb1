"""Tests of reviewing tasks: each decision sends exactly its own mutation."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_redbrick.actions import review as module
from airflow_provider_redbrick.actions.decision import DECISIONS, Review
from airflow_provider_redbrick.annotations.conversion import Converter
from airflow_provider_redbrick.client.models.task import Task, User
from airflow_provider_redbrick.client.models.workflow import Stage
from airflow_provider_redbrick.engine.outcomes import Outcome, Status
from airflow_provider_redbrick.exceptions import RedBrickInputError

SERIES = [{"landmarks": []}]


def refused(words):
    return pytest.raises(RedBrickInputError, match=words)


@pytest.mark.parametrize("decision", ["", "ACCEPT", "accepted", "pass", None, True, 1, [], {}])
def test_review_with_unknown_decision_is_refused(decision):
    with refused("must be one of accept, reject, correct, leave"):
        Review(decision)


@pytest.mark.parametrize("decision", ["accept", "reject", "leave"])
@pytest.mark.parametrize("labels", [{"series": SERIES}, {"series": []}, {"classification": {}}])
def test_review_with_labels_but_no_correction_is_refused(decision, labels):
    with refused("takes no labels; to replace them use 'correct'"):
        Review(decision, **labels)


@pytest.mark.parametrize("comment", ["a\0", "a\ud800"])
@pytest.mark.parametrize("make", [Review.accept, Review.reject, lambda comment: Review("leave", comment)])
def test_review_with_unstorable_comment_is_refused(make, comment):
    with refused("the comment of a review has characters that cannot be sent or stored"):
        make(comment)


def test_correction_needs_labels_and_takes_no_comment():
    with refused("needs the corrected series"):
        Review.correct()
    with refused("takes no comment"):
        Review("correct", "why", SERIES)
    assert Review.correct(SERIES).series == SERIES
    assert Review.correct(classification={"a": 1}).series is None


def test_review_shorthands_set_decision_and_comment():
    assert [Review.accept().decision, Review.reject().decision, Review.leave().decision] == [
        "accept",
        "reject",
        "leave",
    ]
    assert Review.reject("blurred").comment == "blurred"
    assert Review.accept("fine").comment == "fine"


def test_review_repr_shows_no_labels():
    assert "canary" not in repr(Review.correct([{"canary": 1}], classification={"canary": 2}))


def test_read_accepts_bool_and_review():
    assert Review.read(True) == Review("accept")
    assert Review.read(False) == Review("reject")
    decision = Review.correct(SERIES)
    assert Review.read(decision) is decision


@pytest.mark.parametrize("answer", [None, 0, 1, "", "accept", "reject", "True", [], SERIES, {"series": SERIES}, Review])
def test_read_with_other_answer_is_refused(answer):
    with refused("the reviewer must return True, False or a Review"):
        Review.read(answer)


def test_read_with_numpy_bool_is_refused_with_advice():
    numpy = pytest.importorskip("numpy")
    with refused(r"not numpy\.bool.*bool\(\.\.\.\)"):
        Review.read(numpy.True_)


# ------------------------------------------------------------------ what is sent


class FakePipeline:
    """Fake pipeline that passes all tasks to the plan and sends the resulting changes."""

    me = "API:me"
    stage = Stage("Review_1", "expert-review")

    def __init__(self, n=1):
        self.tasks = [Task(f"t{i}", name=f"study {i}", stage_name="Review_1", labels=()) for i in range(n)]
        self.sent = []
        client = SimpleNamespace(convert_labels=lambda tasks: [{"labels": []} for _ in tasks])
        self.converter = Converter(client, lambda path: None)
        files = SimpleNamespace(label_variables=lambda labels, labels_map, task_id: {})
        self.project = SimpleNamespace(files=files, review=self.review, put_labels=self.put_labels)

    def in_parallel(self, task_ids, on, *, executor=None):
        return on(list(task_ids))

    def run(self, task_ids, plan):
        for step in itertools.chain.from_iterable(plan(self.tasks)):
            if not isinstance(step, Outcome):
                step.call()
            yield step

    def review(self, stage, task_id, *, accept, comment, elapsed_ms):
        self.sent.append((task_id, "accept" if accept else "reject", comment))

    def put_labels(self, stage, task_id, stored, *, finished, elapsed_ms):
        self.sent.append((task_id, "correct", finished))


def reviewed(*answers):
    pipeline = FakePipeline(len(answers))
    by_id = {task.task_id: answer for task, answer in zip(pipeline.tasks, answers, strict=True)}

    def reviewer(task):
        answer = by_id[task.task_id]
        if isinstance(answer, Exception):
            raise answer
        return answer

    steps = list(module.review(pipeline, list(by_id), reviewer))
    return pipeline.sent, {step.task_id: step for step in steps if isinstance(step, Outcome)}


@pytest.mark.parametrize(
    ("answer", "sent"),
    [
        (True, [("t0", "accept", None)]),
        (False, [("t0", "reject", None)]),
        (Review.accept("fine"), [("t0", "accept", "fine")]),
        (Review.reject("blurred"), [("t0", "reject", "blurred")]),
        (Review.correct(SERIES), [("t0", "correct", True)]),
        (Review.correct([]), [("t0", "correct", True)]),
        (Review.leave(), []),
    ],
    ids=str,
)
def test_review_sends_only_the_mutation_of_its_decision(answer, sent):
    assert reviewed(answer)[0] == sent


def test_review_with_leave_skips_the_task():
    _, outcomes = reviewed(Review.leave())
    assert (outcomes["t0"].status, outcomes["t0"].reason) == (Status.SKIPPED, "the reviewer left it to people")


@pytest.mark.parametrize(
    "answer", [None, "accept", 1, ValueError("no pixels"), Review.correct([{"segmentMap": {"1": 1}}])]
)
def test_review_with_error_for_one_task_fails_this_task_only(answer):
    sent, outcomes = reviewed(True, answer, False)
    assert sent == [("t0", "accept", None), ("t2", "reject", None)]
    assert list(outcomes) == ["t1"]
    assert (outcomes["t1"].status, outcomes["t1"].name) == (Status.FAILED, "study 1")


def test_review_with_raising_reviewer_names_the_error():
    _, outcomes = reviewed(ValueError("no pixels"))
    assert outcomes["t0"].reason == "The reviewer raised ValueError: no pixels"


@given(st.lists(st.sampled_from([*DECISIONS, None]), min_size=1, max_size=30))
def test_review_batch_sends_each_decision_to_its_own_task(decisions):
    answers = [Review("correct", None, SERIES) if d == "correct" else d and Review(d) for d in decisions]
    sent, outcomes = reviewed(*answers)
    got = {task_id: decision for task_id, decision, _ in sent}
    assert len(got) == len(sent)
    expected = {f"t{i}": d for i, d in enumerate(decisions) if d in {"accept", "reject", "correct"}}
    assert got == expected
    assert set(outcomes) == {f"t{i}" for i in range(len(decisions))} - set(expected)


def test_decision_is_applied_once_the_task_has_left_the_stage():
    pipeline = FakePipeline()
    change = module._to_step(pipeline, pipeline.tasks[0], Review("accept"), 0)
    assert not change.applied(Task("t0", stage_name="Review_1", assignee=User("API:me")))
    assert change.applied(Task("t0", stage_name="Label"))
