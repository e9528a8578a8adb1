"""Read many tasks: by id with aliases, page by page, and as an export.

Design notes on reading tasks by id:

1. A document has one root field per task (``t0``, ``t1``, ...), so one request answers for up to ``per_request``
   tasks.
2. An error that names an alias is the result of that task alone.
3. An error without an alias may be about any part of the answer. The tasks without data are then requested apart from
   the others. If that does not separate the error, the whole request fails.
4. Tasks that failed while others of their request succeeded are requested once more before the error is final.
5. An answer with another task's id, or of an unexpected shape, is an error of that task and not of its neighbors.

Design notes on pages:

1. The server's page limit is not documented. When a page is refused, its size is halved, down to
   :data:`SMALLEST_PAGE`.
2. An empty page with a cursor is not the end: a server may search a page at a time.
3. A listing that does not end is an error: a repeated cursor, the same page several times, or too many pages. The
   check remembers hashes of cursors and the ids of one page.
4. A page that cannot be read is an error, and never the end of the listing.

Design notes on exports:

1. Pages are read in order, and only task ids are remembered: memory does not grow with the labels.
2. A page that cannot be read, or a malformed task, is an error. An export is complete or fails.
3. A task that moves while the list is read may be listed twice; it is yielded once.
4. A page may show the state of ``settle_seconds`` ago. The watermark is the server's time before the first page was
   requested, less that and :data:`MARGIN`. A read that starts from it misses nothing, and repeats what is in between.
5. The server's time is estimated from its ``Date`` headers. Its `cacheTime` counts if it is earlier, unless the server
   merely repeats the one that it was sent. Without such headers this clock is used.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pendulum

from airflow_provider_redbrick._utils import in_chunks
from airflow_provider_redbrick.client.models.parsing import elements, identifier, index, moment, raw_text, reading
from airflow_provider_redbrick.client.models.task import Task
from airflow_provider_redbrick.client.operations import queries
from airflow_provider_redbrick.client.transport.errors import classify_issue
from airflow_provider_redbrick.exceptions import (
    RedBrickAnswerError,
    RedBrickAPIError,
    RedBrickNotFoundError,
    RedBrickPayloadTooLargeError,
    RedBrickRateLimitError,
    RedBrickRefusedError,
    RedBrickServerError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from airflow_provider_redbrick.client.models.workflow import Stage
    from airflow_provider_redbrick.client.operations.account import Scope
    from airflow_provider_redbrick.client.operations.queries import AliasedRead

    Parse = Callable[[Mapping[str, Any]], Any]

_REFUSALS = (RedBrickRefusedError, RedBrickRateLimitError)

TASKS_PER_READ = 25
"""Tasks per request if the selection is large: labels, items, events."""


def render_aliased(query: AliasedRead, n: int) -> str:
    """Return the document that reads a query's root field ``n`` times.

    :param query: the query.
    :param n: the number of aliases.
    """
    declared = ", ".join(f"${query.variable}{i}: {query.kind}!" for i in range(n))
    options = f", {query.options}" if query.options else ""
    # The selection is repeated instead of put in a fragment: a fragment needs the type's name,
    # which the API does not document.
    fields = "\n".join(
        f"{query.alias}{i}: {query.root}(orgId: $orgId, projectId: $projectId, "
        f"{query.argument}: ${query.variable}{i}{options}) {{ {query.selection} }}"
        for i in range(n)
    )
    return f"query {query.root}($orgId: UUID!, $projectId: UUID!, {declared}) {{\n{fields}\n}}"


def read_aliased(
    scope: Scope,
    query: AliasedRead,
    task_ids: Sequence[str],
    parse: Parse,
    *,
    per_request: int = TASKS_PER_READ,
) -> dict[str, Any]:
    """Read tasks by id and parse each answer.

    Tasks that fail while others of the same request succeed are requested once more.

    :param scope: the project that the tasks are in.
    :param query: reads tasks with variables ``id0``, ``id1``, ... and aliases ``t0``, ``t1``, ...
    :param task_ids: the tasks to read; duplicates are read once.
    :param parse: converts the API's object of one task.
    :param per_request: the maximum number of tasks per request.
    :return: by task id, the result of ``parse`` or the :class:`RedBrickAPIError` that says why there is none.
    :raises RedBrickAPIError: if a request fails as a whole.
    """
    answers: dict[str, Any] = {}
    for chunk in in_chunks(dict.fromkeys(task_ids), per_request):
        results = _read_chunk(scope, query, chunk, parse)
        refused = [task_id for task_id, answer in results.items() if isinstance(answer, _REFUSALS)]
        if refused and len(refused) < len(chunk):
            results.update(_read_refused(scope, query, refused, parse))
        answers.update(results)
    return answers


def _read_refused(scope: Scope, query: AliasedRead, chunk: Sequence[str], parse: Parse) -> dict[str, Any]:
    """Read tasks that were refused; an error of the whole request is that of each task."""
    try:
        return _read_chunk(scope, query, chunk, parse)
    except _REFUSALS as error:
        return dict.fromkeys(chunk, error)


def _read_chunk(scope: Scope, query: AliasedRead, chunk: Sequence[str], parse: Parse) -> dict[str, Any]:
    variables: dict[str, Any] = dict(scope.ids)
    variables.update((f"id{i}", task_id) for i, task_id in enumerate(chunk))
    answer = scope.client.transport.execute_partial(render_aliased(query, len(chunk)), variables, task_ids=chunk)
    general = [issue.message for issue in answer.issues if issue.root is None]
    if general or answer.data is None:
        values = answer.data or {}
        present = [task_id for i, task_id in enumerate(chunk) if values.get(f"t{i}") is not None]
        absent = [task_id for i, task_id in enumerate(chunk) if values.get(f"t{i}") is None]
        if present and absent:
            return {**_read_chunk(scope, query, present, parse), **_read_refused(scope, query, absent, parse)}
        words = "; ".join(general or [issue.message for issue in answer.issues])
        raise classify_issue(words, operation="task", task_ids=chunk, maybe_applied=False)
    failed = {issue.root: issue.message for issue in answer.issues}
    results: dict[str, Any] = {}
    for i, task_id in enumerate(chunk):
        data = answer.data.get(f"t{i}")
        if f"t{i}" in failed:
            words = failed[f"t{i}"]
            results[task_id] = classify_issue(words, operation="task", task_ids=[task_id], maybe_applied=False)
        elif data is None:
            words = "There is no such task in this project."
            results[task_id] = RedBrickNotFoundError(words, operation="task", task_ids=[task_id])
        else:
            results[task_id] = _parsed(task_id, data, parse)
    return results


def _parsed(task_id: str, data: Mapping[str, Any], parse: Parse) -> Any:
    """Parse one task's answer; return an error if it is malformed or another task's."""
    try:
        with reading("task", task_ids=[task_id]):
            answered_id = identifier(data["taskId"])
            if answered_id != task_id.lower():
                raise ValueError(f"it is about task {answered_id}")
            return parse(data)
    except RedBrickAnswerError as error:
        return error


SMALLEST_PAGE = 25

MOST_PAGES = 100_000
"""Maximum pages of a listing: 20 million tasks, or 2.5 million with small pages."""

MOST_EMPTY = 10_000
"""Maximum consecutive empty pages: a server that searches a page at a time may find nothing for long."""

# How often a page may repeat: a task that moves while its queue is listed is shown twice.
_MAX_REPEATS = 3


def pages(fetch: Callable[[str | None, int], tuple[list[Any], str | None]], *, page_size: int) -> Iterator[Any]:
    """Yield the entries of all pages, reducing the page size if a page is refused.

    A page may be empty and still have a cursor, in which case the listing continues.

    :param fetch: ``(cursor, first) -> (entries, next cursor)``.
    :param page_size: the initial number of entries per page.
    :raises RedBrickAPIError: if a page cannot be read, or the listing does not end. The entries before it were
        yielded; the listing is incomplete.
    """
    cursor: str | None = None
    first = page_size
    guard = _EndlessListingGuard()
    while True:
        try:
            entries, following = fetch(cursor, first)
        except RedBrickAPIError as error:
            if first <= SMALLEST_PAGE or not _size_may_matter(error):
                raise
            first = max(SMALLEST_PAGE, first // 2)
            continue
        yield from entries
        if not following:
            return
        guard.check(entries, following)
        cursor = following


class _EndlessListingGuard:
    """Detect a listing that does not end, in little memory.

    Of the pages only one is remembered: the first, then the second, the fourth and so on. A cycle of any length is
    thus detected even if its cursors are new each time.
    """

    def __init__(self) -> None:
        self._pages = 0
        self._empty = 0
        self._repeats = 0
        self._cursors: set[int] = set()
        self._ids: list[Any] = []

    def check(self, entries: list[Any], following: object) -> None:
        """Check a page that is followed by another one.

        :param entries: the page's entries.
        :param following: the cursor of the next page.
        :raises RedBrickAnswerError: if the listing does not end.
        """
        if not isinstance(following, str):
            raise RedBrickAnswerError("RedBrick's listing has an invalid cursor for the next page.")
        self._pages += 1
        self._empty = 0 if entries else self._empty + 1
        ids = [entry.get("taskId") if isinstance(entry, dict) else entry for entry in entries]
        self._repeats += bool(ids) and ids == self._ids
        if hash(following) in self._cursors or self._repeats > _MAX_REPEATS:
            raise RedBrickAnswerError("RedBrick's listing repeats a page and does not end.")
        if self._pages >= MOST_PAGES or self._empty >= MOST_EMPTY:
            raise RedBrickAnswerError(f"RedBrick's listing does not end. Reading stopped after {self._pages} pages.")
        self._cursors.add(hash(following))
        if self._pages & (self._pages - 1) == 0:
            self._ids, self._repeats = ids, 0


def _size_may_matter(error: RedBrickAPIError) -> bool:
    """Return whether a smaller page may help.

    The page limit is not documented, so any refusal may be about the size.
    """
    if isinstance(error, RedBrickServerError):
        return error.status in {500, 504}
    return isinstance(error, (RedBrickPayloadTooLargeError, RedBrickRefusedError))


LARGEST_PAGE = 50
"""Maximum tasks per page: each has its labels, and presigned URLs that expire soon."""

MARGIN = pendulum.duration(seconds=30)
"""How much further a watermark is behind: several clocks of the server write `updatedAt` and ``Date``."""


@dataclass(frozen=True)
class StoredTask:
    """A task with all its stored data.

    :param task: the task. If it has a ``labels_url``, its labels were not fetched yet.
    :param storage_id: the id of the storage that holds its items.
    :param layers: by series index, what is displayed with the series: ``heatMaps``, ``transforms`` and ``centerline``
        in the upload format.
    :param mask_urls: presigned, short-lived URLs of the masks by their path in the label storage; ``None`` for a mask
        that could not be signed.
    """

    task: Task
    storage_id: str | None
    mask_urls: Mapping[str, str | None] = field(repr=False)
    layers: Mapping[int, Mapping[str, list[dict[str, Any]]]] = field(default_factory=dict, repr=False)

    @classmethod
    def from_wire(cls, data: Mapping[str, Any]) -> StoredTask:
        """Parse an entry of the bulk read."""
        saved = data.get("latestTaskData") or {}
        paths, urls = saved.get("labelsMap") or (), saved.get("labelsMapPresigned") or ()
        named = [(path, url or {}) for path, url in zip(paths, urls, strict=True) if path and path.get("labelName")]
        datapoint = data.get("datapoint") or {}
        return cls(
            Task.from_wire(data),
            raw_text((datapoint.get("storageMethod") or {}).get("storageId")),
            {path["labelName"]: raw_text(url.get("labelName")) for path, url in named},
            _layers(datapoint),
        )


class BulkRead:
    """Iterate over all tasks of a stage, with only their ids kept in memory.

    :param scope: the project.
    :param stage: the stage; ``None`` for all stages.
    :param updated_after: only tasks that were changed at this time or later.
    :param document: the GraphQL document, which determines what is read of each task.
    :param largest_page: the maximum tasks per page; the client's page size may be smaller.
    :ivar read_at: the server's time shortly before the first page was requested.
    :raises RedBrickAPIError: while iterating, if a page cannot be read or a task is malformed.
    """

    def __init__(
        self,
        scope: Scope,
        stage: Stage | None,
        *,
        updated_after: pendulum.DateTime | None = None,
        document: str = queries.TASKS_TO_EXPORT,
        largest_page: int = LARGEST_PAGE,
    ) -> None:
        self._scope = scope
        self._document = document
        self._page_size = min(scope.client.page_size, largest_page)
        self._updated_after = updated_after
        self._variables = {
            "stageName": stage.counting_name if stage else None,
            "cacheTime": updated_after.in_timezone("UTC").isoformat() if updated_after else None,
        }
        self.read_at: pendulum.DateTime = pendulum.now("UTC")

    @property
    def watermark(self) -> pendulum.DateTime:
        """The time from which the next read misses nothing; final once the first page was read."""
        return self.read_at.subtract(seconds=self._scope.client.settle_seconds) - MARGIN

    def __iter__(self) -> Iterator[StoredTask]:
        seen: set[str] = set()
        for entry in pages(self._page, page_size=self._page_size):
            stored = _read(entry)
            if stored.task.task_id not in seen:
                seen.add(stored.task.task_id)
                yield stored

    def _page(self, cursor: str | None, first: int) -> tuple[list[Any], str | None]:
        started = time.monotonic()
        data = self._scope.execute(self._document, {**self._variables, "first": first, "after": cursor})
        with reading("tasksPaged"):
            page = data["tasksPaged"]
            if cursor is None:
                self.read_at = self._server_time(time.monotonic() - started, moment(page.get("cacheTime")))
            return list(page["entries"]), page["cursor"]

    def _server_time(self, ago_s: float, cached_at: pendulum.DateTime | None) -> pendulum.DateTime:
        """Return the server's time a number of seconds ago; the earliest that it can have been."""
        clock = self._scope.client.clock
        at = clock.now().subtract(seconds=ago_s + (clock.error_s or 0.0))
        return at if cached_at is None or cached_at == self._updated_after else min(at, cached_at)


