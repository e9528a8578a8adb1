"""Progress lines in the log of a long run."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

EVERY = 5.0
"""Default number of seconds between two progress lines."""


class Progress:
    """Create progress lines: completed tasks, rate, and remaining time.

    A run that is shorter than one interval has no line.

    :param total: number of tasks, if known. Without it, lines have no remaining time.
    :param every: minimum number of seconds between two lines.
    :param clock: a monotonic clock, in seconds.
    """

    def __init__(
        self, total: int | None = None, *, every: float = EVERY, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.done = 0
        self._total = total
        self._every = every
        self._clock = clock
        self._started_at = self._logged_at = clock()

    def after(self, number: int = 1) -> str | None:
        """Count completed tasks, and return a line if one is due.

        :param number: how many tasks were completed since the last call.
        """
        self.done += number
        now = self._clock()
        if now - self._logged_at < self._every:
            return None
        self._logged_at = now
        rate = self.done / (now - self._started_at)
        if self._total is None:
            return f"{self.done} tasks so far, {rate:.1f} a second"
        line = f"{self.done} of {self._total} tasks, {rate:.1f} a second"
        left = max(0, self._total - self.done)
        return f"{line}, {_duration(left / rate)} left" if left and rate else line


def _duration(seconds: float) -> str:
    """Return a duration as text, in seconds below an hour, else in minutes."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
