"""Tests of concurrent chunks and of user callables in the main thread."""

from __future__ import annotations

import threading
import time
from contextlib import closing

import pytest

from airflow_provider_redbrick._utils import in_chunks
from airflow_provider_redbrick.engine.concurrency import MainThreadExecutor, in_parallel
from airflow_provider_redbrick.exceptions import RedBrickStoppedError


def test_in_parallel_faster_later_chunk_keeps_order():
    later = threading.Event()

    def work(n):
        if n == 1:
            assert later.wait(5)
        if n == 2:
            later.set()
        return [n, -n]

    found = list(in_parallel(range(1, 7), work, workers=3, stop=threading.Event()))
    assert found == [1, -1, 2, -2, 3, -3, 4, -4, 5, -5, 6, -6]


def test_in_parallel_reads_no_more_chunks_than_workers():
    read, ahead = [], []
    chunks = (read.append(n) or [n] for n in range(20))
    for done, _ in enumerate(in_parallel(chunks, lambda chunk: chunk, workers=3, stop=threading.Event()), 1):
        ahead.append(len(read) - done)
    assert max(ahead) <= 3


def test_in_chunks_reads_source_lazily():
    entries = iter(range(7))
    chunks = in_chunks(entries, 3)
    assert next(chunks) == [0, 1, 2]
    assert next(entries) == 3
    assert list(chunks) == [[4, 5, 6]]


@pytest.mark.parametrize("how", ["closed", "failed"])
def test_in_parallel_ended_early_sets_stop_and_waits_for_running_chunks(how):
    stop, cleaned_up, at_work = threading.Event(), [], threading.Event()

    def work(n):
        if n == 0:
            return [n]
        if n == 1:
            assert at_work.wait(5)
            if how == "failed":
                raise ConnectionError
            return [n]
        at_work.set()
        assert stop.wait(5)
        cleaned_up.append(n)
        return [n]

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


class TestMainThreadExecutor:
    def test_call_from_worker_runs_in_owner_thread(self):
        executor, threads = MainThreadExecutor(), set()

        def called():
            threads.add(threading.get_ident())
            return "answer"

        def work(n):
            threads_of_work.add(threading.get_ident())
            return [(n, executor.run(called))]

        threads_of_work = set()
        found = list(in_parallel(range(9), work, workers=3, stop=threading.Event(), executor=executor))
        assert found == [(n, "answer") for n in range(9)]
        assert threads == {threading.get_ident()}
        assert not threads & threads_of_work

    def test_exception_is_raised_in_calling_worker(self):
        executor = MainThreadExecutor()

        def work(n):
            with pytest.raises(ZeroDivisionError):
                executor.run(lambda: n / 0)
            return [n]

        assert list(in_parallel(range(4), work, workers=2, stop=threading.Event(), executor=executor)) == [0, 1, 2, 3]

    def test_slow_callable_limits_work_to_two_chunks(self):
        executor, begun, ahead = MainThreadExecutor(), [], []

        def work(n):
            begun.append(n)
            executor.run(lambda: time.sleep(0.02))
            return [n]

        for done, _ in enumerate(in_parallel(range(12), work, workers=8, stop=threading.Event(), executor=executor), 1):
            ahead.append(len(begun) - done)
        assert max(ahead) <= 1

    def test_fast_callable_uses_all_workers(self):
        executor, at_work, most = MainThreadExecutor(), set(), []

        def work(n):
            at_work.add(n)
            most.append(len(at_work))
            time.sleep(0.02)
            executor.run(lambda: None)
            at_work.discard(n)
            return [n]

        list(in_parallel(range(60), work, workers=8, stop=threading.Event(), executor=executor))
        assert max(most) == 8

    def test_stopped_owner_rejects_queued_and_later_calls(self):
        executor, stop, rejected = MainThreadExecutor(), threading.Event(), []

        class StoppedByAirflowError(BaseException):
            pass

        def killed():
            # Until then the second worker has queued its call.
            time.sleep(0.1)
            raise StoppedByAirflowError

        def work(n):
            try:
                executor.run(killed)
            except RedBrickStoppedError:
                rejected.append(n)
                raise
            return [n]

        with pytest.raises(StoppedByAirflowError):
            list(in_parallel(range(9), work, workers=3, stop=stop, executor=executor, seconds=5))
        assert sorted(rejected) == [0, 1]
        assert stop.is_set()
        with pytest.raises(RedBrickStoppedError):
            _in_another_thread(lambda: executor.run(lambda: None))


def _in_another_thread(function):
    raised = []

    def run():
        try:
            function()
        except BaseException as error:  # noqa: BLE001 - raised below
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(5)
    for error in raised:
        raise error
