"""Settle what is open when a run ends: changes without an answer, and tasks with the wrong holder.

A request without an answer may be applied after the run has moved on: a claim can take a task from a reviewer in the
next stage, and a release can take it from the person who has it by then. The run therefore ends like this:

1. The outcomes of open tasks are withheld. All others are passed on at once.
2. If no task is open, nothing is read and nothing waits.
3. Otherwise the run waits until reads are conclusive, i.e. `settle_s` seconds after the last request that is not
   accounted for. Then postponed changes get their outcomes, and the holder of each open task is read.
4. A task that the API key holds and should not is returned. A task that a late request took from a person, or assigned
   in another stage, goes back to the holder that the audit trail names before the key's last changes.
5. Returning may fail as well: steps 3 and 4 are repeated up to `_MAX_ROUNDS` times. A task that cannot be settled is
   `unknown`.
6. If the run is stopped, it does not wait: claims are returned once, and the next attempt finds the rest by reading.
7. Finally the last writes are read until a read shows them, for at most `settle_s` seconds: what follows the run in its
   DAG then sees its work.
"""

from __future__ import annotations

import logging
from collections.abc import Generator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick._utils import count_tasks
from airflow_provider_redbrick.assignments.assign import Assignment, assign
from airflow_provider_redbrick.assignments.claims import is_in_label_stage, return_to, undo_claims
from airflow_provider_redbrick.client.models.task import Task
from airflow_provider_redbrick.engine.executor import settle_postponed
from airflow_provider_redbrick.engine.outcomes import Outcome, Status
from airflow_provider_redbrick.engine.task_reader import read_batch, results_or_error
from airflow_provider_redbrick.exceptions import RedBrickAPIError, RedBrickNotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from threading import Event

    from airflow_provider_redbrick.client.models.task import AssigneeChange, User
    from airflow_provider_redbrick.client.operations.project import RedBrickProject
    from airflow_provider_redbrick.engine.ledger import AssignmentRecord, Ledger

log = logging.getLogger(__name__)

_MAX_ROUNDS = 3
_LONGEST_PAUSE_S = 2.0


def settled(
    project: RedBrickProject, outcomes: Iterable[Outcome], ledger: Ledger, *, stop: Event
) -> Generator[Outcome, None, None]:
    """Pass on outcomes, settle what is open, and confirm the last writes.

    :param project: the project of the tasks.
    :param outcomes: one outcome per task. The work is done while they are consumed.
    :param ledger: the ledger of the run.
    :param stop: when it is set, nothing is waited for.
    :return: one final outcome per task.
    """
    withheld: dict[str, Outcome] = {}
    try:
        for outcome in outcomes:
            # A task that is not created yet has a name only.
            key = outcome.task_id or outcome.name
            if ledger.is_open(key):
                withheld[key] = outcome
            else:
                yield outcome
        _settle(project, ledger, withheld, stop=stop)
    except BaseException:
        stop.set()
        if isinstance(outcomes, Generator):
            # The work that is under way returns its claims.
            outcomes.close()
        _abandon(project, ledger)
        raise
    yield from withheld.values()
    confirm_last_writes(project, ledger, stop=stop)


def _settle(project: RedBrickProject, ledger: Ledger, withheld: dict[str, Outcome], *, stop: Event) -> None:
    """Replace the outcomes of open tasks by final ones, and return tasks to their holders."""
    for _ in range(_MAX_ROUNDS):
        due_at = ledger.due_at()
        if due_at is None:
            return
        wait_s = max(0.0, due_at - ledger.now())
        if wait_s:
            log.info(
                "Waiting %.1f s until reads are conclusive: what RedBrick applied is not known of %s.",
                wait_s,
                count_tasks(len(withheld) or 1),
            )
        if stop.wait(wait_s):
            break
        postponed = ledger.take_changes()
        withheld.update(settle_postponed(project, postponed.values(), ledger))
        _settle_holders(project, ledger, ledger.take_open_assignments(), withheld)
    for key in [key for key in withheld if ledger.is_open(key)]:
        reason = "Whether the API key holds it is not known, because RedBrick does not answer"
        reason = f"{withheld[key].reason} {reason}".strip()
        withheld[key] = replace(withheld[key], status=Status.UNKNOWN, reason=reason)


