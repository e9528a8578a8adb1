"""Whether to send a request again, and when: one pure decision, and the loop that acts on it."""

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
    """How patient the transport is. All times in seconds."""

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
    """Return how long to wait before the next attempt, or None to give up with ``error``.

    Reads are tried again whenever that may help. A mutation is tried again only where nothing can have been applied:
    the API has no idempotency key, so anything else is for the caller to settle by reading the task.

    :param attempt: the number of the attempt that failed, from 1.
    :param now: the clock, in epoch seconds, for a ``Retry-After`` that is a date.
    :param draw: a random number in [0, 1): full jitter, so that many workers do not come back at once.
    """
    if attempt >= policy.max_attempts or not error.transient:
        return None
    if mutation and error.maybe_applied:
        return None
    asked = retry_after_seconds(error.retry_after, now=now)
    if asked is not None and asked > policy.retry_after_cap:
        return None  # better to free the worker slot: Airflow's own retry comes later than we should sleep
    backoff = draw * min(policy.cap, policy.base * 2.0 ** (attempt - 1))
    return backoff + (asked or 0.0)


def retry_after_seconds(header: str | None, *, now: float) -> float | None:
    """Read a ``Retry-After`` header, in seconds or as an HTTP date; None when there is none or it makes no sense."""
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
    """Tries again as the decision says, by a clock, a sleep and a draw that tests can replace.

    :param rate_limiter: what lets all other threads wait too, when the server limits the rate.
    :param observer: who is told.
    """

    policy: RetryPolicy
    clock: Callable[[], float]
    sleep: Callable[[float], None]
    draw: Callable[[], float]
    rate_limiter: RateLimiter | None = None
    observer: Observer = field(default_factory=NoObserver)

    def run(self, attempt: Callable[[], T], *, mutation: bool) -> T:
        """Return what ``attempt`` returns, or raise its last error."""
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
                log.info("%s; trying again in %.1f s (attempt %d).", error, wait, number + 1)
            self.sleep(wait)
            number += 1
