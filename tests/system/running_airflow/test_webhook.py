"""RedBrick's webhook wakes a DAG in a running Airflow."""

from __future__ import annotations

import uuid

import pytest
from airflow_processes import WEBHOOK_SECRET

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(300)]

DAG = "woken_by_webhook"


def message(server, *task_ids, event_id=None):
    data = {"orgId": server.org_id, "projectId": server.project_id, "stageName": "END"}
    events = [
        {"event": "TASK_ENTERED_STAGE", "id": event_id or str(uuid.uuid4()), "data": {**data, "taskId": task_id}}
        for task_id in task_ids
    ]
    return {"version": "v1.0", "events": len(events), "payload": events}


def test_a_task_that_entered_ground_truth_starts_a_run(airflow):
    server = airflow.sandbox
    (labelled,) = server.seed_tasks(1)
    finished, later = server.seed_tasks(2, ground_truth=True)

    def send(body, secret=WEBHOOK_SECRET) -> int:
        return airflow.http.post(f"{airflow.url}/redbrick-webhook/{secret}", json=body, timeout=20).status_code

    def told() -> list[dict]:
        """What the webhook has told the DAG's runs, all of it."""
        found = []
        for run in (airflow.ask(f"dags/{DAG}/dagRuns") or {}).get("dag_runs", []):
            path = f"dags/{DAG}/dagRuns/{run['dag_run_id']}/taskInstances/tell/xcomEntries/return_value"
            found += [extra for extra in (airflow.ask(path) or {}).get("value", []) if extra.get("from_webhook")]
        return [extra["payload"] for extra in found]

    airflow.wait("known: the DAG", lambda: airflow.ask(f"dags/{DAG}"))
    assert send(message(server, finished), "f" * len(WEBHOOK_SECRET)) == 404
    # It says that a task is finished which is not.
    assert send(message(server, labelled)) == 202
    real = message(server, finished)
    assert send(real) == 202
    airflow.wait("woken", lambda: len(told()) == 1)
    assert told()[0]["task_ids"] == [finished]
    assert told()[0]["stage_name"] == "Ground Truth"
    assert told()[0]["count"] == server.count("END")
    # The same again is nothing; what comes after it shows that there was time for it.
    assert send(real) == 202
    assert send(message(server, later)) == 202
    airflow.wait("woken again", lambda: len(told()) > 1)
    assert [each["task_ids"] for each in sorted(told(), key=lambda each: each["task_ids"] != [finished])] == [
        [finished],
        [later],
    ]
    log = (airflow.home / "api-server.log").read_text(errors="replace")
    assert "redbrick-webhook" in log
    assert WEBHOOK_SECRET not in log