def _settle_holders(
    project: RedBrickProject,
    ledger: Ledger,
    records: Mapping[str, AssignmentRecord],
    withheld: dict[str, Outcome],
) -> None:
    """Read the holders of tasks at a time when reads are conclusive, and correct them."""
    if not records:
        return
    me = project.client.me()
    batch = read_batch(project, list(records))
    wrong: dict[str, Task] = {}
    unreadable: dict[str, RedBrickAPIError] = {}
    for task_id, task in batch.tasks.items():
        record = records[task_id]
        if isinstance(task, RedBrickNotFoundError):
            continue
        if isinstance(task, RedBrickAPIError):
            unreadable[task_id] = task
            ledger.contradict(task_id)
        elif record.success is not None and task_id in withheld and _is_assigned(task, record):
            withheld[task_id] = record.success
        elif _may_be_wrong(task, record, me=me):
            wrong[task_id] = task
    _warn_of_unreadable(unreadable)
    if not wrong:
        return
    trails = results_or_error(project.assignee_changes, list(wrong))
    for task_id, task in wrong.items():
        trail = trails[task_id]
        changes: Sequence[AssigneeChange] = () if isinstance(trail, RedBrickAPIError) else trail
        try:
            _correct(project, task, records[task_id], changes, me=me, read_at=batch.read_at, ledger=ledger)
        except RedBrickAPIError as error:
            log.warning("Task %s could not be returned to its previous assignee: %s", task_id, error)
            ledger.contradict(task_id)


def _warn_of_unreadable(unreadable: Mapping[str, RedBrickAPIError]) -> None:
    if unreadable:
        log.warning(
            "The assignees of %s could not be read: %s (%s)",
            count_tasks(len(unreadable)),
            ", ".join(unreadable),
            next(iter(unreadable.values())),
        )


def _is_assigned(task: Task, record: AssignmentRecord) -> bool:
    """Whether a person holds the task that was assigned to them, in its stage."""
    return record.person is not None and record.person.is_same(task.assignee) and _is_in_place(task, record)


def _is_in_place(task: Task, record: AssignmentRecord) -> bool:
    return task.stage_name == record.before.stage_name


def _may_be_wrong(task: Task, record: AssignmentRecord, *, me: str) -> bool:
    """Whether a late request may be the reason for a task's holder."""
    if task.held_by(me):
        return record.kept_in != task.stage_name
    if record.person is not None and record.person.is_same(task.assignee):
        return not _is_in_place(task, record)
    return task.assignee is None


def _correct(
    project: RedBrickProject,
    task: Task,
    record: AssignmentRecord,
    changes: Sequence[AssigneeChange],
    *,
    me: str,
    read_at: float,
    ledger: Ledger,
) -> None:
    """Return a task to the holder that it had before the key's last changes.

    :param task: the task as it is now.
    :param changes: the changes of its holder, oldest first; empty if they are unknown.
    """
    known, owner = _holder_before_run(task, record, changes, me=me)
    if not known:
        if not task.held_by(me):
            return
        owner = _likely_owner(project, task, record)
    if owner is not None and owner.is_same(task.assignee):
        return
    if owner is None and task.assignee is None:
        return
    problem = _restore(project, task, owner, me=me, read_at=read_at, ledger=ledger)
    if problem is not None:
        log.warning("Task %s could not be returned to %s: %s", task.task_id, owner or "its queue", problem)
        ledger.contradict(task.task_id)
        return
    log.info(
        "Task %s: a request without an answer was applied late. The task is returned to %s.",
        task.task_id,
        owner or "its queue",
    )


