"""Tests of reading tasks ahead of their use."""

from __future__ import annotations

import threading

import pytest

from airflow_provider_redbrick import exceptions as err
from airflow_provider_redbrick.client.models.task import Detail, Task
from airflow_provider_redbrick.client.operations.account import RedBrickClient
from airflow_provider_redbrick.engine import task_reader
from airflow_provider_redbrick.engine.task_reader import CircuitBreaker, ReadAhead, read_in_chunks

DOWN = err.RedBrickServerError("HTTP 503.", status=503)


class Project:
    """Project with any number of tasks that records which are read together."""

    def __init__(self, *, connections=4, error=None):
        self.client = RedBrickClient(transport=None, max_concurrency=connections)
        self.error = error
        self.asked = []

    def read_tasks(self, task_ids, *, detail):
        assert detail is Detail.PLACE
        self.asked.append(list(task_ids))
        if self.error:
            raise self.error
        return {task_id: Task(task_id) for task_id in task_ids}


def begun(project, task_ids, *, size=2) -> ReadAhead:
    ahead = ReadAhead(project, task_ids, detail=Detail.PLACE, size=size)
    ahead.begin()
    return ahead


def read(project, task_ids, ahead, *, breaker=None):
    (found,) = read_in_chunks(project, task_ids, detail=Detail.PLACE, breaker=breaker, ahead=ahead)
    return found


def test_read_ahead_tasks_are_not_read_again():
    project = Project()
    ahead = begun(project, ["a", "b", "c"])
    assert list(read(project, ["a", "b"], ahead).tasks) == ["a", "b"]
    assert list(read(project, ["c"], ahead).tasks) == ["c"]
    assert sorted(project.asked) == [["a", "b"], ["c"]]


def test_read_ahead_leaves_two_connections_free():
    project = Project(connections=4)
    ahead = begun(project, list("abcdefgh"))
    for pair in ("ab", "cd"):
        ahead.take(list(pair))
    assert sorted(project.asked) == [["a", "b"], ["c", "d"]]
    assert list(read(project, ["e", "f"], ahead).tasks) == ["e", "f"]


def test_read_ahead_with_one_connection_reads_nothing():
    project = Project(connections=1)
    assert begun(project, ["a", "b"]).take(["a", "b"]) is None
    assert project.asked == []


def test_take_returns_only_requested_tasks():
    project = Project()
    assert list(read(project, ["b"], begun(project, ["a", "b"])).tasks) == ["b"]
    assert project.asked == [["a", "b"]]


@pytest.mark.parametrize("asked", [["b", "c"], ["a", "new"]])
def test_take_of_tasks_from_different_requests_reads_them_again(asked):
    project = Project()
    assert list(read(project, asked, begun(project, ["a", "b", "c"])).tasks) == asked
    assert asked in project.asked


def test_take_returns_a_read_only_once():
    project = Project()
    ahead = begun(project, ["a", "b"])
    read(project, ["a", "b"], ahead)
    read(project, ["a", "b"], ahead)
    assert project.asked == [["a", "b"]] * 2


def test_take_of_stale_read_reads_again(monkeypatch):
    project = Project()
    ahead = begun(project, ["a", "b"])
    monkeypatch.setattr(task_reader, "STALE_AFTER_S", -1.0)
    first = read(project, ["a", "b"], ahead)
    assert project.asked == [["a", "b"]] * 2
    assert first.tasks.keys() == {"a", "b"}


def test_read_at_is_time_of_request():
    answer = threading.Event()
    project = Project()
    at_once = project.read_tasks

    def slow(task_ids, *, detail):
        answer.wait(timeout=10)
        return at_once(task_ids, detail=detail)

    project.read_tasks = slow
    ahead = begun(project, ["a"])
    threading.Event().wait(0.05)
    before_the_answer = task_reader.time.monotonic()
    answer.set()
    assert read(project, ["a"], ahead).read_at < before_the_answer


def test_failed_read_ahead_fails_its_tasks_and_opens_breaker():
    project, breaker = Project(error=DOWN), CircuitBreaker()
    ahead = begun(project, ["a", "b", "c", "d"])
    for pair in (["a", "b"], ["c", "d"]):
        assert set(read(project, pair, ahead, breaker=breaker).tasks.values()) == {DOWN}
    assert breaker.is_open
    assert len(project.asked) == 2
