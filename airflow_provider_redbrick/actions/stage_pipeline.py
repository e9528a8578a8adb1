"""Pipeline over the tasks of one stage: read, claim, decide, apply, release.

Design notes on the pipeline. One operator processes a stage in chunks, several chunks at a time. For each chunk the
pipeline reads the tasks, sorts out those that need no work, claims the rest, asks the operator's plan for changes,
applies these changes, and releases what was not finished. A run may be killed at any point, and several runs may share
one API key. Invariants:

1. Each task that goes in comes out with exactly one outcome.
2. A task that left the stage through this key since the first attempt is done, even if it is back by now: a reviewer
   who rejected it does not want the same labels again. If the task's events cannot be read, nothing is sent.
3. A claim is undone unless the task was finished. That includes claims that were refused or never answered, and those
   of previous attempts: undoing a claim reads the task first.
4. A task that a person holds is claimed only with ``take_from_people``, and goes back to that person if unfinished.
5. With ``resumable_task_ids``, a task outside this set that the key already holds belongs to another run.
6. Tasks that were read too long ago are read again before they are claimed.
7. After ``stop`` is set nothing more is claimed or sent.

Design notes on decisions. A callable such as a model may take minutes per task, while converting labels and sending
changes is cheaper for many tasks at once. Answers are therefore collected for at most ``MAX_BUFFER_S`` seconds, then
converted in one request and applied before the next task is asked about. Invariants:

1. A crash loses at most the answers of the last ``MAX_BUFFER_S`` seconds plus one call.
2. At most ``MOST_MASKS`` masks are held at a time (plus those of one answer), because each may be an open file.
3. An error that the callable raises for one task fails this task only.
4. The user's labels are copied before any other code of the user runs, so that later changes to them have no effect.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from threading import Event
from typing import TYPE_CHECKING, BinaryIO, TypeVar

from airflow_provider_redbrick._utils import in_chunks, read_once
from airflow_provider_redbrick.annotations.conversion import Converted, Labels
from airflow_provider_redbrick.annotations.snapshot import open_mask
from airflow_provider_redbrick.assignments.assign import UNCLAIMED, claim, undo_claims
from airflow_provider_redbrick.client.models.task import SAVED, Detail, Task
from airflow_provider_redbrick.client.transport import http
from airflow_provider_redbrick.engine.concurrency import CallableFailedError, MainThreadExecutor, in_parallel
from airflow_provider_redbrick.engine.mutations import Change, apply_all
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
    NoSuchFileError,
    RedBrickAPIError,
    RedBrickInputError,
    RedBrickStoppedError,
)

if TYPE_CHECKING:
    import pendulum

    from airflow_provider_redbrick.annotations.conversion import Converter
    from airflow_provider_redbrick.annotations.masks import OpenFile
    from airflow_provider_redbrick.client.models.task import OutputEvent
    from airflow_provider_redbrick.client.models.workflow import Stage
    from airflow_provider_redbrick.client.operations.project import RedBrickProject
    from airflow_provider_redbrick.engine.concurrency import MainThreadExecutor

log = logging.getLogger(__name__)


# Longest time in seconds that answers are buffered before they are applied: a crash loses this much work.
MAX_BUFFER_S = 5.0
# Number of masks at which buffered answers are applied: each may be an open file.
MOST_MASKS = 64

Step = Change | Outcome
Put = Callable[[Task, Converted, int], Step]
"""Returns the change that puts labels on a task; the last argument is the labeling time in milliseconds."""


@dataclass(frozen=True)
class LabeledAnswer:
    """Labels that a callable returned, and the time it took in milliseconds."""

    labels: Labels
    elapsed_ms: int


Decide = Callable[[Task], Step | LabeledAnswer]


@dataclass(frozen=True)
class Decisions:
    """Convert a callable's answers to changes.

    :param decide: returns the change, outcome or labels of one task. An error that it raises fails this task only.
        Labels that it returns must be a copy.
    :param converter: converts labels to the form that is sent.
    :param put: returns the change that puts converted labels on a task.
    :param what: what the labels are, for messages, such as "The prediction".
    :param executor: runs ``decide`` if it calls the user's code; by default it runs in the current thread.
    """

    decide: Decide
    converter: Converter
    put: Put
    what: str
    executor: MainThreadExecutor | None = None

    def on(self, tasks: Sequence[Task]) -> Iterator[Sequence[Step]]:
        """Yield batches of changes and outcomes; each batch is converted in one request."""
        waiting = deque(tasks)
        while waiting:
            answers = self.executor.run(partial(self._answers, waiting)) if self.executor else self._answers(waiting)
            steps = [step for _, step in answers if not isinstance(step, LabeledAnswer)]
            yield [*steps, *self._put_all([(task, step) for task, step in answers if isinstance(step, LabeledAnswer)])]

    def _answers(self, waiting: deque[Task]) -> list[tuple[Task, Step | LabeledAnswer]]:
        """Decide on one task after another until a limit is reached or no task is left."""
        answers: list[tuple[Task, Step | LabeledAnswer]] = []
        started, masks = time.monotonic(), 0
        while waiting and (not answers or (time.monotonic() - started < MAX_BUFFER_S and masks < MOST_MASKS)):
            task = waiting.popleft()
            try:
                step = self.decide(task)
                masks += len(step.labels.copies or ()) if isinstance(step, LabeledAnswer) else 0
                answers.append((task, step))
            except (CallableFailedError, RedBrickInputError, RedBrickAPIError) as error:
                answers.append((task, failed(task.task_id, error, name=task.name)))
        return answers

    def _put_all(self, labeled: Sequence[tuple[Task, LabeledAnswer]]) -> Iterator[Step]:
        converted = self.converter.convert(answer.labels for _, answer in labeled)
        for task, answer in labeled:
            result = converted[task.task_id]
            if isinstance(result, str):
                yield failed(task.task_id, f"{self.what} {result.rstrip('.')}. Nothing was sent.", name=task.name)
            else:
                yield self.put(task, result, answer.elapsed_ms)


def copy_labels(labels: Labels, open_file: OpenFile, *, what: str, source: str) -> Labels:
    """Return a copy of labels that later actions of the callable cannot change.

    :param labels: the labels that the callable returned.
    :param open_file: opens the mask files that the labels name.
    :param what: what the labels are, for messages, such as "The prediction".
    :param source: the kind of callable, for messages, such as "labeler".
    :raises RedBrickInputError: if they cannot be copied.
    """

    def open_now(path: str) -> BinaryIO:
        try:
            file = open_mask(path, open_file)
        except NoSuchFileError:
            file = None
        if file is None:
            raise RedBrickInputError(
                f"there is no such file. If the {source} deletes its files when it returns, as `with "
                f"TemporaryDirectory()` does, yield the labels inside the `with` block instead. Or return the mask "
                f"itself, as the bytes of a NIfTI file, a file object or a nibabel image"
            )
        return file

    try:
        return labels.copied(open_now)
    except RedBrickInputError as error:
        raise RedBrickInputError(f"{what} cannot be sent: {str(error).rstrip('.')}. Nothing was sent.") from None


def act(project: RedBrickProject, batches: Iterable[Sequence[Step]], *, stop: Event | None = None) -> Iterator[Outcome]:
    """Apply batches of changes as they come; yield the outcome of every task.

    :param project: the project to send changes to.
    :param batches: changes and outcomes; outcomes are passed on.
    :param stop: once set, nothing more is sent.
    """
    for steps in batches:
        yield from (step for step in steps if isinstance(step, Outcome))
        yield from apply_all(project, [step for step in steps if isinstance(step, Change)], stop=stop)


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
    :ivar me: the user id of the credential.
    """

    project: RedBrickProject
    stage: Stage
    converter: Converter
    claim: bool = True
    take_from_people: bool = False
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
        return in_parallel(in_chunks(entries, self.chunk), on, workers=workers, stop=self.stop, executor=executor)

    def run(self, task_ids: Sequence[str], plan: Plan) -> Iterator[Outcome]:
        """Read and process tasks; yield exactly one outcome per task.

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
        return self._is_own(task) and task.state in SAVED

    @read_once
    def _previous_claims(self) -> Collection[str]:
        """Ids of tasks claimed by a previous attempt, to be released like new claims."""
        if self.first_attempt_at is None or not self.claim or not self.me.startswith("API:"):
            return ()
        try:
            mine = list(self.project.list_tasks(self.stage, assignee=self.me, state="ASSIGNED"))
        except RedBrickAPIError as error:
            log.warning("Tasks that an earlier attempt has claimed could not be read and stay claimed: %s", error)
            return ()
        return {
            task.task_id for task in mine if task.assigned_at is not None and task.assigned_at >= self.first_attempt_at
        }

    def work_on(self, found: TaskBatch, plan: Plan, *, objection: Objection | None = None) -> Iterator[Outcome]:
        """Process tasks that were read; yield exactly one outcome per task.

        :param found: the tasks. Those read too long ago are read again before they are claimed.
        :param plan: decides what to do with the tasks that the key holds after claiming.
        :param objection: returns why a task cannot be processed; called before the task is claimed.
        :raises RedBrickStoppedError: if the work was stopped before anything was claimed.
        """
        held_tasks, to_claim, outcomes = self._partition(found.tasks, objection or (lambda _task: None))
        yield from outcomes
        if self.stop.is_set():
            raise RedBrickStoppedError("No tasks were claimed because the work was stopped.")
        claimed = self._inherited_claims(held_tasks) + to_claim
        finished: set[str] = set()
        try:
            with http.until(self.stop):
                refused = claim(self.project, to_claim, me=self.me, read_at=found.read_at)
            for task in to_claim:
                problem = refused[task.task_id]
                if problem is None:
                    held_tasks.append(task)
                else:
                    yield problem.outcome(task.task_id, name=task.name, what=UNCLAIMED)
            for outcome in act(self.project, plan(held_tasks) if held_tasks else (), stop=self.stop):
                if outcome.status.is_done:
                    finished.add(outcome.task_id)
                yield outcome
        finally:
            # Includes claims that were refused or never answered: undoing a claim reads the task first.
            unfinished = [task for task in claimed if task.task_id not in finished]
            undo_claims(self.project, unfinished, me=self.me, keep=self._keeps, stopped=self.stop.is_set())

    def release_unprocessed(self, tasks: Sequence[Task]) -> None:
        """Release tasks claimed by a previous attempt that will not be processed."""
        inherited = self._inherited_claims([task for task in tasks if task.held_by(self.me)])
        if inherited:
            undo_claims(self.project, inherited, me=self.me)

    def _inherited_claims(self, held_tasks: Sequence[Task]) -> list[Task]:
        """Return tasks claimed by a previous attempt, with their assignee before it."""
        claimed = (task for task in held_tasks if task.task_id in self._previous_claims)
        inherited = [task for task in claimed if not self.was_rejected_to_key(task)]
        if not inherited or not self.take_from_people:
            return inherited
        before = results_or_error(
            lambda ids: self.project.holders_before(ids, self.me), [task.task_id for task in inherited]
        )
        known: list[Task] = []
        for task in inherited:
            holder = before[task.task_id]
            if isinstance(holder, RedBrickAPIError):
                message = (
                    "Task %s stays assigned to the API key unless finished, since its previous assignee is unknown: %s"
                )
                log.warning(message, task.task_id, holder)
            else:
                known.append(replace(task, assignee=holder))
        return known

    def _keeps(self, before: Task, now: Task) -> bool:
        """Whether a draft was saved since ``before`` and stays with the key."""
        return self.draft_counts_as_done and not self.release_after_save and now.relabeled_by(self.me, before)

    def _partition(
        self, found: Mapping[str, Task | RedBrickAPIError], objection: Objection
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
                done = already_done(task_id, f"an earlier attempt moved it on; it is {task.where}", name=task.name)
                outcomes.append(done)
            elif (ending := self._outcome_without_work(task)) is not None:
                outcomes.append(ending)
            elif (reason := objection(task)) is not None:
                outcomes.append(failed(task_id, reason, name=task.name))
            elif task.held_by(self.me) or not self.claim:
                held_tasks.append(task)
            else:
                to_claim.append(task)
        return held_tasks, to_claim, outcomes

    def _outcome_without_work(self, task: Task) -> Outcome | None:
        """Return the outcome of a task that needs no work, or None."""
        task_id, name = task.task_id, task.name
        if not task.is_queued_in(self.stage.public_name):
            return skipped(task_id, f"it is {task.where}, not waiting in {self.stage.public_name}", name=name)
        if self._was_saved(task):
            return already_done(task_id, "an earlier attempt saved its labels", name=name)
        if self.only_unlabeled and self.release_after_save and self._is_draft(task):
            # A task that a reviewer returned to the key was submitted, and is not a draft.
            return already_done(task_id, "its draft was saved earlier and is released now", name=name)
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