def _holder_before_run(
    task: Task, record: AssignmentRecord, changes: Sequence[AssigneeChange], *, me: str
) -> tuple[bool, User | None]:
    """Return whether the key made the last changes of the holder, and who held the task before them.

    Only changes in the task's stage count, and in its first stage only those since the run began.
    """
    known, owner = False, None
    for change in reversed(changes):
        by_key = change.by == me or (change.by is None and change.after is not None and change.after.user_id == me)
        if not by_key or change.stage_name not in {"", task.stage_name}:
            break
        known, owner = True, change.before
        if _is_in_place(task, record) and change.before == record.before.assignee:
            break
    return known, None if owner is not None and owner.user_id == me else owner


def _likely_owner(project: RedBrickProject, task: Task, record: AssignmentRecord) -> User | None:
    """Return who should hold a task if the audit trail does not say it; None to release it."""
    if _is_in_place(task, record):
        return record.before.assignee
    return task.labels_by if is_in_label_stage(project, task) else None


def _restore(
    project: RedBrickProject, task: Task, owner: User | None, *, me: str, read_at: float, ledger: Ledger
) -> object:
    """Assign a task to a person, or unassign it; return why that failed, or None."""
    task_id = task.task_id
    email = owner.email if owner is not None else None
    if owner is not None and (email is None or owner.user_id == me):
        return "it has no email address, and tasks are assigned by email"
    if task.held_by(me):
        return return_to(project, email, {task_id: task}, me=me, read_at=read_at, ledger=ledger)[task_id]
    assignment = Assignment(
        send=lambda ids: project.release(ids) if email is None else project.assign(ids, email),
        before={task_id: task},
        holds=lambda now, _: owner.is_same(now.assignee) if owner is not None else now.assignee is None,
        free=lambda now, _: now.stage_name == task.stage_name and now.assignee == task.assignee,
        read_at=read_at,
    )
    return assign(project, [task_id], assignment, ledger=ledger)[task_id]


def _abandon(project: RedBrickProject, ledger: Ledger) -> None:
    """Return the claims of open tasks once, without waiting: the process is being stopped."""
    pending = ledger.take_changes()
    records = ledger.take_open_assignments()
    if pending:
        log.warning(
            "The result of changes is unknown for: %s. The next attempt reads these tasks first.",
            ", ".join(sorted(pending)),
        )
    claimed = [_as_before(task_id, record) for task_id, record in records.items() if record.person is None]
    kept = {task_id for task_id, record in records.items() if record.kept_in is not None}
    unfinished = [task for task in claimed if task.task_id not in kept]
    if unfinished:
        undo_claims(project, unfinished, me=project.client.me(), ledger=ledger, stopped=True)


def _as_before(task_id: str, record: AssignmentRecord) -> Task:
    place = record.before
    return Task(task_id, stage_name=place.stage_name, state=place.state, assignee=place.assignee)


def confirm_last_writes(project: RedBrickProject, ledger: Ledger, *, stop: Event) -> None:
    """Read the last writes until a read shows them, for at most `settle_s` seconds.

    :param project: the project of the tasks.
    :param ledger: the ledger of the run.
    :param stop: when it is set, nothing is waited for.
    """
    unseen = {write.task_id: write for write in ledger.take_last_writes()}
    until = ledger.now() + ledger.settle_s
    pause_s = 0.05
    while unseen and ledger.settle_s:
        unseen = {task_id: unseen[task_id] for task_id in _not_shown(project, unseen)}
        if not unseen or stop.is_set():
            return
        if ledger.now() >= until:
            log.warning(
                "After %.0f s, reads of RedBrick do not show the last changes of %s. What runs next may not see them.",
                ledger.settle_s,
                ", ".join(sorted(unseen)),
            )
            return
        stop.wait(pause_s)
        pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)


def _not_shown(project: RedBrickProject, writes: Mapping[str, Any]) -> list[str]:
    """Return the tasks whose reads do not show the last write. An unreadable task counts as shown."""
    tasks = read_batch(project, list(writes)).tasks
    return [
        task_id
        for task_id, task in tasks.items()
        if isinstance(task, RedBrickNotFoundError) or (isinstance(task, Task) and not writes[task_id].shows(task))
    ]
