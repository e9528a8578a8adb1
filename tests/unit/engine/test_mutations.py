"""Tests that mutations are applied exactly once whatever happens to the answer."""

from __future__ import annotations

import threading

import pytest

from airflow_provider_redbrick import exceptions as err
from airflow_provider_redbrick.client.models.task import Task
from airflow_provider_redbrick.client.operations.account import RedBrickClient
from airflow_provider_redbrick.client.transport.retry import BatchSize
from airflow_provider_redbrick.engine.executor import ATTEMPTS, apply_all, apply_together, settle_postponed
from airflow_provider_redbrick.engine.ledger import Ledger
from airflow_provider_redbrick.engine.mutations import Change
from airflow_provider_redbrick.engine.outcomes import Status

LOST = err.RedBrickConnectionError("the answer was lost.", maybe_applied=True)
UNSENT = err.RedBrickConnectionError("cannot be reached.")
REFUSED = err.RedBrickRefusedError("not assigned to you.", maybe_applied=True)
BAD = err.RedBrickRefusedError("HTTP 400.")
DENIED = err.RedBrickAuthError("HTTP 401.")
FAILED = err.RedBrickServerError("HTTP 500.", status=500, maybe_applied=True)
NONSENSE = err.RedBrickAnswerError("a login page.", maybe_applied=True)


def client(connections, bundle):
    made = RedBrickClient(transport=None, max_concurrency=connections, bundle=bundle)
    made.me = lambda: "API:me"
    return made


class Server:
    """Server with one task. Each send is a pair: whether it is applied, and the error that is returned or None."""

    def __init__(self, *sends, reads=()):
        self.sends, self.reads = list(sends), list(reads)
        self.sent = self.applied = 0
        self.looked = []
        self.client = client(4, BatchSize(1))
        self.time = 0.0
        self.ledger = Ledger(settle_s=30.0, now=lambda: self.time)

    def send(self, calls):
        for call in calls:
            self.change(call)
        return [None] * len(calls)

    def change(self, _call):
        self.sent += 1
        applies, error = self.sends.pop(0)
        self.applied += applies
        if error is not None:
            raise error

    def read_tasks(self, task_ids, *, detail=None):
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

        def sleep(seconds):
            self.pauses.append(seconds)
            self.time += seconds

        change = Change(Task("t", name="study"), lambda: "call", lambda task: task.stage_name == "Review_1")
        (outcome,) = apply_together(self, [change], ledger=self.ledger, sleep=sleep)
        return outcome

    def settle(self):
        """Return the outcome of the postponed mutation when a read is conclusive."""
        self.time = self.ledger.due_at()
        (outcome,) = settle_postponed(self, self.ledger.take_changes().values(), self.ledger).values()
        return outcome


def test_acknowledged_mutation_is_done_without_read():
    server = Server((True, None))
    outcome = server.apply()
    assert (outcome.status, outcome.task_id, outcome.name) == (Status.DONE, "t", "study")
    assert server.looked == []


@pytest.mark.parametrize("error", [LOST, FAILED, NONSENSE], ids=repr)
def test_lost_answer_of_applied_mutation_is_done_and_not_sent_again(error):
    server = Server((True, error))
    assert server.apply().status is Status.DONE
    assert (server.sent, server.applied) == (1, 1)


@pytest.mark.parametrize("error", [LOST, FAILED, NONSENSE], ids=repr)
def test_lost_request_is_sent_again(error):
    server = Server((False, error), (True, None))
    assert server.apply().status is Status.DONE
    assert (server.sent, server.applied) == (2, 1)
    assert len(server.looked) == len(server.ledger.pauses)


def test_mutation_applied_late_is_found_by_second_read():
    def late():
        server.applied = 1

    server = Server((False, LOST), reads=[None, late])
    assert server.apply().status is Status.DONE
    assert server.sent == 1
    assert server.pauses == [0.0, 0.5]


def test_mutation_applied_after_all_reads_is_found_when_second_attempt_is_refused():
    server = Server((False, LOST), (True, REFUSED))
    assert server.apply().status is Status.DONE
    assert server.sent == 2


@pytest.mark.parametrize("error", [BAD, DENIED, UNSENT], ids=repr)
def test_error_that_excludes_application_is_failed_without_read(error):
    server = Server((False, error))
    outcome = server.apply()
    assert (outcome.status, outcome.reason) == (Status.FAILED, str(error))
    assert (server.sent, server.looked) == (1, [])


