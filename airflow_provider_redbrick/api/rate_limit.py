"""How fast, and how much at a time: what requests tell each other."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from airflow_provider_redbrick.api.forks import renew_after_fork

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

# Requests that must go well before a size that was too much is tried again.
_GROWS_AFTER = 8


class RateLimiter:
    """Keeps the requests of all threads below a rate, and lets all of them wait when the server says so.

    :param per_second: how many requests may begin in a second; None for as many as there are.
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
        """Wait for one's turn; return how many seconds that took."""
        with self._lock:
            now = self._clock()
            held = self._held_until if self._holder != threading.get_ident() else 0.0
            turn = max(now, self._next, held)
            self._next = turn + self._interval if self._interval else 0.0
        if turn > now:
            self._sleep(turn - now)
        return turn - now

    def hold(self, seconds: float) -> None:
        """Let no other thread's request begin before so many seconds are over; whoever calls this waits by himself."""
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
    """Return the one limiter of all threads in this process that use an account at the same time.

    :param account: the server and the credential, which its limits are about.
    """
    return _limiters.get(account, per_second)


class Bundle:
    """How many mutations go in one request: halved when that was too much, and grown again slowly.

    :param most: never more than this; 1 sends each by itself.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._size = most
        self._good = 0
        self._lock = threading.Lock()
        renew_after_fork(self, Bundle._renew)

    @property
    def size(self) -> int:
        """How many it is at the moment."""
        return self._size

    def was_too_much(self, count: int) -> None:
        """Take notice that a request with so many mutations was too large, or took too long."""
        with self._lock:
            self._size = max(1, min(self._size, count // 2))
            self._good = 0

    def went_well(self, count: int) -> None:
        """Take notice that a request with so many mutations went well."""
        with self._lock:
            self._good += count >= self._size
            if self._good >= _GROWS_AFTER and self._size < self.most:
                self._size += 1
                self._good = 0

    def _renew(self) -> None:
        self._lock = threading.Lock()
