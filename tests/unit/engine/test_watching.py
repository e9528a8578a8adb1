"""Tests of the events that watchers send and the state they keep."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pendulum
import pytest

from airflow_provider_redbrick import exceptions as err
from airflow_provider_redbrick.client.models.task import OutputEvent
from airflow_provider_redbrick.client.operations.task_reads import MARGIN
from airflow_provider_redbrick.engine.watching import (
    LAG,
    MOST_REMEMBERED,
    OVERLAP,
    Arrival,
    Arrivals,
    Backoff,
    announce_arrivals,
    evaluate_threshold,
    storable,
    watermark_of,
)

NOON = pendulum.datetime(2026, 3, 14, 12)
SETTLE = 30


def at(minutes: float) -> pendulum.DateTime:
    return NOON.add(seconds=round(minutes * 60))


def through_json(state):
    return json.loads(json.dumps(state))


# ------------------------------------------------------------------ thresholds


def watched(*counts, at_least=3, state=None, settle_seconds=30):
    """Return the looks at a queue, one a minute, that lead to an event, with its count."""
    events = []
    for number, count in enumerate(counts):
        options = {"read_at": at(number + 1), "settle_seconds": settle_seconds}
        result = evaluate_threshold(state, count, at_least=at_least, **options)
        state = through_json(result.state)
        events += [(number, event["count"]) for event in result.events]
    return events


@pytest.mark.parametrize(
    ("counts", "events"),
    [
        ((0, 2, 3, 4, 9), [(2, 3)]),
        ((0, 7, 7, 7), [(1, 7)]),
        ((0, 3, 2, 3), [(1, 3), (3, 3)]),
        ((0, 3, 0, 0, 5, 5), [(1, 3), (4, 5)]),
        ((0, 2, 0, 2), []),
        ((5, 5), [(0, 5)]),
    ],
)
def test_threshold_event_is_sent_once_and_again_after_falling_below(counts, events):
    assert watched(*counts) == events


def test_threshold_state_survives_restart():
    state = through_json(evaluate_threshold(None, 5, at_least=3, read_at=NOON, settle_seconds=30).state)
    assert watched(5, 6, state=state) == []
    assert watched(1, 6, state=state) == [(1, 6)]


@pytest.mark.parametrize("state", [{"above": True}, {"above": False}])
def test_threshold_state_of_an_earlier_release_is_accepted(state):
    assert watched(1, 5, state=state) == [(1, 5)]


def test_threshold_crossed_back_by_a_stale_read_is_not_announced_again():
    assert watched(2, 5, 2, 5, 5, settle_seconds=61) == [(1, 5)]


def test_threshold_crossed_back_for_longer_than_a_read_may_lag_is_announced_again():
    assert watched(2, 5, 2, 2, 5, 5, settle_seconds=61) == [(1, 5), (5, 5)]
    assert watched(2, 5, 2, 2, 2, 5, settle_seconds=61) == [(1, 5), (5, 5)]


# ------------------------------------------------------------------ ground truth


class Watch:
    """Watcher of ground truth that looks as the trigger does and stores its state as JSON."""

    def __init__(self):
        self.arrived: dict[str, tuple[pendulum.DateTime, pendulum.DateTime]] = {}
        self.state = None

    def arrives(self, task_id, minutes, *, shown_at=None):
        self.arrived[task_id] = (at(minutes), at(shown_at if shown_at is not None else minutes))

    def changes(self, task_id, minutes):
        self.arrived[task_id] = (self.arrived[task_id][0], at(minutes))

    def look(self, minutes, *, keep=True) -> list[str]:
        begin = watermark_of(self.state)
        seen = [
            Arrival(task_id, moment)
            for task_id, (moment, changed) in self.arrived.items()
            if changed <= at(minutes) and (begin is None or changed >= begin)
        ]
        result = announce_arrivals(self.state, seen, read_at=at(minutes), settle_seconds=SETTLE)
        if keep:
            self.state = through_json(result.state)
        return [task_id for event in result.events for task_id in event["task_ids"]]


@pytest.fixture
def watch():
    return Watch()


def test_task_present_before_first_look_is_not_announced(watch):
    watch.arrives("old", -60)
    assert [watch.look(minute) for minute in range(3)] == [[], [], []]


def test_task_present_at_first_look_is_not_announced_if_its_time_is_later(watch):
    """The server's time is known to within a second or two."""
    watch.arrived["old"] = (at(0.02), at(0))
    assert [watch.look(minute) for minute in range(3)] == [[], [], []]


