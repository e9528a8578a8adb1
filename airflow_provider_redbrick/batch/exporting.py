"""Tasks with their labels and masks, as lines of a file that labels can be put from again."""

from __future__ import annotations

import json
import logging
import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, BinaryIO

from airflow_provider_redbrick.api.answers import reading
from airflow_provider_redbrick.api.exports import StoredTask, read_again
from airflow_provider_redbrick.api.files import mask_name
from airflow_provider_redbrick.batch.calling import handed
from airflow_provider_redbrick.batch.parallel import cut_short
from airflow_provider_redbrick.exceptions import (
    RedBrickAnswerError,
    RedBrickAPIError,
    RedBrickRefusedError,
    RedBrickStoppedError,
)
from airflow_provider_redbrick.labels.compression import check_if_gzip

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping

    from airflow_provider_redbrick.api.models import Task
    from airflow_provider_redbrick.api.project import RedBrickProject

    KeepMask = Callable[[str, BinaryIO], None]
    """Keeps a mask, an open file, by its path in the export's folder; called in several threads at a time."""

log = logging.getLogger(__name__)

MASKS = "masks"
"""The folder that masks are in, within the export's."""

# What storage says of a URL whose time is over: S3 and Azure the second, Google's the first.
_EXPIRED = frozenset({400, 403})


@dataclass(frozen=True, repr=False)
class Exported:
    """One task's line, JSON without the line's end, and how many labels and masks the task has."""

    line: str
    labels: int
    masks: int


def export(
    project: RedBrickProject, tasks: Iterable[StoredTask], keep_mask: KeepMask | None
) -> Generator[Exported, None, None]:
    """Yield a line a task, in the tasks' order; several are worked on at a time, as soon as they were read.

    :param keep_mask: takes the masks, which lines then name by their path in the export's folder; without it they name
        them by their path in the label storage.
    :raises RedBrickAPIError: naming the task, when anything of it cannot be read.
    """
    work = _Export(project, keep_mask)
    workers = project.client.max_concurrency
    pool = ThreadPoolExecutor(workers, thread_name_prefix="redbrick")
    under_way: deque[Future[Exported]] = deque()
    try:
        for task in tasks:
            under_way.append(pool.submit(work.one, task))
            if len(under_way) > 2 * workers:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    except BaseException:
        work.stopped.set()
        cut_short(under_way)
        raise
    finally:
        pool.shutdown(wait=False)


class _Export:
    def __init__(self, project: RedBrickProject, keep_mask: KeepMask | None) -> None:
        self.stopped = threading.Event()
        self._project = project
        self._keep_mask = keep_mask

    def one(self, stored: StoredTask) -> Exported:
        """Return a task's line; what has changed since its URLs expired is exported as it is then."""
        task_id = stored.task.task_id
        try:
            try:
                return self._exported(stored)
            except RedBrickRefusedError as error:
                if error.status not in _EXPIRED:
                    raise
            return self._exported(read_again(self._project, task_id))
        except RedBrickAPIError as error:
            error.task_ids = (task_id,)
            raise

    def _exported(self, stored: StoredTask) -> Exported:
        task = stored.task
        if task.labels_url:
            with _called("GET of the labels file"):
                task = replace(task, labels=self._project.files.labels(task.labels_url))
        with reading("labels"):
            task = handed(self._project, task)
        kept = {} if self._keep_mask is None else self._masks(task, stored.mask_urls, self._keep_mask)
        with reading("labels"):
            line = json.dumps(row_of(task, stored.storage_id, kept, stored.layers), allow_nan=False)
        return Exported(line, len(task.labels or ()), len(kept))

    def _masks(self, task: Task, urls: Mapping[str, str | None], keep_mask: KeepMask) -> dict[str, str]:
        """Keep a task's masks; return where each is, by its path in the label storage."""
        kept: dict[str, str] = {}
        for index, series in enumerate(task.series or ()):
            for number, path in enumerate(_mask_paths(series)):
                if path in kept:
                    continue
                with _called(f"GET of the mask of series {index}"):
                    mask = self._fetched(urls.get(path))
                with closing(mask):
                    _warn_of_damage(mask, task.task_id, index)
                    stem = f"{index}-{number}" if number else f"{index}"
                    kept[path] = f"{MASKS}/{task.task_id}/{mask_name(mask, stem)}"
                    keep_mask(kept[path], mask)
        return kept

    def _fetched(self, url: str | None) -> BinaryIO:
        if not url:
            raise RedBrickAnswerError("RedBrick gives no URL to fetch it from.")
        mask = self._project.files.fetch_mask(url)
        if self.stopped.is_set():
            # Whoever stopped it is cleaning up already.
            mask.close()
            raise RedBrickStoppedError("The export was stopped.")
        return mask


def _warn_of_damage(mask: BinaryIO, task_id: str, series: int) -> None:
    """Log that a stored mask is damaged: one of these must not keep all other tasks from being exported."""
    try:
        check_if_gzip(mask)
    except ValueError as error:
        log.warning(
            "The mask of series %d of task %s is damaged in the storage, and exported so: %s", series, task_id, error
        )


def row_of(
    task: Task,
    storage_id: str | None,
    masks: Mapping[str, str],
    layers: Mapping[int, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Return a task as the documented formats have it; what it does not have is left out.

    :param task: as callables see it.
    :param masks: where masks are, by their path in the label storage.
    :param layers: what is shown with each series besides its items, by its number.
    """
    items, more = _divided(task), layers or {}
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


def _divided(task: Task) -> list[list[str]]:
    """Return the items of each series, in the order of the task's; without a complete division the first has all."""
    items = task.items or ()
    views = [info.get("itemsIndices") for info in task.series_info or ()]
    if not views or not all(views):
        return [list(items)]
    return [[items[i] for i in sorted(view or ())] for view in views]


def _mask_paths(series: Mapping[str, Any]) -> list[str]:
    paths = series.get("segmentations") or []
    return [paths] if isinstance(paths, str) else list(paths)


def _with_masks(series: Mapping[str, Any], masks: Mapping[str, str]) -> dict[str, Any]:
    """Return a series whose masks have the names they were given."""
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
def _called(what: str) -> Iterator[None]:
    """Name what was wanted in the error that says why it could not be had."""
    try:
        yield
    except RedBrickAPIError as error:
        error.operation = what
        raise
