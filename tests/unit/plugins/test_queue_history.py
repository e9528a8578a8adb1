"""What is kept of how long queues were."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from airflow_provider_redbrick.plugins import queue_history

NOW = 1_800_000_000
DAY = 86_400


def looked_at_every(seconds, *, days, length):
    """Return the history that is kept for frequent views and these queue lengths."""
    courses = {}
    for at in range(NOW - int(days * DAY), NOW + 1, seconds):
        courses = queue_history.add(courses, {"Label": length(at)}, now=at, days=7)
    return courses["Label"]


def test_the_first_and_the_last_look_are_kept():
    courses = queue_history.add({}, {"Label": 3}, now=NOW, days=7)
    courses = queue_history.add(courses, {"Label": 5}, now=NOW + 4, days=7)
    assert courses == {"Label": [(NOW, 3), (NOW + 4, 5)]}


def test_a_queue_that_does_not_change_takes_two_samples():
    kept = looked_at_every(600, days=2, length=lambda _: 7)
    assert kept == [(NOW - 2 * DAY, 7), (NOW, 7)]


def test_the_newer_the_denser_and_bounded():
    draw = random.Random(1)
    kept = looked_at_every(60, days=9, length=lambda _: draw.randint(0, 1000))
    assert 300 < len(kept) <= queue_history.MOST
    assert kept[0][0] >= NOW - 7 * DAY
    assert kept[-1][0] == NOW
    gaps = [after[0] - before[0] for before, after in pairwise(kept)]
    assert min(gaps[-10:]) == 60
    assert gaps[0] > 3600


def test_what_is_too_old_is_dropped():
    courses = {"Label": [(NOW - 8 * DAY, 1), (NOW - DAY, 2)]}
    assert queue_history.add(courses, {"Label": 3}, now=NOW, days=7) == {"Label": [(NOW - DAY, 2), (NOW, 3)]}


def test_a_stage_that_is_gone_is_forgotten():
    assert queue_history.add({"Old": [(NOW - 5, 1)]}, {"New": 2}, now=NOW, days=7) == {"New": [(NOW, 2)]}


@pytest.mark.parametrize(
    ("count", "later", "due"),
    [(3, 5, False), (3, 599, False), (3, 600, True), (4, 5, False), (4, 30, True)],
)
def test_it_is_written_when_something_changed_or_it_is_time(count, later, due):
    assert queue_history.is_due({"Label": [(NOW, 3)]}, {"Label": count}, now=NOW + later) is due


def test_another_stage_is_written_at_once():
    assert queue_history.is_due({}, {"Label": 1}, now=NOW)
    assert queue_history.is_due({"Label": [(NOW, 1)]}, {"Label": 1, "Review_1": 0}, now=NOW)


def test_what_is_written_is_read_again():
    courses = {"Label": [(NOW, 3), (NOW + 9, 4)], 'R"1': [(NOW, 0)]}
    assert queue_history.read(queue_history.written(courses)) == courses


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "null",
        "[]",
        "{",
        '{"stages": 3}',
        '{"stages": {"a": 3}}',
        '{"stages": {"a": [["x", 1]]}}',
        '{"stages": {"a": []}}',
    ],
)
def test_read_invalid_text_returns_empty_history(text):
    assert queue_history.read(text) == {}
