"""Export tasks with their labels and masks as JSON lines, for later import.

Design. Tasks are exported by a pool of threads, and their lines come in the order of the tasks. Invariants:

1. At most 2 * ``max_concurrency`` + 1 tasks are in progress, so that tasks are not read far ahead of their lines.
2. The first task that cannot be exported ends the export; there is no partial line.
3. A mask that arrives after the export was stopped is not stored, since the caller may be removing the files.
4. Storage refuses a URL that has expired (HTTP 400 from Google, 403 from S3 and Azure). The task is then read again and
   exported in its new state, once.
5. A damaged mask is exported as it is, with a warning: it must not block all other tasks.
"""

from __future__ import annotations

import json
import logging
import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, BinaryIO

from airflow_provider_redbrick.client.models.parsing import reading
from airflow_provider_redbrick.client.operations.task_reads import StoredTask, read_again
from airflow_provider_redbrick.client.operations.uploads import mask_name
from airflow_provider_redbrick.engine.concurrency import cancel_or_wait
from airflow_provider_redbrick.engine.overlap import get_version
from airflow_provider_redbrick.engine.task_reader import with_series_labels
from airflow_provider_redbrick.exceptions import (
    RedBrickAnswerError,
    RedBrickAPIError,
    RedBrickRefusedError,
    RedBrickStoppedError,
)
from airflow_provider_redbrick.labels.compression import check_if_gzip

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping

    import pendulum

    from airflow_provider_redbrick.client.models.task import Task
    from airflow_provider_redbrick.client.operations.project import RedBrickProject

    KeepMask = Callable[[str, BinaryIO], None]
    """Stores a mask (an open file) at a path within the export folder; called from several threads."""

log = logging.getLogger(__name__)

MASKS = "masks"
"""Name of the folder with masks, within the export folder."""

# HTTP status for an expired URL: 400 from Google Cloud Storage, 403 from S3 and Azure.
_EXPIRED = frozenset({400, 403})


@dataclass(frozen=True, repr=False)
class Exported:
    """An exported task.

    :param task_id: the task.
    :param version: when it last changed before it was exported; None if the server does not say.
    :param line: the JSON of the task, without a line end.
    :param labels: number of labels.
    :param masks: number of stored masks.
    """

    task_id: str
    version: pendulum.DateTime | None
    line: str
    labels: int
    masks: int


def export(
    project: RedBrickProject, tasks: Iterable[StoredTask], keep_mask: KeepMask | None
) -> Generator[Exported, None, None]:
    """Export tasks concurrently and yield them in their original order.

    :param project: the project of the tasks.
    :param tasks: the tasks, read lazily.
    :param keep_mask: stores masks, which lines then name by their path in the export folder. Without it, lines name
        masks by their path in the label storage.
    :raises RedBrickAPIError: if a part of a task cannot be read; the error names the task.
    """
    exporter = _Export(project, keep_mask)
    workers = project.client.max_concurrency
    pool = ThreadPoolExecutor(workers, thread_name_prefix="redbrick")
    in_progress: deque[Future[Exported]] = deque()
    try:
        for task in tasks:
            in_progress.append(pool.submit(exporter.export_task, task))
            if len(in_progress) > 2 * workers:
                yield in_progress.popleft().result()
        while in_progress:
            yield in_progress.popleft().result()
    except BaseException:
        exporter.stopped.set()
        cancel_or_wait(in_progress)
        raise
    finally:
        pool.shutdown(wait=False)


