"""Airflow metrics of requests and runs, as sent to a StatsD server."""

from __future__ import annotations

import pytest
from airflow.providers.common.compat.sdk import Stats
from fixtures import eventually
from label_samples import BOX
from statsd_server import StatsdServer

from airflow_provider_redbrick.exceptions import RedBrickTasksFailedError
from airflow_provider_redbrick.hooks.redbrick import RedBrickHook
from airflow_provider_redbrick.operators.prelabel import RedBrickPrelabelOperator


@pytest.fixture
def metrics(monkeypatch):
    """A StatsD server that receives Airflow's metrics."""
    statsd = pytest.importorskip("airflow.sdk.observability.metrics.statsd_logger")
    nowhere = pytest.importorskip("airflow.sdk._shared.observability.metrics.base_stats_logger").NoStatsLogger
    with StatsdServer() as server:
        for name, value in server.settings.items():
            monkeypatch.setenv(name, value)
        Stats.initialize(factory=statsd.get_statsd_logger, export_legacy_names=False)
        yield server
        Stats.initialize(factory=nowhere, export_legacy_names=True)


def counted(metrics, name: str, **tags: str) -> float:
    wanted = {f"{key}={value}" for key, value in tags.items()}
    return sum(value for (found, has), value in metrics.sums("c").items() if found == name and wanted <= has)


def timed(metrics, name: str, **tags: str) -> float | None:
    wanted = {f"{key}={value}" for key, value in tags.items()}
    found = [value for (found, has), value in metrics.sums("ms").items() if found == name and wanted <= has]
    return sum(found) if found else None


def test_requests_retries_and_waits_are_counted(sandbox, quick, metrics):
    sandbox.fault_once("rate_limit", "me", times=2)
    RedBrickHook().client.me()
    sandbox.fault_once("http_503", "me")
    RedBrickHook().client.me()
    eventually(lambda: counted(metrics, "redbrick.requests", operation="me", answer="ok") == 2)
    assert counted(metrics, "redbrick.requests", operation="me", answer="rate_limit") == 2
    assert counted(metrics, "redbrick.requests", operation="me") == 5
    assert counted(metrics, "redbrick.retries", operation="me", reason="rate_limit") == 2
    assert counted(metrics, "redbrick.retries", operation="me", reason="server") == 1
    assert timed(metrics, "redbrick.request.duration", operation="me") > 0
    assert timed(metrics, "redbrick.rate_limit.wait") is not None


def test_failed_run_counts_tasks_by_status(sandbox, run, metrics):
    sandbox.seed_tasks(10)

    def labeler(task):
        number = int(task.name[-1])
        if number == 1:
            raise RuntimeError
        return None if number == 2 else [{"boundingBoxes": [BOX]}]

    with pytest.raises(RedBrickTasksFailedError):
        run.try_once(RedBrickPrelabelOperator(task_id="t", stage_name="Label", labeler=labeler))
    eventually(lambda: timed(metrics, "redbrick.run.duration", operation="prelabel") is not None)
    statuses = ("done", "skipped", "failed", "unknown")
    assert [counted(metrics, f"redbrick.tasks.{status}") for status in statuses] == [8, 1, 1, 0]
    assert counted(metrics, "redbrick.tasks.done", operation="prelabel") == 8
