"""Tests for the request rate and the batch size."""

from __future__ import annotations

import gc
import threading
import weakref

import pytest

from airflow_provider_redbrick.client.transport.retry import BatchSize, RateLimiter, shared_rate_limiter


class Clock:
    """A clock that advances only by sleeping."""

    def __init__(self):
        self.now = 100.0
        self.slept = []

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds


def limited(per_second=None):
    clock = Clock()
    return clock, RateLimiter(per_second, clock=clock, sleep=clock.sleep)


def in_another_thread(action):
    thread = threading.Thread(target=action)
    thread.start()
    thread.join(timeout=10)


def test_limiter_without_a_rate_does_not_wait():
    clock, limiter = limited()
    for _ in range(100):
        limiter.wait()
    assert clock.slept == []


def test_limiter_keeps_the_rate():
    clock, limiter = limited(4)
    for _ in range(9):
        limiter.wait()
    assert clock.now == pytest.approx(100 + 8 / 4)


def test_limiter_returns_the_seconds_waited():
    _, limiter = limited(4)
    assert [limiter.wait(), limiter.wait()] == [0.0, pytest.approx(1 / 4)]


def test_limiter_does_not_accumulate_unused_time():
    clock, limiter = limited(1)
    limiter.wait()
    clock.now += 50
    limiter.wait()
    limiter.wait()
    assert clock.slept == [pytest.approx(1)]


def test_hold_delays_all_other_threads():
    clock, limiter = limited()
    in_another_thread(lambda: limiter.hold(7))
    limiter.wait()
    assert clock.slept == [7]
    limiter.wait()
    assert clock.slept == [7]


def test_shorter_hold_of_another_thread_does_not_end_a_longer_one():
    clock, limiter = limited()
    in_another_thread(lambda: limiter.hold(60))
    limiter.hold(1)
    limiter.wait()
    assert clock.slept == [60]


def test_hold_does_not_delay_the_calling_thread():
    clock, limiter = limited()
    limiter.hold(7)
    limiter.wait()
    assert clock.slept == []


def test_pause_delays_all_threads_and_the_calling_one():
    clock, limiter = limited()
    limiter.pause(7, most=120)
    in_another_thread(limiter.wait)
    assert clock.slept == [7]
    limiter.pause(5, most=120)
    limiter.wait()
    assert clock.slept == [7, 5]


def test_pause_is_limited_and_the_whole_time_is_kept():
    clock, limiter = limited()
    assert limiter.asked_s == 0
    limiter.pause(3600, most=120)
    limiter.wait()
    assert clock.slept == [120]
    assert limiter.asked_s == 3600 - 120


def test_only_the_first_pause_is_new():
    clock, limiter = limited()
    assert [limiter.pause(60, most=120), limiter.pause(61, most=120)] == [True, False]
    clock.now += 61
    assert limiter.pause(60, most=120)


def test_pause_without_an_end_is_kept_for_a_day():
    _, limiter = limited()
    limiter.pause(float("inf"), most=120)
    assert limiter.asked_s == 86_400


def test_limiter_is_shared_by_threads():
    limiter = RateLimiter(200)
    stamps = []

    def work():
        for _ in range(10):
            limiter.wait()
            stamps.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=10)
    assert len(stamps) == 40


def test_batch_size_is_halved_and_grows_slowly():
    bundle = BatchSize(10)
    bundle.shrink(10)
    assert bundle.size == 5
    for _ in range(7):
        bundle.record_success(5)
    assert bundle.size == 5
    bundle.record_success(5)
    assert bundle.size == 6
    for _ in range(100):
        bundle.record_success(bundle.size)
    assert bundle.size == 10


def test_batch_size_ignores_successful_small_requests():
    bundle = BatchSize(10)
    bundle.shrink(10)
    for _ in range(50):
        bundle.record_success(2)
    assert bundle.size == 5


def test_batch_size_is_at_least_one():
    bundle = BatchSize(1)
    bundle.shrink(1)
    assert bundle.size == 1


def test_limiter_is_shared_per_account():
    one = shared_rate_limiter(("https://a", "key"), 5)
    assert shared_rate_limiter(("https://a", "key"), 5) is one
    assert shared_rate_limiter(("https://a", "another key"), 5) is not one
    assert shared_rate_limiter(("https://a", "key"), None) is not one


def test_unused_limiter_is_not_kept():
    forgotten = weakref.ref(shared_rate_limiter("an account", None))
    gc.collect()
    assert forgotten() is None
