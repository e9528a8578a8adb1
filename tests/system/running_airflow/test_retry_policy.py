"""A running Airflow obeys the retry policy: it gives up at once where that is right, and comes back when it should."""

from __future__ import annotations

import json

import pytest
from sandbox_process import SandboxProcess

pytest.importorskip("airflow.sdk.definitions.retry_policy", reason="this Airflow has no retry policies")

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(300)]

# As often as one try asks before it leaves it to the next.
ASKED = 6


@pytest.fixture(scope="module")
def server(airflow):
    """Start a separate server with two Airflow connections, one of them with a wrong key."""
    with SandboxProcess() as sandbox:
        keys = {"redbrick_wrong_key": "wrong" * 8, "redbrick_limited": sandbox.api_key}
        for conn_id, key in keys.items():
            extra = json.dumps({"org_id": sandbox.org_id, "project_id": sandbox.project_id})
            body = {
                "connection_id": conn_id,
                "conn_type": "redbrick",
                "host": sandbox.url,
                "password": key,
                "extra": extra,
            }
            assert airflow.ask("connections", body)
        yield sandbox
        for conn_id in keys:
            airflow.ask(f"connections/{conn_id}", method="DELETE")


def run(airflow, dag_id: str) -> dict:
    """Run a DAG to its end; answers its task."""
    run_id = airflow.trigger(dag_id)
    path = f"dags/{dag_id}/dagRuns/{run_id}"
    airflow.wait(
        f"over: {dag_id}", lambda: (airflow.ask(path) or {}).get("state") in {"success", "failed"}, seconds=120
    )
    return airflow.instance(dag_id, run_id, "list")


def test_a_wrong_key_is_not_tried_again(airflow, server):
    task = run(airflow, "wrong_key")
    assert (task["state"], task["try_number"], task["max_tries"]) == ("failed", 1, 3)


def test_a_limit_is_waited_for_as_long_as_the_server_asks(airflow, server):
    """The server asks for a second; the task's own delay is an hour."""
    server.fault_once("rate_limit_after", "project", times=ASKED)
    task = run(airflow, "limited")
    assert (task["state"], task["try_number"]) == ("success", 2)