def test_arrivals_are_announced_once_in_order(watch):
    watch.look(0)
    watch.arrives("b", 0.6)
    watch.arrives("a", 0.5)
    assert watch.look(1) == ["a", "b"]
    watch.arrives("c", 1.5)
    assert [watch.look(minute) for minute in (2, 3, 30, 31, 90)] == [["c"], [], [], [], []]


def test_arrival_visible_late_within_overlap_is_announced(watch):
    watch.look(0)
    watch.arrives("early", 5)
    assert watch.look(6) == ["early"]
    watch.arrives("late", 4, shown_at=7)
    assert watch.look(8) == ["late"]


def test_arrival_during_outage_is_announced_afterwards(watch):
    watch.look(0)
    watch.arrives("before", 1)
    watch.look(2)
    watch.arrives("meanwhile", 600)
    assert watch.look(3000) == ["meanwhile"]


def test_arrival_announced_without_stored_state_is_announced_again(watch):
    watch.look(0)
    watch.arrives("a", 1)
    assert watch.look(2, keep=False) == ["a"]
    assert watch.look(3) == ["a"]


@pytest.mark.parametrize("later", [2, 30, 120, 3000])
def test_changed_labels_are_not_announced(watch, later):
    """Otherwise a DAG that corrects ground truth would trigger itself endlessly."""
    watch.look(0)
    watch.arrives("a", 1)
    watch.arrives("b", 1)
    assert watch.look(1) == ["a", "b"]
    watch.changes("a", later)
    watch.arrives("c", later)
    assert watch.look(later) == ["c"]


def test_task_finished_again_after_reopening_is_announced_again(watch):
    watch.look(0)
    watch.arrives("a", 1)
    assert watch.look(2) == ["a"]
    watch.arrives("a", 3)
    assert [watch.look(4), watch.look(5)] == [["a"], []]


def test_many_arrivals_are_split_into_events_without_loss(watch):
    watch.look(0)
    ids = [f"task-{number:05}" for number in range(2_500)]
    seen = [Arrival(task_id, at(1)) for task_id in ids]
    result = announce_arrivals(watch.state, seen, read_at=at(2), settle_seconds=SETTLE)
    assert [event["count"] for event in result.events] == [1000, 1000, 500]
    assert [task_id for event in result.events for task_id in event["task_ids"]] == ids


def test_full_state_announces_nothing_twice_and_late_arrivals_once(watch):
    watch.look(0)
    for number in range(3 * MOST_REMEMBERED):
        watch.arrives(f"{number:036}", 4.5 + number / 10_000)
    assert len(watch.look(5)) == 3 * MOST_REMEMBERED
    watch.arrives("late", 4.4, shown_at=5.1)
    assert [watch.look(5.2), watch.look(5.3)] == [["late"], []]


def test_full_state_forgets_arrivals_before_what_can_be_late(watch):
    watch.look(0)
    for number in range(3 * MOST_REMEMBERED):
        watch.arrives(f"{number:036}", 1 + number / 10_000)
    watch.look(5)
    assert watch.look(6) == []
    assert len(watch.state["reported"]) < 2 * MOST_REMEMBERED


def test_stored_state_is_small_and_keeps_the_latest_arrivals(watch):
    watch.look(0)
    for number in range(3 * MOST_REMEMBERED):
        watch.arrives(f"{number:036}", 4.5 + number / 10_000)
    watch.look(5)
    stored = storable({**watch.state, "project_id": "p"})
    assert len(json.dumps(stored)) < 60_000
    assert (stored["since"], stored["project_id"]) == (watch.state["since"], "p")
    assert max(stored["reported"]) == f"{3 * MOST_REMEMBERED - 1:036}"
    assert storable({"above": True}) == {"above": True}


def test_state_of_release_1_0_0_announces_no_arrival_again(watch):
    watch.look(0)
    watch.arrives("a", 3)
    assert watch.look(4) == ["a"]
    watch.state = {"since": watch.state["since"], "told": watch.state["reported"]}
    assert watch.look(5) == []
    assert watch.state.keys() == {"since", "reported"}


def test_stale_events_of_an_earlier_arrival_are_not_announced(watch):
    watch.look(0)
    watch.arrives("a", 3)
    assert watch.look(4) == ["a"]
    watch.arrives("a", 2, shown_at=3)
    assert watch.look(5) == []


