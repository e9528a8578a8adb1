"""Decorated functions in a running Airflow: found through the provider's info, mapped, and told what others return."""

from __future__ import annotations

import pytest
from chaos.works import PUT, REVIEW

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(300)]


def test_a_queue_is_labelled_in_chunks_and_then_reviewed(airflow):
    server = airflow.sandbox
    project = server.add_project()
    ids = server.seed_tasks(8, project_id=project, prefix="scan")
    run = airflow.trigger("decorated", project=project)
    path = f"dags/decorated/dagRuns/{run}"
    airflow.wait(
        "over: decorated", lambda: (airflow.ask(path) or {}).get("state") in {"success", "failed"}, seconds=120
    )
    tasks = airflow.ask(f"{path}/taskInstances")["task_instances"]
    assert {task["state"] for task in tasks} == {"success"}, tasks
    assert sorted(task["map_index"] for task in tasks if task["task_id"] == "label") == [0, 1, 2]
    assert {task["operator_name"] for task in tasks} >= {"@task.redbrick_prelabel", "@task.redbrick_auto_review"}
    assert {task_id: times for task_id, times in server.applied(PUT).items() if task_id in ids} == dict.fromkeys(ids, 1)
    accepted = server.applied(REVIEW).keys() & set(ids)
    assert len(accepted) == server.count("END", project_id=project) == 4
    assert server.count("Review_1", project_id=project) == 4
