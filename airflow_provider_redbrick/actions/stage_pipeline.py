"""Pipeline over the tasks of one stage: read, claim, decide, apply, release.

Design notes on the pipeline. One operator processes a stage in chunks, several chunks at a time. For each chunk the
pipeline reads the tasks, sorts out those that need no work, claims the rest, asks the operator's plan for changes,
applies these changes, and releases what was not finished. A run may be killed at any point, and several runs may share
one API key. Invariants:

1. Each task that goes in comes out with exactly one outcome.
2. A task that left the stage through this key since the first attempt is done, even if it is back by now: a reviewer
   who rejected it does not want the same labels again. If the task's events cannot be read, nothing is sent.
3. A claim is undone unless the task was finished. That includes claims that were refused or never answered, and those
   that the run takes over from a dead one. A task of which a change may still be applied is returned at the end.
4. A task that a person holds is claimed only with ``take_from_people``, and goes back to that person if unfinished.
5. With ``resumable_task_ids``, a task outside this set that the key already holds belongs to another run.
6. Tasks that were read too long ago are read again before they are claimed.
7. After ``stop`` is set nothing more is claimed or sent.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from threading import Event
from typing import TYPE_CHECKING, TypeVar

from airflow_provider_redbrick._utils import in_chunks
from airflow_provider_redbrick.actions.decisions import Step, act
from airflow_provider_redbrick.assignments.assign import UNCLAIMED, NotAssigned
from airflow_provider_redbrick.assignments.claims import claim, confirm_claims, release, undo_claims
from airflow_provider_redbrick.assignments.settlement import settled
from airflow_provider_redbrick.client.models.task import SAVED, Detail, Task, holder_before
from airflow_provider_redbrick.client.transport import http
from airflow_provider_redbrick.engine.concurrency import MainThreadExecutor, in_parallel
from airflow_provider_redbrick.engine.outcomes import (
    EARLIER_ATTEMPTS,
    Outcome,
    already_done,
    existing_labels_outcome,
    failed,
    failed_read,
    skipped,
)
from airflow_provider_redbrick.engine.task_reader import (
    CHUNK,
    CircuitBreaker,
    ReadAhead,
    TaskBatch,
    read_in_chunks,
    results_or_error,
)
from airflow_provider_redbrick.exceptions import (
    RedBrickAPIError,
    RedBrickInputError,
    RedBrickStoppedError,
)

if TYPE_CHECKING:
    import pendulum

    from airflow_provider_redbrick.annotations.conversion import Converter
    from airflow_provider_redbrick.client.models.task import OutputEvent
    from airflow_provider_redbrick.client.models.workflow import Stage
    from airflow_provider_redbrick.client.operations.project import RedBrickProject
    from airflow_provider_redbrick.engine.ledger import Ledger

log = logging.getLogger(__name__)


T = TypeVar("T")

Plan = Callable[[Sequence[Task]], Iterable[Sequence[Step]]]
"""Decides, in batches, what to do with held tasks: a change to apply, or an outcome."""

Objection = Callable[[Task], "str | None"]
"""Returns why a task cannot be processed, or None if it can."""


@dataclass(frozen=True)
class StagePipeline:
    """Process the tasks of one stage for one operator.

    :param project: the project that the stage belongs to.
    :param stage: the stage whose tasks are processed.
    :param converter: converts labels to the form that is sent.
    :param claim: assign unassigned tasks to the API key first.
    :param take_from_people: also claim tasks that a person holds.
    :param takes_over: return tasks that the key held before the run if they are not finished. Otherwise they stay.
    :param first_attempt_at: on a retry, when the first attempt began. Changes by this key since then are an earlier
        attempt's.
    :param detail: how much of each task is read. Use ``Detail.FULL`` for a callable that receives the task.
    :param draft_counts_as_done: count a task as done if this key has saved labels on it since the first attempt,
        though it is still in the stage.
    :param release_after_save: release saved drafts to people. A draft that the key still holds is a leftover then.
    :param only_unlabeled: skip tasks that have labels. Requires ``Detail.FULL``.
    :param resumable_task_ids: ids of tasks that may be processed although this key holds them already; None for all.
        Any other task that the key holds belongs to another run.
    :param chunk: number of tasks that are read and claimed at a time.
    :param ahead: reads of these tasks that have begun already.
    :param breaker: stops requests to a server that does not answer.
    :param stop: once set, nothing more is claimed or sent, and claims are undone.
    :param ledger: what this run has requested, and what is known about it.
    :ivar me: the user id of the credential.
    """

    project: RedBrickProject
    stage: Stage
    converter: Converter
    claim: bool = True
    take_from_people: bool = False
    takes_over: bool = False
    first_attempt_at: pendulum.DateTime | None = None
    detail: Detail = Detail.STATE
    draft_counts_as_done: bool = False
    release_after_save: bool = False
    only_unlabeled: bool = False
    resumable_task_ids: Collection[str] | None = None
    chunk: int = CHUNK
    ahead: ReadAhead | None = None
    breaker: CircuitBreaker = field(default_factory=CircuitBreaker)
    stop: Event = field(default_factory=Event)
    ledger: Ledger = field(kw_only=True)
    me: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "me", self.project.client.me())

    def in_parallel(
        self,
        entries: Iterable[T],
        on: Callable[[Sequence[T]], Iterable[Outcome]],
        *,
        executor: MainThreadExecutor | None = None,
    ) -> Generator[Outcome, None, None]:
        """Process chunks of entries concurrently and yield the outcomes.

        If the generator is closed early, running chunks undo their claims.

        :param entries: what to process, such as task ids.
        :param on: processes one chunk in a worker thread.
        :param executor: runs the user's callables for ``on`` in the calling thread.
        :return: the outcomes, in order of completion.
        """
        workers = self.project.client.max_concurrency
        return self.settled(
            in_parallel(in_chunks(entries, self.chunk), on, workers=workers, stop=self.stop, executor=executor)
        )

    def settled(self, outcomes: Iterable[Outcome]) -> Generator[Outcome, None, None]:
        """Pass on outcomes, and end the run: settle open tasks and confirm the last writes.

        :param outcomes: the outcomes of all tasks of the run.
        :return: the final outcomes.
        """
        return settled(self.project, outcomes, self.ledger, stop=self.stop)

    def run(self, task_ids: Sequence[str], plan: Plan) -> list[Outcome]:
        """Read and process tasks; return exactly one outcome per task.

        :param task_ids: ids of the tasks.
        :param plan: decides what to do with the tasks that the key holds after claiming.
        """
        return self.work_on(self.read(task_ids), plan)

    def read(self, task_ids: Sequence[str]) -> TaskBatch:
        """Read tasks in chunks, using reads that have begun already."""
        tasks: dict[str, Task | RedBrickAPIError] = {}
        read_at = time.monotonic()
        chunks = read_in_chunks(
            self.project, task_ids, detail=self.detail, size=self.chunk, breaker=self.breaker, ahead=self.ahead
        )
        for found in chunks:
            tasks.update(found.tasks)
            read_at = min(read_at, found.read_at)
        return TaskBatch(tasks, read_at)

    def was_rejected_to_key(self, task: Task) -> bool:
        """Whether a reviewer returned this key's own labels; drafts do not count."""
        return self.stage.is_label and self._is_own(task) and task.state not in SAVED

    def _is_own(self, task: Task) -> bool:
        return task.held_by(self.me) and task.saved_by(self.me)

    def _is_draft(self, task: Task) -> bool:
        # No drafts are saved in review stages, and reads for reviews leave out who labeled a task.
        return self.stage.is_label and task.state in SAVED and self._is_own(task)

    def work_on(
        self,
        found: TaskBatch,
        plan: Plan,
        *,
        objection: Objection | None = None,
        has_content: Callable[[Task], bool | None] = lambda _task: None,
    ) -> list[Outcome]:
        """Process tasks that were read; return exactly one outcome per task.

        :param found: the tasks. Those read too long ago are read again before they are claimed.
        :param plan: decides what to do with the tasks that the key holds after claiming.
        :param objection: returns why a task cannot be processed; called before the task is claimed.
        :param has_content: returns whether a task has the labels that this run puts on it; None if that is unknown.
        :raises RedBrickStoppedError: if the work was stopped before anything was claimed.
        """
        held_tasks, to_claim, outcomes = self._partition(found.tasks, objection or (lambda _task: None), has_content)
        if self.stop.is_set():
            raise RedBrickStoppedError("No tasks were claimed because the work was stopped.")
        claimed = self._inherited_claims(held_tasks)
        self.ledger.begin({task.task_id: task for task in claimed})
        claimed += to_claim
        try:
            for task, problem in self._claim(to_claim, found.read_at):
                if problem is None:
                    held_tasks.append(task)
                else:
                    outcomes.append(problem.outcome(task.task_id, name=task.name, what=UNCLAIMED))
            outcomes += act(self.project, plan(held_tasks) if held_tasks else (), ledger=self.ledger, stop=self.stop)
        finally:
            if self.release_after_save:
                # Also if the run is being stopped: people must be able to take the saved drafts.
                outcomes = self._release_drafts(outcomes)
            finished = {outcome.task_id for outcome in outcomes if outcome.status.is_done}
            # Includes claims that were refused or never answered: undoing a claim reads the task first.
            unfinished = [task for task in claimed if task.task_id not in finished and self._may_return(task)]
            undo_claims(
                self.project,
                unfinished,
                me=self.me,
                ledger=self.ledger,
                keep=self._keeps,
                stopped=self.stop.is_set(),
            )
            self.ledger.forget(found.tasks)
        return outcomes

    def _may_return(self, task: Task) -> bool:
        """Whether a task can be returned now, and not only when the run ends."""
        return self.stop.is_set() or not self.ledger.must_wait(task.task_id)

    def _release_drafts(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        """Release tasks with saved drafts to people; return their outcomes."""
        drafts = [outcome.task_id for outcome in outcomes if outcome.status.is_done]
        drafts = [task_id for task_id in drafts if self.stop.is_set() or not self.ledger.must_wait(task_id)]
        if not drafts:
            return list(outcomes)
        problems = release(self.project, drafts, me=self.me, ledger=self.ledger)
        released: list[Outcome] = []
        for outcome in outcomes:
            problem = problems.get(outcome.task_id)
            if problem is not None:
                reason = f"Its draft is saved, but it could not be released to people: {problem}"
                released.append(failed(outcome.task_id, f"{reason}. The next attempt releases it.", name=outcome.name))
                self.ledger.contradict(outcome.task_id)
            else:
                released.append(outcome)
        return released

    def _claim(self, tasks: Sequence[Task], read_at: float) -> list[tuple[Task, NotAssigned | None]]:
        """Claim tasks and read them again; return each with None or the reason why it cannot be worked on."""
        with http.until(self.stop):
            results = claim(self.project, tasks, me=self.me, read_at=read_at, ledger=self.ledger)
        claimed = [task for task in tasks if results[task.task_id] is None]
        if claimed:
            results |= confirm_claims(self.project, claimed, me=self.me, ledger=self.ledger, stop=self.stop)[0]
        return [(task, results[task.task_id]) for task in tasks]

    def release_unprocessed(self, tasks: Sequence[Task]) -> None:
        """Release tasks claimed by a previous attempt that will not be processed."""
        inherited = self._inherited_claims([task for task in tasks if task.held_by(self.me)])
        if inherited:
            undo_claims(self.project, inherited, me=self.me, ledger=self.ledger)

    def _inherited_claims(self, held_tasks: Sequence[Task]) -> list[Task]:
        """Return tasks that the key holds already and that this run takes over, with their assignee before it.

        They are finished or returned, whatever the user's code says about them. A draft stays where it is, unless
        drafts are released, and a person should check what a reviewer has returned to the key.
        """
        if not self.takes_over or not self.claim or not self.me.startswith("API:"):
            return []
        inherited = [
            replace(task, assignee=None)
            for task in held_tasks
            if not self.was_rejected_to_key(task) and (self.release_after_save or not self._is_draft(task))
        ]
        if not inherited or not self.take_from_people:
            return inherited
        trails = results_or_error(self.project.assignee_changes, [task.task_id for task in inherited])
        known: list[Task] = []
        for task in inherited:
            changes = trails[task.task_id]
            if isinstance(changes, RedBrickAPIError):
                message = (
                    "Task %s stays assigned to the API key unless finished, since its previous assignee is unknown: %s"
                )
                log.warning(message, task.task_id, changes)
            else:
                known.append(replace(task, assignee=holder_before(changes, self.me)))
        return known

    def _keeps(self, before: Task, now: Task) -> bool:
        """Whether a draft was saved since ``before`` and stays with the key."""
        return self.draft_counts_as_done and not self.release_after_save and now.relabeled_by(self.me, before)

    def _partition(
        self,
        found: Mapping[str, Task | RedBrickAPIError],
        objection: Objection,
        has_content: Callable[[Task], bool | None],
    ) -> tuple[list[Task], list[Task], list[Outcome]]:
        """Split tasks into those held already, those to claim, and outcomes of the others."""
        held_tasks: list[Task] = []
        to_claim: list[Task] = []
        outcomes: list[Outcome] = []
        earlier = read_earlier_events(self.project, list(found), self.first_attempt_at)
        for task_id, task in found.items():
            events = earlier.get(task_id, ())
            if isinstance(task, RedBrickAPIError):
                outcomes.append(failed_read(task_id, task))
            elif isinstance(events, RedBrickAPIError):
                outcomes.append(failed_read(task_id, events, what=EARLIER_ATTEMPTS, name=task.name))
            elif left_stage_since(events, self.stage.public_name, me=self.me, first_attempt_at=self.first_attempt_at):
                outcomes.append(self._outcome_of_earlier_exit(task, has_content(task)))
            elif (ending := self._outcome_without_work(task, has_content)) is not None:
                outcomes.append(ending)
            elif (reason := objection(task)) is not None:
                outcomes.append(failed(task_id, reason, name=task.name))
            elif task.held_by(self.me) or not self.claim:
                held_tasks.append(task)
            else:
                to_claim.append(task)
        return held_tasks, to_claim, outcomes

    def _outcome_of_earlier_exit(self, task: Task, has_content: bool | None) -> Outcome:
        """Return the outcome of a task that the key has moved out of the stage since the first attempt."""
        if has_content is False and task.saved_by(self.me):
            reason = (
                f"An earlier attempt or another run of this key moved it on, with other labels: it is {task.where}."
            )
            return failed(task.task_id, reason, name=task.name)
        return already_done(task.task_id, f"an earlier attempt moved it on; it is {task.where}", name=task.name)

    def _outcome_without_work(self, task: Task, has_content: Callable[[Task], bool | None]) -> Outcome | None:
        """Return the outcome of a task that needs no work, or None."""
        task_id, name = task.task_id, task.name
        if not task.is_queued_in(self.stage.public_name):
            return skipped(task_id, f"it is {task.where}, not waiting in {self.stage.public_name}", name=name)
        if self._was_saved(task) and has_content(task) is not False:
            return already_done(task_id, "an earlier attempt saved its labels", name=name)
        if self.only_unlabeled and (before := existing_labels_outcome(task, me=self.me)) is not None:
            return before
        if task.state == "PROBLEM":
            return skipped(task_id, "it has an open issue that an admin must resolve", name=name)
        return self._outcome_by_assignee(task)

    def _outcome_by_assignee(self, task: Task) -> Outcome | None:
        """Return the outcome of a task that its assignee keeps, or None."""
        if task.held_by(self.me):
            if self.resumable_task_ids is None or task.task_id in self.resumable_task_ids:
                return None
            return skipped(task.task_id, "another run with this API key holds it", name=task.name)
        if task.assignee is None:
            return None
        if self.take_from_people and self.claim:
            if task.assignee.email:
                return None
            # Tasks are assigned by email, so this claim could not be undone.
            return skipped(task.task_id, f"it is {task.where}; its holder has no email address", name=task.name)
        return skipped(task.task_id, f"it is {task.where}; take_from_people is off", name=task.name)

    def _was_saved(self, task: Task) -> bool:
        """Whether an earlier attempt saved labels on this task without moving it."""
        if not self.draft_counts_as_done or self.first_attempt_at is None or task.labels_at is None:
            return False
        return task.saved_by(self.me) and task.labels_at >= self.first_attempt_at


def read_earlier_events(
    project: RedBrickProject, task_ids: Sequence[str], first_attempt_at: pendulum.DateTime | None
) -> Mapping[str, Sequence[OutputEvent] | RedBrickAPIError]:
    """Read the events of tasks on a retry.

    A task whose events cannot be read must not be processed: a task that a reviewer has returned looks unprocessed, and
    the same labels would be sent again.

    :param project: the project.
    :param task_ids: ids of the tasks.
    :param first_attempt_at: on a retry, when the first attempt began; None on a first attempt.
    :return: by task id, its events or the error that prevented reading them; empty on a first attempt.
    """
    return {} if first_attempt_at is None or not task_ids else results_or_error(project.output_events, task_ids)


def left_stage_since(
    events: Sequence[OutputEvent], stage_name: str, *, me: str, first_attempt_at: pendulum.DateTime | None
) -> bool:
    """Whether this key moved a task out of a stage at or after a point in time.

    :param events: the task's events.
    :param stage_name: the stage's public name.
    :param me: the user id of this key.
    :param first_attempt_at: on a retry, when the first attempt began; None answers False.
    """
    if first_attempt_at is None:
        return False
    mine = (event for event in events if event.leaves(stage_name) and event.by == me)
    return any(event.at is not None and event.at >= first_attempt_at for event in mine)


def working_stage(project: RedBrickProject, name: str) -> Stage:
    """Return a stage in which tasks can be processed.

    :param project: the project.
    :param name: name of the stage.
    :raises RedBrickInputError: if the stage does not exist, is Ground Truth, or tasks only pass through it.
    """
    stage = project.stage(name)
    if stage.is_ground_truth:
        raise RedBrickInputError("Tasks in Ground Truth are finished. To change their labels, reopen them first.")
    if stage.is_passed_through:
        # Its queue is always empty, so that processing it would look like success.
        known = ", ".join(known.name for known in project.info.workflow.stages if known.is_label or known.is_review)
        raise RedBrickInputError(f"Tasks only pass through {stage.name!r}. They wait in: {known or 'no stage'}.")
    return stage