class _Export:
    def __init__(self, project: RedBrickProject, keep_mask: KeepMask | None) -> None:
        self.stopped = threading.Event()
        self._project = project
        self._keep_mask = keep_mask

    def export_task(self, stored: StoredTask) -> Exported:
        """Export a task; if its URLs have expired, read it again first."""
        task_id = stored.task.task_id
        try:
            try:
                return self._export(stored)
            except RedBrickRefusedError as error:
                if error.status not in _EXPIRED:
                    raise
            return self._export(read_again(self._project, task_id))
        except RedBrickAPIError as error:
            error.task_ids = (task_id,)
            raise

    def _export(self, stored: StoredTask) -> Exported:
        task = stored.task
        if task.labels_url:
            with _operation("GET of the labels file"):
                task = replace(task, labels=self._project.files.labels(task.labels_url))
        with reading("labels"):
            task = with_series_labels(self._project, task)
        stored_paths = {} if self._keep_mask is None else self._store_masks(task, stored.mask_urls, self._keep_mask)
        with reading("labels"):
            line = json.dumps(to_row(task, stored.storage_id, stored_paths, stored.layers), allow_nan=False)
        return Exported(task.task_id, get_version(task), line, len(task.labels or ()), len(stored_paths))

    def _store_masks(self, task: Task, urls: Mapping[str, str | None], keep_mask: KeepMask) -> dict[str, str]:
        """Store a task's masks; return new paths by path in the label storage."""
        stored_paths: dict[str, str] = {}
        for index, series in enumerate(task.series or ()):
            for number, path in enumerate(_mask_paths(series)):
                if path in stored_paths:
                    continue
                with _operation(f"GET of the mask of series {index}"):
                    mask = self._fetch_mask(urls.get(path))
                with closing(mask):
                    _warn_of_damage(mask, task.task_id, index)
                    stem = f"{index}-{number}" if number else f"{index}"
                    stored_paths[path] = f"{MASKS}/{task.task_id}/{mask_name(mask, stem)}"
                    keep_mask(stored_paths[path], mask)
        return stored_paths

    def _fetch_mask(self, url: str | None) -> BinaryIO:
        if not url:
            raise RedBrickAnswerError("RedBrick returned no URL for it.")
        mask = self._project.files.fetch_mask(url)
        if self.stopped.is_set():
            mask.close()
            raise RedBrickStoppedError("The export was stopped.")
        return mask


def _warn_of_damage(mask: BinaryIO, task_id: str, series: int) -> None:
    """Log a warning if a stored mask is damaged."""
    try:
        check_if_gzip(mask)
    except ValueError as error:
        log.warning(
            "The mask of series %d of task %s is damaged in the storage. It is exported as it is: %s",
            series,
            task_id,
            error,
        )


def to_row(
    task: Task,
    storage_id: str | None,
    masks: Mapping[str, str],
    layers: Mapping[int, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Return a task in the documented export format, without absent fields.

    :param task: the task, in the form that callables receive.
    :param storage_id: id of the storage that the items are in.
    :param masks: new path of each mask by its path in the label storage.
    :param layers: additional fields of each series by its index: what is shown besides its items.
    """
    items, more = _items_by_series(task), layers or {}
    row = {
        "taskId": task.task_id,
        "name": task.name,
        "series": [
            {**_with_masks(series, masks), **more.get(i, {}), **({"items": items[i]} if i < len(items) else {})}
            for i, series in enumerate(task.series or ())
        ],
        "classification": task.classification,
        "currentStageName": task.stage_name,
        "labelsId": task.labels_id,
        "updatedBy": task.labels_by and (task.labels_by.email or task.labels_by.user_id),
        "updatedAt": task.labels_at and task.labels_at.isoformat(),
        "priority": task.priority,
        "metaData": dict(task.metadata or {}) or None,
        "storageId": storage_id,
    }
    return {key: value for key, value in row.items() if value is not None}


def _items_by_series(task: Task) -> list[list[str]]:
    """Return the items of each series, in the order of the task's items.

    If the division into series is missing or incomplete, the first series gets all items.
    """
    items = task.items or ()
    views = [info.get("itemsIndices") for info in task.series_info or ()]
    if not views or not all(views):
        return [list(items)]
    return [[items[i] for i in sorted(view or ())] for view in views]


def _mask_paths(series: Mapping[str, Any]) -> list[str]:
    paths = series.get("segmentations") or []
    return [paths] if isinstance(paths, str) else list(paths)


def _with_masks(series: Mapping[str, Any], masks: Mapping[str, str]) -> dict[str, Any]:
    """Return a series with its mask paths replaced."""
    named = dict(series)
    if paths := _mask_paths(series):
        renamed = [masks.get(path, path) for path in paths]
        named["segmentations"] = renamed[0] if isinstance(series["segmentations"], str) else renamed
        named["segmentMap"] = {
            key: {**segment, "mask": masks.get(segment["mask"], segment["mask"])} if "mask" in segment else segment
            for key, segment in series["segmentMap"].items()
        }
    return named


@contextmanager
def _operation(what: str) -> Iterator[None]:
    """Set the name of the operation on errors raised within the context."""
    try:
        yield
    except RedBrickAPIError as error:
        error.operation = what
        raise
