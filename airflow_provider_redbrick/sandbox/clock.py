"""Time as the API writes it: UTC, microseconds, and text that sorts as time does."""

from __future__ import annotations

import datetime as dt

import pendulum


def text_of(moment: dt.datetime) -> str:
    """Write a moment as `2024-05-01T12:00:00.000000+00:00`: fixed width, so that comparing text compares time."""
    return moment.astimezone(dt.timezone.utc).isoformat(timespec="microseconds")


def canonical(text: str) -> str:
    """Read any ISO-8601 time (no offset means UTC) and write it in the canonical form; ValueError if it is none."""
    found = None if "/" in text else pendulum.parse(text, exact=False, tz="UTC")
    if isinstance(found, pendulum.DateTime):
        return text_of(found)
    raise ValueError(f"{text!r} is not a moment")


def later(text: str, milliseconds: int) -> str:
    """Add milliseconds to a canonical time."""
    if not milliseconds:
        return text
    return text_of(dt.datetime.fromisoformat(text) + pendulum.duration(milliseconds=milliseconds))


class Clock:
    """Never answers the same time twice, so that sorting by time always gives the order things happened in."""

    def __init__(self) -> None:
        self._last = ""

    def now(self) -> str:
        """Answer the current time in the canonical form, later than every answer before."""
        moment = text_of(dt.datetime.now(dt.timezone.utc))
        if moment <= self._last:
            moment = text_of(dt.datetime.fromisoformat(self._last) + pendulum.duration(microseconds=1))
        self._last = moment
        return moment
