"""Tests of converting answers of a callable to changes and outcomes."""

from __future__ import annotations

import pytest

from airflow_provider_redbrick.actions import decisions
from airflow_provider_redbrick.actions.decisions import Decisions, LabeledAnswer
from airflow_provider_redbrick.annotations.conversion import Converted, Labels
from airflow_provider_redbrick.client.models.task import Task
from airflow_provider_redbrick.engine.concurrency import CallableFailedError
from airflow_provider_redbrick.engine.outcomes import Status, done, skipped
from airflow_provider_redbrick.exceptions import RedBrickInputError, RedBrickRefusedError

TASKS = [Task(str(i), name=f"study {i}") for i in range(4)]


class Converter:
    """Fake converter that records its batches and refuses the labels of the tasks in ``bad``."""

    def __init__(self, *bad):
        self.bad, self.batches = bad, []

    def convert(self, batch):
        ids = [labels.task_id for labels in batch]
        self.batches.append(ids)
        return {i: "cannot be sent: no such category" if i in self.bad else Converted([{"of": i}]) for i in ids}


def put(task, converted, elapsed_ms):
    return done(task.task_id, labels=converted.labels, elapsed_ms=elapsed_ms)


def labeled(task):
    return LabeledAnswer(Labels(task.task_id, {"series": [{}]}), 10 + int(task.task_id))


def decide_all(decide, converter=None):
    decisions = Decisions(decide, converter or Converter(), put, what="The prediction")
    return list(decisions.on(TASKS))


def test_decisions_convert_labels_in_one_request_and_keep_elapsed_time():
    converter = Converter()
    (steps,) = decide_all(labeled, converter)
    assert converter.batches == [["0", "1", "2", "3"]]
    assert [(step.task_id, step.detail) for step in steps] == [
        (str(i), {"labels": [{"of": str(i)}], "elapsed_ms": 10 + i}) for i in range(4)
    ]


def test_decisions_with_invalid_labels_fail_their_task_only():
    (steps,) = decide_all(labeled, Converter("2"))
    assert [step.status for step in steps] == [Status.DONE, Status.DONE, Status.FAILED, Status.DONE]
    assert steps[2].reason == "The prediction cannot be sent: no such category. Nothing was sent."
    assert steps[2].name == "study 2"


@pytest.mark.parametrize(
    "error", [CallableFailedError("it broke"), RedBrickInputError("bad"), RedBrickRefusedError("no")]
)
def test_decisions_with_error_for_one_task_fail_this_task_only(error):
    def decide(task):
        if task.task_id == "1":
            raise error
        return labeled(task)

    (steps,) = decide_all(decide)
    by_id = {step.task_id: step for step in steps}
    assert len(by_id) == 4
    assert (by_id["1"].status, by_id["1"].reason) == (Status.FAILED, str(error))


def test_decisions_pass_outcomes_through():
    (steps,) = decide_all(lambda task: skipped(task.task_id, "left alone"))
    assert [step.reason for step in steps] == ["left alone"] * 4


def test_decisions_with_slow_callable_yield_a_batch_per_answer(monkeypatch):
    monkeypatch.setattr(decisions, "MAX_BUFFER_S", 0)
    batches = decide_all(labeled)
    assert [[step.task_id for step in steps] for steps in batches] == [["0"], ["1"], ["2"], ["3"]]


def test_decisions_with_keyboard_interrupt_stop():
    def decide(_task):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        decide_all(decide)