def read_again(scope: Scope, task_id: str) -> StoredTask:
    """Read one task again, with new presigned URLs.

    :param scope: the project.
    :param task_id: the task.
    :raises RedBrickAPIError: if it cannot be read, or no longer exists.
    """
    stored = read_aliased(scope, queries.TASKS_TO_EXPORT_BY_ID, [task_id], StoredTask.from_wire)[task_id]
    if isinstance(stored, RedBrickAPIError):
        raise stored
    task: StoredTask = stored
    return task


def _layers(datapoint: Mapping[str, Any]) -> dict[int, dict[str, list[dict[str, Any]]]]:
    """Return heat maps, transforms and center lines by series, as uploads take them."""
    layers: dict[int, dict[str, list[dict[str, Any]]]] = {}
    for key, uploaded in _LAYERS.items():
        for entry in elements(datapoint.get(key), dict, nulls=False):
            fields = {name: value for name, value in entry.items() if value is not None}
            series = index(fields.pop("seriesIndex", None)) or 0
            layers.setdefault(series, {}).setdefault(key, []).append(uploaded(fields))
    return layers


def _transform(fields: dict[str, Any]) -> dict[str, Any]:
    """Convert a stored transform (16 numbers in one list) to a matrix of 4 rows."""
    flat = elements(fields["transform"], object)
    return {**fields, "transform": [list(flat[row : row + 4]) for row in range(0, len(flat), 4)]}


def _centerline(fields: dict[str, Any]) -> dict[str, Any]:
    """Convert a stored center line (JSON text) to an object."""
    line = fields.get("centerline")
    return {**fields, "centerline": json.loads(line)} if isinstance(line, str) else fields


_LAYERS: Mapping[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "heatMaps": dict,
    "transforms": _transform,
    "centerline": _centerline,
}


def _read(entry: Any) -> StoredTask:
    try:
        with reading("tasksPaged"):
            return StoredTask.from_wire(entry)
    except RedBrickAnswerError as error:
        if isinstance(entry, Mapping) and entry.get("taskId"):
            error.task_ids = (str(entry["taskId"]),)
        raise
