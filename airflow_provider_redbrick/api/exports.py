"""Reading the tasks of a stage with all that is stored of them, many a request."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pendulum

from airflow_provider_redbrick.api import documents
from airflow_provider_redbrick.api.aliased import read_aliased
from airflow_provider_redbrick.api.answers import elements, index, reading, text_as_it_is
from airflow_provider_redbrick.api.models import Task
from airflow_provider_redbrick.api.moments import moment
from airflow_provider_redbrick.api.pages import pages
from airflow_provider_redbrick.exceptions import RedBrickAnswerError, RedBrickAPIError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_redbrick.api.scope import Scope
    from airflow_provider_redbrick.api.workflow import Stage

LARGEST_PAGE = 50
"""Tasks a page: each brings its labels, and URLs that are good for a short time only."""


@dataclass(frozen=True)
class StoredTask:
    """A task with all that is stored of it.

    :param task: its labels are still to be fetched where it has a ``labels_url``.
    :param storage_id: the storage that its items are in.
    :param layers: what is shown with each series, by its number: ``heatMaps``, ``transforms`` and ``centerline`` as an
        upload takes them.
    :param mask_urls: presigned, short-lived URLs of its masks by their paths in the label storage; None for a mask
        that could not be signed.
    """

    task: Task
    storage_id: str | None
    mask_urls: Mapping[str, str | None] = field(repr=False)
    layers: Mapping[int, Mapping[str, list[dict[str, Any]]]] = field(default_factory=dict, repr=False)

    @classmethod
    def from_wire(cls, data: Mapping[str, Any]) -> StoredTask:
        """Read an entry of the bulk read."""
        saved = data.get("latestTaskData") or {}
        paths, urls = saved.get("labelsMap") or (), saved.get("labelsMapPresigned") or ()
        named = [(path, url or {}) for path, url in zip(paths, urls, strict=True) if path and path.get("labelName")]
        datapoint = data.get("datapoint") or {}
        return cls(
            Task.from_wire(data),
            text_as_it_is((datapoint.get("storageMethod") or {}).get("storageId")),
            {path["labelName"]: text_as_it_is(url.get("labelName")) for path, url in named},
            _layers(datapoint),
        )


class BulkRead:
    """All tasks of a stage, page by page: what is held in memory of each that was read is its id.

    A page that cannot be read, and a task that makes no sense, are errors. A task that the list shows again, since it
    moves while it is read, comes once.

    :param stage: None for all stages.
    :param updated_after: only tasks changed then or later.
    :param document: what is read of each.
    :param largest_page: tasks a page, if the client asks for more at a time.
    :ivar mark: what the next read may start from and miss nothing: a moment before the first page was read, by this
        clock or the server's, whichever is behind.
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
        self.mark: pendulum.DateTime = pendulum.now("UTC")

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
                self.mark = min(self.mark, moment(page.get("cacheTime")) or self.mark)
            return list(page["entries"]), page["cursor"]


def read_again(scope: Scope, task_id: str) -> StoredTask:
    """Read one task anew, with URLs that are good again.

    :raises RedBrickAPIError: when it cannot be read, or is not there any more.
    """
    stored = read_aliased(scope, documents.tasks_to_export, [task_id], StoredTask.from_wire)[task_id]
    if isinstance(stored, RedBrickAPIError):
        raise stored
    found: StoredTask = stored
    return found


def _layers(datapoint: Mapping[str, Any]) -> dict[int, dict[str, list[dict[str, Any]]]]:
    """Return heat maps, transforms and center lines by series, each in the form in which it is uploaded."""
    layers: dict[int, dict[str, list[dict[str, Any]]]] = {}
    for key, uploaded in _LAYERS.items():
        for entry in elements(datapoint.get(key), dict, nulls=False):
            fields = {name: value for name, value in entry.items() if value is not None}
            series = index(fields.pop("seriesIndex", None)) or 0
            layers.setdefault(series, {}).setdefault(key, []).append(uploaded(fields))
    return layers


def _transform(fields: dict[str, Any]) -> dict[str, Any]:
    """Return a transform with its rows apart: a matrix of 4 x 4 numbers is stored as one list."""
    flat = elements(fields["transform"], object)
    return {**fields, "transform": [list(flat[row : row + 4]) for row in range(0, len(flat), 4)]}


def _centerline(fields: dict[str, Any]) -> dict[str, Any]:
    """Return a center line as an object: it is stored as JSON text."""
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
