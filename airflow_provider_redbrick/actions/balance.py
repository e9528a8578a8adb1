"""Distribute the queue of a stage among people.

The plan is made from one listing of the queue, which may have 100,000 tasks. With ``rebalance``, a task moves from one
person to another only if its holder has not started it. A listing cannot show that, so tasks that look untouched are
read, and their events where another user saved the labels. A task that cannot be read stays where it is. Tasks are
assigned in requests of at most 50 ids, and each is checked again if it was listed too long ago.

These are the operations behind the hook's methods for a few tasks. The answer to a claim is not sufficient: the task is
read again after claiming, and its assignee is authoritative. A claim that did not succeed is undone.
"""

from __future__ import annotations

import logging
import sys
import time
from dataclasses import dataclass, field
from itertools import islice
from threading import Event
from typing import TYPE_CHECKING

from airflow_provider_redbrick._utils import in_chunks
from airflow_provider_redbrick.assignments.assign import (
    UNCLAIMED,
    Assignment,
    AssignmentResults,
    assign,
    person_assignment,
)
from airflow_provider_redbrick.assignments.claims import claim, confirm_claims, release, undo_claims
from airflow_provider_redbrick.assignments.planner import AssignmentPlan, Holder, Move, plan_assignments
from airflow_provider_redbrick.assignments.settlement import settled
from airflow_provider_redbrick.client.models.task import Detail
from airflow_provider_redbrick.client.operations.project import MAX_IDS
from airflow_provider_redbrick.engine.concurrency import in_parallel
from airflow_provider_redbrick.engine.ledger import Ledger, ledger_of
from airflow_provider_redbrick.engine.outcomes import Outcome, already_done, done, failed_read, skipped
from airflow_provider_redbrick.engine.task_reader import (
    CircuitBreaker,
    read_in_chunks,
    results_or_error,
    with_series_labels,
)
from airflow_provider_redbrick.exceptions import RedBrickAPIError, RedBrickInputError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from airflow_provider_redbrick.client.models.task import OutputEvent, Task, User
    from airflow_provider_redbrick.client.models.workflow import Stage
    from airflow_provider_redbrick.client.operations.project import RedBrickProject


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SharingRules:
    """How a queue is distributed.

    :param people: users by email, in the order that resolves ties.
    :param weights: relative share of the work by email; default 1.
    :param ceiling: maximum number of tasks that one person holds; None for no limit.
    :param rebalance: also move tasks that one of these people holds and has not started. A person who has labeled a
        task has started it, also if a reviewer has returned it since.
    """

    people: Mapping[str, User]
    weights: Mapping[str, float] = field(default_factory=dict)
    ceiling: int | None = None
    rebalance: bool = False


@dataclass(frozen=True, slots=True)
class QueuedTask:
    """The part of a queued task that a plan needs; a queue may have 100,000 tasks.

    :param task_id: the task's id.
    :param name: the task's name.
    :param stage_name: the stage that the task is in.
    :param state: the task's state, such as ``ASSIGNED``.
    :param assignee: the user who holds the task, if any.
    :param is_saved: whether a draft was saved.
    :param urgency: sort key: negative priority, then creation time in seconds.
    """

    task_id: str
    name: str
    stage_name: str
    state: str | None
    assignee: User | None
    is_saved: bool
    urgency: tuple[float, float]

    @classmethod
    def of(cls, task: Task, people: dict[str, User]) -> QueuedTask:
        """Create it from a listed task.

        :param task: the listed task.
        :param people: users by id, so that each is stored once; extended by this task's assignee.
        """
        user = task.assignee and people.setdefault(task.assignee.user_id, task.assignee)
        created = task.created_at.timestamp() if task.created_at else 0.0
        # Interned, since there are few different stages and states.
        where, state = sys.intern(task.stage_name), task.state and sys.intern(task.state)
        urgency = (-(task.priority or 0.0), created)
        return cls(task.task_id, task.name, where, state, user, task.saved_at is not None, urgency)


def _looks_untouched(task: QueuedTask) -> bool:
    """Whether a listing shows no work by the assignee."""
    return task.state == "ASSIGNED" and not task.is_saved


def _labeled_by_holder(
    project: RedBrickProject, stage: Stage, queue: Sequence[QueuedTask], people: Collection[User]
) -> frozenset[str]:
    """Return ids of tasks that look untouched but were labeled by their assignee.

    This includes tasks that a reviewer has returned, perhaps with other labels, and tasks that cannot be read.
    """
    held = (task for task in queue if _looks_untouched(task) and any(user.is_same(task.assignee) for user in people))
    breaker = CircuitBreaker()

    def started(tasks: Sequence[QueuedTask]) -> list[str]:
        (found,) = read_in_chunks(project, [task.task_id for task in tasks], size=MAX_IDS, breaker=breaker)
        by_others = [
            task_id
            for task_id, task in found.tasks.items()
            if stage.is_label and not isinstance(task, RedBrickAPIError) and _by_another(task)
        ]
        events = results_or_error(project.output_events, by_others) if by_others else {}
        return [
            task.task_id
            for task in tasks
            if _has_labeled(task, found.tasks[task.task_id], events.get(task.task_id, ()))
        ]

    workers = project.client.max_concurrency
    return frozenset(in_parallel(in_chunks(held, MAX_IDS), started, workers=workers, stop=Event()))


