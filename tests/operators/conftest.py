"""A running sandbox, and operators run against it as Airflow would run them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pendulum
import pytest
from sandbox_process import SandboxProcess


@pytest.fixture(scope="session")
def running_sandbox():
    with SandboxProcess() as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(running_sandbox, monkeypatch):
    """The sandbox, fresh, and known to Airflow as the default connection."""
    running_sandbox.reset()
    monkeypatch.setenv("AIRFLOW_CONN_REDBRICK_DEFAULT", running_sandbox.airflow_conn_uri)
    return running_sandbox


class Run:
    """One Airflow task in one DAG run: its tries share the run's start, as they do in Airflow."""

    def __init__(self, **context: Any) -> None:
        self.tries = 0
        self.xcoms: dict[str, Any] = {}
        self.started = pendulum.now("UTC")
        self.context = context

    def try_once(self, operator: Any) -> Any:
        """Execute an operator as this run's next try."""
        self.tries += 1
        self.xcoms.clear()
        task_instance = SimpleNamespace(
            try_number=self.tries, xcom_push=lambda key, value: self.xcoms.__setitem__(key, value)
        )
        dag_run = SimpleNamespace(start_date=self.started)
        return operator.execute({"ti": task_instance, "dag_run": dag_run, **self.context})


@pytest.fixture
def run():
    return Run()


BOX = {"pointTopLeft": {"xNorm": 0.1, "yNorm": 0.2}, "wNorm": 0.3, "hNorm": 0.4, "category": "finding"}


@pytest.fixture
def series():
    """Labels for a task, in the series format: one box."""
    return [{"boundingBoxes": [dict(BOX)]}]
