"""Shared request rate, and adaptive size of combined mutations.

Design notes on rates:

1. All threads of a process that use an account share one limiter, because the server's limit is per account.
2. After HTTP 429 all other threads wait as well. The thread that received it waits in its own retry loop.
3. The number of mutations per request is halved when a request was too large or too slow, and grows by one after 8
   successful full requests.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from airflow_provider_redbrick.api.forks import renew_after_fork

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

# Successful full requests before the size grows by one.
_GROWS_AFTER = 8


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
        self._held_until = 0.0
        self._holder: int | None = None
        self._lock = threading.Lock()
        renew_after_fork(self, RateLimiter._renew)

    def wait(self) -> float:
        """Wait until this thread may send a request; return the seconds waited."""
        with self._lock:
            now = self._clock()
            held = self._held_until if self._holder != threading.get_ident() else 0.0
            turn = max(now, self._next, held)
            self._next = turn + self._interval if self._interval else 0.0
        if turn > now:
            self._sleep(turn - now)
        return turn - now

    def hold(self, seconds: float) -> None:
        """Delay the requests of all other threads by a number of seconds.

        The calling thread is not delayed: it waits by itself.
        """
        with self._lock:
            self._held_until = max(self._held_until, self._clock() + seconds)
            self._holder = threading.get_ident()

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
