"""What a running Airflow tells others of the work: lineage by its OpenLineage listener, and metrics."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def ran(airflow):
    """A run that is over, in which one task failed; answers its project."""
    server = airflow.sandbox
    project = server.add_project()
    server.seed_tasks(10, project_id=project, prefix="model", assignee="alice@example.com")
    server.seed_tasks(20, project_id=project)
    server.seed_tasks(1, project_id=project, prefix="wrong", assignee="alice@example.com")
    run = airflow.trigger("observed", project=project)

    def states() -> dict[str, str]:
        found = airflow.ask(f"dags/observed/dagRuns/{run}/taskInstances")["task_instances"]
        return {instance["task_id"]: instance["state"] for instance in found}

    airflow.wait("over", lambda: set(states().values()) <= {"success", "failed", "upstream_failed"})
    assert states() == {"queue": "success", "model": "success", "submit": "success", "wrong": "failed"}, airflow.log(
        "observed", run, "model"
    )
    return project


def events(lineage, project: str) -> dict[tuple[str, str], dict[str, Any]]:
    """What was written of the tasks, by task and kind of event."""
    found = [json.loads(path.read_text()) for path in lineage.iterdir()]
    about = {(event["job"]["name"], event["eventType"]): event for event in found if project in json.dumps(event)}
    return {(name.removeprefix("observed."), kind): event for (name, kind), event in about.items()}


def test_lineage_events_hold_the_stages_and_what_was_done(airflow, ran, lineage):
    project, org = ran, f"redbrick://{airflow.sandbox.org_id}"
    expected = {(task, kind) for task in ("queue", "model", "submit") for kind in ("START", "COMPLETE")}
    expected |= {("wrong", "START"), ("wrong", "FAIL")}
    # Airflow has sent them off before it calls a task ended, but for the last ones.
    airflow.wait("told", lambda: expected <= events(lineage, project).keys())
    told = events(lineage, project)

    def sets(task: str, kind: str, side: str) -> list[tuple[str, str]]:
        return [(each["namespace"], each["name"]) for each in told[task, kind][side]]

    label, review = (org, f"{project}/Label"), (org, f"{project}/Review_1")
    assert sets("submit", "START", "inputs") == [label]
    assert sets("submit", "COMPLETE", "inputs") == [label]
    assert sets("submit", "COMPLETE", "outputs") == [review]
    assert sets("wrong", "FAIL", "outputs") == [review]
    facets = {task: told[task, "COMPLETE"]["run"]["facets"]["redbrick"] for task in ("queue", "model", "submit")}
    assert facets["submit"]["counts"]["done"] == 18
    assert facets["submit"]["counts"]["skipped"] == 2
    assert facets["model"]["model"] == {"name": "lungs", "version": "2.1"}
    assert facets["queue"]["counts"] == {"tasks": 10}
    assert told["wrong", "FAIL"]["run"]["facets"]["redbrick"]["counts"]["failed"] == 1
    (output,) = told["submit", "COMPLETE"]["outputs"]
    assert output["outputFacets"]["outputStatistics"]["rowCount"] == 18
    assert airflow.sandbox.api_key not in json.dumps(list(told.values()))


def test_metrics_hold_requests_and_outcomes(airflow, ran, metrics):
    def total(name: str, kind: str = "c", **tags: str) -> float:
        wanted = {f"{key}={value}" for key, value in tags.items()}
        return sum(value for (found, has), value in metrics.sums(kind).items() if found == name and wanted <= has)

    # Others of this Airflow count too.
    assert total("redbrick.tasks.done", operation="prelabel") >= 9 + 18
    assert total("redbrick.tasks.failed", operation="put_labels") >= 1
    assert total("redbrick.requests", operation="putManualLabelingTaskAndLabels", answer="ok") >= 1
    assert total("redbrick.request.duration", "ms", operation="putManualLabelingTaskAndLabels") > 0
    assert total("redbrick.run.duration", "ms", operation="prelabel") > 0
