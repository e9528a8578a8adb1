"""Assign tasks of a stage to a person, or claim and release them for the API key.

These are the operations behind the hook's methods for a few tasks. The answer to a claim is not sufficient: the task is
read again after claiming, and its assignee is authoritative. A claim that did not succeed is undone.
"""

from __future__ import annotations

import time
from itertools import islice
from typing import TYPE_CHECKING

from airflow_provider_redbrick.api.detail import Detail
from airflow_provider_redbrick.batch.assigning import AssignmentResults, assign, person_assignment
from airflow_provider_redbrick.batch.calling import with_series_labels
from airflow_provider_redbrick.batch.claiming import UNCLAIMED, claim, release, undo_claims
from airflow_provider_redbrick.batch.outcome import Outcome, already_done, done, failed, failed_read, skipped
from airflow_provider_redbrick.batch.reading import read_in_chunks
from airflow_provider_redbrick.exceptions import RedBrickAPIError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from airflow_provider_redbrick.api.models import Task, User
    from airflow_provider_redbrick.api.project import RedBrickProject
    from airflow_provider_redbrick.api.workflow import Stage


def claim_tasks(project: RedBrickProject, stage: Stage, count: int, *, me: str) -> Iterator[Task | Outcome]:
    """Claim unassigned tasks of a stage, in the order of its queue.

    :param project: the project.
    :param stage: the stage.
    :param count: maximum number of tasks.
    :param me: the user id of this key.
    :return: each claimed task, with its labels as ``series`` and ``classification``; for any other task the outcome
        with the reason.
    """
    read_at = time.monotonic()
    waiting = list(islice(project.list_tasks(stage, unassigned=True, page_size=count), count))
    taken: dict[str, Task | Outcome] = {}
    try:
        results = claim(project, waiting, me=me, read_at=read_at)
        # Re-read after claiming: the task record is authoritative.
        found = project.read_tasks(
            [task_id for task_id, problem in results.items() if problem is None], detail=Detail.FULL
        )
        for task in waiting:
            taken[task.task_id] = _task_or_outcome(project, task, results, found, me=me)
    except BaseException:
        undo_claims(project, waiting, me=me)
        raise
    undo_claims(project, [task for task in waiting if isinstance(taken[task.task_id], Outcome)], me=me)
    yield from taken.values()


def _task_or_outcome(
    project: RedBrickProject,
    before: Task,
    results: AssignmentResults,
    found: Mapping[str, Task | RedBrickAPIError],
    *,
    me: str,
) -> Task | Outcome:
    task_id, name = before.task_id, before.name
    problem = results[task_id]
    if problem is not None:
        return problem.outcome(task_id, name=name, what=UNCLAIMED)
    task = found[task_id]
    if isinstance(task, RedBrickAPIError):
        return failed(task_id, f"It was claimed, but could not be read, and is released again: {task}", name=name)
    if not (task.held_by(me) and task.is_queued_in(before.stage_name)):
        return skipped(task_id, f"it changed right after the claim; it is {task.where}", name=name)
    return with_series_labels(project, task)


def list_held_tasks(project: RedBrickProject, stage: Stage, *, me: str) -> Iterator[Task]:
    """Yield the tasks of a stage that the API key holds, with their labels.

    :param project: the project.
    :param stage: the stage.
    :param me: the user id of this key.
    :raises RedBrickAPIError: if one of the tasks cannot be read.
    """
    yield from read_in_full(project, [task.task_id for task in project.list_tasks(stage, assignee=me)])


def read_in_full(project: RedBrickProject, task_ids: Sequence[str]) -> Iterator[Task]:
    """Yield tasks with their items and labels, as callables receive them.

    :param project: the project.
    :param task_ids: ids of the tasks.
    :raises RedBrickAPIError: if one of the tasks cannot be read.
    """
    for found in read_in_chunks(project, task_ids, detail=Detail.FULL):
        for task in found.tasks.values():
            if isinstance(task, RedBrickAPIError):
                raise task
            yield with_series_labels(project, task)


def assign_tasks(project: RedBrickProject, stage: Stage, task_ids: Sequence[str], user: User) -> Iterator[Outcome]:
    """Assign tasks of a stage to a person, also tasks that others hold.

    :param project: the project.
    :param stage: the stage. Tasks elsewhere are skipped.
    :param task_ids: ids of the tasks.
    :param user: the new assignee.
    :return: one outcome per task.
    """

    def outcome_without_change(task: Task) -> Outcome | None:
        if not task.is_queued_in(stage.public_name):
            return _not_in_stage(task, stage)
        if user.is_same(task.assignee):
            return already_done(task.task_id, f"it is {task.where}", name=task.name)
        return None

    def reassign(tasks: Mapping[str, Task], read_at: float) -> AssignmentResults:
        return assign(project, list(tasks), person_assignment(project, user, str(user.email), tasks, read_at=read_at))

    return _reassign(project, task_ids, outcome_without_change, reassign)


def release_tasks(project: RedBrickProject, stage: Stage, task_ids: Sequence[str], *, me: str) -> Iterator[Outcome]:
    """Release tasks of a stage that the API key holds.

    :param project: the project.
    :param stage: the stage. Tasks elsewhere are skipped.
    :param task_ids: ids of the tasks. Those that the key does not hold are skipped.
    :param me: the user id of this key.
    :return: one outcome per task.
    """

    def outcome_without_change(task: Task) -> Outcome | None:
        if not task.is_queued_in(stage.public_name):
            return _not_in_stage(task, stage)
        if not task.held_by(me):
            return skipped(task.task_id, f"this key does not hold it: it is {task.where}", name=task.name)
        return None

    return _reassign(project, task_ids, outcome_without_change, lambda tasks, _: release(project, list(tasks), me=me))


def _not_in_stage(task: Task, stage: Stage) -> Outcome:
    return skipped(task.task_id, f"it is {task.where}, not waiting in {stage.public_name}", name=task.name)


def _reassign(
    project: RedBrickProject,
    task_ids: Sequence[str],
    outcome_without_change: Callable[[Task], Outcome | None],
    reassign: Callable[[Mapping[str, Task], float], AssignmentResults],
) -> Iterator[Outcome]:
    """Read tasks, and reassign those that need a change.

    :param outcome_without_change: returns the outcome of a task that needs no change, or None.
    :param reassign: reassigns tasks that were read at a time of the monotonic clock.
    """
    for found in read_in_chunks(project, task_ids):
        tasks: dict[str, Task] = {}
        for task_id, task in found.tasks.items():
            if isinstance(task, RedBrickAPIError):
                yield failed_read(task_id, task)
            elif (outcome := outcome_without_change(task)) is not None:
                yield outcome
            else:
                tasks[task_id] = task
        for task_id, problem in reassign(tasks, found.read_at).items():
            name = tasks[task_id].name
            if problem is None:
                yield done(task_id, name=name)
            else:
                yield problem.outcome(task_id, name=name)
