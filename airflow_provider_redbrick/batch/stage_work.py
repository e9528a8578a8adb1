"""Working through tasks of one stage: look, claim, decide, apply, release."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from threading import Event
from typing import TYPE_CHECKING, TypeVar

from airflow_provider_redbrick.api import stopping
from airflow_provider_redbrick.api.chunks import in_chunks
from airflow_provider_redbrick.api.detail import Detail
from airflow_provider_redbrick.api.models import SAVED, Task
from airflow_provider_redbrick.api.threads import read_once
from airflow_provider_redbrick.batch.claiming import UNCLAIMED, claim, give_back
from airflow_provider_redbrick.batch.deciding import Step, act
from airflow_provider_redbrick.batch.outcome import EARLIER, Outcome, already_done, failed, labelled, skipped, unread
from airflow_provider_redbrick.batch.parallel import Desk, in_parallel
from airflow_provider_redbrick.batch.reading import CHUNK, CircuitBreaker, Found, ReadAhead, each_or_why, read_in_chunks
from airflow_provider_redbrick.exceptions import RedBrickAPIError, RedBrickStoppedError

if TYPE_CHECKING:
    import pendulum

    from airflow_provider_redbrick.api.models import OutputEvent
    from airflow_provider_redbrick.api.project import RedBrickProject
    from airflow_provider_redbrick.api.workflow import Stage
    from airflow_provider_redbrick.batch.converting import Converter

log = logging.getLogger(__name__)

T = TypeVar("T")

Plan = Callable[[Sequence[Task]], Iterable[Sequence[Step]]]
"""Decides, batch by batch, what to do with tasks that are ours to work on: a change to apply, or an outcome."""

Objection = Callable[[Task], "str | None"]


@dataclass(frozen=True)
class StageWork:
    """How one operator works on the tasks of a stage.

    :param converter: makes labels ready to be sent.
    :param claim: assign unowned tasks to the API key first.
    :param take_from_people: also take tasks that a person holds.
    :param since: on a retry, when the run began: what this key did to a task since then, an earlier try did.
    :param detail: how much of a task is read; all of it for a callable that wants to see it.
    :param saved_counts: a task this key has saved labels on since then counts as done, though it is still here.
    :param hands_over: saved drafts are released to people: one that the key still holds was left behind.
    :param only_unlabelled: leave tasks alone that have labels; goes with all details.
    :param may_hold: the tasks that may be worked on when this key holds them already; None for all. Any other one is
        in the hands of another run with the same key.
    :param chunk: how many tasks are looked at, and claimed, at a time.
    :param ahead: what is read of the tasks already.
    :param breaker: says when to stop asking a server that is down.
    :param stop: when it is set, nothing more is claimed or sent, and what was claimed is given back.
    """

    project: RedBrickProject
    stage: Stage
    converter: Converter
    claim: bool = True
    take_from_people: bool = False
    since: pendulum.DateTime | None = None
    detail: Detail = Detail.STATE
    saved_counts: bool = False
    hands_over: bool = False
    only_unlabelled: bool = False
    may_hold: Collection[str] | None = None
    chunk: int = CHUNK
    ahead: ReadAhead | None = None
    breaker: CircuitBreaker = field(default_factory=CircuitBreaker)
    stop: Event = field(default_factory=Event)
    me: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "me", self.project.client.me())

    def in_parallel(
        self, entries: Iterable[T], on: Callable[[Sequence[T]], Iterable[Outcome]], *, desk: Desk | None = None
    ) -> Generator[Outcome, None, None]:
        """Yield the outcomes of tasks that are worked on in chunks, several of these at a time.

        Stopped in between, those at work give back what they have claimed.

        :param desk: where ``on`` has somebody's code called.
        """
        workers = self.project.client.max_concurrency
        return in_parallel(in_chunks(entries, self.chunk), on, workers=workers, stop=self.stop, desk=desk)

    def run(self, task_ids: Sequence[str], plan: Plan) -> Iterator[Outcome]:
        """Read tasks, work on them, and yield the outcome of each, exactly one a task."""
        return self.work_on(self.read(task_ids), plan)

    def read(self, task_ids: Sequence[str]) -> Found:
        """Read tasks, unless they have been."""
        tasks: dict[str, Task | RedBrickAPIError] = {}
        read_at = time.monotonic()
        chunks = read_in_chunks(
            self.project, task_ids, detail=self.detail, size=self.chunk, breaker=self.breaker, ahead=self.ahead
        )
        for found in chunks:
            tasks.update(found.tasks)
            read_at = min(read_at, found.read_at)
        return Found(tasks, read_at)

    def came_back(self, task: Task) -> bool:
        """Whether a reviewer sent this key's own labels back to it; a draft that stayed with the key is none."""
        return self.stage.is_label and self._is_own(task) and task.state not in SAVED

    def _is_own(self, task: Task) -> bool:
        return task.held_by(self.me) and task.saved_by(self.me)

    def _is_draft(self, task: Task) -> bool:
        return self._is_own(task) and task.state in SAVED

    @read_once
    def _left_behind(self) -> Collection[str]:
        """The tasks that a try which is gone claimed: they are given back like those claimed now."""
        if self.since is None or not self.claim or not self.me.startswith("API:"):
            return ()
        try:
            mine = list(self.project.list_tasks(self.stage, assignee=self.me, state="ASSIGNED"))
        except RedBrickAPIError as error:
            log.warning("Which tasks an earlier try has claimed could not be read; they keep their claim: %s", error)
            return ()
        return {task.task_id for task in mine if task.assigned_at is not None and task.assigned_at >= self.since}

    def work_on(self, found: Found, plan: Plan, *, objection: Objection | None = None) -> Iterator[Outcome]:
        """Work on tasks and yield the outcome of each, exactly one a task.

        :param found: the tasks; what was read too long ago is read again before it is claimed.
        :param objection: says why a task cannot be worked on, before it is claimed.
        """
        ours, to_claim, outcomes = self._sort(found.tasks, objection or (lambda _task: None))
        yield from outcomes
        if self.stop.is_set():
            raise RedBrickStoppedError("Not claimed: the work was stopped.")
        claimed = self._taken_up(ours) + to_claim
        finished: set[str] = set()
        try:
            with stopping.until(self.stop):
                refused = claim(self.project, to_claim, me=self.me, read_at=found.read_at)
            for task in to_claim:
                problem = refused[task.task_id]
                if problem is None:
                    ours.append(task)
                else:
                    yield problem.outcome(task.task_id, name=task.name, what=UNCLAIMED)
            for outcome in act(self.project, plan(ours) if ours else (), stop=self.stop):
                if outcome.status.is_done:
                    finished.add(outcome.task_id)
                yield outcome
        finally:
            # Also those whose claim was refused or never answered: giving back looks before it acts.
            unfinished = [task for task in claimed if task.task_id not in finished]
            give_back(self.project, unfinished, me=self.me, keep=self._keeps, stopped=self.stop.is_set())

    def give_up(self, tasks: Sequence[Task]) -> None:
        """Give back what an earlier try has claimed of tasks that nothing will be done with."""
        left = self._taken_up([task for task in tasks if task.held_by(self.me)])
        if left:
            give_back(self.project, left, me=self.me)

    def _taken_up(self, ours: Sequence[Task]) -> list[Task]:
        """Return those tasks that a try which is gone had claimed, as they were before that."""
        left = [task for task in ours if task.task_id in self._left_behind and not self.came_back(task)]
        if not left or not self.take_from_people:
            return left
        before = each_or_why(lambda ids: self.project.holders_before(ids, self.me), [task.task_id for task in left])
        known: list[Task] = []
        for task in left:
            holder = before[task.task_id]
            if isinstance(holder, RedBrickAPIError):
                words = "Task %s keeps its claim unless it is finished, since whose it was cannot be read: %s"
                log.warning(words, task.task_id, holder)
            else:
                known.append(replace(task, assignee=holder))
        return known

    def _keeps(self, before: Task, now: Task) -> bool:
        """Whether a draft that may have been saved was, and is to stay with the key."""
        return self.saved_counts and not self.hands_over and now.relabelled_by(self.me, before)

    def _sort(
        self, found: Mapping[str, Task | RedBrickAPIError], objection: Objection
    ) -> tuple[list[Task], list[Task], list[Outcome]]:
        """Split tasks into ours already, to be claimed, and those that end here."""
        ours: list[Task] = []
        to_claim: list[Task] = []
        outcomes: list[Outcome] = []
        earlier = earlier_events(self.project, list(found), self.since)
        for task_id, task in found.items():
            events = earlier.get(task_id, ())
            if isinstance(task, RedBrickAPIError):
                outcomes.append(unread(task_id, task))
            elif isinstance(events, RedBrickAPIError):
                outcomes.append(unread(task_id, events, what=EARLIER, name=task.name))
            elif left_since(events, self.stage.public_name, me=self.me, since=self.since):
                # Even when it is back by now: a reviewer who sent it back does not want the same again.
                done = already_done(task_id, f"an earlier try moved it on; it is {task.where}", name=task.name)
                outcomes.append(done)
            elif (ending := self._ending(task)) is not None:
                outcomes.append(ending)
            elif (reason := objection(task)) is not None:
                outcomes.append(failed(task_id, reason, name=task.name))
            elif task.held_by(self.me) or not self.claim:
                ours.append(task)
            else:
                to_claim.append(task)
        return ours, to_claim, outcomes

    def _ending(self, task: Task) -> Outcome | None:
        """Return the outcome of a task that is not to be worked on, None for one that is."""
        task_id, name = task.task_id, task.name
        if not task.is_queued_in(self.stage.public_name):
            return skipped(task_id, f"it is {task.where}, not waiting in {self.stage.public_name}", name=name)
        if self._was_saved(task):
            return already_done(task_id, "an earlier try saved its labels", name=name)
        if self.only_unlabelled and self.hands_over and self._is_draft(task):
            # None that a reviewer sent back to the key: that was submitted, and is no draft.
            return already_done(task_id, "its draft was saved before, and is handed over now", name=name)
        if self.only_unlabelled and (before := labelled(task, me=self.me)) is not None:
            return before
        if task.state == "PROBLEM":
            return skipped(task_id, "it has an open issue, which an admin must resolve", name=name)
        return self._ending_by_holder(task)

    def _ending_by_holder(self, task: Task) -> Outcome | None:
        """Return the outcome of a task that its holder keeps, None for one that is ours or may be claimed."""
        if task.held_by(self.me):
            if self.may_hold is None or task.task_id in self.may_hold:
                return None
            return skipped(task.task_id, "another run with this API key has it", name=task.name)
        if task.assignee is None:
            return None
        if self.take_from_people and self.claim:
            if task.assignee.email:
                return None
            # Who has no e-mail cannot be given a task back.
            return skipped(task.task_id, f"it is {task.where}, and could not be given back", name=task.name)
        return skipped(task.task_id, f"it is {task.where}; take_from_people is off", name=task.name)

    def _was_saved(self, task: Task) -> bool:
        """Whether an earlier try saved labels on this task, which is still where it was."""
        if not self.saved_counts or self.since is None or task.labels_at is None:
            return False
        return task.saved_by(self.me) and task.labels_at >= self.since


def earlier_events(
    project: RedBrickProject, task_ids: Sequence[str], since: pendulum.DateTime | None
) -> Mapping[str, Sequence[OutputEvent] | RedBrickAPIError]:
    """Read what happened to tasks, or why that is not known; nothing when it does not matter, for want of a time.

    To take what cannot be read for nothing would be to do the same again: a task that a reviewer has sent back is
    where it was.
    """
    return {} if since is None or not task_ids else each_or_why(project.output_events, task_ids)


def left_since(events: Sequence[OutputEvent], stage_name: str, *, me: str, since: pendulum.DateTime | None) -> bool:
    """Whether a task left a stage by this key's doing since a time; no when no time is given."""
    if since is None:
        return False
    mine = (event for event in events if event.leaves(stage_name) and event.by == me)
    return any(event.at is not None and event.at >= since for event in mine)