def test_watermark_moves_with_arrivals_and_seldom_without(watch):
    behind = OVERLAP + MARGIN + pendulum.duration(seconds=SETTLE)
    watch.look(0)
    first = watch.state
    assert watch.look(15) == []
    assert watch.state == first
    late = (behind + LAG).total_minutes() + 1
    watch.look(late)
    assert watermark_of(watch.state) == at(late) - behind
    watch.arrives("a", late + 20)
    watch.look(late + 21)
    assert watermark_of(watch.state) == at(late + 21) - behind
    assert list(watch.state["reported"]) == ["a"]


# ------------------------------------------------------------------ reading arrivals


class Project:
    """A project whose listing and events lag behind each other."""

    def __init__(self) -> None:
        self.updated: dict[str, float | None] = {}
        self.moved: dict[str, list[float]] = {}
        self.asked: list[list[str]] = []
        self.now = NOON
        clock = SimpleNamespace(now=lambda: self.now, error_s=0.0)
        self.client = SimpleNamespace(page_size=200, settle_seconds=SETTLE, clock=clock)
        self.arrivals = Arrivals()

    def stage(self, _name):
        return None

    def execute(self, _document, _variables):
        times = {task_id: None if updated is None else at(updated) for task_id, updated in self.updated.items()}
        entries = [{"taskId": i, "updatedAt": updated and updated.isoformat()} for i, updated in times.items()]
        return {"tasksPaged": {"entries": entries, "cursor": None}}

    def output_events(self, ids):
        self.asked.append(list(ids))
        return {i: [OutputEvent("Review_1", None, at(moved)) for moved in self.moved.get(i, [])] for i in ids}

    def look(self, minutes) -> list[tuple[str, float]]:
        self.now = at(minutes)
        arrivals = self.arrivals.look(self, NOON)
        return [(arrival.task_id, (arrival.at - NOON).total_seconds() / 60) for arrival in arrivals]


@pytest.fixture
def project():
    return Project()


def test_arrivals_events_are_read_once_per_version(project):
    project.updated, project.moved = {"a": 5}, {"a": [5]}
    assert [project.look(minutes) for minutes in (6, 7)] == [[("a", 5)]] * 2
    assert project.asked == [["a"], []]
    project.updated, project.moved = {"a": 8}, {"a": [5, 8]}
    assert project.look(9) == [("a", 8)]


def test_arrivals_late_events_are_read_again(project):
    """The listing shows that the task was finished again; its events show only that it was finished before."""
    project.updated, project.moved = {"a": 5}, {"a": [1]}
    assert project.look(5.1) == [("a", 1)]
    project.moved = {"a": [1, 5]}
    assert project.look(5.2) == [("a", 5)]


def test_arrivals_old_events_of_a_settled_version_are_read_once(project):
    """Its labels were changed, which is no arrival."""
    project.updated, project.moved = {"a": 5}, {"a": [1]}
    assert [project.look(minutes) for minutes in (5.5, 6.5, 7.5)] == [[("a", 1)]] * 3
    assert project.asked == [["a"], ["a"], []]


def test_arrivals_events_of_task_without_version_are_read_at_each_look(project):
    project.updated, project.moved = {"a": None}, {"a": [1]}
    project.look(5)
    project.moved = {"a": [1, 6]}
    assert project.look(60) == [("a", 6)]


# ------------------------------------------------------------------ backoff


def test_backoff_doubles_up_to_limit_without_end():
    backoff = Backoff(60.0)
    error = err.RedBrickServerError("down", status=503)
    assert [backoff.after_error(error) for _ in range(5)] == [60.0, 120.0, 240.0, 480.0, 900.0]
    assert {backoff.after_error(error) for _ in range(5_000)} == {900.0}
    assert backoff.after_success() == 5_005
    assert backoff.after_success() == 0
    assert backoff.after_error(error) == 60.0


@pytest.mark.parametrize("kind", [err.RedBrickAuthError, err.RedBrickNotFoundError, err.RedBrickInputError])
def test_backoff_permanent_error_uses_longest_pause(kind):
    assert Backoff(60.0).after_error(kind("x")) == 900.0
    assert Backoff(3600.0).after_error(kind("x")) == 3600.0


def test_backoff_has_minimum_pause():
    assert Backoff(0.01).after_error(err.RedBrickServerError("down", status=503)) == 1.0
