"""Airflow metrics for requests and task outcomes.

``docs/metrics.md`` lists the names. Names alone are meaningful, since not every metrics backend supports tags.
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

# Airflow releases type this differently.
_stats: Any = Stats


class StatsObserver:
    """Count and time requests in Airflow's metrics."""

    def answered(self, operation: str, seconds: float, error: RedBrickAPIError | None) -> None:
        """Count and time a request to the API.

        :param operation: name of the API operation.
        :param seconds: duration of the request.
        :param error: the error that it ended with; None if it succeeded.
        """
        tags = {"operation": operation}
        _stats.incr("redbrick.requests", tags={**tags, "answer": _kind(error) if error else "ok"})
        _stats.timing("redbrick.request.duration", timedelta(seconds=seconds), tags=tags)

    def retrying(self, operation: str, error: RedBrickAPIError) -> None:
        """Count a request that is sent again.

        :param operation: name of the API operation.
        :param error: the error of the previous attempt.
        """
        _stats.incr("redbrick.retries", tags={"operation": operation, "reason": _kind(error)})

    def waited(self, seconds: float) -> None:
        """Time a wait for the rate limit."""
        _stats.timing("redbrick.rate_limit.wait", timedelta(seconds=seconds))


@contextmanager
def measured(operation: str, counts: Mapping[str, int]) -> Iterator[None]:
    """Time a run of an operator, and count its tasks by status at the end.

    Both are recorded also if the run fails.

    :param operation: name of the operator's operation.
    :param counts: number of tasks by status; read at the end.
    """
    started_at = time.monotonic()
    tags = {"operation": operation}
    try:
        yield
    finally:
        for status, number in counts.items():
            if number:
                _stats.incr(f"redbrick.tasks.{status}", number, tags=tags)
        _stats.timing("redbrick.run.duration", timedelta(seconds=time.monotonic() - started_at), tags=tags)


def _kind(error: RedBrickAPIError) -> str:
    """Return the kind of error: ``rate_limit`` for a ``RedBrickRateLimitError``."""
    name = type(error).__name__.removeprefix("RedBrick").removesuffix("Error")
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
