"""Sensors and watchers in a real triggerer, beside a trigger of another team."""

from __future__ import annotations

import pytest
from pydicom.data import get_testdata_file

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(400)]

SENSORS = 4


def is_alive(airflow) -> bool:
    """Whether the triggerer has lived on, and the process in it that has all triggers."""
    log = (airflow.home / "triggerer.log").read_text(errors="replace")
    return airflow.processes["triggerer"].poll() is None and "out of order" not in log


def test_sensors_that_defer_together_leave_the_triggerer_alive(airflow, sandbox, running):
    projects = [sandbox.add_project() for _ in range(SENSORS)]
    ids = [sandbox.seed_tasks(1, project_id=project)[0] for project in projects]
    run = running("waiting", {"projects": projects, "ids": ids})
    ours = [f"{kind}_{number}" for kind in ("queue", "tasks") for number in range(SENSORS)]

    def are_waiting() -> bool:
        states = run.states()
        return {states.get(task_id) for task_id in ours} == {"deferred"}

    airflow.wait("waiting", are_waiting, seconds=200, more=run.told)
    for project in projects:
        sandbox.humans("Label", project_id=project)
    run.wait(seconds=200)
    assert is_alive(airflow), airflow.words()
    assert run.states() == dict.fromkeys(run.states(), "success"), run.told()
    assert [run.returned(f"queue_{number}") for number in range(SENSORS)] == [1] * SENSORS
    assert [run.returned(f"tasks_{number}") for number in range(SENSORS)] == [{"Review_1": 1}] * SENSORS


def test_watchers_start_runs(airflow, sandbox, watching, runs):
    sandbox.seed_tasks(2)
    sandbox.seed_tasks(2, ground_truth=True)
    watching("watching")
    assert runs("watching") == []
    sandbox.seed_tasks(2)
    (first,) = runs("watching", at_least=1)
    (event,) = first.wait().returned("tell")
    assert event["payload"]["stage_name"] == "Label"
    assert (event["payload"]["count"], event["payload"]["at_least"]) == (4, 3)
    (new,) = sandbox.seed_tasks(1, stage="Review_1")
    sandbox.humans("Review_1")
    _, second = runs("watching", at_least=2)
    (event,) = second.wait().returned("tell")
    assert event["payload"]["task_ids"] == [new]
    assert is_alive(airflow), airflow.words()


def test_each_output_of_a_manifest(sandbox, running, tmp_path):
    project = sandbox.add_project()
    image = str(get_testdata_file("CT_small.dcm"))
    run = running("multiple_outputs", {"project": project, "folder": str(tmp_path), "image": image}).wait()
    assert run.state == "success", run.told()
    assert len(run.returned("tell")["ids"]) == 1
    assert run.returned("tell") == {
        "ids": run.returned("upload")["task_ids"],
        "report": None,
        "uri": f"{tmp_path}/tasks.jsonl",
        "masks_uri": None,
    }
