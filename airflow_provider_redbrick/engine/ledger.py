"""What one run has requested of RedBrick, and what is proven about it.

A read may show a state from before a write, and a request without an answer may be applied later than requests that
were sent after it. Both end ``settle_s`` seconds after the request was sent. The ledger is the memory that the rules of
evidence need. It sends nothing and reads nothing; the clock is passed in.

Rules of evidence:

1. An acknowledged request was applied, in the stage that the answer names.
2. A read that shows the effect of a request proves it. One request without an answer is then accounted for.
3. A read that shows neither the effect nor the state before it shows a change by another actor, which is kept.
4. A read that shows the state before an acknowledged request is stale, unless it was sent `settle_s` after it.
5. A request without an answer is pending until rule 1, 2 or 3 settles it, or a read that was sent `settle_s` after it
   shows the state before.
6. A task is open while one of its requests is pending, or a read has contradicted an acknowledgment. Its outcome is
   withheld, and the task is read again once a read is conclusive.

Times are seconds of a monotonic clock. A read counts as sent before its request was sent.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from threading import RLock
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from airflow_provider_redbrick.client.models.task import Task, User
    from airflow_provider_redbrick.client.operations.account import RedBrickClient
    from airflow_provider_redbrick.engine.outcomes import Outcome

DEFAULT_SETTLE_S = 30.0
"""Default of `settle_s`: the vendor's gateway ends a request after 29 seconds."""

# Tasks whose last write is confirmed before an operator returns: as many as one request reads.
_MAX_CONFIRMED = 50


class Evidence(Enum):
    """What a read of a task shows, compared with a write to it."""

    EFFECT = "effect"
    BEFORE = "before"
    OTHER = "other"


class Verdict(Enum):
    """What is known about a write."""

    APPLIED = "applied"
    NOT_APPLIED = "not applied"
    SUPERSEDED = "superseded"
    PENDING = "pending"


@dataclass
class Write:
    """The requests for one effect on one task.

    :param settle_s: seconds after which a request is either applied or lost, and a read shows it.
    """

    settle_s: float
    acknowledged_at: float | None = None
    pending_since: list[float] = field(default_factory=list)
    """When each request without an answer was sent, oldest first."""

    def acknowledge(self, sent_at: float) -> None:
        """Record that a request was answered, and applied.

        :param sent_at: when it was sent.
        """
        self.acknowledged_at = max(sent_at, self.acknowledged_at or sent_at)

    def lose(self, sent_at: float) -> None:
        """Record that a request has no answer.

        :param sent_at: when it was sent.
        """
        self.pending_since.append(sent_at)

    @property
    def conclusive_at(self) -> float:
        """The time from which a read shows every request so far."""
        times = [*self.pending_since, *(() if self.acknowledged_at is None else (self.acknowledged_at,))]
        return max(times) + self.settle_s if times else 0.0

    def judge(self, evidence: Evidence, read_at: float) -> Verdict:
        """Return what a read proves, and account for a request whose effect it shows.

        :param evidence: what the read shows.
        :param read_at: when the read was sent.
        """
        if evidence is Evidence.EFFECT:
            if self.acknowledged_at is None and self.pending_since:
                self.acknowledge(self.pending_since.pop(0))
            return Verdict.APPLIED
        if evidence is Evidence.OTHER:
            return Verdict.SUPERSEDED
        if read_at >= self.conclusive_at:
            return Verdict.NOT_APPLIED
        return Verdict.APPLIED if self.acknowledged_at is not None else Verdict.PENDING


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


@dataclass(frozen=True, slots=True)
class Place:
    """Where a task was and who held it; a run remembers it for each open task."""

    stage_name: str
    assignee: User | None
    state: str | None

    @classmethod
    def of(cls, task: PreviousState) -> Place:
        """Take it from a task."""
        return cls(task.stage_name, task.assignee, task.state)


def is_unchanged(task: Task, before: PreviousState) -> bool:
    """Return whether a task still waits in its stage with the same holder.

    :param task: the task, read again.
    :param before: the task as it was.
    """
    return task.is_queued_in(before.stage_name) and task.assignee == before.assignee


