"""Tests of the memory of versions in the overlap of two watermarks."""

from __future__ import annotations

import json

import pendulum
import pytest

from airflow_provider_redbrick.client.models.task import Task
from airflow_provider_redbrick.engine.overlap import Overlap, get_version

NOON = pendulum.datetime(2026, 3, 14, 12)


def at(seconds: float) -> pendulum.DateTime:
    return NOON.add(seconds=seconds)


def overlap(**versions: float) -> Overlap:
    return Overlap({task_id: at(seconds) for task_id, seconds in versions.items()})


@pytest.mark.parametrize(("seconds", "is_new"), [(9, False), (10, False), (10.000001, True), (11, True)])
def test_is_new_of_known_task_needs_a_newer_version(seconds, is_new):
    """An older version comes from a stale read: the newer one was read before."""
    assert overlap(a=10).is_new("a", at(seconds)) is is_new


def test_is_new_of_unknown_task_or_version_is_true():
    assert overlap(a=10).is_new("b", at(1))
    assert overlap(a=10).is_new("a", None)


def test_add_keeps_the_newest_version():
    known = Overlap()
    for seconds in (5, 7, 6):
        known.add("a", at(seconds))
    known.add("a", None)
    assert known.to_json() == overlap(a=7).to_json()


def test_union_keeps_the_newest_versions_and_changes_neither():
    one, other = overlap(a=1, b=5), overlap(b=4, c=3)
    assert one.union(other).to_json() == overlap(a=1, b=5, c=3).to_json()
    assert (len(one), len(other)) == (2, 2)


def test_since_includes_the_watermark():
    assert overlap(a=9, b=10, c=11).since(at(10)).to_json() == overlap(b=10, c=11).to_json()


def test_within_leaves_out_what_the_other_read_lacks_or_has_older():
    read = overlap(same=1, newer=5, older=2)
    assert overlap(same=1, newer=4, older=3, absent=1).within(read).to_json() == overlap(same=1, newer=4).to_json()


def test_newest_forgets_the_oldest_versions():
    assert overlap(a=3, b=1, c=2).newest(2).to_json() == overlap(c=2, a=3).to_json()
    assert len(overlap(a=3, b=1).newest(2)) == 2


def test_json_round_trip_keeps_microseconds():
    known = Overlap({"a": NOON.add(microseconds=1)})
    again = Overlap.from_json(json.loads(json.dumps(known.to_json())))
    assert not again.is_new("a", NOON.add(microseconds=1))
    assert again.is_new("a", NOON.add(microseconds=2))


@pytest.mark.parametrize("value", [None, [], "a", 5, {"a": None}, {"a": "soon"}, {"a": 5}])
def test_from_json_of_anything_else_is_empty(value):
    """What is forgotten is read again, so nothing is lost."""
    assert len(Overlap.from_json(value)) == 0


@pytest.mark.parametrize(
    ("updated", "labeled", "version"), [(3, None, 3), (3, 2, 3), (3, 4, 4), (None, 4, None), (None, None, None)]
)
def test_version_is_the_newer_of_both_times_or_unknown(updated, labeled, version):
    times = {"updated_at": updated, "labels_at": labeled}
    task = Task("a", **{name: None if seconds is None else at(seconds) for name, seconds in times.items()})
    assert get_version(task) == (None if version is None else at(version))
