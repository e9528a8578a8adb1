"""Tests of the events that watchers send and the state they keep."""

from __future__ import annotations

import json

import pendulum
import pytest

from airflow_provider_redbrick import exceptions as err
from airflow_provider_redbrick.engine.watching import (
    LAG,
    MOST_REMEMBERED,
    OVERLAP,
    Arrival,
    Backoff,
    announce_arrivals,
    evaluate_threshold,
    watermark_of,
)

NOON = pendulum.datetime(2026, 3, 14, 12)


def at(minutes: float) -> pendulum.DateTime:
    return NOON.add(seconds=round(minutes * 60))


def through_json(state):
    return json.loads(json.dumps(state))


# ------------------------------------------------------------------ thresholds


def watched(*counts, at_least=3, state=None):
    """Return the looks at a queue that lead to an event, with its count."""
    events = []
    for number, count in enumerate(counts):
        result = evaluate_threshold(state, count, at_least=at_least)
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
    state = through_json(evaluate_threshold(None, 5, at_least=3).state)
    assert watched(5, 6, state=state) == []
    assert watched(1, 6, state=state) == [(1, 6)]


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
        result = announce_arrivals(self.state, seen, read_at=at(minutes))
        if keep:
            self.state = through_json(result.state)
        return [task_id for event in result.events for task_id in event["task_ids"]]


@pytest.fixture
def watch():
    return Watch()


def test_task_present_before_first_look_is_not_announced(watch):
    watch.arrives("old", -60)
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
    result = announce_arrivals(watch.state, seen, read_at=at(2))
    assert [event["count"] for event in result.events] == [1000, 1000, 500]
    assert [task_id for event in result.events for task_id in event["task_ids"]] == ids


def test_full_state_stays_small_and_repeats_no_announcement(watch):
    watch.look(0)
    for number in range(3 * MOST_REMEMBERED):
        watch.arrives(f"{number:036}", 1 + number / 1000)
    assert len(watch.look(5)) == 3 * MOST_REMEMBERED
    assert len(json.dumps(watch.state)) < 60_000
    watch.arrives("additional", 6)
    assert watch.look(7) == ["additional"]


def test_watermark_moves_with_arrivals_and_seldom_without(watch):
    watch.look(0)
    first = watch.state
    assert watch.look(15) == []
    assert watch.state == first
    late = (OVERLAP + LAG).total_minutes() + 1
    watch.look(late)
    assert watermark_of(watch.state) == at(late) - OVERLAP
    watch.arrives("a", late + 20)
    watch.look(late + 21)
    assert watermark_of(watch.state) == at(late + 21) - OVERLAP
    assert list(watch.state["told"]) == ["a"]


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
