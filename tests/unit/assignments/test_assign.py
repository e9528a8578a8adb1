"""Tests of assigning, claiming and releasing tasks."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from airflow_provider_redbrick import exceptions as err
from airflow_provider_redbrick.assignments.assign import ATTEMPTS
from airflow_provider_redbrick.assignments.claims import claim, release, undo_claims
from airflow_provider_redbrick.client.models.task import Task, User
from airflow_provider_redbrick.client.models.workflow import Stage, Workflow
from airflow_provider_redbrick.engine.ledger import Ledger

ME, ADA, BOB = User("API:me"), User("ada", "ada@example.com"), User("bob", "bob@example.com")
LOST = err.RedBrickConnectionError("the answer was lost.", maybe_applied=True)
REFUSED = err.RedBrickRefusedError("one of them is not in this stage.", maybe_applied=True)
DENIED = err.RedBrickAuthError("HTTP 401.")


def unassigned_tasks(n, **facts):
    return [Task(f"t{i}", stage_name="Label", state="UNASSIGNED", **facts) for i in range(n)]


class Server:
    """Server with tasks and their holders.

    Each request consumes one of ``faults``: whether it is applied, the error or None, the ids in the answer or None.
    """

    info = SimpleNamespace(workflow=Workflow((Stage("Label", "manual-labeling"), Stage("Review_1", "expert-review"))))

    def __init__(self, tasks, *faults):
        self.tasks = {task.task_id: task for task in tasks}
        self.faults = list(faults)
        self.requests = []
        self.before_request = lambda: None
        self.unreadable = {}
        self.ledger = Ledger()

    def read_tasks(self, task_ids, *, detail=None):
        return {i: self.unreadable.get(i) or self.tasks[i] for i in task_ids}

    def set_holder(self, task_ids, user):
        self.requests.append((list(task_ids), user))
        self.before_request()
        applies, error, named = self.faults.pop(0) if self.faults else (True, None, None)
        if applies:
            for i in task_ids:
                self.set(i, assignee=user, state="ASSIGNED" if user else "UNASSIGNED")
        if error is not None:
            raise error
        stages = {i: task.stage_name for i, task in self.tasks.items()}
        return {i: stages.get(i, "") for i in (task_ids if named is None else named)}

    def assignee_changes(self, task_ids):
        return dict.fromkeys(task_ids, ())

    def set(self, task_id, **facts):
        self.tasks[task_id] = replace(self.tasks[task_id], **facts)

    def claim(self, task_ids):
        return self.set_holder(task_ids, ME)

    def release(self, task_ids):
        return self.set_holder(task_ids, None)

    def assign(self, task_ids, email):
        return self.set_holder(task_ids, {user.email: user for user in (ADA, BOB)}[email])

    def holders(self):
        return {i: task.assignee for i, task in self.tasks.items()}


def claim_all(server, tasks=None):
    return claim(
        server, tasks or list(server.tasks.values()), me=ME.user_id, read_at=time.monotonic(), ledger=server.ledger
    )


def test_claim_without_tasks_sends_no_request():
    server = Server([])
    assert claim(server, [], me=ME.user_id, read_at=time.monotonic(), ledger=server.ledger) == {}
    assert server.requests == []


def test_claim_sends_fifty_ids_per_request():
    server = Server(unassigned_tasks(120))
    assert claim_all(server) == dict.fromkeys(server.tasks)
    assert [len(ids) for ids, _ in server.requests] == [50, 50, 20]


def test_claim_lost_answer_is_settled_by_read():
    server = Server(unassigned_tasks(3), (True, LOST, None))
    assert claim_all(server) == dict.fromkeys(["t0", "t1", "t2"])
    assert len(server.requests) == 1


def test_claim_lost_request_is_sent_again():
    server = Server(unassigned_tasks(3), (False, LOST, None))
    assert claim_all(server) == dict.fromkeys(["t0", "t1", "t2"])
    assert len(server.requests) == 2


def test_claim_lost_repeatedly_fails_after_last_attempt():
    server = Server(unassigned_tasks(1), *[(False, LOST, None)] * 9)
    result = claim_all(server)
    assert str(result["t0"]) == "the answer was lost."
    assert not result["t0"].taken_by_other
    assert len(server.requests) == ATTEMPTS


def test_claim_task_taken_by_other_is_left_to_them():
    server = Server(unassigned_tasks(2), (False, LOST, None))
    server.before_request = lambda: server.set("t0", assignee=ADA, state="ASSIGNED")
    result = claim_all(server)
    server.before_request = lambda: None
    assert result["t0"].taken_by_other
    assert "ada@example.com" in str(result["t0"])
    assert result["t1"] is None
    assert [ids for ids, _ in server.requests] == [["t0", "t1"], ["t1"]]
    assert server.holders() == {"t0": ADA, "t1": ME}


def test_claim_refused_for_one_moved_task_claims_the_others():
    server = Server(unassigned_tasks(3), (False, REFUSED, None))
    server.before_request = lambda: server.set("t1", stage_name="Review_1")
    result = claim_all(server)
    assert result["t1"].taken_by_other
    assert (result["t0"], result["t2"]) == (None, None)
    assert [ids for ids, _ in server.requests] == [["t0", "t1", "t2"], ["t0", "t2"]]


def test_claim_unexplained_refusal_is_final():
    server = Server(unassigned_tasks(2), (False, REFUSED, None))
    result = claim_all(server)
    assert {str(problem) for problem in result.values()} == {"one of them is not in this stage."}
    assert len(server.requests) == 1


def test_claim_error_that_excludes_application_is_final_without_read():
    server = Server(unassigned_tasks(2), (False, DENIED, None))
    server.read_tasks = None
    assert {str(problem) for problem in claim_all(server).values()} == {"HTTP 401."}


def test_claim_task_missing_in_answer_is_read():
    server = Server(unassigned_tasks(2), (True, None, ["t0"]))
    assert claim_all(server) == {"t0": None, "t1": None}
    server = Server(unassigned_tasks(2), (False, None, ["t0"]))
    result = claim_all(server)
    assert result["t0"] is None
    assert "did not assign it: it is in Label" in str(result["t1"])
    assert len(server.requests) == 1


def test_claim_ignores_ids_that_were_not_requested():
    server = Server(unassigned_tasks(1), (True, None, ["t0", "elsewhere"]))
    assert claim_all(server) == {"t0": None}


@pytest.mark.parametrize("whole", [False, True], ids=["one task", "the request"])
def test_claim_unreadable_after_lost_answer_is_not_claimed(whole):
    server = Server(unassigned_tasks(2), (True, LOST, None))
    unread = err.RedBrickServerError("HTTP 503.", status=503)
    server.unreadable = {"t1": unread}
    if whole:

        def read_tasks(task_ids, *, detail=None):
            raise unread

        server.read_tasks = read_tasks
    result = claim_all(server)
    assert str(result["t1"]) == "the answer was lost."
    assert (result["t0"] is None) is not whole
    assert len(server.requests) == 1


# ------------------------------------------------------------------ releasing


def held(*users):
    return [
        Task(f"t{i}", stage_name="Label", state="ASSIGNED" if user else "UNASSIGNED", assignee=user)
        for i, user in enumerate(users)
    ]


def test_release_sends_only_tasks_that_the_key_holds():
    server = Server([*held(ME, ADA, None), replace(held(ME)[0], task_id="t3", state="COMPLETED")])
    assert release(server, list(server.tasks), me=ME.user_id, ledger=server.ledger) == dict.fromkeys(
        ["t0", "t1", "t2", "t3"]
    )
    assert [ids for ids, _ in server.requests] == [["t0"]]
    assert server.holders() == {"t0": None, "t1": ADA, "t2": None, "t3": ME}


def test_release_without_held_tasks_sends_no_request():
    server = Server(held(ADA))
    release(server, ["t0"], me=ME.user_id, ledger=server.ledger)
    assert server.requests == []


def test_release_task_reassigned_during_lost_answer_stays_with_person():
    server = Server(held(ME), (False, LOST, None))
    server.before_request = lambda: server.set("t0", assignee=ADA)
    assert release(server, ["t0"], me=ME.user_id, ledger=server.ledger) == {"t0": None}
    assert len(server.requests) == 1
    assert server.holders() == {"t0": ADA}


def test_release_lost_request_is_sent_again():
    server = Server(held(ME), (False, LOST, None))
    assert release(server, ["t0"], me=ME.user_id, ledger=server.ledger) == {"t0": None}
    assert server.holders() == {"t0": None}


def test_release_unreadable_task_is_reported():
    server = Server(held(ME, ME))
    server.unreadable = {"t0": err.RedBrickNotFoundError("no such task")}
    result = release(server, ["t0", "t1"], me=ME.user_id, ledger=server.ledger)
    assert str(result["t0"]) == "no such task"
    assert result["t1"] is None


# ------------------------------------------------------------------ undoing claims


def test_undo_claims_restores_previous_holders():
    before = held(None, ADA, BOB)
    server = Server([replace(task, assignee=ME) for task in before])
    undo_claims(server, before, me=ME.user_id, ledger=server.ledger)
    assert server.holders() == {"t0": None, "t1": ADA, "t2": BOB}


def test_undo_claims_ignores_moved_and_reassigned_tasks():
    before = held(ADA, ADA, ADA)
    server = Server(
        [held(BOB)[0], replace(before[1], assignee=ME, state="COMPLETED"), replace(before[2], assignee=None)]
    )
    undo_claims(server, before, me=ME.user_id, ledger=server.ledger)
    assert server.requests == []


def test_undo_claims_failure_is_logged_and_not_raised(caplog):
    before = held(None, ADA)
    server = Server([replace(task, assignee=ME) for task in before], *[(False, DENIED, None)] * 6)
    with caplog.at_level(logging.WARNING):
        undo_claims(server, before, me=ME.user_id, ledger=server.ledger)
    assert "Task t0 stays assigned to the API key" in caplog.text
    assert "Task t1 stays assigned to the API key" in caplog.text


def test_undo_claims_unreachable_server_is_logged_and_not_raised(caplog):
    def read_tasks(task_ids, *, detail=None):
        raise LOST

    server = Server(held(ME))
    server.read_tasks = read_tasks
    with caplog.at_level(logging.WARNING):
        undo_claims(server, held(None), me=ME.user_id, ledger=server.ledger)
    assert "the answer was lost." in caplog.text


class TestTaskMovedBeforeClaim:
    """A claim also applies to a task that another actor has moved, and must be undone there."""

    def moved(self, to, **facts):
        server = Server(unassigned_tasks(2))
        before = [replace(task, stage_name="Review_1" if to == "Label" else "Label") for task in server.tasks.values()]
        server.set("t0", stage_name=to, **facts)
        server.set("t1", stage_name=before[1].stage_name)
        result = claim(server, before, me=ME.user_id, read_at=time.monotonic(), ledger=server.ledger)
        assert (result["t0"].taken_by_other, result["t1"]) == (True, None)
        undo_claims(server, before[:1], me=ME.user_id, ledger=server.ledger)
        return server

    def test_task_in_review_is_unassigned(self):
        assert self.moved("Review_1", labels_by=ADA).holders() == {"t0": None, "t1": ME}

    def test_task_sent_back_by_reviewer_returns_to_labeler(self):
        assert self.moved("Label", labels_by=ADA).holders() == {"t0": ADA, "t1": ME}


@pytest.mark.parametrize(
    "faults",
    [[(True, None, None)], [(True, LOST, None)], [(True, None, None), (False, LOST, None)]],
    ids=["answered", "answer lost", "next request lost"],
)
def test_undo_claims_task_sent_back_during_release_goes_to_labeler(faults):
    server = Server([replace(task, stage_name="Review_1", labels_by=ADA) for task in unassigned_tasks(2)])
    before = list(server.tasks.values())
    claim(server, before, me=ME.user_id, read_at=time.monotonic(), ledger=server.ledger)
    server.faults = list(faults)

    def once() -> None:
        server.set("t0", stage_name="Label", assignee=ADA)
        server.before_request = lambda: None

    server.before_request = once
    undo_claims(server, before, me=ME.user_id, ledger=server.ledger)
    assert server.holders() == {"t0": ADA, "t1": None}
