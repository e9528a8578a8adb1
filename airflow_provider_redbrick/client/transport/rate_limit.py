"""Limit the request rate of an account, and delay requests when the server asks for it.

Design notes:

1. All threads of a process that use an account share one limiter, because the server's limit is per account.
2. After HTTP 429 all other threads wait as well. The thread that received it waits in its own retry loop.
3. If that thread gives up, all threads wait, itself included, as long as the server asks, but at most two minutes. What
   is sent meanwhile would be refused as well.
4. How long the server asks to wait is kept, so that Airflow's retry can start after that time.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from airflow_provider_redbrick._utils import renew_after_fork

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable


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
