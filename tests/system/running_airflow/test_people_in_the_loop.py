"""People in a running Airflow: an approval before anything is reopened, and messages with live queues."""

from __future__ import annotations

import airflow.sdk
import message_file
import pytest
from airflow_versions import BEFORE_3_1
from chaos.works import REOPEN

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(300)]

DAG = "approve_corrections"
HUGE_BOX = {"category": "finding", "bbox2d": {"xnorm": 0.05, "ynorm": 0.05, "wnorm": 0.9, "hnorm": 0.9}}
SMALL_BOX = {"category": "finding", "bbox2d": {"xnorm": 0.4, "ynorm": 0.4, "wnorm": 0.2, "hnorm": 0.2}}


class Asked:
    """Return a run of the example DAG that waits for an approval."""

    def __init__(self, airflow, folder) -> None:
        self.airflow, self.server = airflow, airflow.sandbox
        self.project = self.server.add_project()
        self.wrong = self.server.seed_tasks(3, project_id=self.project, ground_truth=True, labels=[HUGE_BOX])
        self.right = self.server.seed_tasks(2, project_id=self.project, ground_truth=True, labels=[SMALL_BOX])
        self.run = airflow.trigger(DAG, project_id=self.project, folder=str(folder))
        self.path = f"dags/{DAG}/dagRuns/{self.run}/taskInstances/approve/-1/hitlDetails"
        airflow.wait("asked", lambda: self.question().get("subject") and self.is_parked())

    def question(self) -> dict:
        return dict(self.airflow.ask(self.path) or {})

    def is_parked(self) -> bool:
        """Whether the scheduler knows that the first half is over: to an answer before that it would be a lost task."""
        key = f"TaskInstanceKey(dag_id='{DAG}', task_id='approve', run_id='{self.run}'"
        log = (self.airflow.home / "scheduler.log").read_text(errors="replace")
        return any("Received executor event with state success" in line for line in log.splitlines() if key in line)

    def answer(self, word: str) -> None:
        assert self.airflow.ask(self.path, {"chosen_options": [word]}, method="PATCH")
        self.airflow.wait("over", lambda: self.state() in {"success", "failed"})

    def state(self) -> str:
        return (self.airflow.ask(f"dags/{DAG}/dagRuns/{self.run}") or {}).get("state")

    def state_of(self, task_id: str) -> str:
        return self.airflow.instance(DAG, self.run, task_id)["state"]

    def reopened(self) -> dict[str, int]:
        mine = {*self.wrong, *self.right}
        return {task_id: times for task_id, times in self.server.applied(REOPEN).items() if task_id in mine}


@pytest.mark.skipif(BEFORE_3_1, reason="this Airflow has no approvals")
def test_what_is_approved_is_reopened_and_nothing_before(airflow, tmp_path):
    asked = Asked(airflow, tmp_path)
    question = asked.question()
    assert question["subject"] == "Reopen 3 ground-truth tasks?"
    assert "3 of 5 tasks" in question["body"]
    assert f"{airflow.sandbox.url}/?project={asked.project}" in question["body"]
    assert any(task_id in question["body"] for task_id in asked.wrong)
    assert not any(task_id in question["body"] for task_id in asked.right)
    assert asked.reopened() == {}
    asked.answer("Approve")
    assert (asked.state(), asked.state_of("reopen")) == ("success", "success")
    assert asked.reopened() == dict.fromkeys(asked.wrong, 1)
    assert airflow.sandbox.count("Label", project_id=asked.project) == 3


@pytest.mark.skipif(BEFORE_3_1, reason="this Airflow has no approvals")
def test_what_is_rejected_stays(airflow, tmp_path):
    asked = Asked(airflow, tmp_path)
    asked.answer("Reject")
    assert (asked.state(), asked.state_of("reopen")) == ("success", "skipped")
    assert asked.reopened() == {}
    assert airflow.sandbox.count("END", project_id=asked.project) == 5


def told(airflow, beginning: str) -> str:
    """Wait for a message; answers the rest of it."""

    def found() -> list[str]:
        return [text for text in message_file.read(airflow.home) if text.startswith(beginning)]

    airflow.wait(f"told: {beginning}", found)
    (text,) = found()
    return text.removeprefix(beginning).strip()


def test_callbacks_tell_the_queues(airflow):
    server = airflow.sandbox
    project = server.add_project(name="Chest at night")
    server.seed_tasks(4, project_id=project)
    airflow.trigger("notified", project=project)
    for beginning in ("fails failed.", "succeeds is done."):
        first, second = told(airflow, beginning).splitlines()
        assert first.startswith("Chest at night: Input 0, Label 4, ")
        assert second == f"{server.url}/?project={project}"


@pytest.mark.skipif(not hasattr(airflow.sdk, "AsyncCallback"), reason="this Airflow has no deadlines")
def test_a_missed_deadline_tells_the_queues(airflow):
    airflow.trigger("late")
    assert "Label " in told(airflow, "It is late.")
