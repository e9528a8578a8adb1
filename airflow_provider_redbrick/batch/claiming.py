"""Taking tasks for the API key, and letting go of them again."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from airflow_provider_redbrick.batch.assigning import (
    ATTEMPTS,
    Assignment,
    Given,
    NotGiven,
    assign,
    given_there,
    is_as_before,
)
from airflow_provider_redbrick.batch.reading import look
from airflow_provider_redbrick.exceptions import RedBrickAPIError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from airflow_provider_redbrick.api.models import Task, User
    from airflow_provider_redbrick.api.project import RedBrickProject

log = logging.getLogger(__name__)

UNCLAIMED = "It could not be claimed: "

# Seconds after which what could not be given back is not tried again.
_AGAIN_WITHIN = 2.0


def claim(project: RedBrickProject, tasks: Iterable[Task], *, me: str, read_at: float) -> Given:
    """Give tasks to the API key.

    :param read_at: when they were read, by the monotonic clock.
    """
    before = {task.task_id: task for task in tasks}

    # One that has moved on is somebody else's work, and goes back to them.
    assignment = Assignment(
        send=lambda task_ids: given_there(project.claim(task_ids), before),
        holds=lambda task: task.held_by(me) and task.is_queued_in(before[task.task_id].stage_name),
        free=lambda task: is_as_before(task, before[task.task_id]),
        read_at=read_at,
    )
    return assign(project, list(before), assignment)


def release(project: RedBrickProject, task_ids: Sequence[str], *, me: str) -> Given:
    """Unassign those tasks that the API key still holds.

    Each is read first: what an admin has given to a person in the meantime must stay with that person.
    """
    found = look(project, task_ids)
    result: Given = {}
    mine: dict[str, Task] = {}
    for task_id, task in found.tasks.items():
        if isinstance(task, RedBrickAPIError):
            result[task_id] = NotGiven(str(task))
        elif task.held_by(me) and not task.is_leaving:
            mine[task_id] = task
        else:
            result[task_id] = None
    return {**result, **_hand_back(project, None, mine, me=me, read_at=found.read_at)}


def give_back(
    project: RedBrickProject,
    tasks: Iterable[Task],
    *,
    me: str,
    keep: Callable[[Task, Task], bool] = lambda _before, _now: False,
    stopped: bool = False,
) -> None:
    """Undo claims on tasks that were not finished: to whom they were taken from, or to nobody.

    It is the last thing done for a task that has its outcome already, so what cannot be given back is named in the
    log, and is not an error.

    :param keep: whether the key keeps a task after all, as it was claimed and as it is now.
    :param stopped: whether the work was stopped; then what became of its claims is worth more than a word in passing.
    """
    left = {task.task_id: task for task in tasks}
    number = len(left)
    problems: dict[str, object] = {}
    began = time.monotonic()
    for attempt in range(ATTEMPTS):
        problems = _given_back(project, list(left.values()), keep, me=me, again=attempt > 0) if left else {}
        left = {task_id: left[task_id] for task_id in problems}
        # A server that is down has been asked long enough, and Airflow may be about to kill the process.
        if not left or time.monotonic() - began > _AGAIN_WITHIN:
            break
    if number > len(problems):
        level = logging.INFO if stopped else logging.DEBUG
        log.log(level, "%d tasks that were not finished are no longer assigned to the API key.", number - len(problems))
    for task_id, problem in problems.items():
        log.warning("Task %s stays assigned to the API key: it could not be given back: %s", task_id, problem)


def _given_back(
    project: RedBrickProject, tasks: Sequence[Task], keep: Callable[[Task, Task], bool], *, me: str, again: bool
) -> dict[str, object]:
    """Return what is wrong with those that could not be given back.

    :param again: they have been given back before, and whether that went well is not known.
    """
    problems: dict[str, object] = {}
    to: dict[str | None, dict[str, Task]] = {}
    found = look(project, [task.task_id for task in tasks])
    try:
        for task in tasks:
            now = found.tasks[task.task_id]
            if isinstance(now, RedBrickAPIError):
                problems[task.task_id] = now
                continue
            if keep(task, now):
                continue
            owner = _owner(project, task, now)
            # Sent back by a reviewer in that moment, it was taken from its labeler.
            lost = again and now.stage_name != task.stage_name and _email(now.assignee) == _email(task.assignee)
            if not now.is_leaving and (now.held_by(me) or (lost and owner)):
                to.setdefault(_email(owner), {})[task.task_id] = now
        for email, held in to.items():
            given = _hand_back(project, email, held, me=me, read_at=found.read_at)
            problems.update((task_id, problem) for task_id, problem in given.items() if problem is not None)
    except RedBrickAPIError as error:
        return {**{task.task_id: error for task in tasks}, **problems}
    return problems


def _owner(project: RedBrickProject, before: Task, now: Task) -> User | None:
    """Return whose a task is that was claimed: the person it was taken from; None when it was nobody's."""
    if now.stage_name == before.stage_name:
        return before.assignee
    # In the moment of the claim a reviewer sent it back, to whoever labelled it.
    return now.labels_by if _is_label(project, now) else None


def _email(user: User | None) -> str | None:
    return (user and user.email) or None


def _is_label(project: RedBrickProject, task: Task) -> bool:
    return any(stage.is_label and stage.public_name == task.stage_name for stage in project.info.workflow.stages)


def _hand_back(
    project: RedBrickProject, email: str | None, held: Mapping[str, Task], *, me: str, read_at: float
) -> Given:
    """Give what the key holds to a person, or to nobody; what somebody else has by then is as it should be.

    :param held: the tasks, as they were read at ``read_at``.
    """

    def send(task_ids: Sequence[str]) -> set[str]:
        stages = project.release(task_ids) if email is None else project.assign(task_ids, email)
        return given_there(stages, held)

    def is_right(task: Task) -> bool:
        if task.held_by(me):
            return False
        if task.assignee is None:
            # One that a reviewer sent back after that look has been taken from its labeler.
            came_back = task.stage_name != held[task.task_id].stage_name and _is_label(project, task)
            return email is None and not came_back
        return True

    assignment = Assignment(send=send, holds=is_right, free=lambda task: not is_right(task), read_at=read_at)
    given = assign(project, list(held), assignment)
    return {task_id: None if problem and problem.taken else problem for task_id, problem in given.items()}
