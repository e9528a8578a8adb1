"""Read tasks in chunks, by id or by name, shortly before they are processed.

Assigning a task overwrites its holder, and a change is applied wherever the task is by then, so decisions need recent
reads.

Invariants:

1. A read is used for a decision for at most `STALE_AFTER_S` seconds, measured from before its request was sent.
2. A failed request fails the tasks of its chunk only. Later chunks are read as usual.
3. After `MAX_UNANSWERED` requests in a row without an answer, each after the retries of the transport, the circuit
   breaker opens: the remaining tasks fail without a request, and Airflow's retry processes them later.
4. The first chunks are read concurrently with the requests for the project and the key's identity. Each of these reads
   is used once, and only if it is still fresh.

One request looks up many names. The server refuses a request as a whole when it cannot look up one of its names; the
names are then looked up one by one, so that only that name fails.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_redbrick._utils import in_chunks
from airflow_provider_redbrick.client.models.parsing import reading
from airflow_provider_redbrick.client.models.task import Detail
from airflow_provider_redbrick.exceptions import RedBrickAPIError, RedBrickConnectionError, RedBrickRefusedError
from airflow_provider_redbrick.labels.series_format import to_series
from airflow_provider_redbrick.labels.taxonomy import Taxonomy, with_names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from concurrent.futures import Future

    from airflow_provider_redbrick.client.models.task import Task
    from airflow_provider_redbrick.client.operations.project import RedBrickProject


T = TypeVar("T")

# Tasks per chunk where user code decides about each: a crash leaves at most this many claimed per worker.
CHUNK = 25
# Tasks per chunk where the decisions are known beforehand: the smallest number that fills a request.
KNOWN_CHUNK = 50
# Requests in a row without an answer after which the circuit breaker opens.
MAX_UNANSWERED = 2
# Age in seconds after which a read is repeated before a decision. Reading 50 tasks costs one request.
STALE_AFTER_S = 5.0
# Connections left free for the reads of the project and the key's identity, which are under way at the same time.
_RESERVED_CONNECTIONS = 2
NOT_ATTEMPTED = f"Not attempted: RedBrick did not answer {MAX_UNANSWERED} requests in a row."


@dataclass(frozen=True)
class TaskBatch:
    """Tasks of one read.

    :param tasks: each id's task, or the error that prevented its read.
    :param read_at: when the request was sent, by the monotonic clock.
    """

    tasks: Mapping[str, Task | RedBrickAPIError]
    read_at: float


def is_fresh(read_at: float) -> bool:
    """Return whether a read is recent enough for a decision."""
    return time.monotonic() - read_at <= STALE_AFTER_S


def read_batch(project: RedBrickProject, task_ids: Iterable[str], *, detail: Detail = Detail.STATE) -> TaskBatch:
    """Read tasks; a failed request becomes the error of each.

    :param project: the project of the tasks.
    :param task_ids: ids to read.
    :param detail: which fields are read.
    """
    ids = list(task_ids)
    try:
        return _read(project, ids, detail)
    except RedBrickAPIError as error:
        return _unread(ids, error)


def _read(project: RedBrickProject, task_ids: Sequence[str], detail: Detail) -> TaskBatch:
    read_at = time.monotonic()
    return TaskBatch(project.read_tasks(task_ids, detail=detail), read_at)


def _unread(task_ids: Iterable[str], error: RedBrickAPIError) -> TaskBatch:
    return TaskBatch(dict.fromkeys(task_ids, error), time.monotonic())


def results_or_error(
    read: Callable[[Sequence[str]], Mapping[str, T]], ids: Sequence[str]
) -> Mapping[str, T | RedBrickAPIError]:
    """Return the result of each id; a failed request becomes the error of each.

    :param read: reads all ids in one request.
    :param ids: task ids.
    """
    try:
        return read(ids)
    except RedBrickAPIError as error:
        return dict.fromkeys(ids, error)


class ReadAhead:
    """Reads of the first tasks, started before the project and the key are known.

    :param project: the project of the tasks.
    :param task_ids: all ids, in the order in which they will be taken.
    :param detail: which fields are read.
    :param size: ids per request, and ids per :meth:`take`.
    """

    def __init__(self, project: RedBrickProject, task_ids: Sequence[str], *, detail: Detail, size: int) -> None:
        self._project = project
        self._task_ids = task_ids
        self._detail = detail
        self._size = size
        self._reads: dict[str, Future[TaskBatch]] = {}

    def begin(self) -> None:
        """Start as many requests as there are free connections."""
        client = self._project.client
        first = islice(self._task_ids, max(0, client.max_concurrency - _RESERVED_CONNECTIONS) * self._size)
        for chunk in in_chunks(first, self._size):
            read = client.threads.submit(_read, self._project, chunk, self._detail)
            self._reads.update(dict.fromkeys(chunk, read))

    def take(self, task_ids: Sequence[str]) -> TaskBatch | None:
        """Return tasks that were read in one request, at most once.

        :return: None if they were not read together or the read is too old; the caller then reads them itself.
        :raises RedBrickAPIError: if their request failed.
        """
        reads = {self._reads.pop(task_id, None) for task_id in task_ids}
        read = reads.pop() if len(reads) == 1 else None
        batch = read.result() if read else None
        if batch is None or not is_fresh(batch.read_at):
            return None
        return replace(batch, tasks={task_id: batch.tasks[task_id] for task_id in task_ids})


class CircuitBreaker:
    """Stop sending requests to a server that no longer answers.

    A request counts when its retries are exhausted. The rest of the work then fails without requests: Airflow's retry
    comes back later, and a worker slot is not occupied for hours.
    """

    def __init__(self) -> None:
        self._unanswered = 0

    @property
    def is_open(self) -> bool:
        """Whether to stop sending requests."""
        return self._unanswered >= MAX_UNANSWERED

    def record(self, error: RedBrickAPIError | None) -> None:
        """Record the result of a request; None stands for success."""
        self._unanswered = self._unanswered + 1 if error is not None and error.transient else 0


def read_in_chunks(
    project: RedBrickProject,
    task_ids: Iterable[str],
    *,
    detail: Detail = Detail.STATE,
    size: int = CHUNK,
    breaker: CircuitBreaker | None = None,
    ahead: ReadAhead | None = None,
) -> Iterator[TaskBatch]:
    """Yield tasks in chunks.

    A failed request fails the tasks of its chunk. Later chunks are read unless the circuit breaker is open.

    :param project: the project of the tasks.
    :param task_ids: ids, consumed lazily.
    :param detail: which fields are read.
    :param size: ids per chunk.
    :param breaker: shared with other requests of the same run; a new one by default.
    :param ahead: reads that were started earlier.
    """
    breaker = breaker or CircuitBreaker()
    for chunk in in_chunks(task_ids, size):
        if breaker.is_open:
            yield _unread(chunk, RedBrickConnectionError(NOT_ATTEMPTED))
            continue
        try:
            batch = (ahead.take(chunk) if ahead else None) or _read(project, chunk, detail)
        except RedBrickAPIError as error:
            breaker.record(error)
            batch = _unread(chunk, error)
        else:
            breaker.record(None)
        yield batch


def find_ids_by_name(
    project: RedBrickProject, names: Sequence[str], breaker: CircuitBreaker
) -> Mapping[str, list[str] | str]:
    """Return the ids of the tasks with each name.

    :param project: the project to search.
    :param names: exact task names.
    :param breaker: circuit breaker of the run; no request is sent while it is open.
    :return: for each name a list of ids (empty if no task has it), or a text that says why it could not be looked up.
    """
    if not names:
        return {}
    if breaker.is_open:
        return dict.fromkeys(names, NOT_ATTEMPTED)
    try:
        ids = project.find_by_name(names)
    except RedBrickRefusedError as error:
        if len(names) == 1:
            return {names[0]: _lookup_failure(error)}
        return {name: answer for one in names for name, answer in find_ids_by_name(project, [one], breaker).items()}
    except RedBrickAPIError as error:
        breaker.record(error)
        return dict.fromkeys(names, _lookup_failure(error))
    breaker.record(None)
    return ids


def _lookup_failure(error: RedBrickAPIError) -> str:
    return f"It could not be looked up, and nothing was sent: {error}"


def with_series_labels(project: RedBrickProject, task: Task) -> Task:
    """Return a task with its labels in the ``series`` format, as callables receive it.

    :param project: the project, for its taxonomy.
    :param task: a task read with ``Detail.FULL``.
    :raises RedBrickNotReadError: if a required part of the task was not read.
    """
    task.require("labels", "labels_map", "series_info", "items")
    with reading("labels"):
        stored: Sequence[Mapping[str, Any]] = task.labels or ()
        if task.labels_url is not None:
            # The server adds category names to inline labels, but not to those in a file.
            stored = with_names(stored, project.taxonomy)
        labels = to_series(
            stored,
            series_info=task.series_info or (),
            labels_map=task.labels_map or (),
            items=task.items or (),
            taxonomy=lambda: Taxonomy.from_wire(project.taxonomy),
        )
    unread = task.unread - {"series", "classification"}
    return replace(task, series=tuple(labels.series), classification=labels.classification, unread=unread)
