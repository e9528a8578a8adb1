"""Chunks of tasks are worked on several at a time, and end together."""

from __future__ import annotations

import threading
from contextlib import closing

import pytest

from airflow_provider_redbrick.batch.parallel import in_parallel


def test_results_come_in_the_order_of_the_chunks_even_when_later_ones_are_quicker():
    later = threading.Event()

    def work(n):
        if n == 1:
            assert later.wait(5)
        if n == 2:
            later.set()
        return n

    assert list(in_parallel(range(6), work, workers=3, stop=threading.Event())) == list(range(6))


def test_the_first_chunk_is_worked_on_alone():
    begun = []

    def work(n):
        begun.append(n)
        if n == 0:
            raise ConnectionError

    with pytest.raises(ConnectionError):
        list(in_parallel(range(6), work, workers=3, stop=threading.Event()))
    assert begun == [0]


def test_no_more_is_read_than_is_worked_on():
    read, ahead = [], []
    chunks = (read.append(n) or n for n in range(20))
    for done, _ in enumerate(in_parallel(chunks, str, workers=3, stop=threading.Event()), 1):
        ahead.append(len(read) - done)
    assert max(ahead) <= 3


@pytest.mark.parametrize("how", ["closed", "failed"])
def test_when_it_ends_early_those_at_work_are_told_and_waited_for(how):
    stop, cleaned_up, at_work = threading.Event(), [], threading.Event()

    def work(n):
        if n == 0:
            return n
        if n == 1:
            assert at_work.wait(5)
            if how == "failed":
                raise ConnectionError
            return n
        at_work.set()
        assert stop.wait(5)
        cleaned_up.append(n)
        return n

    results = in_parallel(range(50), work, workers=3, stop=stop, seconds=5)
    assert next(results) == 0
    if how == "failed":
        with pytest.raises(ConnectionError):
            next(results)
    else:
        with closing(results):
            assert next(results) == 1
    assert sorted(cleaned_up) == [2, 3][: len(cleaned_up)]
    assert cleaned_up
    assert stop.is_set()
