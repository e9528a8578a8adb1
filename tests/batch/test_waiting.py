"""What sensors wait for, and when they stop."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from airflow_provider_redbrick import exceptions as err
from airflow_provider_redbrick.api.models import Task
from airflow_provider_redbrick.api.workflow import Stage, Workflow
from airflow_provider_redbrick.batch.waiting import (
    MAX_FAILED_POLLS,
    START_BACKSTOP,
    Limits,
    Patience,
    Poll,
    QueueCondition,
    TasksCondition,
    read_event,
)

WORKFLOW = Workflow(
    (
        Stage("Input", "labelset-input"),
        Stage("Label", "manual-labeling"),
        Stage("Review_1", "expert-review"),
        Stage("Review_2", "expert-review"),
        Stage("Output", "labelset-output"),
        Stage("Failed_Review_1", "feedback"),
    )
)


class Project:
    """Counts ``queue`` tasks in any stage and remembers how it was asked."""

    info = SimpleNamespace(workflow=WORKFLOW)

    def __init__(self, queue=0, tasks=()):
        self.queue, self.tasks, self.asked = queue, tasks, []

    def stage(self, name):
        return WORKFLOW.find(name)

    def count(self, stage):
        self.asked.append(stage.name)
        return self.queue

    def count_by_listing(self, stage, *, unassigned, stop_at):
        self.asked.append((stage.name, unassigned, stop_at))
        return min(self.queue, stop_at)

    def read_tasks(self, task_ids, *, detail):
        return dict(zip(task_ids, self.tasks, strict=True))


@pytest.mark.parametrize(
    ("limits", "met_at"),
    [
        ({"at_least": 3}, {3, 4, 5}),
        ({"at_most": 3}, {0, 1, 2, 3}),
        ({"at_least": 2, "at_most": 3}, {2, 3}),
        ({"at_least": 3, "at_most": 3}, {3}),
        ({"at_least": 0}, {0, 1, 2, 3, 4, 5}),
        ({"at_most": 0}, {0}),
    ],
)
@pytest.mark.parametrize("how", [{}, {"unassigned": True}, {"by_listing": True}])
def test_thresholds(limits, met_at, how):
    condition = QueueCondition("Review_1", **limits, **how)
    assert {n for n in range(6) if condition.look(Project(n)).met} == met_at


def test_all_tasks_are_counted_by_the_servers_count():
    project = Project(7)
    assert QueueCondition("Label", at_least=3).look(project) == Poll(True, 7)
    assert project.asked == ["Label"]


@pytest.mark.parametrize(
    ("limits", "stop_at"), [({"at_least": 3}, 3), ({"at_most": 3}, 4), ({"at_least": 2, "at_most": 9}, 10)]
)
def test_a_listing_stops_as_soon_as_the_answer_is_certain(limits, stop_at):
    project = Project(1000)
    QueueCondition("Label", unassigned=True, **limits).look(project)
    assert project.asked == [("Label", True, stop_at)]


def test_counting_all_by_listing_counts_those_that_are_held_too():
    project = Project(5)
    QueueCondition("Label", at_least=3, by_listing=True).look(project)
    assert project.asked == [("Label", False, 3)]


def test_a_wrong_stage_name_is_an_input_error():
    with pytest.raises(err.RedBrickInputError, match="no stage 'Labell'"):
        QueueCondition("Labell", at_least=1).look(Project())


def at(stage, state="ASSIGNED"):
    return Task("t", stage_name=stage, state=state)


def look(tasks, **condition):
    ids = [str(i) for i in range(len(tasks))]
    return TasksCondition(ids, **condition).look(Project(tasks=tasks))


@pytest.mark.parametrize(
    ("task", "met"),
    [
        (at("Label"), False),
        (at("Label", "COMPLETED"), True),
        (at("Review_1"), True),
        (at("Ground Truth", None), True),
        (at("ARCHIVED", None), True),
    ],
)
def test_having_left_a_stage(task, met):
    assert look([task], left_stage="Label").met is met


@pytest.mark.parametrize("name", ["Ground Truth", "Output", "END"])
def test_having_left_ground_truth_under_any_of_its_names(name):
    assert not look([at("Ground Truth", None)], left_stage=name).met
    assert look([at("Label")], left_stage=name).met


@pytest.mark.parametrize(
    ("task", "met"),
    [
        (at("Label"), False),
        (at("Label", "COMPLETED"), False),
        (at("Review_1"), True),
        (at("Review_2"), True),
        (at("Ground Truth", None), True),
        (at("Failed_Review_1", None), False),
    ],
)
def test_having_reached_a_stage_or_jumped_over_it(task, met):
    assert look([task], reached_stage="Review_1").met is met


@pytest.mark.parametrize("condition", [{"left_stage": "Labell"}, {"reached_stage": "Labell"}])
def test_a_stage_that_does_not_exist_is_not_waited_for(condition):
    with pytest.raises(err.RedBrickInputError, match="no stage 'Labell'; its stages are: Input, Label"):
        look([at("Label")], **condition)


def test_where_nothing_ever_stays_is_not_waited_for():
    with pytest.raises(err.RedBrickInputError, match="only pass through Failed_Review_1"):
        look([at("Label")], reached_stage="Failed_Review_1")


def test_what_is_archived_will_never_arrive():
    with pytest.raises(err.RedBrickNotFoundError, match="archived"):
        look([at("Review_2"), at("ARCHIVED", None)], reached_stage="Review_1")


@pytest.mark.parametrize("name", ["Ground Truth", "Output", "END"])
def test_having_reached_ground_truth_under_any_of_its_names(name):
    assert look([at("Ground Truth", None)], reached_stage=name).met
    assert not look([at("Review_2")], reached_stage=name).met


def test_all_tasks_must_be_through_and_what_is_seen_is_counted():
    tasks = [at("Review_1"), at("Label"), at("Review_1")]
    assert look(tasks, left_stage="Label") == Poll(False, {"Label": 1, "Review_1": 2})


def test_a_task_that_does_not_exist_is_an_error():
    with pytest.raises(err.RedBrickNotFoundError):
        look([at("Review_1"), err.RedBrickNotFoundError("no such task")], left_stage="Label")


# ------------------------------------------------------------------ patience


def patience(deadline=100.0, name="timeout"):
    return Patience(deadline=deadline, deadline_name=name)


def test_success_ends_the_wait_even_after_the_deadline():
    found = patience().after(Poll(True, 7), now=200.0)
    assert found == {"version": 1, "status": "success", "seen": 7}


def test_waiting_goes_on_until_the_deadline():
    assert patience().after(Poll(False, 7), now=99.9) is None
    found = patience(name="execution_timeout").after(Poll(False, 7), now=100.0)
    assert (found["status"], found["deadline"]) == ("timeout", "execution_timeout")
    assert "execution_timeout" in found["message"]


def test_a_few_failed_polls_in_a_row_are_tolerated():
    waiting = patience()
    error = err.RedBrickServerError("down", status=503)
    events = [waiting.after_error(error, now=1.0) for _ in range(MAX_FAILED_POLLS)]
    assert events[:-1] == [None] * (MAX_FAILED_POLLS - 1)
    assert events[-1]["status"] == "error"
    assert f"{MAX_FAILED_POLLS} failed polls in a row; the last: down" in events[-1]["message"]


def test_a_poll_that_succeeds_starts_the_count_anew():
    waiting = patience()
    for _ in range(10):
        for _ in range(MAX_FAILED_POLLS - 1):
            assert waiting.after_error(err.RedBrickConnectionError("x"), now=1.0) is None
        assert waiting.after(Poll(False, 0), now=1.0) is None


@pytest.mark.parametrize(
    "error", [err.RedBrickAuthError("x"), err.RedBrickNotFoundError("x"), err.RedBrickInputError("x")], ids=repr
)
def test_what_waiting_cannot_change_ends_it_at_once(error):
    found = patience().after_error(error, now=1.0)
    assert found["status"] == "error"
    assert "Waiting makes no sense: x" in found["message"]
    assert found["error"] == type(error).__name__


def test_a_deadline_in_trouble_names_the_trouble():
    found = patience().after_error(err.RedBrickServerError("down", status=503), now=100.0)
    assert found["status"] == "timeout"
    assert "The last poll failed: down" in found["message"]


def test_a_deadline_after_trouble_that_is_over_does_not_name_it():
    waiting = patience()
    waiting.after_error(err.RedBrickServerError("down", status=503), now=1.0)
    waiting.after(Poll(False, 0), now=2.0)
    assert "down" not in waiting.after(Poll(False, 0), now=100.0)["message"]


# ------------------------------------------------------------------ limits


@pytest.mark.parametrize(
    ("limits", "name", "seconds"),
    [
        (Limits(60.0), "timeout", 60.0),
        (Limits(60.0, 60.0), "timeout", 60.0),
        (Limits(60.0, 90.0), "timeout", 60.0),
        (Limits(60.0, 30.0), "execution_timeout", 30.0),
    ],
)
def test_the_shorter_limit_ends_the_wait(limits, name, seconds):
    assert (limits.name, limits.seconds) == (name, seconds)


def given_up_at(begun: float, limits: Limits) -> float:
    """When Airflow gives up a trigger that it has started itself, as its ``TaskInstance.defer_task`` counts."""
    at = begun + limits.seconds + START_BACKSTOP
    return at if limits.execution_timeout is None else min(at, begun + limits.execution_timeout)


@pytest.mark.parametrize(
    "limits", [Limits(60.0), Limits(60.0, 90.0), Limits(60.0, 5_000.0), Limits(90.0, 60.0)], ids=repr
)
@pytest.mark.parametrize("now", [1_000.0, 1_030.0, 5_000.0])
def test_a_wait_that_another_triggerer_takes_over_ends_when_it_was_to_end(limits, now):
    assert limits.deadline(given_up_at=given_up_at(1_000.0, limits), now=now) == 1_060.0


def test_where_airflow_does_not_say_when_it_gives_up_the_wait_begins_now():
    assert Limits(60.0).deadline(given_up_at=None, now=1_000.0) == 1_060.0


@pytest.mark.parametrize("status", ["success", "timeout", "error"])
def test_an_event_survives_the_way_through_json(status):
    value = {"version": 1, "status": status}
    assert read_event(json.loads(json.dumps(value))) == value


@pytest.mark.parametrize("value", [None, "success", [], {}, {"status": None}, {"status": "done"}, {"status": []}])
def test_an_event_that_is_none_is_refused(value):
    with pytest.raises(err.RedBrickInputError, match="not understood"):
        read_event(value)