def _by_another(task: Task) -> bool:
    """Whether a task has labels that its assignee did not save."""
    return task.labels_by is not None and not task.labels_by.is_same(task.assignee)


def _has_labeled(
    before: QueuedTask, task: Task | RedBrickAPIError, events: Sequence[OutputEvent] | RedBrickAPIError
) -> bool:
    """Whether the assignee has saved or submitted labels, or that is unknown."""
    if isinstance(task, RedBrickAPIError) or isinstance(events, RedBrickAPIError):
        error = task if isinstance(task, RedBrickAPIError) else events
        log.warning("Task %s keeps its assignee, since who labeled it could not be read: %s", before.task_id, error)
        return True
    holder = before.assignee
    if holder is None:
        return False
    submitted = any(event.leaves(before.stage_name) and event.by == holder.user_id for event in events)
    return submitted or holder.is_same(task.labels_by)


@dataclass(frozen=True)
class QueuePlan:
    """A plan, and the queue that it was made from.

    :param plan: which task goes to whom.
    :param queue: the queued tasks by id.
    :param people: users by email.
    :param read_at: when reading the queue began, in seconds of the monotonic clock.
    """

    plan: AssignmentPlan
    queue: Mapping[str, QueuedTask]
    people: Mapping[str, User]
    read_at: float


def plan_queue(project: RedBrickProject, stage: Stage, rules: SharingRules) -> QueuePlan:
    """Read the queue and plan the assignments.

    :param project: the project.
    :param stage: the stage whose queue is distributed.
    :param rules: who takes part, with weights and limits.
    :raises RedBrickInputError: if the rules allow no plan.
    """
    read_at = time.monotonic()
    holders: dict[str, User] = {}
    queue = {task.task_id: QueuedTask.of(task, holders) for task in project.list_tasks(stage)}
    # The order of the listing is not documented.
    ordered = sorted(queue.values(), key=lambda task: (task.urgency, task.task_id))
    weights = {email.lower(): weight for email, weight in rules.weights.items()}
    started = _labeled_by_holder(project, stage, ordered, rules.people.values()) if rules.rebalance else frozenset()
    people = [
        Holder(email, weights.get(email.lower(), 1.0), rules.ceiling, *_held_tasks(user, ordered, started))
        for email, user in rules.people.items()
    ]
    unassigned = [task.task_id for task in ordered if task.assignee is None and task.state != "PROBLEM"]
    try:
        planned = plan_assignments(unassigned, people, rebalance=rules.rebalance)
    except ValueError as error:
        raise RedBrickInputError(str(error)) from None
    return QueuePlan(planned, queue, rules.people, read_at)


def apply_plan(project: RedBrickProject, shared: QueuePlan) -> Iterator[Outcome]:
    """Assign tasks as planned, at most 50 ids per request.

    :param project: the project.
    :param shared: the plan.
    :return: one outcome per planned task, and a skipped one per task that no person has room for.
    """
    queue = shared.queue
    by_person: dict[str, list[Move]] = {}
    for move in shared.plan.moves:
        by_person.setdefault(move.to, []).append(move)
    assignments = {
        email: person_assignment(project, shared.people[email], email, queue, read_at=shared.read_at)
        for email in by_person
    }

    ledger, stop = ledger_of(project.client), Event()

    def assign_moves(moves: Sequence[Move]) -> Iterator[Outcome]:
        assignment = assignments[moves[0].to]
        ids = [move.task_id for move in moves]
        successes = {
            move.task_id: done(move.task_id, name=queue[move.task_id].name, assigned_to=move.to, taken_from=move.source)
            for move in moves
        }
        yield from outcomes_of(assign(project, ids, assignment, ledger=ledger), successes, assignment, ledger)
        ledger.forget(ids)

    requests = (moves for persons_moves in by_person.values() for moves in in_chunks(persons_moves, MAX_IDS))
    outcomes = in_parallel(requests, assign_moves, workers=project.client.max_concurrency, stop=stop)
    yield from settled(project, outcomes, ledger, stop=stop)
    for task_id in shared.plan.left_over:
        yield skipped(task_id, "no person has room for it", name=queue[task_id].name)


