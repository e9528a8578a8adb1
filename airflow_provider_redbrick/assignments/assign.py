"""Assign tasks to people, claim them for the API key, and release them.

An assignment overwrites the holder of a task and applies in whichever stage the task is by then. The server's answer
names the tasks that it assigned and may be lost.

Invariants of an assignment:

1. Results map each id to None if it was assigned, or to a `NotAssigned` with the reason.
2. Tasks whose last read is too old are read again before they are assigned, so that another user's task is not taken.
3. A task counts as assigned if the answer names it in its stage, or a read shows it with its new holder in its stage.
4. A task that another actor has taken or moved is left to them (`taken_by_other`).
5. A lost answer, or a refusal of a request from which some tasks had gone, leads to another request for the tasks that
   still wait, up to `ATTEMPTS` in total. A refusal that no task explains is final.
6. A task that cannot be read after a lost answer is reported as not assigned; it is not sent again.

A claim assigns a task to the API key so that no other actor works on it meanwhile. Each claim ends: the operation
finishes the task, or the claim is undone.

Invariants of a claim:

7. A claim is valid only in the stage in which the task was read. A task that has moved on is not worked on, and its
   claim is undone.
8. Before a release the task is read: only what the API key holds is released, and a task that an admin has assigned to
   a person meanwhile stays with that person.
9. Undoing a claim restores the previous holder. A task that a reviewer sent back in the moment of the claim, or of the
   release, goes to the person who saved its labels.
10. What cannot be undone is logged and does not change the task's outcome. It is attempted up to `ATTEMPTS` times
    within `_RETRY_WITHIN_S` seconds, because Airflow may be about to kill the process.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from airflow_provider_redbrick._utils import in_chunks
from airflow_provider_redbrick.client.operations.project import MAX_IDS, RedBrickProject
from airflow_provider_redbrick.engine.outcomes import Outcome, failed, skipped
from airflow_provider_redbrick.engine.task_reader import is_fresh, read_batch
from airflow_provider_redbrick.exceptions import RedBrickAPIError, RedBrickInputError, RedBrickRefusedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from airflow_provider_redbrick.client.models.task import Member, Task, User
    from airflow_provider_redbrick.client.models.workflow import Stage

log = logging.getLogger(__name__)

ATTEMPTS = 3

UNCLAIMED = "It could not be claimed: "
"""Prefix of reasons why a task was not claimed."""

# Seconds after which a failed release is not attempted again.
_RETRY_WITHIN_S = 2.0


@dataclass(frozen=True)
class NotAssigned:
    """Why a task was not assigned.

    :param reason: a clause or the server's message.
    :param taken_by_other: whether another actor has taken or moved the task, which is not an error.
    """

    reason: str
    taken_by_other: bool = False

    def __str__(self) -> str:
        return self.reason

    def outcome(self, task_id: str, *, name: str, what: str = "") -> Outcome:
        """Return the task's outcome: skipped if another actor has taken it, else failed.

        :param task_id: the task's id.
        :param name: the task's name.
        :param what: put in front of the reason, e.g. ``"It could not be claimed: "``.
        """
        return (skipped if self.taken_by_other else failed)(task_id, f"{what}{self.reason}", name=name)


AssignmentResults = dict[str, "NotAssigned | None"]


@dataclass(frozen=True)
class Assignment:
    """How to assign tasks to one person, the API key, or no one.

    :param send: sends one request for up to 50 ids and returns those that the server names as assigned in their stage.
    :param holds: returns whether a task, read again, is assigned as requested.
    :param free: returns whether a task, read again, may still be assigned, i.e. no other actor has taken it.
    :param read_at: when the tasks were read, by the monotonic clock; older reads are repeated first.
    """

    send: Callable[[Sequence[str]], set[str]]
    holds: Callable[[Task], bool]
    free: Callable[[Task], bool]
    read_at: float


class PreviousState(Protocol):
    """Where a task was and who held it before an assignment."""

    @property
    def stage_name(self) -> str:
        """The stage."""

    @property
    def assignee(self) -> User | None:
        """The holder; None if it was unassigned."""

    @property
    def state(self) -> str | None:
        """The task's state; one that its holder has started is not reassigned."""


def is_unchanged(task: Task, before: PreviousState) -> bool:
    """Return whether a task still waits in its stage with the same holder.

    :param task: the task, read again.
    :param before: the task as it was.
    """
    return task.is_queued_in(before.stage_name) and task.assignee == before.assignee


def assigned_in_place(stages: Mapping[str, str], before: Mapping[str, PreviousState]) -> set[str]:
    """Return the ids of tasks that were assigned in the stage they were read in.

    The server assigns a task that has moved on as well, in its new stage.

    :param stages: the stage of each task that the server names as assigned; empty if it does not say.
    :param before: the tasks as they were.
    """
    known = ((task_id, stage) for task_id, stage in stages.items() if task_id in before)
    return {task_id for task_id, stage in known if stage in {"", before[task_id].stage_name}}