@dataclass
class AssignmentRecord:
    """What a run has requested of the holder of one task.

    :param before: the task as it was read before the first request.
    :param claim: the claims for the API key.
    :param transfer: the other requests: to a person, or back to the previous holder.
    :param contradicted_at: when a read contradicted an acknowledgment, or a return failed.
    :param changed_at: when the last acknowledged change of the task was sent, at the latest.
    :param kept_in: name of the stage in which the key may keep the task when the run ends; None for no stage.
    :param claimed_in: the stage that the answer to the last claim named.
    :param transfers: whether the last request was a transfer, not a claim.
    :param is_outdated: whether `before` is older than the last change by another actor before the claim.
    :param must_wait: whether the task must not be returned before a read is conclusive.
    :param person: the person whom the task is assigned to; None if it is claimed or returned.
    :param success: the outcome if a later read shows the assignment to a person.
    """

    before: PreviousState
    claim: Write
    transfer: Write
    contradicted_at: float | None = None
    changed_at: float | None = None
    kept_in: str | None = None
    claimed_in: str | None = None
    transfers: bool = False
    is_outdated: bool = False
    must_wait: bool = False
    person: User | None = None
    success: Outcome | None = None

    @property
    def current(self) -> Write:
        """The write that the last request belongs to."""
        return self.transfer if self.transfers else self.claim

    @property
    def open_since(self) -> float | None:
        """When the last request was sent, if one is not accounted for; None if all are.

        Acknowledged requests count too: until `settle_s` after them, a read may show the task as it was before.
        """
        unaccounted = [*self.claim.pending_since, *self.transfer.pending_since]
        unaccounted += [] if self.contradicted_at is None else [self.contradicted_at]
        if not unaccounted:
            return None
        acknowledged = (self.claim.acknowledged_at, self.transfer.acknowledged_at, self.changed_at)
        return max([*unaccounted, *(at for at in acknowledged if at is not None)])


@dataclass(frozen=True)
class Confirmation:
    """A write that a read must show before the operator returns.

    :param task_id: the task.
    :param shows: whether a read shows the write, or something later.
    :param sent_at: when the write was sent, at the latest.
    """

    task_id: str
    shows: Callable[[Task], bool]
    sent_at: float


class OpenChange(Protocol):
    """A change whose result only a later read can show."""

    @property
    def conclusive_at(self) -> float:
        """The time from which a read is conclusive."""


