"""Decide whether and when a request is sent again, run the retry loop, and limit the request rate.

Design notes on retries:

1. Reads are retried on every transient error.
2. A mutation is retried only if it cannot have been applied. The API has no idempotency key, so any other failure is
   settled by reading the task.
3. Delays grow exponentially with full jitter, so that many workers do not retry at the same time. ``Retry-After`` is
   added to the delay.
4. If ``Retry-After`` exceeds ``retry_after_cap``, the request fails at once: Airflow's own retry does not block a
   worker slot.
5. The number of mutations per request is halved when a request was too large or too slow, and grows by one after 8
   successful full requests.

Design notes on the rate limit:

1. All threads of a process that use an account share one limiter, because the server's limit is per account.
2. After HTTP 429 all other threads wait as well. The thread that received it waits in its own retry loop.
3. If that thread gives up, all threads wait, itself included, as long as the server asks, but at most two minutes. What
   is sent meanwhile would be refused as well.
4. How long the server asks to wait is kept, so that Airflow's retry can start after that time.

The transport reports each attempt, retry and wait to an observer, and does not depend on how metrics are stored.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeVar
from weakref import WeakValueDictionary

from airflow_provider_redbrick._utils import renew_after_fork
from airflow_provider_redbrick.client.transport.clock import epoch_seconds
from airflow_provider_redbrick.exceptions import RedBrickAPIError, RedBrickRateLimitError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable


log = logging.getLogger(__name__)


# Successful full requests before the size grows by one.
_GROWS_AFTER = 8


class BatchSize:
    """Adaptive number of mutations per request.

    :param most: the maximum; 1 sends each mutation in its own request.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._size = most
        self._good = 0
        self._lock = threading.Lock()
        renew_after_fork(self, BatchSize._renew)

    @property
    def size(self) -> int:
        """The current number of mutations per request."""
        return self._size

    def shrink(self, count: int) -> None:
        """Record that a request with this number of mutations was too large or too slow."""
        with self._lock:
            self._size = max(1, min(self._size, count // 2))
            self._good = 0

    def record_success(self, count: int) -> None:
        """Record that a request with this number of mutations succeeded."""
        with self._lock:
            self._good += count >= self._size
            if self._good >= _GROWS_AFTER and self._size < self.most:
                self._size += 1
                self._good = 0

    def _renew(self) -> None:
        self._lock = threading.Lock()


class Observer(Protocol):
    """Receive events about requests.

    Methods are called by any thread, during its work: they must be fast and must not raise. Times are in seconds.
    """

    def answered(self, operation: str, seconds: float, error: RedBrickAPIError | None) -> None:
        """Record the end of an API request.

        :param operation: the API operation.
        :param seconds: the duration.
        :param error: the error it ended with; ``None`` for success.
        """

    def retrying(self, operation: str, error: RedBrickAPIError) -> None:
        """Record that a request, to the API or to storage, is sent again.

        :param operation: the operation.
        :param error: the error that caused the retry.
        """

    def waited(self, seconds: float) -> None:
        """Record that a request was delayed by the server's or the configured rate limit."""


class NoObserver:
    """Observer that ignores all events."""

    def answered(self, operation: str, seconds: float, error: RedBrickAPIError | None) -> None:
        """Do nothing.

        :param operation: ignored.
        :param seconds: ignored.
        :param error: ignored.
        """

    def retrying(self, operation: str, error: RedBrickAPIError) -> None:
        """Do nothing.

        :param operation: ignored.
        :param error: ignored.
        """

    def waited(self, seconds: float) -> None:
        """Do nothing."""


T = TypeVar("T")


@dataclass(frozen=True)
class RetryPolicy:
    """Limits of the retry loop. All times are in seconds.

    :param max_attempts: the maximum number of attempts, including the first.
    :param base: the upper bound of the first delay; doubled with each attempt.
    :param cap: the upper bound of every delay.
    :param retry_after_cap: the longest ``Retry-After`` that is obeyed.
    """

    max_attempts: int = 6
    base: float = 0.5
    cap: float = 30.0
    retry_after_cap: float = 120.0


def seconds_until_retry(
    error: RedBrickAPIError,
    *,
    mutation: bool,
    attempt: int,
    now: float,
    draw: float,
    policy: RetryPolicy,
) -> float | None:
    """Return the delay before the next attempt in seconds, or ``None`` to give up.

    :param error: the error of the attempt that failed.
    :param mutation: whether the request is a mutation; it is retried only if it cannot have been applied.
    :param attempt: the number of the attempt that failed, from 1.
    :param now: the server's time in epoch seconds, for a ``Retry-After`` that is a date.
    :param draw: a random number in [0, 1), for full jitter.
    :param policy: the limits.
    """
    if attempt >= policy.max_attempts or not error.transient:
        return None
    if mutation and error.maybe_applied:
        return None
    retry_after_s = retry_after_seconds(error.retry_after, now=now)
    if retry_after_s is not None and retry_after_s > policy.retry_after_cap:
        return None  # free the worker slot: Airflow's own retry comes later
    backoff = draw * min(policy.cap, policy.base * 2.0 ** (attempt - 1))
    return backoff + (retry_after_s or 0.0)


def retry_after_seconds(header: str | None, *, now: float) -> float | None:
    """Parse a ``Retry-After`` header, in seconds or as an HTTP date.

    :param header: the raw header.
    :param now: the server's time in epoch seconds.
    :return: ``None`` if there is none or it is malformed.
    """
    if not header:
        return None
    text = header.strip()
    if text.isdecimal():
        return float(text)
    date = epoch_seconds(text)
    return None if date is None else max(0.0, date - now)


@dataclass(frozen=True)
class Retries:
    """Run requests with retries.

    :param policy: the limits.
    :param clock: returns the server's time in epoch seconds.
    :param sleep: waits for a number of seconds.
    :param draw: returns a random number in [0, 1).
    :param rate_limiter: delays other requests when the server limits the rate.
    :param observer: receives retries and waits.
    """

    policy: RetryPolicy
    clock: Callable[[], float]
    sleep: Callable[[float], None]
    draw: Callable[[], float]
    rate_limiter: RateLimiter | None = None
    observer: Observer = field(default_factory=NoObserver)

    def run(self, attempt: Callable[[], T], *, mutation: bool) -> T:
        """Return what ``attempt`` returns, or raise its last error.

        :param attempt: sends the request once.
        :param mutation: whether the request is a mutation.
        :raises RedBrickAPIError: if no further attempt is allowed.
        """
        number = 1
        while True:
            try:
                return attempt()
            except RedBrickAPIError as error:
                wait = seconds_until_retry(
                    error,
                    mutation=mutation,
                    attempt=number,
                    now=self.clock(),
                    draw=self.draw(),
                    policy=self.policy,
                )
                if wait is None:
                    self._pause(error)
                    raise
                self.observer.retrying(error.operation, error)
                if isinstance(error, RedBrickRateLimitError):
                    self.observer.waited(wait)
                    if self.rate_limiter is not None:
                        self.rate_limiter.hold(wait)
                log.info("Retrying in %.1f s (attempt %d): %s", wait, number + 1, error)
            self.sleep(wait)
            number += 1

    def _pause(self, error: RedBrickAPIError) -> None:
        """Delay all requests after a rate limit that is not waited for here."""
        # A client that does not retry is one that a user waits for.
        if not isinstance(error, RedBrickRateLimitError) or self.rate_limiter is None or self.policy.max_attempts == 1:
            return
        retry_after_s = retry_after_seconds(error.retry_after, now=self.clock())
        if retry_after_s and self.rate_limiter.pause(retry_after_s, most=self.policy.retry_after_cap):
            log.warning(
                "RedBrick limits the rate of requests and asks to wait %.0f s. The next requests wait up to %.0f s.",
                retry_after_s,
                self.policy.retry_after_cap,
            )


_MAX_ASKED_S = 86_400.0


class RateLimiter:
    """Limit the request rate of all threads; delay them when the server asks for it.

    :param per_second: the maximum number of requests that start per second; ``None`` for no limit.
    :param clock: returns the current time in seconds (monotonic).
    :param sleep: waits for a number of seconds.
    """

    def __init__(
        self,
        per_second: float | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._interval = 1 / per_second if per_second else 0.0
        self._clock = clock
        self._sleep = sleep
        self._next = 0.0
        # By the thread that waits by itself; ``None`` for a pause of all threads.
        self._holds: dict[int | None, float] = {}
        self._asked_until = 0.0
        self._lock = threading.Lock()
        renew_after_fork(self, RateLimiter._renew)

    def wait(self) -> float:
        """Wait until this thread may send a request; return the seconds waited."""
        with self._lock:
            now = self._clock()
            self._holds = {thread: until for thread, until in self._holds.items() if until > now}
            held = [until for thread, until in self._holds.items() if thread != threading.get_ident()]
            turn = max(now, self._next, *held)
            self._next = turn + self._interval if self._interval else 0.0
        if turn > now:
            self._sleep(turn - now)
        return turn - now

    def hold(self, seconds: float) -> None:
        """Delay the requests of all other threads by a number of seconds.

        The calling thread is not delayed: it waits by itself.
        """
        with self._lock:
            thread = threading.get_ident()
            self._holds[thread] = max(self._holds.get(thread, 0.0), self._clock() + seconds)

    def pause(self, seconds: float, *, most: float) -> bool:
        """Delay the requests of all threads, after a request was given up because of the rate.

        :param seconds: how long the server asks to wait.
        :param most: the longest delay in seconds.
        :return: whether this begins a pause; False if there is one already.
        """
        with self._lock:
            now = self._clock()
            paused_until = self._holds.get(None, 0.0)
            self._holds[None] = max(paused_until, now + min(seconds, most))
            self._asked_until = max(self._asked_until, now + min(seconds, _MAX_ASKED_S))
        return paused_until <= now

    @property
    def asked_s(self) -> float:
        """How much longer the server asks to wait, in seconds, since a request was given up; 0 if it does not."""
        return max(0.0, self._asked_until - self._clock())

    def _renew(self) -> None:
        self._lock = threading.Lock()


class _Limiters:
    """The limiters of this process, by account and rate."""

    def __init__(self) -> None:
        self._limiters: WeakValueDictionary[Hashable, RateLimiter] = WeakValueDictionary()
        self._lock = threading.Lock()
        renew_after_fork(self, _Limiters._renew)

    def get(self, account: Hashable, per_second: float | None) -> RateLimiter:
        with self._lock:
            limiter = self._limiters.get((account, per_second))
            if limiter is None:
                limiter = self._limiters[account, per_second] = RateLimiter(per_second)
            return limiter

    def _renew(self) -> None:
        self._lock = threading.Lock()


_limiters = _Limiters()


def shared_rate_limiter(account: Hashable, per_second: float | None) -> RateLimiter:
    """Return the limiter shared by all threads of this process that use an account.

    :param account: the server and the credential, to which the server's limits apply.
    :param per_second: the maximum number of requests that start per second; ``None`` for no limit.
    """
    return _limiters.get(account, per_second)