def test_refusal_is_final_after_one_read():
    server = Server((False, REFUSED))
    outcome = server.apply()
    assert (outcome.status, outcome.reason) == (Status.FAILED, "not assigned to you.")
    assert server.sent == 1
    assert len(server.looked) == 1


def test_exhausted_attempts_are_failed_and_say_that_task_is_unchanged():
    server = Server(*[(False, LOST)] * ATTEMPTS)
    assert server.apply().status is Status.UNKNOWN
    assert server.ledger.is_open("t")
    outcome = server.settle()
    assert outcome.status is Status.FAILED
    assert "the answer was lost." in outcome.reason
    assert "is unchanged. Gave up after 3 attempts" in outcome.reason
    assert server.sent == ATTEMPTS


def test_mutation_applied_after_all_attempts_is_done_when_a_read_is_conclusive():
    server = Server(*[(False, LOST)] * ATTEMPTS)
    assert server.apply().status is Status.UNKNOWN
    server.applied = 1
    assert server.settle().status is Status.DONE


def test_refusal_after_lost_request_is_not_believed_before_a_read_is_conclusive():
    server = Server((False, LOST), *[(False, REFUSED)] * 2)
    assert server.apply().status is Status.UNKNOWN
    server.applied = 1
    assert server.settle().status is Status.DONE


@pytest.mark.parametrize("raised", [False, True], ids=["per task", "whole request"])
def test_unreadable_task_after_lost_answer_is_unknown_and_not_sent_again(raised):
    unread = err.RedBrickServerError("HTTP 503.", status=503)
    server = Server((True, LOST), reads=[unread])
    if raised:

        def read_tasks(task_ids, *, detail=None):
            raise unread

        server.read_tasks = read_tasks
    assert server.apply().status is Status.UNKNOWN
    server.reads = [unread]
    outcome = server.settle()
    assert outcome.status is Status.UNKNOWN
    assert "the answer was lost." in outcome.reason
    assert "HTTP 503." in outcome.reason
    assert "is not known" in outcome.reason
    assert server.sent == 1


# ------------------------------------------------------------------ several


class Many(Server):
    """Server that passes each call, the number of its task, to ``act``."""

    def __init__(self, act):
        super().__init__()
        self.act = act

    def change(self, call):
        self.act(call)


def changes(n):
    return [Change(Task(str(i)), lambda i=i: i, lambda task: False) for i in range(n)]


@pytest.mark.parametrize("workers", [1, 4])
def test_apply_all_returns_outcomes_in_order(workers):
    sent = []
    project = Many(sent.append)
    project.client.max_concurrency = workers
    outcomes = apply_all(project, changes(20), ledger=project.ledger)
    assert [outcome.task_id for outcome in outcomes] == [str(i) for i in range(20)]
    assert sorted(sent) == list(range(20))


def test_apply_all_respects_max_concurrency():
    lock, busy, most = threading.Lock(), [0], [0]
    meet = threading.Barrier(4, timeout=10)

    def act(_call):
        with lock:
            busy[0] += 1
            most[0] = max(most[0], busy[0])
        meet.wait()
        with lock:
            busy[0] -= 1

    apply_all(Many(act), changes(8), ledger=Ledger())
    assert most[0] == 4


def test_apply_all_failed_mutation_does_not_affect_others():
    def act(call):
        if call == 1:
            raise BAD

    statuses = [outcome.status for outcome in apply_all(Many(act), changes(3), ledger=Ledger())]
    assert statuses == [Status.DONE, Status.FAILED, Status.DONE]


def test_apply_all_without_mutations_returns_nothing():
    assert apply_all(Server(), [], ledger=Ledger()) == []


def test_apply_all_killed_sends_nothing_more():
    sent = []

    def act(call):
        sent.append(call)
        if call == 0:
            raise KeyboardInterrupt
        threading.Event().wait(0.1)

    project = Many(act)
    project.client.max_concurrency = 2
    with pytest.raises(KeyboardInterrupt):
        apply_all(project, changes(50), ledger=project.ledger)
    assert len(sent) < 10


# ------------------------------------------------------------------ several in one request


