"""Tests of the stored queue history."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from airflow_provider_redbrick.plugins import queue_history

NOW = 1_800_000_000
DAY = 86_400


def sampled_every(seconds, *, days, length):
    """Return the history of a queue that is sampled every few seconds.

    :param seconds: seconds between two samples.
    :param days: the period.
    :param length: the queue's length as a function of time.
    """
    history = {}
    for at in range(NOW - int(days * DAY), NOW + 1, seconds):
        history = queue_history.add_sample(history, {"Label": length(at)}, now=at, days=7)
    return history["Label"]


def test_add_sample_keeps_first_and_last():
    history = queue_history.add_sample({}, {"Label": 3}, now=NOW, days=7)
    history = queue_history.add_sample(history, {"Label": 5}, now=NOW + 4, days=7)
    assert history == {"Label": [(NOW, 3), (NOW + 4, 5)]}


def test_constant_queue_takes_two_samples():
    kept = sampled_every(600, days=2, length=lambda _: 7)
    assert kept == [(NOW - 2 * DAY, 7), (NOW, 7)]


def test_samples_thin_out_with_age_and_are_limited():
    draw = random.Random(1)
    kept = sampled_every(60, days=9, length=lambda _: draw.randint(0, 1000))
    assert 300 < len(kept) <= queue_history.MAX_SAMPLES
    assert kept[0][0] >= NOW - 7 * DAY
    assert kept[-1][0] == NOW
    gaps = [after[0] - before[0] for before, after in pairwise(kept)]
    assert min(gaps[-10:]) == 60
    assert gaps[0] > 3600


def test_add_sample_drops_old_samples():
    history = {"Label": [(NOW - 8 * DAY, 1), (NOW - DAY, 2)]}
    assert queue_history.add_sample(history, {"Label": 3}, now=NOW, days=7) == {"Label": [(NOW - DAY, 2), (NOW, 3)]}


def test_add_sample_drops_removed_stages():
    assert queue_history.add_sample({"Old": [(NOW - 5, 1)]}, {"New": 2}, now=NOW, days=7) == {"New": [(NOW, 2)]}


@pytest.mark.parametrize(
    ("count", "later", "due"),
    [(3, 5, False), (3, 599, False), (3, 600, True), (4, 5, False), (4, 30, True)],
)
def test_is_due_after_change_or_long_interval(count, later, due):
    assert queue_history.is_due({"Label": [(NOW, 3)]}, {"Label": count}, now=NOW + later) is due


def test_is_due_when_stages_change():
    assert queue_history.is_due({}, {"Label": 1}, now=NOW)
    assert queue_history.is_due({"Label": [(NOW, 1)]}, {"Label": 1, "Review_1": 0}, now=NOW)


def test_serialized_history_is_parsed_unchanged():
    history = {"Label": [(NOW, 3), (NOW + 9, 4)], 'R"1': [(NOW, 0)]}
    assert queue_history.parse_history(queue_history.serialize_history(history)) == history


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
def test_parse_history_of_invalid_text_is_empty(text):
    assert queue_history.parse_history(text) == {}
