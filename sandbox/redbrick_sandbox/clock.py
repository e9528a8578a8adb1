"""Time of the server, and its texts.

Timestamps are UTC text of fixed width with microseconds, such as `2024-05-01T12:00:00.000000+00:00`. Comparing two of
them as text therefore compares the times, which SQL queries rely on. `Clock` never returns the same time twice, so
that sorting by time gives the order of events.

Work that is due is done when the next request arrives, but counts as done at its own time (`Clock.at`). No thread is
needed, and a simulation can set the time (`VirtualClock`).
"""

from __future__ import annotations

import datetime as dt
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pendulum

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


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
    return text_of(dt.datetime.fromisoformat(text) + dt.timedelta(milliseconds=milliseconds))


_OFFSET = dt.timezone(dt.timedelta(hours=2))


def written(text: str, style: str) -> str | int:
    """Return a canonical time as a server of another style writes it.

    :param text: time in the canonical form.
    :param style: value of the behavior `times`. `epoch` is a number of milliseconds.
    """
    if style == "utc":
        return text
    if style == "z":
        return text.replace("+00:00", "Z")
    if style == "naive":
        return text.removesuffix("+00:00")
    moment = dt.datetime.fromisoformat(text)
    if style == "epoch":
        return round(moment.timestamp() * 1000)
    return moment.astimezone(_OFFSET).isoformat(timespec="microseconds")


class Clock:
    """Clock of the server. Its texts strictly increase.

    `offset_s` is how far the server's clock is ahead of the machine's.

    :param machine_time: returns the machine's time in seconds since the epoch.
    :param sleep: waits for a number of seconds.
    """

    def __init__(
        self, machine_time: Callable[[], float] = time.time, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._machine_time = machine_time
        self._past: float | None = None
        self._last = ""
        self.sleep = sleep
        self.offset_s = 0.0

    def time(self) -> float:
        """Return the machine's time in seconds since the epoch, within `at` an earlier one."""
        return self._machine_time() if self._past is None else self._past

    def server_time(self) -> float:
        """Return the server's time in seconds since the epoch."""
        return self.time() + self.offset_s

    def now(self) -> str:
        """Return the server's time in the canonical form, later than all previous values."""
        moment = text_of(dt.datetime.fromtimestamp(self.server_time(), dt.timezone.utc))
        if moment <= self._last:
            moment = text_of(dt.datetime.fromisoformat(self._last) + dt.timedelta(microseconds=1))
        self._last = moment
        return moment

    def machine_time_of(self, text: str) -> float:
        """Return the machine's time in seconds at a canonical time of the server."""
        return dt.datetime.fromisoformat(text).timestamp() - self.offset_s

    def change_offset(self, offset_s: float) -> None:
        """Set the clock ahead of the machine's, or behind it. Times can repeat then, as on any clock that is set."""
        if offset_s != self.offset_s:
            self.offset_s = offset_s
            self._last = ""

    @contextmanager
    def at(self, moment: float) -> Iterator[None]:
        """Let the clock show an earlier time in the block.

        :param moment: machine's time in seconds since the epoch.
        """
        before, self._past = self._past, moment
        try:
            yield
        finally:
            self._past = before


class VirtualClock(Clock):
    """Clock that advances only in `sleep`.

    A simulation shares it with the client, and so runs without waiting.

    :param start: first time in seconds since the epoch.
    """

    def __init__(self, start: float = 1_700_000_000.0) -> None:
        self._now = start
        super().__init__(lambda: self._now, self._advance)

    def _advance(self, seconds: float) -> None:
        self._now += max(0.0, seconds)
