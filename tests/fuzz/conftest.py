"""A sandbox behind a server that meddles, and a client with no patience."""

from __future__ import annotations

import pytest
from fixtures import running_sandbox
from fuzz.asking import GOOD
from fuzz.meddler import Meddler
from tiny_server import TinyServer

from airflow_provider_redbrick.client.transport.retry import RetryPolicy

__all__ = ["running_sandbox"]


def pytest_collection_modifyitems(items):
    """Suppress hypothesis's health checks for long values, which are intended."""
    for item in items:
        if item.path.parent.name == "fuzz":
            item.add_marker(pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisWarning"))


@pytest.fixture(scope="session")
def running_meddler(running_sandbox):
    with Meddler(running_sandbox) as meddler:
        yield meddler


@pytest.fixture(scope="session")
def server():
    """A server that returns the prepared ``replies``."""
    with TinyServer(GOOD) as server:
        yield server


@pytest.fixture
def hasty(monkeypatch):
    """Try twice, at once."""
    policy = RetryPolicy(max_attempts=2, base=0.0, cap=0.0, retry_after_cap=0.01)
    monkeypatch.setattr("airflow_provider_redbrick.client.transport.retry.RetryPolicy", lambda **_: policy)


@pytest.fixture
def meddler(running_meddler, monkeypatch, hasty):
    """The server that meddles, known to Airflow as the default connection."""
    monkeypatch.setenv("AIRFLOW_CONN_REDBRICK_DEFAULT", running_meddler.connection)
    return running_meddler
