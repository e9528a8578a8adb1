"""What a user's callable answers becomes changes and outcomes, exactly one a task."""

from __future__ import annotations

import pytest

from airflow_provider_redbrick.api.models import Task
from airflow_provider_redbrick.batch import deciding
from airflow_provider_redbrick.batch.calling import CallableFailedError
from airflow_provider_redbrick.batch.converting import Converted, Labels
from airflow_provider_redbrick.batch.deciding import Decisions, Labelled
from airflow_provider_redbrick.batch.outcome import Status, done, skipped
from airflow_provider_redbrick.exceptions import RedBrickInputError, RedBrickRefusedError

TASKS = [Task(str(i), name=f"study {i}") for i in range(4)]


class Converter:
    """Converts labels, and notes how many came at a time; those of the tasks in ``bad`` are not to be sent."""

    def __init__(self, *bad):
        self.bad, self.batches = bad, []

    def convert(self, batch):
        ids = [labels.task_id for labels in batch]
        self.batches.append(ids)
        return {i: "cannot be sent: no such category" if i in self.bad else Converted([{"of": i}]) for i in ids}


def put(task, converted, elapsed_ms):
    return done(task.task_id, labels=converted.labels, elapsed_ms=elapsed_ms)


def labelled(task):
    return Labelled(Labels(task.task_id, {"series": [{}]}), 10 + int(task.task_id))


def decided(decide, converter=None):
    decisions = Decisions(decide, converter or Converter(), put, what="The prediction")
    return list(decisions.on(TASKS))


def test_labels_are_converted_together_and_put_with_the_time_they_took():
    converter = Converter()
    (steps,) = decided(labelled, converter)
    assert converter.batches == [["0", "1", "2", "3"]]
    assert [(step.task_id, step.detail) for step in steps] == [
        (str(i), {"labels": [{"of": str(i)}], "elapsed_ms": 10 + i}) for i in range(4)
    ]


def test_labels_that_cannot_be_sent_are_their_tasks_failure():
    (steps,) = decided(labelled, Converter("2"))
    assert [step.status for step in steps] == [Status.DONE, Status.DONE, Status.FAILED, Status.DONE]
    assert steps[2].reason == "The prediction cannot be sent: no such category. Nothing was sent."
    assert steps[2].name == "study 2"


@pytest.mark.parametrize(
    "error", [CallableFailedError("it broke"), RedBrickInputError("bad"), RedBrickRefusedError("no")]
)
def test_what_is_raised_for_one_task_is_its_own_failure(error):
    def decide(task):
        if task.task_id == "1":
            raise error
        return labelled(task)

    (steps,) = decided(decide)
    by_id = {step.task_id: step for step in steps}
    assert len(by_id) == 4
    assert (by_id["1"].status, by_id["1"].reason) == (Status.FAILED, str(error))


def test_a_step_of_its_own_passes_through():
    (steps,) = decided(lambda task: skipped(task.task_id, "left alone"))
    assert [step.reason for step in steps] == ["left alone"] * 4


def test_a_slow_callable_does_not_hold_its_answers_back(monkeypatch):
    monkeypatch.setattr(deciding, "HELD_BACK", 0)
    batches = decided(labelled)
    assert [[step.task_id for step in steps] for steps in batches] == [["0"], ["1"], ["2"], ["3"]]


def test_what_is_no_error_of_a_task_stops_everything():
    def decide(_task):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        decided(decide)
