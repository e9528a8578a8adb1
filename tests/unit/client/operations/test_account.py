"""Tests for values that several threads read at the same time."""

from __future__ import annotations

import copy
import threading

from airflow_provider_redbrick._utils import read_once


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
