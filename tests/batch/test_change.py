"""One mutation on one task: applied once, whatever happens to the answer."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from airflow_provider_redbrick import exceptions as err
from airflow_provider_redbrick.api.models import Task
from airflow_provider_redbrick.batch.change import ATTEMPTS, SETTLE, Change, apply_all, apply_once
from airflow_provider_redbrick.batch.outcome import Status

LOST = err.RedBrickConnectionError("the answer was lost.", maybe_applied=True)
UNSENT = err.RedBrickConnectionError("cannot be reached.")
REFUSED = err.RedBrickRefusedError("not assigned to you.", maybe_applied=True)
BAD = err.RedBrickRefusedError("HTTP 400.")
DENIED = err.RedBrickAuthError("HTTP 401.")
FAILED = err.RedBrickServerError("HTTP 500.", status=500, maybe_applied=True)
NONSENSE = err.RedBrickAnswerError("a login page.", maybe_applied=True)


class Server:
    """One task. Each send is one of: (applied at all?, the error that comes back or None)."""

    def __init__(self, *sends, reads=()):
        self.sends, self.reads = list(sends), list(reads)
        self.sent = self.applied = 0
        self.looked = []
        self.client = SimpleNamespace(max_concurrency=4)

    def send(self):
        self.sent += 1
        applies, error = self.sends.pop(0)
        self.applied += applies
        if error is not None:
            raise error

    def read_tasks(self, task_ids):
        self.looked.append(tuple(task_ids))
        found = self.reads.pop(0) if self.reads else None
        if callable(found):
            found()
            found = None
        if isinstance(found, err.RedBrickAPIError):
            return {task_ids[0]: found}
        if isinstance(found, Exception):
            raise found
        return {task_ids[0]: Task("t", stage_name="Review_1" if self.applied else "Label")}

    def apply(self):
        self.pauses = []
        change = Change(Task("t", name="study"), self.send, lambda task: task.stage_name == "Review_1")
        return apply_once(self, change, sleep=self.pauses.append)


def test_an_answer_that_came_needs_no_look():
    server = Server((True, None))
    outcome = server.apply()
    assert (outcome.status, outcome.task_id, outcome.name) == (Status.DONE, "t", "study")
    assert server.looked == []


@pytest.mark.parametrize("error", [LOST, FAILED, NONSENSE], ids=repr)
def test_a_lost_answer_of_what_was_applied_is_done_and_not_sent_again(error):
    server = Server((True, error))
    assert server.apply().status is Status.DONE
    assert (server.sent, server.applied) == (1, 1)


@pytest.mark.parametrize("error", [LOST, FAILED, NONSENSE], ids=repr)
def test_a_lost_request_is_sent_again(error):
    server = Server((False, error), (True, None))
    assert server.apply().status is Status.DONE
    assert (server.sent, server.applied) == (2, 1)
    assert len(server.looked) == len(SETTLE)


def test_a_server_that_is_still_busy_with_it_is_given_time():
    def late():
        server.applied = 1

    server = Server((False, LOST), reads=[None, late])
    assert server.apply().status is Status.DONE
    assert server.sent == 1
    assert server.pauses == [0.0, 0.5]


def test_a_request_applied_after_all_the_looks_is_found_when_the_second_is_refused():
    server = Server((False, LOST), (True, REFUSED))
    assert server.apply().status is Status.DONE
    assert server.sent == 2


@pytest.mark.parametrize("error", [BAD, DENIED, UNSENT], ids=repr)
def test_what_cannot_have_been_applied_is_failed_without_a_look(error):
    server = Server((False, error))
    outcome = server.apply()
    assert (outcome.status, outcome.reason) == (Status.FAILED, str(error))
    assert (server.sent, server.looked) == (1, [])


def test_a_refusal_is_final():
    server = Server((False, REFUSED))
    outcome = server.apply()
    assert (outcome.status, outcome.reason) == (Status.FAILED, "not assigned to you.")
    assert server.sent == 1
    assert len(server.looked) == 1


def test_giving_up_says_that_nothing_was_changed():
    server = Server(*[(False, LOST)] * ATTEMPTS)
    outcome = server.apply()
    assert outcome.status is Status.FAILED
    assert "the answer was lost." in outcome.reason
    assert "is unchanged; given up after 3 attempts" in outcome.reason
    assert server.sent == ATTEMPTS


@pytest.mark.parametrize("raised", [False, True], ids=["told", "raised"])
def test_a_task_that_cannot_be_read_afterwards_is_failed_with_both_reasons_and_not_sent_again(raised):
    unread = err.RedBrickServerError("HTTP 503.", status=503)
    server = Server((True, LOST), reads=[unread])
    if raised:

        def read_tasks(task_ids):
            raise unread

        server.read_tasks = read_tasks
    outcome = server.apply()
    assert outcome.status is Status.FAILED
    assert "the answer was lost." in outcome.reason
    assert "HTTP 503." in outcome.reason
    assert "is not known" in outcome.reason
    assert server.sent == 1


# ------------------------------------------------------------------ several


def changes(n, send):
    return [Change(Task(str(i)), lambda i=i: send(i), lambda task: False) for i in range(n)]


@pytest.mark.parametrize("workers", [1, 4])
def test_outcomes_come_in_the_order_of_the_changes(workers):
    project = Server()
    project.client.max_concurrency = workers
    sent = []
    outcomes = apply_all(project, changes(20, sent.append))
    assert [outcome.task_id for outcome in outcomes] == [str(i) for i in range(20)]
    assert sorted(sent) == list(range(20))


def test_no_more_at_a_time_than_allowed():
    project = Server()
    lock, busy, most = threading.Lock(), [0], [0]
    meet = threading.Barrier(4, timeout=10)

    def send(i):
        with lock:
            busy[0] += 1
            most[0] = max(most[0], busy[0])
        meet.wait()
        with lock:
            busy[0] -= 1

    apply_all(project, changes(8, send))
    assert most[0] == 4


def test_one_that_fails_does_not_sink_the_others():
    def send(i):
        if i == 1:
            raise BAD

    statuses = [outcome.status for outcome in apply_all(Server(), changes(3, send))]
    assert statuses == [Status.DONE, Status.FAILED, Status.DONE]


def test_nothing_to_do():
    assert apply_all(Server(), []) == []


def test_what_has_not_been_sent_when_the_work_is_killed_never_is():
    project = Server()
    project.client.max_concurrency = 2
    sent = []

    def send(i):
        sent.append(i)
        if i == 0:
            raise KeyboardInterrupt
        threading.Event().wait(0.1)

    with pytest.raises(KeyboardInterrupt):
        apply_all(project, changes(50, send))
    assert len(sent) < 10
