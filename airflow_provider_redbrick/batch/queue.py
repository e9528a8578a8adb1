"""Which tasks of a stage an operator takes when it was not given any."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import pendulum

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_redbrick.api.models import Task
    from airflow_provider_redbrick.batch.stage_work import StageWork
from airflow_provider_redbrick.batch.reading import CHUNK

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
    run only after an hour, since a run that is still alive may be working on them.

    The whole list is made before the first claim: claiming changes what a listing shows.

    :param limit: how many to take in all.
    """
    mine = work.project.list_tasks(work.stage, assignee=work.me)
    held = [task.task_id for task in islice((task for task in mine if _abandoned(work, task, now)), limit)]
    room = None if limit is None else limit - len(held)
    waiting = list(islice(_waiting(work, room), room))
    return Candidates(tuple(dict.fromkeys([*held, *waiting])), frozenset(held))


def _waiting(work: StageWork, room: int | None) -> Iterator[str]:
    """Yield the ids of unassigned tasks, without those that have labels when these are not wanted."""
    page_size = None if work.only_unlabelled else room or None
    listed = work.project.list_tasks(work.stage, unassigned=True, page_size=page_size)
    ids = (task.task_id for task in listed if task.state != "COMPLETED")
    if not work.only_unlabelled:
        yield from ids
        return
    while chunk := list(islice(ids, CHUNK)):
        for task_id, labelled in work.project.are_labelled(chunk).items():
            # One that could not be read is taken along: its failure to be read again will be its outcome.
            if labelled is not True:
                yield task_id


def _abandoned(work: StageWork, task: Task, now: pendulum.DateTime) -> bool:
    """Whether a task this key holds looks like a try that is gone left it behind.

    A task that a reviewer sent back to the key looks the same in a listing; its labels tell it apart later.
    """
    if task.state == "ASSIGNED":
        if work.since is not None:
            return True
        return task.assigned_at is not None and now - task.assigned_at >= ABANDONED_AFTER
    saved_by_earlier_try = work.since is not None and task.saved_at is not None and task.saved_at >= work.since
    return work.saved_counts and task.state in {"STAGED", "IN_PROGRESS"} and saved_by_earlier_try
