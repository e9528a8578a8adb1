"""Background sampling of queue lengths."""

from __future__ import annotations

import logging

import pytest
from fixtures import eventually

from airflow_provider_redbrick.plugins import queue_history
from airflow_provider_redbrick.plugins.access import Choice
from airflow_provider_redbrick.plugins.queue_history import QueueSampler

OURS = Choice("redbrick_default")


@pytest.fixture
def kept(airflow, sandbox):
    """What is kept of a project's queues: ``kept(project_id)``."""
    from airflow.models.variable import Variable
    from airflow.utils.session import create_session
    from sqlalchemy import delete, select

    with create_session() as session:
        # A sandbox's projects have the same ids in each test.
        session.execute(delete(Variable))

    def read(project_id):
        with create_session() as session:
            found = session.scalar(select(Variable).where(Variable.key == f"redbrick_queues_{project_id}"))
            return queue_history.read(found.get_val() if found is not None else None)

    return read


def sampling(*choices, minutes=60.0):
    return QueueSampler(choices, minutes=minutes, days=7)


def test_a_look_keeps_the_length_of_each_queue(sandbox, kept):
    project = sandbox.add_project()
    sandbox.seed_tasks(3, project_id=project)
    sampling(Choice("redbrick_default", project)).look()
    found = {name: [count for _, count in course] for name, course in kept(project).items()}
    assert [found[name] for name in ("Label", "Review_1", "Ground Truth")] == [[3], [0], [0]]
    assert sandbox.stats()["requests"] == 2


def test_it_looks_by_itself_and_stops(sandbox, kept):
    project = sandbox.add_project()
    running = sampling(Choice("redbrick_default", project), minutes=0.001)
    running.start()
    eventually(lambda: kept(project))
    running.stop()


def test_a_project_that_cannot_be_counted_is_told_once_and_hurts_no_other(sandbox, kept, caplog):
    project = sandbox.add_project()
    several = sampling(Choice("redbrick_gone"), Choice("redbrick_default", project))
    with caplog.at_level(logging.INFO):
        several.look()
        several.look()
    said = [record.getMessage() for record in caplog.records if "redbrick_gone" in record.getMessage()]
    assert len([words for words in said if "could not be counted" in words]) == 1
    assert kept(project)
    assert sandbox.api_key not in caplog.text
