"""Giving tasks to somebody and knowing who really has them."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from airflow_provider_redbrick import exceptions as err
from airflow_provider_redbrick.api.models import Task, User
from airflow_provider_redbrick.api.workflow import Stage, Workflow
from airflow_provider_redbrick.batch.assigning import ATTEMPTS
from airflow_provider_redbrick.batch.claiming import claim, give_back, release

ME, ADA, BOB = User("API:me"), User("ada", "ada@example.com"), User("bob", "bob@example.com")
LOST = err.RedBrickConnectionError("the answer was lost.", maybe_applied=True)
REFUSED = err.RedBrickRefusedError("one of them is not in this stage.", maybe_applied=True)
DENIED = err.RedBrickAuthError("HTTP 401.")


def made(n, **facts):
    return [Task(f"t{i}", stage_name="Label", state="UNASSIGNED", **facts) for i in range(n)]


class Server:
    """Tasks and who holds them. A request uses up one of ``faults``: (applied?, error or None, named ids or None)."""

    info = SimpleNamespace(workflow=Workflow((Stage("Label", "manual-labeling"), Stage("Review_1", "expert-review"))))

    def __init__(self, tasks, *faults):
        self.tasks = {task.task_id: task for task in tasks}
        self.faults = list(faults)
        self.requests = []
        self.before_request = lambda: None
        self.unreadable = {}

    def read_tasks(self, task_ids, *, detail=None):
        return {i: self.unreadable.get(i) or self.tasks[i] for i in task_ids}

    def give(self, task_ids, user):
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

    def set(self, task_id, **facts):
        self.tasks[task_id] = replace(self.tasks[task_id], **facts)

    def claim(self, task_ids):
        return self.give(task_ids, ME)

    def release(self, task_ids):
        return self.give(task_ids, None)

    def assign(self, task_ids, email):
        return self.give(task_ids, {user.email: user for user in (ADA, BOB)}[email])

    def holders(self):
        return {i: task.assignee for i, task in self.tasks.items()}


def claimed(server, tasks=None):
    return claim(server, tasks or list(server.tasks.values()), me=ME.user_id, read_at=time.monotonic())


def test_no_task_no_request():
    server = Server([])
    assert claim(server, [], me=ME.user_id, read_at=time.monotonic()) == {}
    assert server.requests == []


def test_fifty_a_request():
    server = Server(made(120))
    assert claimed(server) == dict.fromkeys(server.tasks)
    assert [len(ids) for ids, _ in server.requests] == [50, 50, 20]


def test_a_lost_answer_is_settled_by_reading():
    server = Server(made(3), (True, LOST, None))
    assert claimed(server) == dict.fromkeys(["t0", "t1", "t2"])
    assert len(server.requests) == 1


def test_a_lost_request_is_sent_again():
    server = Server(made(3), (False, LOST, None))
    assert claimed(server) == dict.fromkeys(["t0", "t1", "t2"])
    assert len(server.requests) == 2


def test_requests_that_are_lost_again_and_again_are_given_up():
    server = Server(made(1), *[(False, LOST, None)] * 9)
    result = claimed(server)
    assert str(result["t0"]) == "the answer was lost."
    assert not result["t0"].taken
    assert len(server.requests) == ATTEMPTS


def test_what_somebody_took_meanwhile_is_not_taken_from_them():
    server = Server(made(2), (False, LOST, None))
    server.before_request = lambda: server.set("t0", assignee=ADA, state="ASSIGNED")
    result = claimed(server)
    server.before_request = lambda: None
    assert result["t0"].taken
    assert "ada@example.com" in str(result["t0"])
    assert result["t1"] is None
    assert [ids for ids, _ in server.requests] == [["t0", "t1"], ["t1"]]
    assert server.holders() == {"t0": ADA, "t1": ME}


def test_one_task_that_has_gone_does_not_keep_the_others():
    server = Server(made(3), (False, REFUSED, None))
    server.before_request = lambda: server.set("t1", stage_name="Review_1")
    result = claimed(server)
    assert result["t1"].taken
    assert (result["t0"], result["t2"]) == (None, None)
    assert [ids for ids, _ in server.requests] == [["t0", "t1", "t2"], ["t0", "t2"]]


def test_a_refusal_that_nothing_explains_is_final():
    server = Server(made(2), (False, REFUSED, None))
    result = claimed(server)
    assert {str(problem) for problem in result.values()} == {"one of them is not in this stage."}
    assert len(server.requests) == 1


def test_what_cannot_have_been_applied_is_final_and_not_read():
    server = Server(made(2), (False, DENIED, None))
    server.read_tasks = None
    assert {str(problem) for problem in claimed(server).values()} == {"HTTP 401."}


def test_a_task_the_server_does_not_name_is_looked_at():
    server = Server(made(2), (True, None, ["t0"]))
    assert claimed(server) == {"t0": None, "t1": None}
    server = Server(made(2), (False, None, ["t0"]))
    result = claimed(server)
    assert result["t0"] is None
    assert "did not assign it: it is in Label" in str(result["t1"])
    assert len(server.requests) == 1


def test_ids_the_server_names_unasked_are_not_ours():
    server = Server(made(1), (True, None, ["t0", "elsewhere"]))
    assert claimed(server) == {"t0": None}


@pytest.mark.parametrize("whole", [False, True], ids=["one task", "the request"])
def test_what_cannot_be_read_afterwards_is_not_given(whole):
    server = Server(made(2), (True, LOST, None))
    unread = err.RedBrickServerError("HTTP 503.", status=503)
    server.unreadable = {"t1": unread}
    if whole:

        def read_tasks(task_ids, *, detail=None):
            raise unread

        server.read_tasks = read_tasks
    result = claimed(server)
    assert str(result["t1"]) == "the answer was lost."
    assert (result["t0"] is None) is not whole
    assert len(server.requests) == 1


# ------------------------------------------------------------------ releasing


def held(*users):
    return [
        Task(f"t{i}", stage_name="Label", state="ASSIGNED" if user else "UNASSIGNED", assignee=user)
        for i, user in enumerate(users)
    ]


def test_only_what_the_key_still_holds_is_released():
    server = Server([*held(ME, ADA, None), replace(held(ME)[0], task_id="t3", state="COMPLETED")])
    assert release(server, list(server.tasks), me=ME.user_id) == dict.fromkeys(["t0", "t1", "t2", "t3"])
    assert [ids for ids, _ in server.requests] == [["t0"]]
    assert server.holders() == {"t0": None, "t1": ADA, "t2": None, "t3": ME}


def test_nothing_to_release_is_no_request():
    server = Server(held(ADA))
    release(server, ["t0"], me=ME.user_id)
    assert server.requests == []


def test_what_an_admin_gave_to_somebody_while_the_answer_was_lost_stays_there():
    server = Server(held(ME), (False, LOST, None))
    server.before_request = lambda: server.set("t0", assignee=ADA)
    assert release(server, ["t0"], me=ME.user_id) == {"t0": None}
    assert len(server.requests) == 1
    assert server.holders() == {"t0": ADA}


def test_a_release_that_was_lost_is_repeated():
    server = Server(held(ME), (False, LOST, None))
    assert release(server, ["t0"], me=ME.user_id) == {"t0": None}
    assert server.holders() == {"t0": None}


def test_what_cannot_be_read_is_not_released():
    server = Server(held(ME, ME))
    server.unreadable = {"t0": err.RedBrickNotFoundError("no such task")}
    result = release(server, ["t0", "t1"], me=ME.user_id)
    assert str(result["t0"]) == "no such task"
    assert result["t1"] is None


# ------------------------------------------------------------------ giving back


def test_claims_go_back_to_whom_they_came_from():
    before = held(None, ADA, BOB)
    server = Server([replace(task, assignee=ME) for task in before])
    give_back(server, before, me=ME.user_id)
    assert server.holders() == {"t0": None, "t1": ADA, "t2": BOB}


def test_what_has_moved_on_or_changed_hands_is_not_touched():
    before = held(ADA, ADA, ADA)
    server = Server(
        [held(BOB)[0], replace(before[1], assignee=ME, state="COMPLETED"), replace(before[2], assignee=None)]
    )
    give_back(server, before, me=ME.user_id)
    assert server.requests == []


def test_what_cannot_be_given_back_is_logged_and_not_raised(caplog):
    before = held(None, ADA)
    server = Server([replace(task, assignee=ME) for task in before], *[(False, DENIED, None)] * 6)
    with caplog.at_level(logging.WARNING):
        give_back(server, before, me=ME.user_id)
    assert "Task t0 stays assigned to the API key" in caplog.text
    assert "Task t1 stays assigned to the API key" in caplog.text


def test_a_server_that_is_gone_is_logged_and_not_raised(caplog):
    def read_tasks(task_ids, *, detail=None):
        raise LOST

    server = Server(held(ME))
    server.read_tasks = read_tasks
    with caplog.at_level(logging.WARNING):
        give_back(server, held(None), me=ME.user_id)
    assert "the answer was lost." in caplog.text


class TestMovedOnBeforeTheClaim:
    """Somebody was quicker: a claim is given wherever a task is by then, and does not belong to us there."""

    def moved(self, to, **facts):
        server = Server(made(2))
        before = [replace(task, stage_name="Review_1" if to == "Label" else "Label") for task in server.tasks.values()]
        server.set("t0", stage_name=to, **facts)
        server.set("t1", stage_name=before[1].stage_name)
        result = claim(server, before, me=ME.user_id, read_at=time.monotonic())
        assert (result["t0"].taken, result["t1"]) == (True, None)
        give_back(server, before[:1], me=ME.user_id)
        return server

    def test_it_is_released_where_it_waits_for_anybody(self):
        assert self.moved("Review_1", labels_by=ADA).holders() == {"t0": None, "t1": ME}

    def test_it_goes_back_to_the_labeler_whom_a_reviewer_had_sent_it_to(self):
        assert self.moved("Label", labels_by=ADA).holders() == {"t0": ADA, "t1": ME}


@pytest.mark.parametrize(
    "faults",
    [[(True, None, None)], [(True, LOST, None)], [(True, None, None), (False, LOST, None)]],
    ids=["answered", "answer lost", "next request lost"],
)
def test_what_was_sent_back_in_the_moment_of_a_release_goes_to_its_labeler(faults):
    server = Server([replace(task, stage_name="Review_1", labels_by=ADA) for task in made(2)])
    before = list(server.tasks.values())
    claim(server, before, me=ME.user_id, read_at=time.monotonic())
    server.faults = list(faults)

    def once() -> None:
        server.set("t0", stage_name="Label", assignee=ADA)
        server.before_request = lambda: None

    server.before_request = once
    give_back(server, before, me=ME.user_id)
    assert server.holders() == {"t0": ADA, "t1": None}
