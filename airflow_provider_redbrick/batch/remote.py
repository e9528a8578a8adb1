"""Label tasks of a remote-labeling stage (servers of the API's first generation).

The API returns the first N tasks of such a stage and has no cursor. Submitted tasks leave the stage, skipped ones stay
in front. The listing therefore asks for one page more whenever an answer contains nothing new.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NoReturn

from airflow_provider_redbrick.batch.labelling import exit_change
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
    from airflow_provider_redbrick.batch.stage_work import StagePipeline

log = logging.getLogger(__name__)


def list_waiting(remote: RemoteStage, *, limit: int | None, page_size: int) -> Iterator[str]:
    """Yield the ids of the tasks waiting in the stage, each once.

    :param remote: the stage.
    :param limit: maximum number of tasks; None for all.
    :param page_size: number of tasks by which a request grows.
    :raises RedBrickRefusedError: if the first request is refused. A later refusal ends the listing with a warning.
    """
    seen: set[str] = set()
    requested = page_size if limit is None else min(limit, page_size)
    while limit is None or len(seen) < limit:
        try:
            found = remote.first(requested)
        except RedBrickRefusedError as error:
            if not seen:
                raise
            log.warning(
                "RedBrick refused to list more of stage %r after %d tasks. The others are left for another run: %s",
                remote.name,
                len(seen),
                error,
            )
            return
        answer = dict.fromkeys(found)
        new_ids = [task_id for task_id in answer if task_id not in seen]
        new_ids = new_ids if limit is None else new_ids[: limit - len(seen)]
        if not new_ids and len(answer) < requested:
            return
        requested += 0 if new_ids else page_size
        seen.update(new_ids)
        yield from new_ids


def refuse_mask(path: str) -> NoReturn:
    """Refuse to open a mask file.

    :param path: the mask file, for the message.
    :raises RedBrickInputError: always.
    """
    raise RedBrickInputError(f"masks have no place in a remote-labeling stage ({path!r})")


def remote_label_writer(pipeline: StagePipeline, remote: RemoteStage) -> Put:
    """Return a function that creates the change which submits a task with labels.

    :param pipeline: the pipeline of the stage.
    :param remote: the remote-labeling stage.
    """
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
        return exit_change(pipeline, task, lambda: remote.submit(task, labels), detail=converted.detail)

    return put
