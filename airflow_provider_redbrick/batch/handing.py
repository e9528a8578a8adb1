"""Handing tasks of a stage to somebody who is named, taking them for the API key, and letting go of them."""

from __future__ import annotations

import time
from itertools import islice
from typing import TYPE_CHECKING

from airflow_provider_redbrick.api.detail import Detail
from airflow_provider_redbrick.batch.assigning import Given, assign, to_person
from airflow_provider_redbrick.batch.calling import handed
from airflow_provider_redbrick.batch.claiming import UNCLAIMED, claim, give_back, release
from airflow_provider_redbrick.batch.outcome import Outcome, already_done, done, failed, skipped, unread
from airflow_provider_redbrick.batch.reading import read_in_chunks
from airflow_provider_redbrick.exceptions import RedBrickAPIError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from airflow_provider_redbrick.api.models import Task, User
    from airflow_provider_redbrick.api.project import RedBrickProject
    from airflow_provider_redbrick.api.workflow import Stage


def take(project: RedBrickProject, stage: Stage, count: int, *, me: str) -> Iterator[Task | Outcome]:
    """Claim up to ``count`` tasks of a stage that nobody holds, in the order of its queue.

    Yields each task that the key has now, with its labels as ``series`` and ``classification``, and for any other the
    outcome that says why it has it not.
    """
    read_at = time.monotonic()
    waiting = list(islice(project.list_tasks(stage, unassigned=True, page_size=count), count))
    taken: dict[str, Task | Outcome] = {}
    try:
        given = claim(project, waiting, me=me, read_at=read_at)
        # The server's answer to a claim is its word; who has a task is what the task itself says.
        found = project.read_tasks(
            [task_id for task_id, problem in given.items() if problem is None], detail=Detail.FULL
        )
        for task in waiting:
            taken[task.task_id] = _taken(project, task, given, found, me=me)
    except BaseException:
        give_back(project, waiting, me=me)
        raise
    give_back(project, [task for task in waiting if isinstance(taken[task.task_id], Outcome)], me=me)
    yield from taken.values()


def _taken(
    project: RedBrickProject, before: Task, given: Given, found: Mapping[str, Task | RedBrickAPIError], *, me: str
) -> Task | Outcome:
    task_id, name = before.task_id, before.name
    problem = given[task_id]
    if problem is not None:
        return problem.outcome(task_id, name=name, what=UNCLAIMED)
    task = found[task_id]
    if isinstance(task, RedBrickAPIError):
        return failed(task_id, f"It was claimed, could not be read, and is given back: {task}", name=name)
    if not (task.held_by(me) and task.is_queued_in(before.stage_name)):
        return skipped(task_id, f"It was taken from the key right away: it is {task.where}", name=name)
    return handed(project, task)


def held(project: RedBrickProject, stage: Stage, *, me: str) -> Iterator[Task]:
    """Yield the tasks of a stage that the API key holds, with their labels.

    :raises RedBrickAPIError: when one of them cannot be read.
    """
    yield from read_in_full(project, [task.task_id for task in project.list_tasks(stage, assignee=me)])


def read_in_full(project: RedBrickProject, task_ids: Sequence[str]) -> Iterator[Task]:
    """Yield tasks with their items and labels, as callables see them.

    :raises RedBrickAPIError: if one of them cannot be read.
    """
    for found in read_in_chunks(project, task_ids, detail=Detail.FULL):
        for task in found.tasks.values():
            if isinstance(task, RedBrickAPIError):
                raise task
            yield handed(project, task)


def give(project: RedBrickProject, stage: Stage, task_ids: Sequence[str], user: User) -> Iterator[Outcome]:
    """Give tasks of a stage to a person, whoever holds them; yields one outcome a task."""

    def ending(task: Task) -> Outcome | None:
        if not task.is_queued_in(stage.public_name):
            return _elsewhere(task, stage)
        if user.is_same(task.assignee):
            return already_done(task.task_id, f"it is {task.where}", name=task.name)
        return None

    def hand(tasks: Mapping[str, Task], read_at: float) -> Given:
        return assign(project, list(tasks), to_person(project, user, str(user.email), tasks, read_at=read_at))

    return _each(project, task_ids, ending, hand)


def let_go(project: RedBrickProject, stage: Stage, task_ids: Sequence[str], *, me: str) -> Iterator[Outcome]:
    """Unassign those tasks of a stage that the API key holds; yields one outcome a task."""

    def ending(task: Task) -> Outcome | None:
        if not task.is_queued_in(stage.public_name):
            return _elsewhere(task, stage)
        if not task.held_by(me):
            return skipped(task.task_id, f"this key does not hold it: it is {task.where}", name=task.name)
        return None

    return _each(project, task_ids, ending, lambda tasks, _: release(project, list(tasks), me=me))


def _elsewhere(task: Task, stage: Stage) -> Outcome:
    return skipped(task.task_id, f"it is {task.where}, not waiting in {stage.public_name}", name=task.name)


def _each(
    project: RedBrickProject,
    task_ids: Sequence[str],
    ending: Callable[[Task], Outcome | None],
    hand: Callable[[Mapping[str, Task], float], Given],
) -> Iterator[Outcome]:
    """Look at tasks, and hand over those that have no ending yet.

    :param hand: is given the tasks, and when they were read.
    """
    for found in read_in_chunks(project, task_ids):
        tasks: dict[str, Task] = {}
        for task_id, task in found.tasks.items():
            if isinstance(task, RedBrickAPIError):
                yield unread(task_id, task)
            elif (end := ending(task)) is not None:
                yield end
            else:
                tasks[task_id] = task
        for task_id, problem in hand(tasks, found.read_at).items():
            name = tasks[task_id].name
            if problem is None:
                yield done(task_id, name=name)
            else:
                yield problem.outcome(task_id, name=name)
