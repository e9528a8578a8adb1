"""Tests of calling labelers, reviewers and selectors."""

from __future__ import annotations

import pytest

from airflow_provider_redbrick.client.models.task import Task
from airflow_provider_redbrick.engine.concurrency import CallableFailedError, call
from airflow_provider_redbrick.exceptions import RedBrickInputError, RedBrickStoppedError

TASK = Task("t", name="study")


def call_labeler(function, take=lambda answer: answer):
    return call(function, TASK, what="labeler", take=take)[0]


def test_call_function_takes_its_return_value():
    assert call_labeler(lambda task: task.task_id) == "t"


def test_call_generator_takes_its_yield_and_runs_the_rest():
    seen = []

    def label(task):
        seen.append("before")
        yield task.task_id
        seen.append("after")

    assert call_labeler(label, lambda answer: (seen.append(answer), answer)[1]) == "t"
    assert seen == ["before", "t", "after"]


def test_call_generator_without_yield_takes_its_return_value():
    def label(_task):
        return "early"
        yield

    assert call_labeler(label) == "early"


def test_call_generator_with_two_yields_is_refused():
    with pytest.raises(RedBrickInputError, match="must yield one answer"):
        call_labeler(lambda _task: iter_of("a", "b"))


def iter_of(*answers):
    yield from answers


@pytest.mark.parametrize("error", [RedBrickInputError("refused"), RedBrickStoppedError("stopped"), KeyboardInterrupt()])
def test_call_generator_with_refused_answer_is_closed(error):
    closed = []

    def label(_task):
        try:
            yield 1
        finally:
            closed.append(True)

    def take(_answer):
        raise error

    with pytest.raises(type(error)):
        call_labeler(label, take)
    assert closed == [True]


def test_call_generator_that_raises_fails_the_task():
    def early(_task):
        raise ValueError("early")
        yield

    def late(_task):
        yield 1
        raise ValueError("late")

    for function, words in ((early, "early"), (late, "late")):
        with pytest.raises(CallableFailedError, match=f"The labeler raised ValueError: {words}"):
            call_labeler(function)
