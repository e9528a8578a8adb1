"""The user's code is called once a task, and its answer is taken before anything else of it runs."""

from __future__ import annotations

import pytest

from airflow_provider_redbrick.api.models import Task
from airflow_provider_redbrick.batch.calling import CallableFailedError, call
from airflow_provider_redbrick.exceptions import RedBrickInputError, RedBrickStoppedError

TASK = Task("t", name="study")


def asked(function, take=lambda answer: answer):
    return call(function, TASK, what="labeler", take=take)[0]


def test_a_function_answers_by_returning():
    assert asked(lambda task: task.task_id) == "t"


def test_a_generator_function_answers_by_yielding_and_goes_on_afterwards():
    seen = []

    def label(task):
        seen.append("before")
        yield task.task_id
        seen.append("after")

    assert asked(label, lambda answer: (seen.append(answer), answer)[1]) == "t"
    assert seen == ["before", "t", "after"]


def test_what_a_generator_function_returns_without_yielding_is_its_answer():
    def label(_task):
        return "early"
        yield

    assert asked(label) == "early"


def test_a_second_answer_is_one_too_many():
    with pytest.raises(RedBrickInputError, match="must yield one answer"):
        asked(lambda _task: iter_of("a", "b"))


def iter_of(*answers):
    yield from answers


@pytest.mark.parametrize("error", [RedBrickInputError("refused"), RedBrickStoppedError("stopped"), KeyboardInterrupt()])
def test_a_generator_is_closed_when_its_answer_is_not_taken(error):
    closed = []

    def label(_task):
        try:
            yield 1
        finally:
            closed.append(True)

    def take(_answer):
        raise error

    with pytest.raises(type(error)):
        asked(label, take)
    assert closed == [True]


def test_what_it_raises_is_its_own_failure_whenever_it_does():
    def early(_task):
        raise ValueError("early")
        yield

    def late(_task):
        yield 1
        raise ValueError("late")

    for function, words in ((early, "early"), (late, "late")):
        with pytest.raises(CallableFailedError, match=f"The labeler raised ValueError: {words}"):
            asked(function)
