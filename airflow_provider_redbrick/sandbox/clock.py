"""Timestamps in the API's format.

Timestamps are UTC text of fixed width with microseconds, such as `2024-05-01T12:00:00.000000+00:00`. Comparing two of
them as text therefore compares the times, which SQL queries rely on. `Clock` never returns the same time twice, so
that sorting by time gives the order of events.
"""

from __future__ import annotations

import datetime as dt

import pendulum


def text_of(moment: dt.datetime) -> str:
    """Format a time as canonical text, such as `2024-05-01T12:00:00.000000+00:00`."""
    return moment.astimezone(dt.timezone.utc).isoformat(timespec="microseconds")


def canonical(text: str) -> str:
    """Convert an ISO 8601 time to the canonical form.

    :param text: any ISO 8601 date and time. Without an offset it is read as UTC.
    :raises ValueError: if the text is not a time.
    """
    found = None if "/" in text else pendulum.parse(text, exact=False, tz="UTC")
    if isinstance(found, pendulum.DateTime):
        return text_of(found)
    raise ValueError(f"{text!r} is not an ISO 8601 time")


def later(text: str, milliseconds: int) -> str:
    """Add milliseconds to a canonical time.

    :param text: time in the canonical form.
    :param milliseconds: what to add.
    """
    if not milliseconds:
        return text
    return text_of(dt.datetime.fromisoformat(text) + pendulum.duration(milliseconds=milliseconds))


class Clock:
    """Clock whose values strictly increase."""

    def __init__(self) -> None:
        self._last = ""

    def now(self) -> str:
        """Return the current time in the canonical form, later than all previous values."""
        moment = text_of(dt.datetime.now(dt.timezone.utc))
        if moment <= self._last:
            moment = text_of(dt.datetime.fromisoformat(self._last) + pendulum.duration(microseconds=1))
        self._last = moment
        return moment
