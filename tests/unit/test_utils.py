"""Tests for the results of mutations, and for values that several threads read at the same time."""

from __future__ import annotations

import copy
import threading
from types import SimpleNamespace

import pytest

from airflow_provider_redbrick import exceptions as err
from airflow_provider_redbrick._utils import read_once
from airflow_provider_redbrick.client.operations.account import Scope
from airflow_provider_redbrick.client.transport.graphql import Answer, Call, GraphQLIssue

ORG, PROJECT = "0a9c6e10-5b1d-4c8e-9f00-00000000000a", "0a9c6e10-5b1d-4c8e-9f00-00000000000b"
MOVE = (
    "mutation moveTaskToStart($orgId: UUID!, $projectId: UUID!, $taskId: UUID!) {"
    " moveTaskToStart(orgId: $orgId, projectId: $projectId, taskId: $taskId) { ok } }"
)
OK = {"ok": True}


def send(data, *issues, calls=3):
    """Send mutations of tasks t0, t1, ... and return each error; errors are pairs of a root field and words."""
    answer = Answer(data, tuple(GraphQLIssue(words, root) for root, words in issues))
    transport = SimpleNamespace(execute_partial=lambda *_, **__: answer)
    scope = Scope(SimpleNamespace(transport=transport), ORG, PROJECT)
    return scope.send([Call(MOVE, {"taskId": f"t{i}"}, f"t{i}") for i in range(calls)])


def test_each_mutation_of_a_request_has_its_own_result():
    done, refused, denied = send({"m0": OK, "m1": None, "m2": {"ok": False, "message": "locked"}}, ("m1", "not yours"))
    assert done is None
    assert (type(refused), refused.task_ids) == (err.RedBrickRefusedError, ("t1",))
    assert "not yours" in str(refused)
    assert (type(denied), denied.task_ids) == (err.RedBrickRefusedError, ("t2",))
    assert "locked" in str(denied)
    assert refused.maybe_applied
    assert denied.maybe_applied


def test_mutation_with_a_value_is_acknowledged_although_an_error_names_it(caplog):
    assert send({"m0": OK, "m1": OK, "m2": OK}, ("m1", "a nested field failed"), (None, "another")) == [None] * 3
    assert "a nested field failed" in caplog.text


def test_mutation_without_a_result_is_not_acknowledged_and_its_neighbors_are():
    """An error without a path does not say which mutation failed."""
    first, lost, last = send({"m0": OK, "m1": None, "m2": OK}, (None, "something failed"))
    assert (first, last) == (None, None)
    assert (type(lost), lost.task_ids) == (err.RedBrickAnswerError, ("t1",))
    assert "something failed" in str(lost)
    assert lost.maybe_applied


def test_error_of_one_mutation_leaves_open_the_others_if_there_is_no_data():
    """A null that must not be null empties the whole answer; the mutations before it were applied."""
    lost, refused, _ = send(None, ("m1", "not yours"))
    assert (type(lost), lost.maybe_applied) == (err.RedBrickAnswerError, True)
    assert (type(refused), refused.maybe_applied) == (err.RedBrickRefusedError, True)


@pytest.mark.parametrize("data", [None, {}, {"m0": None, "m1": None, "m2": None}])
def test_answer_without_any_result_fails_the_whole_request(data):
    with pytest.raises(err.RedBrickAnswerError, match="it broke") as caught:
        send(data, (None, "it broke"))
    assert caught.value.maybe_applied
    assert caught.value.task_ids == ("t0", "t1", "t2")


@pytest.mark.parametrize("payload", [7, [], "ok", {"m": 1}, {"ok": None}, {"ok": 1}])
def test_value_of_another_shape_is_not_an_acknowledgment(payload):
    done, problem = send({"m0": OK, "m1": payload}, calls=2)
    assert done is None
    assert problem.maybe_applied


@pytest.mark.parametrize("root", [None, "moveTaskToStart", "somethingElse"])
@pytest.mark.parametrize("data", [None, {"moveTaskToStart": None}])
def test_every_error_is_about_the_only_mutation(root, data):
    (refused,) = send(data, (root, "not yours"), calls=1)
    assert (type(refused), refused.task_ids, refused.maybe_applied) == (err.RedBrickRefusedError, ("t0",), True)
    assert "not yours" in str(refused)


def test_rate_limit_of_one_mutation_is_not_a_refusal():
    _, limited = send({"m0": OK, "m1": None}, ("m1", "Rate limit exceeded"), calls=2)
    assert (type(limited), limited.maybe_applied) == (err.RedBrickRateLimitError, True)


class Server:
    """Answers when released, and counts the requests."""

    def __init__(self, *, answers=True):
        self.may_answer = threading.Event()
        self.asked = 0
        if answers:
            self.may_answer.set()

    @read_once
    def info(self):
        self.asked += 1
        assert self.may_answer.wait(10)
        return object()


def asking(server):
    thread = threading.Thread(target=lambda: server.info, daemon=True)
    thread.start()
    return thread


def test_read_once_sends_one_request_for_many_threads():
    server = Server(answers=False)
    threads = [asking(server) for _ in range(5)]
    server.may_answer.set()
    for thread in threads:
        thread.join(timeout=10)
    assert server.info is server.info
    assert server.asked == 1


def test_read_once_does_not_wait_for_another_object():
    silent, quick = Server(answers=False), Server()
    waiting = asking(silent)
    thread = asking(quick)
    thread.join(timeout=5)
    answered = not thread.is_alive()
    silent.may_answer.set()
    waiting.join(timeout=10)
    assert answered


def test_read_once_retries_after_a_failure():
    class Failing:
        asked = 0

        @read_once
        def info(self):
            self.asked += 1
            if self.asked == 1:
                raise ConnectionError
            return "there"

    server = Failing()
    try:
        server.info  # noqa: B018
    except ConnectionError:
        assert server.info == "there"
    assert copy.copy(server).info == "there"
    assert server.asked == 2
