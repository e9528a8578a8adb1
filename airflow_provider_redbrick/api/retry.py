"""Decide whether and when a request is sent again, and run the retry loop.

Design notes on retries:

1. Reads are retried on every transient error.
2. A mutation is retried only if it cannot have been applied. The API has no idempotency key, so any other failure is
   settled by reading the task.
3. Delays grow exponentially with full jitter, so that many workers do not retry at the same time. ``Retry-After`` is
   added to the delay.
4. If ``Retry-After`` exceeds ``retry_after_cap``, the request fails at once: Airflow's own retry does not block a
   worker slot.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from datetime import timezone
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, TypeVar

from airflow_provider_redbrick.api.observer import NoObserver
from airflow_provider_redbrick.exceptions import RedBrickAPIError, RedBrickRateLimitError

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_redbrick.api.observer import Observer
    from airflow_provider_redbrick.api.rate_limit import RateLimiter

log = logging.getLogger(__name__)

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
    :param now: the current time in epoch seconds, for a ``Retry-After`` that is a date.
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
    :param now: the current time in epoch seconds.
    :return: ``None`` if there is none or it is malformed.
    """
    if not header:
        return None
    text = header.strip()
    if text.isdecimal():
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=timezone.utc)
        return max(0.0, float(moment.timestamp()) - now)
    except (ValueError, TypeError, IndexError, ArithmeticError):
        return None


@dataclass(frozen=True)
class Retries:
    """Run requests with retries.

    :param policy: the limits.
    :param clock: returns the current time in epoch seconds.
    :param sleep: waits for a number of seconds.
    :param draw: returns a random number in [0, 1).
    :param rate_limiter: delays all other threads when the server limits the rate.
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
                    raise
                self.observer.retrying(error.operation, error)
                if isinstance(error, RedBrickRateLimitError):
                    self.observer.waited(wait)
                    if self.rate_limiter is not None:
                        self.rate_limiter.hold(wait)
                log.info("Retrying in %.1f s (attempt %d): %s", wait, number + 1, error)
            self.sleep(wait)
            number += 1