def person_assignment(
    project: RedBrickProject, user: User, email: str, before: Mapping[str, PreviousState], *, read_at: float
) -> Assignment:
    """Return the assignment of queued tasks to a person.

    :param project: the project of the tasks.
    :param user: the person.
    :param email: the person's email address, as the project spells it.
    :param before: the tasks as they were read at `read_at`.
    :param read_at: time of that read, by the monotonic clock.
    """
    return Assignment(
        send=lambda task_ids: assigned_in_place(project.assign(task_ids, email), before),
        holds=lambda task: user.is_same(task.assignee) and task.is_queued_in(before[task.task_id].stage_name),
        free=lambda task: is_unchanged(task, before[task.task_id]) and task.state == before[task.task_id].state,
        read_at=read_at,
    )


def assign(project: RedBrickProject, task_ids: Sequence[str], assignment: Assignment) -> AssignmentResults:
    """Assign tasks, up to 50 per request.

    :param project: the project of the tasks.
    :param task_ids: tasks that `assignment` knows.
    :param assignment: how to assign them.
    :return: None for each task that was assigned, or why it was not.
    """
    results: AssignmentResults = {}
    for chunk in in_chunks(task_ids, MAX_IDS):
        results.update(_assign_chunk(project, chunk, assignment))
    return results


def _assign_chunk(project: RedBrickProject, chunk: Sequence[str], assignment: Assignment) -> AssignmentResults:
    results: AssignmentResults = {}
    open_ids = list(chunk)
    if not is_fresh(assignment.read_at):
        open_ids = _still_free(project, open_ids, assignment, results)
    for attempt in range(1, ATTEMPTS + 1):
        if not open_ids:
            break
        error: RedBrickAPIError | None = None
        try:
            assigned = assignment.send(open_ids)
        except RedBrickAPIError as problem:
            error, assigned = problem, set()
        results.update(dict.fromkeys(assigned.intersection(open_ids)))
        open_ids = [task_id for task_id in open_ids if task_id not in assigned]
        if error is not None and not error.maybe_applied:
            results.update(dict.fromkeys(open_ids, NotAssigned(str(error))))
            break
        open_ids = _settle(project, open_ids, assignment, results, error=error, last=attempt == ATTEMPTS)
    return results


def _still_free(
    project: RedBrickProject, task_ids: Sequence[str], assignment: Assignment, results: AssignmentResults
) -> list[str]:
    """Read tasks again; return those that may be assigned, record the others."""
    free = []
    for task_id, task in read_batch(project, task_ids).tasks.items():
        if isinstance(task, RedBrickAPIError):
            results[task_id] = NotAssigned(str(task))
        elif assignment.free(task):
            free.append(task_id)
        else:
            results[task_id] = _taken_by_other(task)
    return free


def _taken_by_other(task: Task) -> NotAssigned:
    return NotAssigned(
        f"it was taken or moved by another user in the meantime and is {task.where}", taken_by_other=True
    )


def _settle(
    project: RedBrickProject,
    task_ids: Sequence[str],
    assignment: Assignment,
    results: AssignmentResults,
    *,
    error: RedBrickAPIError | None,
    last: bool,
) -> list[str]:
    """Read the tasks that the answer did not name; return those to send again."""
    waiting: list[Task] = []
    for task_id, task in read_batch(project, task_ids).tasks.items():
        if isinstance(task, RedBrickAPIError):
            results[task_id] = NotAssigned(str(error or task))
        elif assignment.holds(task):
            results[task_id] = None
        elif not assignment.free(task):
            results[task_id] = _taken_by_other(task)
        else:
            waiting.append(task)
    # The same request would be refused again. Without the tasks that have gone, it is a different one.
    may_help = not isinstance(error, RedBrickRefusedError) or len(waiting) < len(task_ids)
    if error is not None and may_help and not last:
        return [task.task_id for task in waiting]
    for task in waiting:
        reason = str(error) if error else f"RedBrick did not assign it: it is {task.where}"
        results[task.task_id] = NotAssigned(reason)
    return []


def check_people(members: Sequence[Member], stage: Stage, emails: Sequence[str]) -> dict[str, User]:
    """Return the users behind email addresses, by the project's spelling.

    :param members: the members of the project.
    :param stage: the stage in which they will hold tasks.
    :param emails: addresses; case is ignored.
    :return: the users by email, in the order of `emails`.
    :raises RedBrickInputError: if a person is not a member, has no access to the stage, or is named twice. The message
        lists all of them.
    """
    known = {member.user.email.lower(): member for member in members if member.user.email}
    unknown = [email for email in emails if email.lower() not in known]
    if unknown:
        raise RedBrickInputError(
            f"Not members of the project: {', '.join(unknown)}. Its members are: {', '.join(sorted(known)) or 'none'}."
        )
    without_access = [email for email in emails if not known[email.lower()].may_work_in(stage.name)]
    if without_access:
        raise RedBrickInputError(f"No access to stage {stage.name}: {', '.join(without_access)}.")
    duplicates = sorted({email for email in emails if [other.lower() for other in emails].count(email.lower()) > 1})
    if duplicates:
        raise RedBrickInputError(f"Each person may be named once, but these are named twice: {', '.join(duplicates)}.")
    users = [known[email.lower()].user for email in emails]
    return {str(user.email): user for user in users}


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
