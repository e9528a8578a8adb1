"""Every example DAG, run by a real Airflow: by its own schedule where it has one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from urllib.parse import quote

import pendulum
import pytest
from airflow_versions import BEFORE_3_1
from sandbox_calls import ASSIGN, data

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(400)]

EXAMPLES = {
    file.stem
    for file in (Path(__file__).resolve().parents[3] / "example_dags").glob("*.py")
    if file.stem != "threshold_model"
}
HUGE_BOX = {"category": "finding", "bbox2d": {"xnorm": 0.05, "ynorm": 0.05, "wnorm": 0.9, "hnorm": 0.9}}
SMALL_BOX = {"category": "finding", "bbox2d": {"xnorm": 0.4, "ynorm": 0.4, "wnorm": 0.2, "hnorm": 0.2}}
BOX = {"pointTopLeft": {"xNorm": 0.4, "yNorm": 0.4}, "wNorm": 0.2, "hNorm": 0.2, "category": "finding"}


@pytest.fixture
def succeeds(running):
    """Run an example to its end, which is a good one."""

    def run(dag_id: str, conf: dict | None = None):
        ran = running(dag_id, conf).wait()
        assert ran.state == "success", ran.told()
        return ran

    return run


def test_all_can_be_read(airflow):
    def known() -> set[str]:
        return {dag["dag_id"] for dag in airflow.ask("dags?limit=200&exclude_stale=false")["dags"]}

    airflow.wait("known: all examples", lambda: known() >= EXAMPLES)
    assert airflow.ask("importErrors")["import_errors"] == []
    assert airflow.processes["dag-processor"].poll() is None


def test_prelabel_new_tasks(sandbox, succeeds):
    sandbox.seed_tasks(2, images=True)
    ran = succeeds("prelabel_new_tasks")
    assert ran.returned("prelabel")["counts"]["done"] == 2


def test_share_the_queue(sandbox, succeeds):
    sandbox.seed_tasks(3)
    assert succeeds("share_the_queue").returned("share")["counts"]["done"] == 3


def test_auto_review_when_long(sandbox, running, airflow):
    sandbox.seed_tasks(9, stage="Review_1", labels=[SMALL_BOX])
    run = running("auto_review_when_long")
    airflow.wait("waiting", lambda: run.states().get("wait_for_reviews") == "deferred", more=run.told)
    sandbox.seed_tasks(1, stage="Review_1", labels=[SMALL_BOX])
    assert run.wait().state == "success", run.told()
    assert run.returned("wait_for_reviews") == 10
    assert sandbox.count("END") == 10


def test_correct_ground_truth(sandbox, succeeds):
    day = pendulum.today("UTC").subtract(days=1)
    huge = sandbox.seed_tasks(1, ground_truth=True, updated_at=day.at(12).isoformat(), labels=[HUGE_BOX])
    sandbox.seed_tasks(1, ground_truth=True, updated_at=day.at(12).isoformat(), labels=[SMALL_BOX])
    assert succeeds("correct_ground_truth").returned("reopen")["task_ids"] == huge


def test_prelabel_in_parallel(sandbox, succeeds):
    sandbox.seed_tasks(2, images=True)
    assert succeeds("prelabel_in_parallel", {}).returned("prelabel", 0)["counts"]["done"] == 2


def test_new_studies(sandbox, succeeds, folder):
    studies = folder / "new-studies"
    studies.mkdir()
    shutil.copyfile(str(pytest.importorskip("pydicom.data").get_testdata_file("CT_small.dcm")), studies / "one.dcm")
    assert succeeds("new_studies").returned("upload")["counts"]["done"] == 1
    assert sandbox.count("Label") == 1


def test_export_ground_truth(sandbox, succeeds):
    ids = sandbox.seed_tasks(2, ground_truth=True, labels=[SMALL_BOX])
    exported = succeeds("export_ground_truth").returned("export")
    rows = [json.loads(line) for line in Path(exported["uri"]).read_text().splitlines()]
    assert [row["taskId"] for row in rows] == ids


def test_record_queues(airflow, sandbox, succeeds):
    sandbox.seed_tasks(2)
    run_id = quote(succeeds("record_queues").run_id)
    events = airflow.ask(f"assets/events?source_dag_id=record_queues&source_run_id={run_id}")["asset_events"]
    assert [event["extra"]["queues"]["Label"] for event in events] == [2]


def test_with_taskflow(sandbox, succeeds):
    sandbox.seed_tasks(2, images=True)
    ran = succeeds("with_taskflow", {})
    assert ran.returned("prelabel", 0)["counts"]["done"] == 2
    assert sum(ran.returned("review")["counts"].values()) == 2


def test_started_by_the_queue(sandbox, watching, runs):
    watching("started_by_the_queue")
    sandbox.seed_tasks(50, images=True)
    (run,) = runs("started_by_the_queue", at_least=1)
    assert run.wait().state == "success", run.told()
    assert run.returned("prelabel")["counts"]["done"] > 0


def test_active_learning(sandbox, watching, runs):
    watching("active_learning")
    sandbox.seed_tasks(2, stage="Review_1", labels=[SMALL_BOX])
    sandbox.humans("Review_1")
    run = runs("active_learning", at_least=1)[0]
    assert run.wait().state == "success", run.told()
    # By far not enough for a round.
    assert run.states() == {"export": "success", "enough": "success", "train": "skipped", "predict_again": "skipped"}


def test_labels_from_elsewhere(airflow, sandbox, running, folder):
    (task_id,) = sandbox.seed_tasks(1)
    row = {"name": sandbox.task(task_id)["name"], "series": [{"boundingBoxes": [BOX]}]}
    (folder / "labels.jsonl").write_text(json.dumps(row))
    run = running("labels_from_elsewhere", {})
    airflow.wait("put", lambda: sandbox.count("Review_1") == 1, more=run.told)
    sandbox.humans("Review_1")
    assert run.wait().state == "success", run.told()
    assert run.returned("reviewed") == {"Ground Truth": 1}


def test_nightly_quality_control(sandbox, succeeds):
    sandbox.seed_tasks(1, stage="Review_1", labels=[SMALL_BOX])
    sandbox.seed_tasks(2, stage="Review_1", labels=[])
    ran = succeeds("nightly_quality_control")
    assert ran.returned("review")["counts"]["done"] == 1
    assert ran.returned("share")["counts"]["done"] == 2


def test_consensus_project(airflow, sandbox, running):
    project = sandbox.add_project(consensus=True)
    (task_id,) = sandbox.seed_tasks(1, project_id=project, images=True, assignee="API key")
    data(sandbox, ASSIGN, p=project, ids=[task_id], emails=["alice@example.com"], me=False, refresh=False)
    run = running("consensus_project", {"project": project})
    airflow.wait("waiting", lambda: run.states().get("all_done") == "deferred", more=run.told)
    data(sandbox, ASSIGN, p=project, ids=[task_id], emails=["alice@example.com"], me=False)
    sandbox.humans("Label", 1, project_id=project)
    assert run.wait().state == "success", run.told()


@pytest.mark.skipif(BEFORE_3_1, reason="Airflow below 3.1 has no approvals")
def test_approve_corrections(airflow, sandbox, running):
    sandbox.seed_tasks(1, ground_truth=True, labels=[HUGE_BOX])
    run = running("approve_corrections", {})
    path = f"dags/approve_corrections/dagRuns/{run.run_id}/taskInstances/approve/-1/hitlDetails"
    # Airflow 3.3 has a state of its own for it.
    asked = {"deferred", "awaiting_input"}
    airflow.wait("waiting", lambda: run.states().get("approve") in asked, more=run.told)
    # To an answer before the worker has reported the end of its part, Airflow would have lost the task.
    airflow.wait("parked", lambda: is_parked(airflow, run))
    assert airflow.ask(path, {"chosen_options": ["Approve"]}, method="PATCH")
    assert run.wait().state == "success", run.told()
    assert sandbox.count("Label") == 1


def is_parked(airflow, run) -> bool:
    key = f"TaskInstanceKey(dag_id='approve_corrections', task_id='approve', run_id='{run.run_id}'"
    log = (airflow.home / "scheduler.log").read_text(errors="replace")
    return any("Received executor event with state success" in line for line in log.splitlines() if key in line)


@pytest.mark.skipif(not BEFORE_3_1, reason="only Airflow below 3.1 has no approvals")
def test_approve_corrections_says_what_it_needs(airflow, sandbox, running):
    sandbox.seed_tasks(1, ground_truth=True, labels=[HUGE_BOX])
    run = running("approve_corrections", {}).wait()
    assert run.states() == {
        "export": "success",
        "find_implausible": "success",
        "approve": "failed",
        "reopen": "upstream_failed",
    }
    assert "needs Airflow 3.1 or newer" in airflow.log("approve_corrections", run.run_id, "approve")
    assert sandbox.count("END") == 1
