"""Answers are shared, kept for a while, and bounded."""

from __future__ import annotations

import threading
import time

import pytest

from airflow_provider_redbrick.plugins.access import Asking, BusyError


class Question:
    """Counts how often it is asked, and answers when it may."""

    def __init__(self, answer="answer", waits=False):
        self.asked = 0
        self.answer = answer
        self.may_answer = threading.Event()
        if not waits:
            self.may_answer.set()

    def __call__(self):
        self.asked += 1
        assert self.may_answer.wait(10)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def test_who_asks_at_the_same_time_gets_the_same_answer():
    asking, question = Asking(keep=60, places=4, threads=4), Question(waits=True)
    futures = []
    threads = [threading.Thread(target=lambda: futures.append(asking.ask("a", question))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    question.may_answer.set()
    assert {future.result(10) for future in futures} == {"answer"}
    assert len(futures) == 20
    assert question.asked == 1


def test_an_answer_is_kept_for_a_while_and_then_asked_for_again():
    asking, question = Asking(keep=0.05, places=4, threads=1), Question()
    assert asking.ask("a", question).result(10) == "answer"
    assert asking.ask("a", question).result(10) == "answer"
    assert question.asked == 1
    time.sleep(0.06)
    asking.ask("a", question).result(10)
    assert question.asked == 2


def test_the_time_counts_from_the_answer_on():
    asking, question = Asking(keep=0.2, places=4, threads=1), Question(waits=True)
    future = asking.ask("a", question)
    time.sleep(0.25)
    question.may_answer.set()
    future.result(10)
    asking.ask("a", question).result(10)
    assert question.asked == 1


def test_an_error_is_an_answer_too():
    asking, question = Asking(keep=60, places=4, threads=1), Question(ValueError("no"))
    for _ in range(3):
        with pytest.raises(ValueError, match="no"):
            asking.ask("a", question).result(10)
    assert question.asked == 1


def test_different_questions_do_not_wait_for_each_other():
    asking, slow = Asking(keep=60, places=4, threads=2), Question(waits=True)
    waiting = asking.ask("slow", slow)
    assert asking.ask("quick", Question("soon")).result(10) == "soon"
    slow.may_answer.set()
    waiting.result(10)


def test_the_oldest_answer_makes_room():
    asking, first, second = Asking(keep=60, places=2, threads=1), Question(), Question()
    for key, question in (("a", first), ("b", second), ("c", Question()), ("b", second), ("a", first)):
        asking.ask(key, question).result(10)
    assert (first.asked, second.asked) == (2, 1)


def test_there_are_no_more_open_questions_than_places():
    asking, question = Asking(keep=60, places=2, threads=1), Question(waits=True)
    futures = [asking.ask("a", question), asking.ask("b", question)]
    with pytest.raises(BusyError):
        asking.ask("c", question)
    question.may_answer.set()
    assert [future.result(10) for future in futures] == ["answer", "answer"]
    assert asking.ask("c", question).result(10) == "answer"
