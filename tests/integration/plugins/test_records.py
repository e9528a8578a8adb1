"""Tests of the queue history in Airflow's own database."""

from __future__ import annotations

import uuid

import pytest


@pytest.fixture
def samples(airflow, sandbox):
    """Return a project's recorded queue lengths, without their times: ``samples(project_id)``."""
    from airflow_provider_redbrick.plugins.records import list_samples

    def read(project_id):
        history = list_samples(sandbox.org_id, project_id)
        assert all(stamps == sorted(stamps) for stamps in ([at for at, _ in each] for each in history.values()))
        return {stage_name: [count for _, count in each] for stage_name, each in history.items()}

    return read


def test_list_samples_has_a_project_by_stage_oldest_first(samples, record_queues):
    project, other = str(uuid.uuid4()), str(uuid.uuid4())
    record_queues(project, {"Label": 5, "Ground Truth": 2}, hours_ago=1)
    record_queues(project, {"Label": 3}, hours_ago=3)
    record_queues(other, {"Label": 9})
    assert samples(project) == {"Label": [3, 5], "Ground Truth": [2]}
    assert samples(str(uuid.uuid4())) == {}


def test_list_samples_is_limited_to_seven_days(samples, record_queues):
    project = str(uuid.uuid4())
    record_queues(project, {"Label": 1}, hours_ago=24 * 7 + 1)
    record_queues(project, {"Label": 2}, hours_ago=24 * 7 - 1)
    assert samples(project) == {"Label": [2]}


@pytest.mark.parametrize(
    "extra",
    [
        {"operation": "prelabel", "counts": {"done": 3}},
        {"from_trigger": True, "payload": {"count": 50, "at_least": 50}},
        {"queues": None},
        {"queues": [["Label", 3]]},
        {"queues": {"Label": "3", "Review_1": None, "a": True, "b": -1, "c": 1.5, "d": {"e": 1}}},
    ],
)
def test_other_events_of_the_asset_are_no_samples(samples, record_queues, extra):
    project = str(uuid.uuid4())
    record_queues(project, {"Label": 4}, hours_ago=1)
    record_queues(project, {}, extra=extra)
    assert samples(project) == {"Label": [4]}
