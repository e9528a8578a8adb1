"""Airflow's metrics: what requests cost, and what became of the tasks. `docs/metrics.md` has the names.

Names hold for any receiver; tags are for those that know them.
"""

from __future__ import annotations

import re
import time
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import Stats

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from airflow_provider_redbrick.exceptions import RedBrickAPIError

# Typed by each Airflow in a way of its own.
_stats: Any = Stats


class StatsObserver:
    """Counts and times requests in Airflow's metrics."""

    def answered(self, operation: str, seconds: float, error: RedBrickAPIError | None) -> None:
        """Count and time a request to the API."""
        tags = {"operation": operation}
        _stats.incr("redbrick.requests", tags={**tags, "answer": _kind(error) if error else "ok"})
        _stats.timing("redbrick.request.duration", timedelta(seconds=seconds), tags=tags)

    def retrying(self, operation: str, error: RedBrickAPIError) -> None:
        """Count a request that is sent again."""
        _stats.incr("redbrick.retries", tags={"operation": operation, "reason": _kind(error)})

    def waited(self, seconds: float) -> None:
        """Time what a rate limit costs."""
        _stats.timing("redbrick.rate_limit.wait", timedelta(seconds=seconds))


@contextmanager
def measured(operation: str, counts: Mapping[str, int]) -> Iterator[None]:
    """Time a run of an operator, and count at its end, however it ends, what became of its tasks.

    :param counts: by status; read at the end.
    """
    began = time.monotonic()
    tags = {"operation": operation}
    try:
        yield
    finally:
        for status, number in counts.items():
            if number:
                _stats.incr(f"redbrick.tasks.{status}", number, tags=tags)
        _stats.timing("redbrick.run.duration", timedelta(seconds=time.monotonic() - began), tags=tags)


def _kind(error: RedBrickAPIError) -> str:
    """Return what kind of error it is: `rate_limit` for a ``RedBrickRateLimitError``."""
    name = type(error).__name__.removeprefix("RedBrick").removesuffix("Error")
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
