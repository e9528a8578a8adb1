"""Estimate the server's clock from the ``Date`` headers of its answers.

Design notes:

1. Times of the server are compared with times of the server. A worker's clock may be minutes off.
2. A header names a second in which the server answered, which was between sending the request and receiving the
   headers. This bounds the offset of the two clocks. Bounds of several answers are intersected.
3. A header may be older than a second: servers render it once a second for all answers (uvicorn, nginx).
4. Bounds widen with time, because clocks drift: a clock that is being corrected runs up to 0.5 ms/s faster or slower.
5. Bounds that contradict each other mean that a clock was set. The estimate then starts again with the last answer.
6. Without a usable header the offset is 0 and its error unknown: the server's clock is taken to be this one.
"""

from __future__ import annotations

import time
from datetime import timezone
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, NamedTuple

import pendulum

if TYPE_CHECKING:
    from collections.abc import Callable

# A header has a resolution of one second, and may have been rendered a second before the answer.
_HEADER_AGE_S = 2.0
_DRIFT = 0.0005
# A larger offset is not a clock but a garbled header.
_MAX_OFFSET_S = 366 * 86_400.0


class _Bounds(NamedTuple):
    """Limits of the server's time minus the local time, in seconds, and when they were known."""

    low: float
    high: float
    at: float


def _drift(bounds: _Bounds, at: float) -> float:
    return _DRIFT * abs(at - bounds.at)


class ServerClock:
    """Estimate of the server's clock. Thread-safe.

    :param local: returns this machine's time in epoch seconds; replaced in tests.
    """

    def __init__(self, local: Callable[[], float] = time.time) -> None:
        self.local = local
        # Replaced as a whole. If two threads observe at the same time, one observation is lost, which does no harm.
        self._bounds: _Bounds | None = None

    @property
    def offset_s(self) -> float:
        """The server's time minus the local time in seconds; 0 if unknown."""
        bounds = self._bounds
        return (bounds.low + bounds.high) / 2 if bounds else 0.0

    @property
    def error_s(self) -> float | None:
        """By how many seconds :attr:`offset_s` may be wrong in either direction; ``None`` if unknown."""
        bounds = self._bounds
        return (bounds.high - bounds.low) / 2 + _drift(bounds, self.local()) if bounds else None

    def timestamp(self) -> float:
        """Return the server's time in epoch seconds, by the best estimate."""
        return self.local() + self.offset_s

    def now(self) -> pendulum.DateTime:
        """Return the server's time in UTC, by the best estimate."""
        return pendulum.from_timestamp(self.timestamp(), tz="UTC")

    def observe(self, date_header: str | None, *, sent_at: float, received_at: float) -> None:
        """Learn from one answer. A missing or garbled header is ignored.

        :param date_header: the raw ``Date`` header.
        :param sent_at: the local time before the request was sent, in epoch seconds.
        :param received_at: the local time after the headers were received, in epoch seconds.
        """
        date = epoch_seconds(date_header)
        if date is None or received_at < sent_at or abs(date - received_at) > _MAX_OFFSET_S:
            return
        low, high = date - received_at, date + _HEADER_AGE_S - sent_at
        known = self._bounds
        if known is not None:
            drift = _drift(known, received_at)
            both = max(low, known.low - drift), min(high, known.high + drift)
            low, high = both if both[0] <= both[1] else (low, high)
        self._bounds = _Bounds(low, high, received_at)


def epoch_seconds(http_date: str | None) -> float | None:
    """Parse an HTTP date.

    :param http_date: the text of a header, e.g. ``Wed, 01 May 2024 12:00:00 GMT``.
    :return: epoch seconds; ``None`` if there is no date or it is malformed.
    """
    try:
        moment = parsedate_to_datetime(http_date or "")
        return float((moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp())
    except (ValueError, TypeError, IndexError, ArithmeticError):
        return None
