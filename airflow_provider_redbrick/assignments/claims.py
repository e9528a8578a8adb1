"""Claim tasks for the API key, and return them.

A claim assigns a task to the API key so that no other actor works on it meanwhile. Each claim ends: the operation
finishes the task, or the claim is undone.

Invariants:

1. A claim is valid only in the stage in which the task was read. A task that has moved on is not worked on, and its
   claim is undone.
2. A claimed task is read again before it is worked on. Labels that were saved between the first read and the claim
   belong to another actor: the task is left to them.
3. Before a release the task is read: a task that an admin has assigned to a person meanwhile stays with that person.
   A read that shows the task as it was before an acknowledged claim is stale, and does not prevent the release.
4. Undoing a claim restores the previous holder. A task that was claimed in another stage than it was read in, or that
   a reviewer sent back in that moment, goes to the person from whom the key has taken it.
5. What cannot be undone is logged and stays open in the run's ledger. It is attempted up to `ATTEMPTS` times within
   `_RETRY_WITHIN_S` seconds, because Airflow may be about to kill the process.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from airflow_provider_redbrick.assignments.assign import ATTEMPTS, Assignment, AssignmentResults, NotAssigned, assign
from airflow_provider_redbrick.client.models.task import Detail, holder_before
from airflow_provider_redbrick.engine.ledger import is_unchanged
from airflow_provider_redbrick.engine.task_reader import read_batch, results_or_error
from airflow_provider_redbrick.exceptions import RedBrickAPIError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from threading import Event

    from airflow_provider_redbrick.client.models.task import Task, User
    from airflow_provider_redbrick.client.operations.project import RedBrickProject
    from airflow_provider_redbrick.engine.ledger import Ledger, PreviousState

log = logging.getLogger(__name__)

# Seconds after which a failed release is not attempted again.
_RETRY_WITHIN_S = 2.0
# Pauses between reads of a claimed task that do not show the claim.
_SHORTEST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 2.0


def claim(
    project: RedBrickProject, tasks: Iterable[Task], *, me: str, read_at: float, ledger: Ledger
) -> AssignmentResults:
    """Assign tasks to the API key.

    :param project: the project of the tasks.
    :param tasks: the tasks as they were read at `read_at`.
    :param me: user id of the API key.
    :param read_at: time of that read, by the ledger's clock.
    :param ledger: the ledger of the run.
    :return: None for each task that was claimed, or why it was not.
    """
    before = {task.task_id: task for task in tasks}

    # A task that has moved on is another actor's work: the caller undoes its claim.
    assignment = Assignment(
        send=project.claim,
        before=before,
        holds=lambda task, _: task.held_by(me) and task.is_queued_in(before[task.task_id].stage_name),
        free=lambda task, _: is_unchanged(task, before[task.task_id]),
        read_at=read_at,
        is_claim=True,
    )
    return assign(project, list(before), assignment, ledger=ledger)


def confirm_claims(
    project: RedBrickProject,
    tasks: Sequence[Task],
    *,
    me: str,
    ledger: Ledger,
    stop: Event,
    detail: Detail = Detail.STATE,
) -> tuple[AssignmentResults, dict[str, Task]]:
    """Read claimed tasks again until the reads show the claims.

    A read that shows a claim also shows everything that happened before it, such as labels of a person.

    :param project: the project of the tasks.
    :param tasks: claimed tasks as they were read before the claim, with the version of their labels.
    :param me: user id of the API key.
    :param ledger: the ledger of the run.
    :param stop: when it is set, waiting ends.
    :param detail: which fields are read.
    :return: None for each task that the key holds unchanged, or why it must not be worked on; and the tasks as read.
    """
    results: AssignmentResults = {}
    current: dict[str, Task] = {}
    unseen = {task.task_id: task for task in tasks}
    pause_s = 0.0
    while unseen:
        batch = read_batch(project, list(unseen), detail=detail)
        for task_id, task in batch.tasks.items():
            before = unseen[task_id]
            if isinstance(task, RedBrickAPIError):
                results[task_id] = NotAssigned(f"it could not be read after its claim: {task}")
            elif task.held_by(me):
                current[task_id] = task
                results[task_id] = _problem_of_claimed(task, before)
                if results[task_id] is not None:
                    ledger.outdate(task_id)
            elif not ledger.is_claimed(task, batch.read_at, me=me):
                reason = f"it changed right after the claim and is {task.where}"
                results[task_id] = NotAssigned(reason, taken_by_other=True)
        unseen = {task_id: task for task_id, task in unseen.items() if task_id not in results}
        pause_s = min(max(_SHORTEST_PAUSE_S, pause_s * 2), _LONGEST_PAUSE_S)
        if unseen and stop.wait(pause_s):
            results.update(dict.fromkeys(unseen, NotAssigned("the work was stopped")))
            break
    return results, current


def _problem_of_claimed(task: Task, before: Task) -> NotAssigned | None:
    """Return why a claimed task must not be worked on, or None."""
    if not task.is_queued_in(before.stage_name):
        return NotAssigned(f"it has moved on in the meantime and is {task.where}", taken_by_other=True)
    if "labels_id" not in before.unread and task.labels_id != before.labels_id:
        return NotAssigned("its labels were saved by another user in the moment of the claim", taken_by_other=True)
    return None


def release(project: RedBrickProject, task_ids: Sequence[str], *, me: str, ledger: Ledger) -> AssignmentResults:
    """Unassign the tasks that the API key still holds.

    Each is read first: a task that an admin has assigned to a person in the meantime stays with that person.

    :param project: the project of the tasks.
    :param task_ids: tasks that the key may hold.
    :param me: user id of the API key.
    :param ledger: the ledger of the run.
    :return: None for each task that the key no longer holds, or why it could not be released.
    """
    read_at = ledger.now()
    batch = read_batch(project, task_ids)
    results: AssignmentResults = {}
    held_tasks: dict[str, Task] = {}
    for task_id, task in batch.tasks.items():
        if isinstance(task, RedBrickAPIError):
            results[task_id] = NotAssigned(str(task))
        elif not task.is_leaving and ledger.is_claimed(task, read_at, me=me):
            held_tasks[task_id] = task
        else:
            results[task_id] = None
    return {**results, **return_to(project, None, held_tasks, me=me, read_at=batch.read_at, ledger=ledger)}


def undo_claims(
    project: RedBrickProject,
    tasks: Iterable[Task],
    *,
    me: str,
    ledger: Ledger,
    keep: Callable[[Task, Task], bool] = lambda _before, _now: False,
    stopped: bool = False,
) -> None:
    """Undo claims: return each task to its previous holder, or unassign it.

    This is the last step for tasks that already have their outcome. A task that cannot be returned is logged as a
    warning, is not an error, and stays open in the ledger.

    :param project: the project of the tasks.
    :param tasks: the tasks as they were read before the claim.
    :param me: user id of the API key.
    :param ledger: the ledger of the run.
    :param keep: returns whether the key keeps a task, from the task before the claim and the task as it is now.
    :param stopped: whether the work was stopped; the number of returned tasks is then logged at INFO, else at DEBUG.
    """
    remaining = {task.task_id: task for task in tasks}
    total = len(remaining)
    problems: dict[str, object] = {}
    began = time.monotonic()
    for attempt in range(ATTEMPTS):
        if not remaining:
            break
        problems = _return_claims(project, list(remaining.values()), keep, me=me, ledger=ledger, again=attempt > 0)
        remaining = {task_id: remaining[task_id] for task_id in problems}
        # Do not wait longer for a server that is down: Airflow may be about to kill the process.
        if time.monotonic() - began > _RETRY_WITHIN_S:
            break
    if returned := total - len(problems):
        level = logging.INFO if stopped else logging.DEBUG
        subject = "1 unfinished task is" if returned == 1 else f"{returned} unfinished tasks are"
        log.log(level, "%s no longer assigned to the API key.", subject)
    for task_id, problem in problems.items():
        ledger.contradict(task_id)
        log.warning("Task %s stays assigned to the API key because it could not be released: %s", task_id, problem)


def _return_claims(
    project: RedBrickProject,
    tasks: Sequence[Task],
    keep: Callable[[Task, Task], bool],
    *,
    me: str,
    ledger: Ledger,
    again: bool,
) -> dict[str, object]:
    """Return each claimed task to its previous holder; return what failed.

    :param again: whether an earlier attempt failed, so that its requests may have been applied.
    """
    problems: dict[str, object] = {}
    held_tasks: dict[str, Task] = {}
    read_at = ledger.now()
    batch = read_batch(project, [task.task_id for task in tasks])
    try:
        for task in tasks:
            now = batch.tasks[task.task_id]
            if isinstance(now, RedBrickAPIError):
                problems[task.task_id] = now
            elif keep(task, now):
                ledger.keep(task.task_id, now.stage_name)
            elif not now.is_leaving and (
                ledger.is_claimed(now, read_at, me=me) or (again and _was_sent_back_to_no_one(project, task, now))
            ):
                held_tasks[task.task_id] = now
        by_email: dict[str | None, dict[str, Task]] = {}
        for task_id, owner in _owners(project, tasks, held_tasks, me=me, ledger=ledger).items():
            by_email.setdefault(_email(owner), {})[task_id] = held_tasks[task_id]
        for email, held in by_email.items():
            results = return_to(project, email, held, me=me, read_at=batch.read_at, ledger=ledger)
            problems.update((task_id, problem) for task_id, problem in results.items() if problem is not None)
    except RedBrickAPIError as error:
        return {**{task.task_id: error for task in tasks}, **problems}
    return problems


def _was_sent_back_to_no_one(project: RedBrickProject, before: Task, now: Task) -> bool:
    """Whether a reviewer sent the task back while an earlier return was applied, which took it from its labeler."""
    moved = now.stage_name != before.stage_name and _email(now.assignee) == _email(before.assignee)
    return moved and is_in_label_stage(project, now) and now.labels_by is not None


def _owners(
    project: RedBrickProject, tasks: Iterable[Task], held: Mapping[str, Task], *, me: str, ledger: Ledger
) -> dict[str, User | None]:
    """Return by task id the person that each held task belongs to; None if it was unassigned."""
    before = {task.task_id: task for task in tasks}
    owners: dict[str, User | None] = {}
    displaced: list[str] = []
    for task_id, now in held.items():
        record = ledger.assignment(task_id)
        stage_name = (record and record.claimed_in) or now.stage_name
        if now.stage_name == stage_name == before[task_id].stage_name and not (record and record.is_outdated):
            owners[task_id] = before[task_id].assignee
        else:
            displaced.append(task_id)
    if displaced:
        trails = results_or_error(project.assignee_changes, displaced)
        for task_id in displaced:
            changes, now = trails[task_id], held[task_id]
            owner = None if isinstance(changes, RedBrickAPIError) else holder_before(changes, me)
            # A reviewer sent it back in the moment of the claim, to the person who labeled it.
            owners[task_id] = owner or (now.labels_by if is_in_label_stage(project, now) else None)
    return owners


def _email(user: User | None) -> str | None:
    return (user and user.email) or None


def is_in_label_stage(project: RedBrickProject, task: Task) -> bool:
    """Return whether a task is in a label stage.

    :param project: the project of the task.
    :param task: the task as it is now.
    """
    return any(stage.is_label and stage.public_name == task.stage_name for stage in project.info.workflow.stages)


def return_to(
    project: RedBrickProject,
    email: str | None,
    held: Mapping[str, Task],
    *,
    me: str,
    read_at: float,
    ledger: Ledger,
) -> AssignmentResults:
    """Assign tasks that the key holds to a person, or unassign them.

    A task that another actor holds by then counts as returned.

    :param project: the project of the tasks.
    :param email: the person; None to unassign.
    :param held: the tasks as they were read at `read_at`.
    :param me: user id of the API key.
    :param read_at: time of that read.
    :param ledger: the ledger of the run.
    :return: None for each task that was returned, or why it was not.
    """

    def is_returned(task: Task, task_read_at: float) -> bool:
        if ledger.is_claimed(task, task_read_at, me=me):
            return False
        if task.assignee is None:
            # If a reviewer sent it back after the read, the request has taken it from its labeler.
            was_sent_back = task.stage_name != held[task.task_id].stage_name and is_in_label_stage(project, task)
            return email is None and not was_sent_back
        return True

    assignment = Assignment(
        send=project.release if email is None else partial(_assign_to, project, email),
        before=_claimed_places(held, me=me, ledger=ledger),
        holds=is_returned,
        free=lambda task, task_read_at: not is_returned(task, task_read_at),
        read_at=read_at,
    )
    results = assign(project, list(held), assignment, ledger=ledger)
    for task_id, problem in results.items():
        if problem is None:
            ledger.wrote(task_id, lambda task: not task.held_by(me))
    return {task_id: None if problem and problem.taken_by_other else problem for task_id, problem in results.items()}


def _assign_to(project: RedBrickProject, email: str, task_ids: Sequence[str]) -> Mapping[str, str]:
    return project.assign(task_ids, email)


def _claimed_places(held: Mapping[str, Task], *, me: str, ledger: Ledger) -> Mapping[str, PreviousState]:
    """Return the tasks in the stages in which the key holds them; a stale read may show another one."""
    places: dict[str, PreviousState] = {}
    for task_id, task in held.items():
        record = ledger.assignment(task_id)
        claimed_in = record.claimed_in if record is not None and not task.held_by(me) else None
        places[task_id] = replace(task, stage_name=claimed_in) if claimed_in else task
    return places
