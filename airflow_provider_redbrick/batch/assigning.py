"""Giving tasks to somebody, or to nobody, and knowing who really has them.

Results map each id to None when it was given, or to why it was not.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from airflow_provider_redbrick.api.project import MAX_IDS, RedBrickProject
from airflow_provider_redbrick.batch.parallel import in_chunks
from airflow_provider_redbrick.exceptions import RedBrickAPIError, RedBrickRefusedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from airflow_provider_redbrick.api.models import Task, User

log = logging.getLogger(__name__)

ATTEMPTS = 3
# Seconds after which what could not be given back is not tried again.
_AGAIN_WITHIN = 2.0
# Seconds for which what was read of a task is good enough to assign it. A look costs a request for 25 tasks.
FRESH = 5.0


@dataclass(frozen=True)
class NotGiven:
    """Why a task was not given; ``taken`` when that is because somebody else has it now."""

    reason: str
    taken: bool = False

    def __str__(self) -> str:
        return self.reason


Given = dict[str, "NotGiven | None"]


@dataclass(frozen=True)
class Assignment:
    """How to give tasks to somebody.

    :param send: sends one request for up to 50 ids and returns those the server names as changed.
    :param holds: whether a task, read again, is where it should be.
    :param free: whether a task, read again, may still be given: nobody else has taken it in the meantime.
    :param read_at: when the tasks were read, by the monotonic clock. Assigning overwrites whoever holds a task, so
        what was read too long ago is read again before it is given.
    """

    send: Callable[[Sequence[str]], set[str]]
    holds: Callable[[Task], bool]
    free: Callable[[Task], bool]
    read_at: float = field(default_factory=time.monotonic)


def claim(project: RedBrickProject, tasks: Iterable[Task], *, me: str) -> Given:
    """Give tasks to the API key."""
    before = {task.task_id: task for task in tasks}

    def send(task_ids: Sequence[str]) -> set[str]:
        # A task that has moved on is given all the same: it is then somebody else's work, and goes back to them.
        stages = project.claim(task_ids).items()
        return {task_id for task_id, stage in stages if task_id in before and stage in {"", before[task_id].stage_name}}

    assignment = Assignment(
        send=send,
        holds=lambda task: task.held_by(me) and task.is_queued_in(before[task.task_id].stage_name),
        free=lambda task: is_as_before(task, before[task.task_id]),
    )
    return assign(project, list(before), assignment)


class Before(Protocol):
    """Where a task was, and who had it."""

    @property
    def stage_name(self) -> str:
        """The stage."""

    @property
    def assignee(self) -> User | None:
        """Who had it, if anybody."""


def is_as_before(task: Task, before: Before) -> bool:
    """Whether a task, read again, still waits where it was, in the same hands."""
    return task.is_queued_in(before.stage_name) and task.assignee == before.assignee


def release(project: RedBrickProject, task_ids: Sequence[str], *, me: str) -> Given:
    """Unassign those tasks that the API key still holds.

    Each is read first: what an admin has given to a person in the meantime must stay with that person.
    """
    found = project.read_tasks(task_ids)
    result: Given = {}
    mine = []
    for task_id, task in found.items():
        if isinstance(task, RedBrickAPIError):
            result[task_id] = NotGiven(str(task))
        elif task.held_by(me) and not task.is_leaving:
            mine.append(task_id)
        else:
            result[task_id] = None
    return {**result, **assign(project, mine, _from_key(project, None, me=me))}


def give_back(project: RedBrickProject, tasks: Iterable[Task], *, me: str) -> None:
    """Undo claims on tasks that were not finished: to whom they were taken from, or to nobody.

    It is the last thing done for a task that has its outcome already, so what cannot be given back is named in the
    log, and is not an error.
    """
    left = {task.task_id: task for task in tasks}
    problems: dict[str, object] = {}
    began = time.monotonic()
    for _ in range(ATTEMPTS):
        problems = _given_back(project, list(left.values()), me=me) if left else {}
        left = {task_id: left[task_id] for task_id in problems}
        # A server that is down has been asked long enough, and Airflow may be about to kill the process.
        if not left or time.monotonic() - began > _AGAIN_WITHIN:
            break
    for task_id, problem in problems.items():
        log.warning("Task %s stays assigned to the API key: it could not be given back: %s", task_id, problem)


def _given_back(project: RedBrickProject, tasks: Sequence[Task], *, me: str) -> dict[str, object]:
    """Return what is wrong with those that could not be given back."""
    problems: dict[str, object] = {}
    to: dict[str | None, list[str]] = {}
    try:
        found = project.read_tasks([task.task_id for task in tasks])
        for task in tasks:
            now = found[task.task_id]
            if isinstance(now, RedBrickAPIError):
                problems[task.task_id] = now
            elif now.held_by(me) and not now.is_leaving:
                to.setdefault(_owner(project, task, now), []).append(task.task_id)
        for email, task_ids in to.items():
            given = assign(project, task_ids, _from_key(project, email, me=me))
            problems.update((task_id, problem) for task_id, problem in given.items() if problem is not None)
    except RedBrickAPIError as error:
        return {**{task.task_id: error for task in tasks}, **problems}
    return problems


def _owner(project: RedBrickProject, before: Task, now: Task) -> str | None:
    """Return the e-mail of the person whom a task was taken from; None when it was nobody's."""
    owner = before.assignee
    if owner is None and now.stage_name != before.stage_name and project.stage(now.stage_name).is_label:
        # Before it was claimed a reviewer had sent it back, to whoever labelled it.
        owner = now.labels_by
    return (owner and owner.email) or None