class Ledger:
    """The memory of one run. Its methods may be called from several threads.

    :param settle_s: seconds after which a request is either applied or lost, and a read shows it.
    :param now: a monotonic clock, in seconds.
    """

    def __init__(self, *, settle_s: float = DEFAULT_SETTLE_S, now: Callable[[], float] = time.monotonic) -> None:
        self.settle_s = settle_s
        self.now = now
        self.names_assigned_tasks = False
        """Whether an answer to an assignment has named a task. A server whose answers are empty proves nothing."""
        self._lock = RLock()
        self._assignments: dict[str, AssignmentRecord] = {}
        self._changes: dict[str, OpenChange] = {}
        self._last_writes: deque[Confirmation] = deque(maxlen=_MAX_CONFIRMED)

    @property
    def pauses(self) -> tuple[float, ...]:
        """Pauses in seconds before each early read of a task whose answer was lost."""
        return 0.0, min(0.5, self.settle_s / 3), min(1.5, self.settle_s / 2)

    # ------------------------------------------------------------ assignments

    def assignment(self, task_id: str) -> AssignmentRecord | None:
        """Return what was requested of a task's holder; None if nothing was."""
        return self._assignments.get(task_id)

    def begin(
        self, before: Mapping[str, PreviousState], *, transfers: bool = False, person: User | None = None
    ) -> None:
        """Record that requests about the holders of tasks are about to be sent.

        :param before: the tasks as they were read, by id. The first read of a run counts.
        :param transfers: whether the tasks are assigned to a person or returned, and not claimed.
        :param person: the person whom they are assigned to; None if they are claimed or returned.
        """
        with self._lock:
            for task_id, task in before.items():
                record = self._record(task_id, task)
                record.transfers, record.person = transfers, person
                record.kept_in = None

    def acknowledge(self, task_id: str, sent_at: float, stage_name: str) -> None:
        """Record that an answer names a task as assigned.

        :param task_id: the task.
        :param sent_at: when the request was sent.
        :param stage_name: the stage that the answer names.
        """
        with self._lock:
            self.names_assigned_tasks = True
            record = self._assignments[task_id]
            record.current.acknowledge(sent_at)
            if not record.transfers:
                record.claimed_in = stage_name

    def lose(self, task_ids: Iterable[str], sent_at: float) -> None:
        """Record that no answer says whether tasks were assigned.

        :param task_ids: the tasks.
        :param sent_at: when the request was sent.
        """
        with self._lock:
            for task_id in task_ids:
                self._assignments[task_id].current.lose(sent_at)

    def see_effect(self, task_id: str) -> None:
        """Record that a read shows the effect of an assignment whose answer was lost."""
        with self._lock:
            self._assignments[task_id].current.judge(Evidence.EFFECT, self.now())

    def forget(self, task_ids: Iterable[str]) -> None:
        """Drop tasks that are not open, so that memory does not grow with the run.

        :param task_ids: tasks whose work has ended.
        """
        with self._lock:
            for task_id in task_ids:
                if not self.is_open(task_id):
                    self._assignments.pop(task_id, None)

    def contradict(self, task_id: str) -> None:
        """Record that a read contradicts an acknowledgment, or that a task could not be returned."""
        self._update(task_id, contradicted_at=self.now())

    def outdate(self, task_id: str) -> None:
        """Record that another actor changed a task between its first read and its claim."""
        with self._lock:
            self._assignments[task_id].is_outdated = True

    def succeed_later(self, task_id: str, outcome: Outcome) -> None:
        """Record the outcome of a task if a later read shows its assignment to a person.

        :param task_id: the task.
        :param outcome: the outcome.
        """
        self._update(task_id, success=outcome)

    def keep(self, task_id: str, stage_name: str) -> None:
        """Record that the API key keeps a task in a stage when the run ends, e.g. with a draft.

        :param task_id: the task.
        :param stage_name: the stage.
        """
        self._update(task_id, kept_in=stage_name)

    def is_claimed(self, task: Task, read_at: float, *, me: str) -> bool:
        """Return whether the API key holds a task, by a read and by the acknowledgments.

        :param task: the task as it was read.
        :param read_at: when the read was sent.
        :param me: user id of the API key.
        """
        if task.held_by(me):
            return True
        with self._lock:
            record = self._assignments.get(task.task_id)
            claimed_at = record.claim.acknowledged_at if record is not None else None
            if record is None or claimed_at is None or read_at >= claimed_at + self.settle_s:
                return False
            if is_unchanged(task, record.before):
                return True
            # The read may show a change between the first read and the claim, so it is not conclusive.
            record.contradicted_at = self.now()
            return False

    # ------------------------------------------------------------ changes

    def postpone(self, key: str, change: OpenChange, before: PreviousState | None) -> None:
        """Record a change whose result only a later read can show.

        :param key: the task's id, or its name if it is not created yet.
        :param change: the change. Its ``conclusive_at`` is the time from which a read is conclusive.
        :param before: the task as it was read; None if it is not created yet.
        """
        with self._lock:
            self._changes[key] = change
        if before is not None:
            self.expect_late_change(key, before)

    def expect_late_change(self, task_id: str, before: PreviousState) -> None:
        """Record that a request for a change may still be applied, also if the change is done.

        Until then the task is not released: the request could overwrite the work of its next holder.

        :param task_id: the task.
        :param before: the task as it was read.
        """
        with self._lock:
            self._record(task_id, before)
            self.doubt_holder(task_id)

    def doubt_holder(self, task_id: str) -> None:
        """Record that a change was refused, although reads show that the key holds the task: they may be stale.

        Until a read is conclusive the task is not returned, since a person may have it by now.

        :param task_id: the task.
        """
        self._update(task_id, must_wait=True, contradicted_at=self.now())

    def must_wait(self, task_id: str) -> bool:
        """Return whether a task must not be returned before a read is conclusive."""
        with self._lock:
            record = self._assignments.get(task_id)
            return task_id in self._changes or (record is not None and record.must_wait)

    def _update(self, task_id: str, **facts: Any) -> None:
        """Set attributes of a task's record, if it has one."""
        with self._lock:
            record = self._assignments.get(task_id)
            if record is not None:
                for name, value in facts.items():
                    setattr(record, name, value)

    def _record(self, task_id: str, before: PreviousState) -> AssignmentRecord:
        record = self._assignments.get(task_id)
        if record is None:
            record = AssignmentRecord(Place.of(before), Write(self.settle_s), Write(self.settle_s))
            self._assignments[task_id] = record
        return record

    # ------------------------------------------------------------ the end of a run

    def wrote(self, task_id: str, shows: Callable[[Task], bool]) -> None:
        """Record a write that a read must show before the operator returns.

        :param task_id: the task.
        :param shows: whether a read shows the write, or something later.
        """
        with self._lock:
            now = self.now()
            self._last_writes.append(Confirmation(task_id, shows, now))
            self._update(task_id, changed_at=now)

    def take_last_writes(self) -> list[Confirmation]:
        """Return the last writes, one per task, and forget them."""
        with self._lock:
            newest = {write.task_id: write for write in self._last_writes}
            self._last_writes.clear()
        return list(newest.values())

    def is_open(self, task_id: str) -> bool:
        """Return whether a task's outcome must wait for a conclusive read."""
        with self._lock:
            record = self._assignments.get(task_id)
            return task_id in self._changes or (record is not None and record.open_since is not None)

    def due_at(self) -> float | None:
        """Return the time from which reads of all open tasks are conclusive; None if no task is open."""
        with self._lock:
            times = [change.conclusive_at for change in self._changes.values()]
            opened = [record.open_since for record in self._assignments.values()]
        times += [since + self.settle_s for since in opened if since is not None]
        return max(times) if times else None

    def take_changes(self) -> dict[str, Any]:
        """Return the changes without a result by task id, and forget them."""
        with self._lock:
            changes, self._changes = self._changes, {}
        return changes

    def take_open_assignments(self) -> dict[str, AssignmentRecord]:
        """Return the records of open tasks by id, and close them: a read has become conclusive."""
        with self._lock:
            records = {
                task_id: record for task_id, record in self._assignments.items() if record.open_since is not None
            }
            for record in records.values():
                record.claim.pending_since.clear()
                record.transfer.pending_since.clear()
                record.contradicted_at, record.must_wait = None, False
        return records


def ledger_of(client: RedBrickClient) -> Ledger:
    """Return a new ledger with the settings of a client."""
    return Ledger(settle_s=client.settle_seconds)
