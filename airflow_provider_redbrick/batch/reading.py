"""Reading many tasks, a few at a time, right before they are worked on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_redbrick.api.chunks import in_chunks
from airflow_provider_redbrick.api.detail import Detail
from airflow_provider_redbrick.exceptions import RedBrickAPIError, RedBrickConnectionError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from airflow_provider_redbrick.api.models import Task
    from airflow_provider_redbrick.api.project import RedBrickProject

# Tasks worked on at a time where somebody's code is asked about each: a crash leaves no more of them claimed.
CHUNK = 25
# Tasks worked on at a time where all is known beforehand: the fewest that keep requests full.
KNOWN_CHUNK = 50
GIVEN_UP_AFTER = 2
NOT_TRIED = "Not tried: RedBrick did not answer several times in a row."


def look(
    project: RedBrickProject, task_ids: Iterable[str], *, detail: Detail = Detail.STATE
) -> dict[str, Task | RedBrickAPIError]:
    """Return for each id its task, or why it could not be read: a look that fails is an answer too."""
    ids = list(task_ids)
    try:
        return project.read_tasks(ids, detail=detail)
    except RedBrickAPIError as error:
        return dict.fromkeys(ids, error)


class CircuitBreaker:
    """Notices that the server is down: no answer twice in a row, after all the transport's own patience.

    Then the rest is not tried: Airflow's retry comes back later, and a worker is not kept waiting for hours.
    """

    def __init__(self) -> None:
        self._unanswered = 0

    @property
    def is_open(self) -> bool:
        """Whether to stop asking."""
        return self._unanswered >= GIVEN_UP_AFTER

    def saw(self, error: RedBrickAPIError | None) -> None:
        """Take notice of how a request went."""
        self._unanswered = self._unanswered + 1 if error is not None and error.transient else 0


def read_in_chunks(
    project: RedBrickProject,
    task_ids: Iterable[str],
    *,
    detail: Detail = Detail.STATE,
    size: int = CHUNK,
    breaker: CircuitBreaker | None = None,
) -> Iterator[dict[str, Task | RedBrickAPIError]]:
    """Yield tasks in chunks: for each id its task, or why it could not be read.

    A request that fails is the failure of its chunk's tasks, not of those that follow, unless the server is down.
    """
    breaker = breaker or CircuitBreaker()
    for chunk in in_chunks(task_ids, size):
        if breaker.is_open:
            yield dict.fromkeys(chunk, RedBrickConnectionError(NOT_TRIED))
            continue
        try:
            found = project.read_tasks(chunk, detail=detail)
        except RedBrickAPIError as error:
            breaker.saw(error)
            found = dict.fromkeys(chunk, error)
        else:
            breaker.saw(None)
        yield found