def _from_key(project: RedBrickProject, email: str | None, *, me: str) -> Assignment:
    """Return how to give what the key holds to a person, or to nobody."""
    return Assignment(
        send=project.release if email is None else lambda ids: project.assign(ids, email),
        holds=lambda task: not task.held_by(me),
        free=lambda task: task.held_by(me),
    )


def assign(project: RedBrickProject, task_ids: Sequence[str], assignment: Assignment) -> Given:
    """Give tasks to somebody, 50 a request."""
    result: Given = {}
    for chunk in in_chunks(task_ids, MAX_IDS):
        result.update(_assign_chunk(project, chunk, assignment))
    return result


def _assign_chunk(project: RedBrickProject, chunk: Sequence[str], assignment: Assignment) -> Given:
    result: Given = {}
    open_ids = list(chunk)
    if time.monotonic() - assignment.read_at > FRESH:
        open_ids = _still_free(project, open_ids, assignment, result)
    for attempt in range(1, ATTEMPTS + 1):
        if not open_ids:
            break
        error: RedBrickAPIError | None = None
        try:
            given = assignment.send(open_ids)
        except RedBrickAPIError as problem:
            error, given = problem, set()
        result.update(dict.fromkeys(given.intersection(open_ids)))
        open_ids = [task_id for task_id in open_ids if task_id not in given]
        if error is not None and not error.maybe_applied:
            result.update(dict.fromkeys(open_ids, NotGiven(str(error))))
            break
        open_ids = _settle(project, open_ids, assignment, result, error=error, last=attempt == ATTEMPTS)
    return result


def _still_free(project: RedBrickProject, task_ids: Sequence[str], assignment: Assignment, result: Given) -> list[str]:
    """Read tasks again and return those that may still be given."""
    free = []
    for task_id, task in project.read_tasks(task_ids).items():
        if isinstance(task, RedBrickAPIError):
            result[task_id] = NotGiven(str(task))
        elif assignment.free(task):
            free.append(task_id)
        else:
            result[task_id] = _taken(task)
    return free


def _taken(task: Task) -> NotGiven:
    return NotGiven(f"somebody else took it in the meantime: it is {task.where}", taken=True)


def _settle(
    project: RedBrickProject,
    task_ids: Sequence[str],
    assignment: Assignment,
    result: Given,
    *,
    error: RedBrickAPIError | None,
    last: bool,
) -> list[str]:
    """Read what the server did not name as given; return the ids worth another request."""
    try:
        found: Mapping[str, Task | RedBrickAPIError] = project.read_tasks(task_ids)
    except RedBrickAPIError as unread:
        found = dict.fromkeys(task_ids, unread)
    waiting: list[Task] = []
    for task_id, task in found.items():
        if isinstance(task, RedBrickAPIError):
            result[task_id] = NotGiven(str(error or task))
        elif assignment.holds(task):
            result[task_id] = None
        elif not assignment.free(task):
            result[task_id] = _taken(task)
        else:
            waiting.append(task)
    # The same request would be refused again, but without the tasks that have gone it is another one.
    may_help = not isinstance(error, RedBrickRefusedError) or len(waiting) < len(task_ids)
    if error is not None and may_help and not last:
        return [task.task_id for task in waiting]
    for task in waiting:
        result[task.task_id] = NotGiven(str(error) if error else f"RedBrick did not assign it: it is {task.where}")
    return []
