"""Giving tasks to somebody, or to nobody, and knowing who really has them.

Results map each id to None when it was given, or to why it was not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from airflow_provider_redbrick.api.chunks import in_chunks
from airflow_provider_redbrick.api.project import MAX_IDS, RedBrickProject
from airflow_provider_redbrick.batch.outcome import Outcome, failed, skipped
from airflow_provider_redbrick.batch.reading import is_fresh, look
from airflow_provider_redbrick.exceptions import RedBrickAPIError, RedBrickRefusedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from airflow_provider_redbrick.api.models import Task, User

ATTEMPTS = 3


@dataclass(frozen=True)
class NotGiven:
    """Why a task was not given; ``taken`` when that is because somebody else has it now."""

    reason: str
    taken: bool = False

    def __str__(self) -> str:
        return self.reason

    def outcome(self, task_id: str, *, name: str, what: str = "") -> Outcome:
        """Return the outcome of the task: one that somebody else has taken is left to them."""
        return (skipped if self.taken else failed)(task_id, f"{what}{self.reason}", name=name)


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
    read_at: float


class Before(Protocol):
    """Where a task was, and who had it."""

    @property
    def stage_name(self) -> str:
        """The stage."""

    @property
    def assignee(self) -> User | None:
        """Who had it, if anybody."""

    @property
    def state(self) -> str | None:
        """Its state: whoever has begun with it keeps it."""


def is_as_before(task: Task, before: Before) -> bool:
    """Whether a task, read again, still waits where it was, in the same hands."""
    return task.is_queued_in(before.stage_name) and task.assignee == before.assignee


def given_there(stages: Mapping[str, str], before: Mapping[str, Before]) -> set[str]:
    """Return the tasks that were given where they were: one that has moved on is given all the same, where it is now.

    :param stages: where the server says that each is which it has given; empty when it does not say.
    """
    known = ((task_id, stage) for task_id, stage in stages.items() if task_id in before)
    return {task_id for task_id, stage in known if stage in {"", before[task_id].stage_name}}


def to_person(
    project: RedBrickProject, user: User, email: str, before: Mapping[str, Before], *, read_at: float
) -> Assignment:
    """Return how to give tasks that wait in a stage to a person.

    :param before: the tasks, as they were read at ``read_at``.
    """
    return Assignment(
        send=lambda task_ids: given_there(project.assign(task_ids, email), before),
        holds=lambda task: user.is_same(task.assignee) and task.is_queued_in(before[task.task_id].stage_name),
        free=lambda task: is_as_before(task, before[task.task_id]) and task.state == before[task.task_id].state,
        read_at=read_at,
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
    if not is_fresh(assignment.read_at):
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
    for task_id, task in look(project, task_ids).tasks.items():
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
    waiting: list[Task] = []
    for task_id, task in look(project, task_ids).tasks.items():
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
