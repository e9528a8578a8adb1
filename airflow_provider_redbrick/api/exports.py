"""Read the tasks of a stage with all their stored data, many per request.

Design notes on exports:

1. Pages are read in order, and only task ids are remembered: memory does not grow with the labels.
2. A page that cannot be read, or a malformed task, is an error. An export is complete or fails.
3. A task that moves while the list is read may be listed twice; it is yielded once.
4. The watermark is taken before the first page is read, by this clock or the server's, whichever is behind. The next
   export that starts from it misses nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pendulum

from airflow_provider_redbrick.api import documents
from airflow_provider_redbrick.api.aliased import read_aliased
from airflow_provider_redbrick.api.answers import elements, index, raw_text, reading
from airflow_provider_redbrick.api.models import Task
from airflow_provider_redbrick.api.moments import moment
from airflow_provider_redbrick.api.pages import pages
from airflow_provider_redbrick.exceptions import RedBrickAnswerError, RedBrickAPIError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_redbrick.api.scope import Scope
    from airflow_provider_redbrick.api.workflow import Stage

LARGEST_PAGE = 50
"""Maximum tasks per page: each has its labels, and presigned URLs that expire soon."""


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
    :ivar watermark: the watermark from which the next read misses nothing: a time before the first page was read, by
        this clock or the server's, whichever is behind.
    :raises RedBrickAPIError: while iterating, if a page cannot be read or a task is malformed.
    """

    def __init__(
        self,
        scope: Scope,
        stage: Stage | None,
        *,
        updated_after: pendulum.DateTime | None = None,
        document: str = documents.TASKS_TO_EXPORT,
        largest_page: int = LARGEST_PAGE,
    ) -> None:
        self._scope = scope
        self._document = document
        self._page_size = min(scope.client.page_size, largest_page)
        self._variables = {
            "stageName": stage.counting_name if stage else None,
            "cacheTime": updated_after.in_timezone("UTC").isoformat() if updated_after else None,
        }
        self.watermark: pendulum.DateTime = pendulum.now("UTC")

    def __iter__(self) -> Iterator[StoredTask]:
        seen: set[str] = set()
        for entry in pages(self._page, page_size=self._page_size):
            stored = _read(entry)
            if stored.task.task_id not in seen:
                seen.add(stored.task.task_id)
                yield stored

    def _page(self, cursor: str | None, first: int) -> tuple[list[Any], str | None]:
        data = self._scope.execute(self._document, {**self._variables, "first": first, "after": cursor})
        with reading("tasksPaged"):
            page = data["tasksPaged"]
            if cursor is None:
                self.watermark = min(self.watermark, moment(page.get("cacheTime")) or self.watermark)
            return list(page["entries"]), page["cursor"]


def read_again(scope: Scope, task_id: str) -> StoredTask:
    """Read one task again, with new presigned URLs.

    :param scope: the project.
    :param task_id: the task.
    :raises RedBrickAPIError: if it cannot be read, or no longer exists.
    """
    stored = read_aliased(scope, documents.tasks_to_export, [task_id], StoredTask.from_wire)[task_id]
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
