"""Choose the tasks of a stage that an operator processes if it was given no ids.

Design. A killed attempt leaves tasks assigned to the API key, where no person takes them. A listing cannot tell such a
leftover from a task that a live run with the same key is working on. Invariants:

1. A retry takes over what its own previous attempts claimed at once. Any other leftover is taken over only after
   ``ABANDONED_AFTER``.
2. If the credential is a person's access token, the tasks that it holds are that person's own work and are left alone.
3. The whole list is made before the first claim, since claiming changes what a listing shows.
4. A task that turns out to be held by the key but is not in ``Candidates.held`` belongs to another run.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from itertools import islice
from math import ceil
from threading import Event
from typing import TYPE_CHECKING

import pendulum

from airflow_provider_redbrick._utils import in_chunks
from airflow_provider_redbrick.client.models.task import SAVED
from airflow_provider_redbrick.engine.concurrency import in_parallel
from airflow_provider_redbrick.engine.task_reader import CHUNK, read_batch
from airflow_provider_redbrick.exceptions import RedBrickAPIError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from airflow_provider_redbrick.actions.stage_pipeline import StagePipeline
    from airflow_provider_redbrick.client.models.task import Task

log = logging.getLogger(__name__)

# A claim of another run that is this old counts as abandoned.
ABANDONED_AFTER = pendulum.duration(hours=1)


@dataclass(frozen=True)
class Candidates:
    """Tasks to process, in order.

    :param task_ids: ids of the tasks: leftovers first, then unassigned tasks.
    :param held: ids of those among them that this key holds already and may process.
    """

    task_ids: tuple[str, ...]
    held: frozenset[str]


def choose_candidates(pipeline: StagePipeline, *, limit: int | None, now: pendulum.DateTime) -> Candidates:
    """Choose abandoned claims of this key first, then unassigned tasks.

    :param pipeline: the pipeline that will process the tasks.
    :param limit: maximum number of tasks; None for all.
    :param now: the current time.
    """
    mine = (
        pipeline.project.list_tasks(pipeline.stage, assignee=pipeline.me)
        if pipeline.me.startswith("API:")
        else iter(())
    )
    abandoned: Iterator[Task] = (task for task in mine if _is_abandoned(pipeline, task, now))
    if limit is not None and pipeline.stage.is_label:
        # Rejected tasks are skipped later, and would use up the limit in every run.
        workers = pipeline.project.client.max_concurrency
        abandoned = in_parallel(
            in_chunks(abandoned, CHUNK), partial(_not_rejected, pipeline), workers=workers, stop=Event()
        )
    held = list(islice(_wanted_ids(pipeline, abandoned, limit), limit))
    remaining = None if limit is None else limit - len(held)
    page_size = None if pipeline.only_unlabeled else remaining or None
    unassigned = pipeline.project.list_tasks(pipeline.stage, unassigned=True, page_size=page_size)
    known = frozenset(held)
    # A task released between the two listings is in both, and must count once.
    others = (task for task in unassigned if task.task_id not in known)
    waiting = list(islice(_wanted_ids(pipeline, others, remaining), remaining))
    return Candidates((*held, *waiting), known)


def _not_rejected(pipeline: StagePipeline, tasks: Sequence[Task]) -> list[Task]:
    current = read_batch(pipeline.project, [task.task_id for task in tasks]).tasks
    return [
        task
        for task in tasks
        if isinstance(now := current[task.task_id], RedBrickAPIError) or not pipeline.was_rejected_to_key(now)
    ]


def _wanted_ids(pipeline: StagePipeline, tasks: Iterator[Task], limit: int | None) -> Iterator[str]:
    """Yield task ids; with ``only_unlabeled`` without those of labeled tasks.

    A draft that an earlier attempt saved is included, since it may have to be released to people.

    :param limit: how many ids will be consumed; limits how many tasks are read ahead.
    """
    if not pipeline.only_unlabeled:
        return (task.task_id for task in tasks)
    workers = pipeline.project.client.max_concurrency
    if limit is not None:
        workers = max(1, min(workers, ceil(limit / CHUNK)))
    return in_parallel(in_chunks(tasks, CHUNK), partial(_unlabeled_ids, pipeline), workers=workers, stop=Event())


def _unlabeled_ids(pipeline: StagePipeline, tasks: Sequence[Task]) -> list[str]:
    unsaved_ids = [task.task_id for task in tasks if task.state not in SAVED]
    has_labels: Mapping[str, bool | RedBrickAPIError] = {}
    if unsaved_ids and not pipeline.breaker.is_open:
        try:
            has_labels = pipeline.project.are_labeled(unsaved_ids, by=pipeline.me)
            pipeline.breaker.record(None)
        except RedBrickAPIError as error:
            log.warning(
                "Whether tasks have labels could not be read. It is checked again when they are processed: %s", error
            )
            pipeline.breaker.record(error)
    # A task that could not be read is included: it is read again, which decides its outcome.
    return [task.task_id for task in tasks if has_labels.get(task.task_id) is not True]


def _is_abandoned(pipeline: StagePipeline, task: Task, now: pendulum.DateTime) -> bool:
    """Whether a task that this key holds looks abandoned by an earlier attempt.

    A task that a reviewer returned to the key looks the same in a listing. Its labels distinguish it later.
    """
    if task.state == "ASSIGNED":
        if task.assigned_at is None:
            return pipeline.first_attempt_at is not None
        by_this_run = pipeline.first_attempt_at is not None and task.assigned_at >= pipeline.first_attempt_at
        return by_this_run or now - task.assigned_at >= ABANDONED_AFTER
    if not pipeline.draft_counts_as_done or task.state not in SAVED or task.saved_at is None:
        return False
    # Older drafts may be meant to stay with the key.
    return pipeline.first_attempt_at is not None and task.saved_at >= pipeline.first_attempt_at