def _held_tasks(user: User, queue: Sequence[QueuedTask], started: Collection[str]) -> tuple[int, tuple[str, ...]]:
    """Return the number of tasks that stay with a person, and ids of movable ones."""
    held = [task for task in queue if user.is_same(task.assignee)]
    movable = tuple(task.task_id for task in held if _looks_untouched(task) and task.task_id not in started)
    return len(held) - len(movable), movable


def outcomes_of(
    results: AssignmentResults, successes: Mapping[str, Outcome], assignment: Assignment, ledger: Ledger
) -> Iterator[Outcome]:
    """Yield the outcomes of tasks that were assigned to a person or released.

    :param results: None for each task that was assigned, or why it was not.
    :param successes: by task id, the outcome if it was assigned.
    :param assignment: how the tasks were assigned.
    :param ledger: the ledger of the run. It gets the outcomes that a later read may prove.
    """
    for task_id, problem in results.items():
        success = successes[task_id]
        if problem is None:
            ledger.wrote(task_id, lambda task: assignment.holds(task, 0.0) or not assignment.free(task, 0.0))
            yield success
        else:
            ledger.succeed_later(task_id, success)
            yield problem.outcome(task_id, name=success.name)


def claim_tasks(project: RedBrickProject, stage: Stage, count: int, *, me: str) -> Iterator[Task | Outcome]:
    """Claim unassigned tasks of a stage, in the order of its queue.

    :param project: the project.
    :param stage: the stage.
    :param count: maximum number of tasks.
    :param me: the user id of this key.
    :return: each claimed task, with its labels as ``series`` and ``classification``; for any other task the outcome
        with the reason.
    """
    ledger, stop = ledger_of(project.client), Event()
    read_at = ledger.now()
    waiting = list(islice(project.list_tasks(stage, unassigned=True, page_size=count), count))
    claimed: dict[str, Task] = {}
    outcomes: list[Outcome] = []
    try:
        results = claim(project, waiting, me=me, read_at=read_at, ledger=ledger)
        assigned = [task for task in waiting if results[task.task_id] is None]
        problems, found = confirm_claims(project, assigned, me=me, ledger=ledger, stop=stop, detail=Detail.FULL)
        results |= problems
        for task in waiting:
            problem = results[task.task_id]
            if problem is None:
                claimed[task.task_id] = with_series_labels(project, found[task.task_id])
                ledger.keep(task.task_id, task.stage_name)
            else:
                outcomes.append(problem.outcome(task.task_id, name=task.name, what=UNCLAIMED))
    except BaseException:
        undo_claims(project, waiting, me=me, ledger=ledger)
        raise
    undo_claims(project, [task for task in waiting if task.task_id not in claimed], me=me, ledger=ledger)
    outcomes = list(settled(project, outcomes, ledger, stop=stop))
    yield from claimed.values()
    yield from outcomes


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

    def reassign(tasks: Mapping[str, Task], read_at: float, ledger: Ledger) -> Iterator[Outcome]:
        assignment = person_assignment(project, user, str(user.email), tasks, read_at=read_at)
        successes = {task_id: done(task_id, name=task.name) for task_id, task in tasks.items()}
        return outcomes_of(assign(project, list(tasks), assignment, ledger=ledger), successes, assignment, ledger)

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

    def unassign(tasks: Mapping[str, Task], _read_at: float, ledger: Ledger) -> Iterator[Outcome]:
        for task_id, problem in release(project, list(tasks), me=me, ledger=ledger).items():
            name = tasks[task_id].name
            yield done(task_id, name=name) if problem is None else problem.outcome(task_id, name=name)

    return _reassign(project, task_ids, outcome_without_change, unassign)


def _not_in_stage(task: Task, stage: Stage) -> Outcome:
    return skipped(task.task_id, f"it is {task.where}, not waiting in {stage.public_name}", name=task.name)


def _reassign(
    project: RedBrickProject,
    task_ids: Sequence[str],
    outcome_without_change: Callable[[Task], Outcome | None],
    reassign: Callable[[Mapping[str, Task], float, Ledger], Iterator[Outcome]],
) -> Iterator[Outcome]:
    """Read tasks, and reassign those that need a change.

    :param outcome_without_change: returns the outcome of a task that needs no change, or None.
    :param reassign: reassigns tasks that were read at a time of the ledger's clock.
    """
    ledger = ledger_of(project.client)

    def outcomes() -> Iterator[Outcome]:
        for found in read_in_chunks(project, task_ids):
            tasks: dict[str, Task] = {}
            for task_id, task in found.tasks.items():
                if isinstance(task, RedBrickAPIError):
                    yield failed_read(task_id, task)
                elif (outcome := outcome_without_change(task)) is not None:
                    yield outcome
                else:
                    tasks[task_id] = task
            yield from list(reassign(tasks, found.read_at, ledger))

    return settled(project, outcomes(), ledger, stop=Event())
