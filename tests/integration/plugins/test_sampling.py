"""Background sampling of queue lengths."""

from __future__ import annotations

import logging

import pytest
from fixtures import eventually

from airflow_provider_redbrick.plugins import queue_history
from airflow_provider_redbrick.plugins.access import Choice
from airflow_provider_redbrick.plugins.queue_history import QueueSampler


@pytest.fixture
def kept(airflow, sandbox):
    """Return a project's stored history: ``kept(project_id)``."""
    from airflow.models.variable import Variable
    from airflow.utils.session import create_session
    from sqlalchemy import delete, select

    with create_session() as session:
        # The sandbox's projects have the same ids in each test.
        session.execute(delete(Variable))

    def read(project_id):
        with create_session() as session:
            found = session.scalar(select(Variable).where(Variable.key == f"redbrick_queues_{project_id}"))
            return queue_history.parse_history(found.get_val() if found is not None else None)

    return read


def sampling(*choices, minutes=60.0):
    return QueueSampler(choices, minutes=minutes, days=7)


def test_sample_all_stores_the_length_of_each_queue(sandbox, kept):
    project = sandbox.add_project()
    sandbox.seed_tasks(3, project_id=project)
    sampling(Choice("redbrick_default", project)).sample_all()
    found = {name: [count for _, count in samples] for name, samples in kept(project).items()}
    assert [found[name] for name in ("Label", "Review_1", "Ground Truth")] == [[3], [0], [0]]
    assert sandbox.stats()["requests"] == 2


def test_sampler_thread_stores_samples_until_stopped(sandbox, kept):
    project = sandbox.add_project()
    running = sampling(Choice("redbrick_default", project), minutes=0.001)
    running.start()
    eventually(lambda: kept(project))
    running.stop()


def test_unreadable_project_is_logged_once_and_others_are_sampled(sandbox, kept, caplog):
    project = sandbox.add_project()
    several = sampling(Choice("redbrick_gone"), Choice("redbrick_default", project))
    with caplog.at_level(logging.INFO):
        several.sample_all()
        several.sample_all()
    messages = [record.getMessage() for record in caplog.records if "redbrick_gone" in record.getMessage()]
    assert len([message for message in messages if "could not be counted" in message]) == 1
    assert kept(project)
    assert sandbox.api_key not in caplog.text
