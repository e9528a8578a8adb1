"""Which tasks of a stage an operator takes when it was not given any."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from itertools import islice
from math import ceil
from threading import Event
from typing import TYPE_CHECKING

import pendulum

from airflow_provider_redbrick.api.chunks import in_chunks
from airflow_provider_redbrick.api.models import SAVED
from airflow_provider_redbrick.batch.parallel import in_parallel
from airflow_provider_redbrick.batch.reading import CHUNK, look
from airflow_provider_redbrick.exceptions import RedBrickAPIError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from airflow_provider_redbrick.api.models import Task
    from airflow_provider_redbrick.batch.stage_work import StageWork

log = logging.getLogger(__name__)

ABANDONED_AFTER = pendulum.duration(hours=1)


@dataclass(frozen=True)
class Candidates:
    """Tasks to take, in order.

    :param held: those among them that this key holds already and may work on. Any other task that turns out to be
        the key's by the time it is looked at belongs to another run that is working on it right now.
    """

    task_ids: tuple[str, ...]
    held: frozenset[str]


def candidates(work: StageWork, *, limit: int | None, now: pendulum.DateTime) -> Candidates:
    """Choose tasks to take: first those this key claimed and abandoned, then unassigned ones.

    A killed try leaves tasks assigned to the key that nobody else will touch. A retry takes them up at once; another
    run only after an hour, since a run that is still alive may be working on them. Where the credential is a person's
    access token, what it holds is that person's own work and is left alone.

    The whole list is made before the first claim: claiming changes what a listing shows.

    :param limit: how many to take in all.
    """
    mine = work.project.list_tasks(work.stage, assignee=work.me) if work.me.startswith("API:") else iter(())
    abandoned: Iterator[Task] = (task for task in mine if _abandoned(work, task, now))
    if limit is not None and work.stage.is_label:
        # What a reviewer sent back would be in front every time, and nothing is done with it.
        workers = work.project.client.max_concurrency
        abandoned = in_parallel(in_chunks(abandoned, CHUNK), partial(_not_back, work), workers=workers, stop=Event())
    held = list(islice(_wanted(work, abandoned, limit), limit))
    room = None if limit is None else limit - len(held)
    page_size = None if work.only_unlabelled else room or None
    unassigned = work.project.list_tasks(work.stage, unassigned=True, page_size=page_size)
    known = frozenset(held)
    # One that the key has given back since its own were listed is in both lists, and takes up the room of one.
    others = (task for task in unassigned if task.task_id not in known)
    waiting = list(islice(_wanted(work, others, room), room))
    return Candidates((*held, *waiting), known)


def _not_back(work: StageWork, tasks: Sequence[Task]) -> list[Task]:
    found = look(work.project, [task.task_id for task in tasks]).tasks
    return [
        task for task in tasks if isinstance(now := found[task.task_id], RedBrickAPIError) or not work.came_back(now)
    ]


def _wanted(work: StageWork, tasks: Iterator[Task], limit: int | None) -> Iterator[str]:
    """Yield the tasks' ids, without those that have labels when these are not wanted.

    A draft that an earlier try saved stays among them: it may have to be handed to people.

    :param limit: how many are wanted, to look at not many more.
    """
    if not work.only_unlabelled:
        return (task.task_id for task in tasks)
    workers = work.project.client.max_concurrency
    if limit is not None:
        workers = max(1, min(workers, ceil(limit / CHUNK)))
    return in_parallel(in_chunks(tasks, CHUNK), partial(_unlabelled, work), workers=workers, stop=Event())


def _unlabelled(work: StageWork, tasks: Sequence[Task]) -> list[str]:
    asked = [task.task_id for task in tasks if task.state not in SAVED]
    labelled: Mapping[str, bool | RedBrickAPIError] = {}
    if asked and not work.breaker.is_open:
        try:
            labelled = work.project.are_labelled(asked, by=work.me)
            work.breaker.saw(None)
        except RedBrickAPIError as error:
            log.warning("Whether tasks have labels could not be seen, and is looked at again: %s", error)
            work.breaker.saw(error)
    # One that could not be read is taken along: it is read again, and what comes of that will be its outcome.
    return [task.task_id for task in tasks if labelled.get(task.task_id) is not True]


def _abandoned(work: StageWork, task: Task, now: pendulum.DateTime) -> bool:
    """Whether a task this key holds looks like a try that is gone left it behind.

    A task that a reviewer sent back to the key looks the same in a listing; its labels tell it apart later.
    """
    if task.state == "ASSIGNED":
        if task.assigned_at is None:
            return work.since is not None
        by_this_run = work.since is not None and task.assigned_at >= work.since
        return by_this_run or now - task.assigned_at >= ABANDONED_AFTER
    if not work.saved_counts or task.state not in SAVED or task.saved_at is None:
        return False
    by_earlier_try = work.since is not None and task.saved_at >= work.since
    # A draft that is to be released stays with nobody for long, but where people are to find it, it stays.
    return by_earlier_try or (work.hands_over and now - task.saved_at >= ABANDONED_AFTER)
