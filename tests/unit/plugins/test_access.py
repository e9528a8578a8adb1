"""Tests of the read cache: shared reads, expiry and limits."""

from __future__ import annotations

import threading
import time

import pytest

from airflow_provider_redbrick.plugins.access import BusyError, ReadCache


class CountingRead:
    """A read that counts its calls and can block until released."""

    def __init__(self, result="result", blocks=False):
        self.calls = 0
        self.result = result
        self.may_return = threading.Event()
        if not blocks:
            self.may_return.set()

    def __call__(self):
        self.calls += 1
        assert self.may_return.wait(10)
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


def test_concurrent_callers_share_one_read():
    cache, read = ReadCache(ttl_s=60, max_entries=4, threads=4), CountingRead(blocks=True)
    futures = []
    threads = [threading.Thread(target=lambda: futures.append(cache.submit("a", read))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    read.may_return.set()
    assert {future.result(10) for future in futures} == {"result"}
    assert len(futures) == 20
    assert read.calls == 1


def test_result_is_cached_until_it_expires():
    cache, read = ReadCache(ttl_s=0.05, max_entries=4, threads=1), CountingRead()
    assert cache.submit("a", read).result(10) == "result"
    assert cache.submit("a", read).result(10) == "result"
    assert read.calls == 1
    time.sleep(0.06)
    cache.submit("a", read).result(10)
    assert read.calls == 2


def test_lifetime_starts_when_the_read_ends():
    cache, read = ReadCache(ttl_s=0.2, max_entries=4, threads=1), CountingRead(blocks=True)
    future = cache.submit("a", read)
    time.sleep(0.25)
    read.may_return.set()
    future.result(10)
    cache.submit("a", read).result(10)
    assert read.calls == 1


def test_error_is_cached():
    cache, read = ReadCache(ttl_s=60, max_entries=4, threads=1), CountingRead(ValueError("no"))
    for _ in range(3):
        with pytest.raises(ValueError, match="no"):
            cache.submit("a", read).result(10)
    assert read.calls == 1


def test_reads_of_different_keys_run_concurrently():
    cache, slow = ReadCache(ttl_s=60, max_entries=4, threads=2), CountingRead(blocks=True)
    waiting = cache.submit("slow", slow)
    assert cache.submit("quick", CountingRead("soon")).result(10) == "soon"
    slow.may_return.set()
    waiting.result(10)


def test_oldest_result_is_evicted():
    cache, first, second = ReadCache(ttl_s=60, max_entries=2, threads=1), CountingRead(), CountingRead()
    for key, read in (("a", first), ("b", second), ("c", CountingRead()), ("b", second), ("a", first)):
        cache.submit(key, read).result(10)
    assert (first.calls, second.calls) == (2, 1)


def test_full_cache_of_unfinished_reads_raises_busy():
    cache, read = ReadCache(ttl_s=60, max_entries=2, threads=1), CountingRead(blocks=True)
    futures = [cache.submit("a", read), cache.submit("b", read)]
    with pytest.raises(BusyError):
        cache.submit("c", read)
    read.may_return.set()
    assert [future.result(10) for future in futures] == ["result", "result"]
    assert cache.submit("c", read).result(10) == "result"
