"""Reading many tasks, a few at a time, right before they are worked on."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from airflow_provider_redbrick.api.chunks import in_chunks
from airflow_provider_redbrick.api.detail import Detail
from airflow_provider_redbrick.exceptions import RedBrickAPIError, RedBrickConnectionError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from concurrent.futures import Future

    from airflow_provider_redbrick.api.models import Task
    from airflow_provider_redbrick.api.project import RedBrickProject

T = TypeVar("T")

# Tasks worked on at a time where somebody's code is asked about each: a crash leaves no more of them claimed.
CHUNK = 25
# Tasks worked on at a time where all is known beforehand: the fewest that keep requests full.
KNOWN_CHUNK = 50
GIVEN_UP_AFTER = 2
# Seconds for which what was read of a task is good enough to act on it. A look costs a request for 50 tasks.
FRESH = 5.0
# Connections left for what is read at the same time as the first tasks: the project, and whose credential this is.
_OTHERS = 2
NOT_TRIED = "Not tried: RedBrick did not answer several times in a row."


@dataclass(frozen=True)
class Found:
    """Tasks as they were read.

    :param tasks: for each id its task, or why it could not be read.
    :param read_at: when they were asked for, by the monotonic clock.
    """

    tasks: Mapping[str, Task | RedBrickAPIError]
    read_at: float


def is_fresh(read_at: float) -> bool:
    """Whether what was read then is good enough to act on."""
    return time.monotonic() - read_at <= FRESH


def look(project: RedBrickProject, task_ids: Iterable[str], *, detail: Detail = Detail.STATE) -> Found:
    """Read tasks; that they cannot be read is an answer too."""
    ids = list(task_ids)
    try:
        return _read(project, ids, detail)
    except RedBrickAPIError as error:
        return _unread(ids, error)


def _read(project: RedBrickProject, task_ids: Sequence[str], detail: Detail) -> Found:
    read_at = time.monotonic()
    return Found(project.read_tasks(task_ids, detail=detail), read_at)


def _unread(task_ids: Iterable[str], error: RedBrickAPIError) -> Found:
    return Found(dict.fromkeys(task_ids, error), time.monotonic())


def each_or_why(
    read: Callable[[Sequence[str]], Mapping[str, T]], ids: Sequence[str]
) -> Mapping[str, T | RedBrickAPIError]:
    """Return what is read of each task; should the request as a whole fail, why, for each of them."""
    try:
        return read(ids)
    except RedBrickAPIError as error:
        return dict.fromkeys(ids, error)


class ReadAhead:
    """The first of some tasks, read while what must be known before anything else is on its way.

    :param size: how many of them a request, and how many are then taken at a time.
    """

    def __init__(self, project: RedBrickProject, task_ids: Sequence[str], *, detail: Detail, size: int) -> None:
        self._project = project
        self._task_ids = task_ids
        self._detail = detail
        self._size = size
        self._reads: dict[str, Future[Found]] = {}

    def begin(self) -> None:
        """Begin to read: in as many requests as there are connections for."""
        client = self._project.client
        first = islice(self._task_ids, max(0, client.max_concurrency - _OTHERS) * self._size)
        for chunk in in_chunks(first, self._size):
            read = client.threads.submit(_read, self._project, chunk, self._detail)
            self._reads.update(dict.fromkeys(chunk, read))

    def take(self, task_ids: Sequence[str]) -> Found | None:
        """Return tasks that were read in one request, once; None when they are to be read now.

        :raises RedBrickAPIError: when that request has failed.
        """
        reads = {self._reads.pop(task_id, None) for task_id in task_ids}
        read = reads.pop() if len(reads) == 1 else None
        found = read.result() if read else None
        if found is None or not is_fresh(found.read_at):
            return None
        return replace(found, tasks={task_id: found.tasks[task_id] for task_id in task_ids})


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
    ahead: ReadAhead | None = None,
) -> Iterator[Found]:
    """Yield tasks in chunks.

    A request that fails is the failure of its chunk's tasks, not of those that follow, unless the server is down.
    """
    breaker = breaker or CircuitBreaker()
    for chunk in in_chunks(task_ids, size):
        if breaker.is_open:
            yield _unread(chunk, RedBrickConnectionError(NOT_TRIED))
            continue
        try:
            found = (ahead.take(chunk) if ahead else None) or _read(project, chunk, detail)
        except RedBrickAPIError as error:
            breaker.saw(error)
            found = _unread(chunk, error)
        else:
            breaker.saw(None)
        yield found
