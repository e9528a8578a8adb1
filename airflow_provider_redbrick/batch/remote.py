"""Model predictions into a remote-labeling stage, as servers of the API's first generation have it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NoReturn

from airflow_provider_redbrick.batch.labelling import leaving
from airflow_provider_redbrick.batch.outcome import failed
from airflow_provider_redbrick.exceptions import RedBrickInputError, RedBrickRefusedError
from airflow_provider_redbrick.labels.label_input import label_inputs
from airflow_provider_redbrick.labels.placing import misplaced, series_items

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_redbrick.api.models import Task
    from airflow_provider_redbrick.api.remote import RemoteStage
    from airflow_provider_redbrick.batch.converting import Converted
    from airflow_provider_redbrick.batch.deciding import Put, Step
    from airflow_provider_redbrick.batch.stage_work import StageWork

log = logging.getLogger(__name__)


def queue(remote: RemoteStage, *, limit: int | None, page_size: int) -> Iterator[str]:
    """Yield the tasks that wait in the stage, each once.

    The API tells the first so many and no more. Those that are done leave, those that are left stay in front: so the
    question grows by a page whenever it brings nothing new.

    :param limit: how many to take in all.
    """
    seen: set[str] = set()
    asked = page_size if limit is None else min(limit, page_size)
    while limit is None or len(seen) < limit:
        try:
            found = remote.first(asked)
        except RedBrickRefusedError as error:
            if not seen:
                raise
            log.warning("RedBrick does not list more than %d tasks of %s: %s", len(seen), remote.name, error)
            return
        told = dict.fromkeys(found)
        fresh = [task_id for task_id in told if task_id not in seen]
        fresh = fresh if limit is None else fresh[: limit - len(seen)]
        if not fresh and len(told) < asked:
            return
        asked += 0 if fresh else page_size
        seen.update(fresh)
        yield from fresh


def refuse_mask(path: str) -> NoReturn:
    """Refuse to open the file of a mask.

    :raises RedBrickInputError: always.
    """
    raise RedBrickInputError(f"masks have no place in a remote-labeling stage ({path})")


def putting_remotely(work: StageWork, remote: RemoteStage) -> Put:
    """Return a function that makes the change which puts labels on a task and hands it on."""
    output = remote.output

    def put(task: Task, converted: Converted, _elapsed_ms: int) -> Step:
        problem = "its masks have no place in a remote-labeling stage" if converted.masks else None
        problem = problem or misplaced(
            converted.references, series_items(task.series_info or (), task.items or ()), task.items or ()
        )
        try:
            labels = label_inputs(converted.labels, output)
        except RedBrickInputError as error:
            problem = problem or str(error)
        if problem:
            return failed(task.task_id, f"The prediction cannot be sent: {problem}. Nothing was sent.", name=task.name)
        return leaving(work, task, lambda: remote.submit(task, labels), detail=converted.detail)

    return put