class Together:
    """Server with a stage of ten tasks that fails some requests as a whole.

    :param most: larger requests fail.
    :param poison: requests with one of these tasks fail.
    :param error: the error of a failed request.
    :param applies: whether a failed request is applied nevertheless.
    :param bad: tasks that are refused individually.
    """

    def __init__(self, *, most=50, poison=(), error=REFUSED, applies=False, bad=()):
        self.most, self.poison, self.error, self.applies, self.bad = most, set(poison), error, applies, set(bad)
        self.client = client(1, BatchSize(10))
        self.requests, self.looked, self.applied = [], [], []
        self.time = 0.0
        self.ledger = Ledger(now=lambda: self.time)

    def send(self, calls):
        self.requests.append(list(calls))
        fails = len(calls) > self.most or self.poison.intersection(calls)
        if not fails or self.applies:
            self.applied += [call for call in calls if call not in self.bad]
        if fails:
            raise self.error
        return [REFUSED if call in self.bad else None for call in calls]

    def change(self, call):
        (problem,) = self.send([call])
        if problem is not None:
            raise problem

    def read_tasks(self, task_ids, *, detail=None):
        self.looked.append(list(task_ids))
        return {i: Task(i, stage_name="Review_1" if int(i) in self.applied else "Label") for i in task_ids}

    def apply(self, n=10):
        tasks = [Task(str(i), stage_name="Label") for i in range(n)]
        made = [Change(task, lambda task=task: int(task.task_id), lambda t: t.stage_name != "Label") for task in tasks]
        outcomes = apply_together(self, made, ledger=self.ledger, sleep=lambda seconds: None)
        assert [outcome.task_id for outcome in outcomes] == [task.task_id for task in tasks]
        self.time = self.ledger.due_at() or 0.0
        late = settle_postponed(self, self.ledger.take_changes().values(), self.ledger)
        outcomes = [late.get(outcome.task_id, outcome) for outcome in outcomes]
        assert len(self.applied) == len(set(self.applied))
        return [outcome.status.value for outcome in outcomes]


def test_bundle_of_ten_is_one_request():
    server = Together()
    assert server.apply() == ["done"] * 10
    assert [len(calls) for calls in server.requests] == [10]
    assert server.looked == []


def test_refused_mutation_in_bundle_fails_alone_after_one_read():
    server = Together(bad=[3])
    assert server.apply() == ["done"] * 3 + ["failed"] + ["done"] * 6
    assert [len(calls) for calls in server.requests] == [10]
    assert server.looked == [["3"]]


def test_too_large_bundle_is_bisected_and_later_bundles_are_smaller():
    server = Together(most=3, error=err.RedBrickPayloadTooLargeError("HTTP 413."))
    assert server.apply() == ["done"] * 10
    assert [len(calls) for calls in server.requests] == [10, 5, 2, 3, 5, 2, 3]
    assert server.client.bundle.size < 5


def test_mutation_that_fails_its_bundle_does_not_fail_its_neighbors():
    server = Together(poison=[7], error=BAD)
    assert server.apply() == ["done"] * 7 + ["failed"] + ["done"] * 2


@pytest.mark.parametrize("error", [LOST, FAILED, NONSENSE], ids=repr)
def test_lost_answer_of_bundle_is_settled_by_one_read(error):
    server = Together(most=9, error=error, applies=True)
    assert server.apply() == ["done"] * 10
    assert (len(server.requests), [len(ids) for ids in server.looked]) == (1, [10])
    assert server.client.bundle.size == 5


@pytest.mark.parametrize("error", [LOST, FAILED, NONSENSE], ids=repr)
def test_lost_bundle_is_sent_again_in_separate_requests(error):
    server = Together(most=9, error=error)
    assert server.apply() == ["done"] * 10
    assert [len(calls) for calls in server.requests] == [10, *[1] * 10]


def test_mutation_that_fails_every_request_is_the_only_failure():
    """If the whole answer is null, separate requests show which mutation was the cause."""
    server = Together(poison=[4], error=NONSENSE)
    assert server.apply() == ["done"] * 4 + ["failed"] + ["done"] * 5


def test_call_that_cannot_be_prepared_fails_alone():
    def fails():
        raise BAD

    server = Together()
    tasks = [Task(str(i), stage_name="Label") for i in range(3)]
    made = [Change(task, fails if i == 1 else lambda i=i: i, lambda t: False) for i, task in enumerate(tasks)]
    outcomes = apply_together(server, made, ledger=server.ledger)
    assert [outcome.status.value for outcome in outcomes] == ["done", "failed", "done"]
    assert server.requests == [[0, 2]]
