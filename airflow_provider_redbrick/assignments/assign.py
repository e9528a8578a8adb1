"""Assign tasks to people, to the API key, or to no one.

An assignment overwrites the holder of a task and applies in whichever stage the task is by then. The server's answer
names the tasks that it assigned and may be lost, and the request may be applied later.

Invariants of an assignment:

1. Results map each id to None if it was assigned, or to a `NotAssigned` with the reason.
2. Tasks whose last read is too old are read again before they are assigned, so that another user's task is not taken.
3. A task counts as assigned if the answer names it in its stage, or a read shows it with its new holder in its stage.
4. A task that another actor has taken or moved is left to them (`taken_by_other`).
5. A lost answer, or a refusal of a request from which some tasks had gone, leads to another request for the tasks that
   still wait, up to `ATTEMPTS` in total. A refusal that no task explains is final.
6. Each request is recorded in the run's ledger. A task of which a request may still be applied stays open there, and
   its outcome waits until `assignments/settlement` has read it again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_redbrick._utils import in_chunks
from airflow_provider_redbrick.client.operations.project import MAX_IDS
from airflow_provider_redbrick.engine.ledger import is_unchanged
from airflow_provider_redbrick.engine.outcomes import Outcome, failed, skipped
from airflow_provider_redbrick.engine.task_reader import is_fresh, read_batch
from airflow_provider_redbrick.exceptions import RedBrickAPIError, RedBrickInputError, RedBrickRefusedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from airflow_provider_redbrick.client.models.task import Member, Task, User
    from airflow_provider_redbrick.client.models.workflow import Stage
    from airflow_provider_redbrick.client.operations.project import RedBrickProject
    from airflow_provider_redbrick.engine.ledger import Ledger, PreviousState

ATTEMPTS = 3

UNCLAIMED = "It could not be claimed: "
"""Prefix of reasons why a task was not claimed."""


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

    :param send: sends one request for up to 50 ids and returns the stage of each task that the answer names, empty if
        it does not say.
    :param before: the tasks as they were read, by id.
    :param holds: returns whether a task, read again at a time, is assigned as requested.
    :param free: returns whether a task, read again at a time, may still be assigned: no other actor has taken it.
    :param read_at: when the tasks were read, by the ledger's clock; older reads are repeated first.
    :param is_claim: whether the tasks are assigned to the API key.
    :param person: the person whom they are assigned to; None if they are claimed or returned.
    """

    send: Callable[[Sequence[str]], Mapping[str, str]]
    before: Mapping[str, PreviousState]
    holds: Callable[[Task, float], bool]
    free: Callable[[Task, float], bool]
    read_at: float
    is_claim: bool = False
    person: User | None = None

    def is_in_place(self, task_id: str, stage_name: str) -> bool:
        """Return whether an answer names a task in the stage that it was read in.

        The server assigns a task that has moved on as well, in its new stage.

        :param task_id: the task.
        :param stage_name: the stage that the answer names; empty if it does not say.
        """
        return stage_name in {"", self.before[task_id].stage_name}


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
        send=lambda task_ids: project.assign(task_ids, email),
        before=before,
        holds=lambda task, _: user.is_same(task.assignee) and task.is_queued_in(before[task.task_id].stage_name),
        free=lambda task, _: is_unchanged(task, before[task.task_id]) and task.state == before[task.task_id].state,
        read_at=read_at,
        person=user,
    )


def assign(
    project: RedBrickProject, task_ids: Sequence[str], assignment: Assignment, *, ledger: Ledger
) -> AssignmentResults:
    """Assign tasks, up to 50 per request.

    :param project: the project of the tasks.
    :param task_ids: tasks that `assignment` knows.
    :param assignment: how to assign them.
    :param ledger: the ledger of the run.
    :return: None for each task that was assigned, or why it was not. A task that is open in the ledger may still be
        assigned later.
    """
    results: AssignmentResults = {}
    for chunk in in_chunks(task_ids, MAX_IDS):
        results.update(_assign_chunk(project, chunk, assignment, ledger))
    return results


def _assign_chunk(
    project: RedBrickProject, chunk: Sequence[str], assignment: Assignment, ledger: Ledger
) -> AssignmentResults:
    results: AssignmentResults = {}
    open_ids = list(chunk)
    if not is_fresh(assignment.read_at):
        open_ids = _still_free(project, open_ids, assignment, results)
    before = {task_id: assignment.before[task_id] for task_id in open_ids}
    ledger.begin(before, transfers=not assignment.is_claim, person=assignment.person)
    for attempt in range(1, ATTEMPTS + 1):
        if not open_ids:
            break
        stages, error = _send(assignment, open_ids, ledger)
        for task_id, stage_name in stages.items():
            if assignment.is_in_place(task_id, stage_name):
                results[task_id] = None
            elif assignment.is_claim:
                results[task_id] = _moved_to(stage_name)
        open_ids = [task_id for task_id in open_ids if task_id not in results]
        if error is not None and not error.maybe_applied:
            results.update(dict.fromkeys(open_ids, NotAssigned(str(error))))
            break
        open_ids = _settle(project, open_ids, assignment, results, ledger, error=error, last=attempt == ATTEMPTS)
    return results


def _send(
    assignment: Assignment, task_ids: Sequence[str], ledger: Ledger
) -> tuple[Mapping[str, str], RedBrickAPIError | None]:
    """Send one request and record what its answer proves.

    :return: the stage of each task that the answer names, and the error.
    """
    sent_at = ledger.now()
    try:
        answer = assignment.send(task_ids)
    except RedBrickAPIError as error:
        # A refusal is an answer: nothing is under way any more.
        if error.maybe_applied and not isinstance(error, RedBrickRefusedError):
            ledger.lose(task_ids, sent_at)
        return {}, error
    except BaseException:
        # The process is being stopped while the request is under way.
        ledger.lose(task_ids, sent_at)
        raise
    stages = {task_id: stage_name for task_id, stage_name in answer.items() if task_id in set(task_ids)}
    for task_id, stage_name in stages.items():
        ledger.acknowledge(task_id, sent_at, stage_name or assignment.before[task_id].stage_name)
        if not assignment.is_claim and not assignment.is_in_place(task_id, stage_name):
            # It was assigned in another stage, whose holder may have lost it.
            ledger.contradict(task_id)
    if not ledger.names_assigned_tasks:
        ledger.lose([task_id for task_id in task_ids if task_id not in stages], sent_at)
    return stages, None


def _moved_to(stage_name: str) -> NotAssigned:
    return NotAssigned(f"it has moved to {stage_name} in the meantime", taken_by_other=True)


def _still_free(
    project: RedBrickProject, task_ids: Sequence[str], assignment: Assignment, results: AssignmentResults
) -> list[str]:
    """Read tasks again; return those that may be assigned, record the others."""
    free = []
    batch = read_batch(project, task_ids)
    for task_id, task in batch.tasks.items():
        if isinstance(task, RedBrickAPIError):
            results[task_id] = NotAssigned(str(task))
        elif assignment.free(task, batch.read_at):
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
    ledger: Ledger,
    *,
    error: RedBrickAPIError | None,
    last: bool,
) -> list[str]:
    """Read the tasks that the answer did not name; return those to send again."""
    waiting: list[Task] = []
    batch = read_batch(project, task_ids)
    for task_id, task in batch.tasks.items():
        if isinstance(task, RedBrickAPIError):
            results[task_id] = NotAssigned(str(error or task))
        elif assignment.holds(task, batch.read_at):
            ledger.see_effect(task_id)
            results[task_id] = None
        elif not assignment.free(task, batch.read_at):
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
