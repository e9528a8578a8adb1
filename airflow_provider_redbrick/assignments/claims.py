"""Claim tasks for the API key and release them.

A claim assigns a task to the API key so that no other actor works on it meanwhile. Each claim ends: the operation
finishes the task, or the claim is undone.

Invariants:

1. A claim is valid only in the stage in which the task was read. A task that has moved on is not worked on, and its
   claim is undone.
2. Before a release the task is read: only what the API key holds is released, and a task that an admin has assigned to
   a person meanwhile stays with that person.
3. Undoing a claim restores the previous holder. A task that a reviewer sent back in the moment of the claim, or of the
   release, goes to the person who saved its labels.
4. What cannot be undone is logged and does not change the task's outcome. It is attempted up to `ATTEMPTS` times within
   `_RETRY_WITHIN_S` seconds, because Airflow may be about to kill the process.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from airflow_provider_redbrick.assignments.assign import (
    ATTEMPTS,
    Assignment,
    AssignmentResults,
    NotAssigned,
    assign,
    assigned_in_place,
    is_unchanged,
)
from airflow_provider_redbrick.engine.task_reader import read_batch
from airflow_provider_redbrick.exceptions import RedBrickAPIError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from airflow_provider_redbrick.client.models.task import Task, User
    from airflow_provider_redbrick.client.operations.project import RedBrickProject

log = logging.getLogger(__name__)

UNCLAIMED = "It could not be claimed: "
"""Prefix of reasons why a task was not claimed."""

# Seconds after which a failed release is not attempted again.
_RETRY_WITHIN_S = 2.0


def claim(project: RedBrickProject, tasks: Iterable[Task], *, me: str, read_at: float) -> AssignmentResults:
    """Assign tasks to the API key.

    :param project: the project of the tasks.
    :param tasks: the tasks as they were read at `read_at`.
    :param me: user id of the API key.
    :param read_at: time of that read, by the monotonic clock.
    :return: None for each task that was claimed, or why it was not.
    """
    before = {task.task_id: task for task in tasks}

    # A task that has moved on is another actor's work: the caller undoes its claim.
    assignment = Assignment(
        send=lambda task_ids: assigned_in_place(project.claim(task_ids), before),
        holds=lambda task: task.held_by(me) and task.is_queued_in(before[task.task_id].stage_name),
        free=lambda task: is_unchanged(task, before[task.task_id]),
        read_at=read_at,
    )
    return assign(project, list(before), assignment)


def release(project: RedBrickProject, task_ids: Sequence[str], *, me: str) -> AssignmentResults:
    """Unassign the tasks that the API key still holds.

    Each is read first: a task that an admin has assigned to a person in the meantime stays with that person.

    :param project: the project of the tasks.
    :param task_ids: tasks that the key may hold.
    :param me: user id of the API key.
    :return: None for each task that the key no longer holds, or why it could not be released.
    """
    batch = read_batch(project, task_ids)
    results: AssignmentResults = {}
    held_tasks: dict[str, Task] = {}
    for task_id, task in batch.tasks.items():
        if isinstance(task, RedBrickAPIError):
            results[task_id] = NotAssigned(str(task))
        elif task.held_by(me) and not task.is_leaving:
            held_tasks[task_id] = task
        else:
            results[task_id] = None
    return {**results, **_return_to(project, None, held_tasks, me=me, read_at=batch.read_at)}


def undo_claims(
    project: RedBrickProject,
    tasks: Iterable[Task],
    *,
    me: str,
    keep: Callable[[Task, Task], bool] = lambda _before, _now: False,
    stopped: bool = False,
) -> None:
    """Undo claims: return each task to its previous holder, or unassign it.

    This is the last step for tasks that already have their outcome. A task that cannot be returned is logged as a
    warning and is not an error.

    :param project: the project of the tasks.
    :param tasks: the tasks as they were read before the claim.
    :param me: user id of the API key.
    :param keep: returns whether the key keeps a task, from the task before the claim and the task as it is now.
    :param stopped: whether the work was stopped; the number of returned tasks is then logged at INFO, else at DEBUG.
    """
    remaining = {task.task_id: task for task in tasks}
    total = len(remaining)
    problems: dict[str, object] = {}
    began = time.monotonic()
    for attempt in range(ATTEMPTS):
        problems = (
            _return_claims(project, list(remaining.values()), keep, me=me, again=attempt > 0) if remaining else {}
        )
        remaining = {task_id: remaining[task_id] for task_id in problems}
        # Do not wait longer for a server that is down: Airflow may be about to kill the process.
        if not remaining or time.monotonic() - began > _RETRY_WITHIN_S:
            break
    if returned := total - len(problems):
        level = logging.INFO if stopped else logging.DEBUG
        subject = "1 unfinished task is" if returned == 1 else f"{returned} unfinished tasks are"
        log.log(level, "%s no longer assigned to the API key.", subject)
    for task_id, problem in problems.items():
        log.warning("Task %s stays assigned to the API key because it could not be released: %s", task_id, problem)


def _return_claims(
    project: RedBrickProject, tasks: Sequence[Task], keep: Callable[[Task, Task], bool], *, me: str, again: bool
) -> dict[str, object]:
    """Return each claimed task to its previous holder; return what failed.

    :param again: whether an earlier attempt failed, so that its requests may have been applied.
    """
    problems: dict[str, object] = {}
    by_email: dict[str | None, dict[str, Task]] = {}
    batch = read_batch(project, [task.task_id for task in tasks])
    try:
        for task in tasks:
            now = batch.tasks[task.task_id]
            if isinstance(now, RedBrickAPIError):
                problems[task.task_id] = now
                continue
            if keep(task, now):
                continue
            owner = _owner(project, task, now)
            # A reviewer sent the task back while an earlier attempt returned it, which took it from its labeler.
            lost = again and now.stage_name != task.stage_name and _email(now.assignee) == _email(task.assignee)
            if not now.is_leaving and (now.held_by(me) or (lost and owner)):
                by_email.setdefault(_email(owner), {})[task.task_id] = now
        for email, held in by_email.items():
            results = _return_to(project, email, held, me=me, read_at=batch.read_at)
            problems.update((task_id, problem) for task_id, problem in results.items() if problem is not None)
    except RedBrickAPIError as error:
        return {**{task.task_id: error for task in tasks}, **problems}
    return problems


def _owner(project: RedBrickProject, before: Task, now: Task) -> User | None:
    """Return the person a claimed task belongs to; None if it was unassigned."""
    if now.stage_name == before.stage_name:
        return before.assignee
    # A reviewer sent it back in the moment of the claim, to the person who labeled it.
    return now.labels_by if _is_in_label_stage(project, now) else None


def _email(user: User | None) -> str | None:
    return (user and user.email) or None


def _is_in_label_stage(project: RedBrickProject, task: Task) -> bool:
    return any(stage.is_label and stage.public_name == task.stage_name for stage in project.info.workflow.stages)


def _return_to(
    project: RedBrickProject, email: str | None, held: Mapping[str, Task], *, me: str, read_at: float
) -> AssignmentResults:
    """Assign tasks that the key holds to a person, or unassign them.

    A task that another actor holds by then counts as returned.

    :param email: the person; None to unassign.
    :param held: the tasks as they were read at `read_at`.
    """

    def send(task_ids: Sequence[str]) -> set[str]:
        stages = project.release(task_ids) if email is None else project.assign(task_ids, email)
        return assigned_in_place(stages, held)

    def is_returned(task: Task) -> bool:
        if task.held_by(me):
            return False
        if task.assignee is None:
            # If a reviewer sent it back after the read, the request has taken it from its labeler.
            was_sent_back = task.stage_name != held[task.task_id].stage_name and _is_in_label_stage(project, task)
            return email is None and not was_sent_back
        return True

    assignment = Assignment(send=send, holds=is_returned, free=lambda task: not is_returned(task), read_at=read_at)
    results = assign(project, list(held), assignment)
    return {task_id: None if problem and problem.taken_by_other else problem for task_id, problem in results.items()}
