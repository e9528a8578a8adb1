"""How far a long run is, said now and then."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

# Seconds between two lines about how far it is.
EVERY = 5.0


class Progress:
    """Makes a line every few seconds of a run: what is done, how fast, and how long the rest may take.

    A run that is shorter than that has none.

    :param total: how many tasks there are, where that is known beforehand; else nothing is said of the rest.
    :param every: seconds between two lines, at least.
    :param clock: any clock, in seconds.
    """

    def __init__(
        self, total: int | None = None, *, every: float = EVERY, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.done = 0
        self._total = total
        self._every = every
        self._clock = clock
        self._began = self._said = clock()

    def after(self, number: int = 1) -> str | None:
        """Count tasks that are done, and return the line, if it is time for one."""
        self.done += number
        now = self._clock()
        if now - self._said < self._every:
            return None
        self._said = now
        rate = self.done / (now - self._began)
        if self._total is None:
            return f"{self.done} tasks so far, {rate:.1f} a second"
        line = f"{self.done} of {self._total} tasks, {rate:.1f} a second"
        left = max(0, self._total - self.done)
        return f"{line}, {_duration(left / rate)} left" if left and rate else line


def _duration(seconds: float) -> str:
    """Return a time as somebody would say it: to the second, to the minute from an hour on."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
