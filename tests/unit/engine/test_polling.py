"""Tests of the conditions and limits of waits."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from airflow_provider_redbrick import exceptions as err
from airflow_provider_redbrick.client.models.task import Task
from airflow_provider_redbrick.client.models.workflow import Stage, Workflow
from airflow_provider_redbrick.engine.polling import (
    CONFIRM_AFTER_S,
    MAX_FAILED_POLLS,
    START_BACKSTOP_S,
    Limits,
    Poll,
    PollBudget,
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
    """Project with ``queue`` tasks in any stage that records how it was asked."""

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
def test_queue_condition_compares_count_with_thresholds(limits, met_at, how):
    condition = QueueCondition("Review_1", **limits, **how)
    assert {n for n in range(6) if condition.look(Project(n)).met} == met_at


def test_queue_condition_uses_servers_count():
    project = Project(7)
    assert QueueCondition("Label", at_least=3).look(project) == Poll(True, 7)
    assert project.asked == ["Label"]


@pytest.mark.parametrize(
    ("limits", "stop_at"), [({"at_least": 3}, 3), ({"at_most": 3}, 4), ({"at_least": 2, "at_most": 9}, 10)]
)
def test_queue_condition_listing_stops_when_result_is_certain(limits, stop_at):
    project = Project(1000)
    QueueCondition("Label", unassigned=True, **limits).look(project)
    assert project.asked == [("Label", True, stop_at)]


def test_queue_condition_by_listing_counts_assigned_tasks():
    project = Project(5)
    QueueCondition("Label", at_least=3, by_listing=True).look(project)
    assert project.asked == [("Label", False, 3)]


def test_queue_condition_unknown_stage_raises_input_error():
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
def test_left_stage_is_met_outside_of_queue(task, met):
    assert look([task], left_stage="Label").met is met


@pytest.mark.parametrize("name", ["Ground Truth", "Output", "END"])
def test_left_stage_accepts_all_names_of_ground_truth(name):
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
def test_reached_stage_is_met_in_stage_or_later(task, met):
    assert look([task], reached_stage="Review_1").met is met


@pytest.mark.parametrize("condition", [{"left_stage": "Labell"}, {"reached_stage": "Labell"}])
def test_tasks_condition_unknown_stage_raises_input_error(condition):
    with pytest.raises(err.RedBrickInputError, match="no stage 'Labell'; its stages are: Input, Label"):
        look([at("Label")], **condition)


def test_reached_stage_passed_through_raises_input_error():
    with pytest.raises(err.RedBrickInputError, match="only pass through Failed_Review_1"):
        look([at("Label")], reached_stage="Failed_Review_1")


def test_reached_stage_archived_task_raises_not_found():
    with pytest.raises(err.RedBrickNotFoundError, match="archived"):
        look([at("Review_2"), at("ARCHIVED", None)], reached_stage="Review_1")


@pytest.mark.parametrize("name", ["Ground Truth", "Output", "END"])
def test_reached_stage_accepts_all_names_of_ground_truth(name):
    assert look([at("Ground Truth", None)], reached_stage=name).met
    assert not look([at("Review_2")], reached_stage=name).met


def test_tasks_condition_requires_all_tasks_and_counts_stages():
    tasks = [at("Review_1"), at("Label"), at("Review_1")]
    assert look(tasks, left_stage="Label") == Poll(False, {"Label": 1, "Review_1": 2})


def test_tasks_condition_missing_task_raises_not_found():
    with pytest.raises(err.RedBrickNotFoundError):
        look([at("Review_1"), err.RedBrickNotFoundError("no such task")], left_stage="Label")


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        (QueueCondition("Label", at_least=3), "the queue of 'Label' to have at least 3 tasks"),
        (QueueCondition("QA", at_most=0), "the queue of 'QA' to have at most 0 tasks"),
        (
            QueueCondition("QA", at_least=1, at_most=5, unassigned=True),
            "the queue of 'QA' to have at least 1 and at most 5 unassigned tasks",
        ),
        (TasksCondition(["a"], left_stage="Label"), "1 task to leave 'Label'"),
        (TasksCondition(["a", "b"], reached_stage="END"), "2 tasks to reach 'END'"),
    ],
)
def test_condition_in_words_names_stage_and_threshold(condition, words):
    assert str(condition) == words


# ------------------------------------------------------------------ confirmation


def confirmed(*polls, settle_seconds=30.0):
    """Return for each poll, given as its time and whether it was met, whether it must be confirmed."""
    waiting = budget()
    return [waiting.must_confirm(Poll(met, 0), now=now, settle_seconds=settle_seconds) for now, met in polls]


def test_met_look_soon_after_the_start_must_be_confirmed_once():
    assert confirmed((0, True), (5, True), (6, True)) == [True, False, False]
    assert confirmed((0, False), (29, True), (34, True)) == [False, True, False]


def test_met_look_that_is_not_confirmed_must_be_confirmed_again():
    assert confirmed((0, True), (5, False), (10, True), (15, True)) == [True, False, True, False]


def test_met_look_after_what_a_read_may_lag_needs_no_confirmation():
    assert confirmed((0, False), (30, True)) == [False, False]
    assert confirmed((0, True), settle_seconds=0) == [False]


def test_met_look_that_must_be_confirmed_ends_a_row_of_failed_polls():
    waiting = budget()
    for _ in range(MAX_FAILED_POLLS - 1):
        assert waiting.after_error(err.RedBrickServerError("down", status=503), now=1.0) is None
    assert waiting.must_confirm(Poll(True, 50), now=2.0, settle_seconds=30.0)
    assert waiting.after_error(err.RedBrickServerError("down", status=503), now=3.0) is None


def test_pause_to_confirm_is_short():
    assert [budget().pause_to_confirm(interval) for interval in (0.5, 3600)] == [0.5, CONFIRM_AFTER_S]


# ------------------------------------------------------------------ failed polls and deadline


def budget(deadline=100.0, name="timeout"):
    return PollBudget(deadline=deadline, deadline_name=name, awaited=QueueCondition("Label", at_least=50))


def test_met_condition_after_deadline_is_success():
    found = budget().after(Poll(True, 7), now=200.0)
    assert found == {"version": 1, "status": "success", "seen": 7}


def test_unmet_condition_continues_until_deadline():
    assert budget().after(Poll(False, 7), now=99.9) is None
    found = budget(name="execution_timeout").after(Poll(False, 7), now=100.0)
    assert (found["status"], found["deadline"]) == ("timeout", "execution_timeout")
    assert "execution_timeout" in found["message"]


def test_failed_polls_end_the_wait_after_the_limit():
    waiting = budget()
    error = err.RedBrickServerError("down", status=503)
    events = [waiting.after_error(error, now=1.0) for _ in range(MAX_FAILED_POLLS)]
    assert events[:-1] == [None] * (MAX_FAILED_POLLS - 1)
    assert events[-1]["status"] == "error"
    assert f"{MAX_FAILED_POLLS} failed polls in a row. Last error: down" in events[-1]["message"]


def test_successful_poll_resets_failed_polls():
    waiting = budget()
    for _ in range(10):
        for _ in range(MAX_FAILED_POLLS - 1):
            assert waiting.after_error(err.RedBrickConnectionError("x"), now=1.0) is None
        assert waiting.after(Poll(False, 0), now=1.0) is None


@pytest.mark.parametrize(
    "error", [err.RedBrickAuthError("x"), err.RedBrickNotFoundError("x"), err.RedBrickInputError("x")], ids=repr
)
def test_permanent_error_ends_the_wait_at_once(error):
    found = budget().after_error(error, now=1.0)
    assert found["status"] == "error"
    assert "because of a permanent error: x" in found["message"]
    assert found["error"] == type(error).__name__


def test_timeout_names_condition_and_last_count():
    waiting = budget()
    waiting.after(Poll(False, 7), now=1.0)
    found = waiting.after(Poll(False, 12), now=100.0)
    assert "the queue of 'Label' to have at least 50 tasks. Last seen: 12 tasks." in found["message"]


def test_timeout_of_tasks_names_their_stages():
    found = budget().after(Poll(False, {"Label": 1, "Review_1": 2}), now=100.0)
    assert "Last seen: 1 in Label, 2 in Review_1." in found["message"]


def test_timeout_after_failed_poll_names_its_error():
    found = budget().after_error(err.RedBrickServerError("down", status=503), now=100.0)
    assert found["status"] == "timeout"
    assert "at least 50 tasks. No poll succeeded. The last poll failed: down" in found["message"]


def test_timeout_after_recovery_names_no_error():
    waiting = budget()
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
def test_limits_shorter_one_ends_the_wait(limits, name, seconds):
    assert (limits.name, limits.seconds) == (name, seconds)


def cancel_at(started_at: float, limits: Limits) -> float:
    """Return when Airflow cancels a trigger that it started itself, as in ``TaskInstance.defer_task``."""
    at = started_at + limits.seconds + START_BACKSTOP_S
    return at if limits.execution_timeout is None else min(at, started_at + limits.execution_timeout)


@pytest.mark.parametrize(
    "limits", [Limits(60.0), Limits(60.0, 90.0), Limits(60.0, 5_000.0), Limits(90.0, 60.0)], ids=repr
)
@pytest.mark.parametrize("now", [1_000.0, 1_030.0, 5_000.0])
def test_deadline_taken_over_by_another_triggerer_is_unchanged(limits, now):
    assert limits.deadline(cancel_at=cancel_at(1_000.0, limits), now=now) == 1_060.0


def test_deadline_without_trigger_timeout_starts_now():
    assert Limits(60.0).deadline(cancel_at=None, now=1_000.0) == 1_060.0


@pytest.mark.parametrize("status", ["success", "timeout", "error"])
def test_read_event_accepts_event_after_json_round_trip(status):
    value = {"version": 1, "status": status}
    assert read_event(json.loads(json.dumps(value))) == value


@pytest.mark.parametrize("value", [None, "success", [], {}, {"status": None}, {"status": "done"}, {"status": []}])
def test_read_event_invalid_payload_raises_input_error(value):
    with pytest.raises(err.RedBrickInputError, match="not understood"):
        read_event(value)
