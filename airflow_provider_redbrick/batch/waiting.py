"""What sensors and their triggers wait for, and when they stop: decided here once for both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.api.detail import Detail
from airflow_provider_redbrick.api.stage_names import ARCHIVED
from airflow_provider_redbrick.exceptions import (
    HOPELESS,
    RedBrickError,
    RedBrickInputError,
    RedBrickNotFoundError,
)

if TYPE_CHECKING:
    from airflow_provider_redbrick.api.models import Task
    from airflow_provider_redbrick.api.project import RedBrickProject
    from airflow_provider_redbrick.api.workflow import Stage, Workflow

EVENT_VERSION = 1
"""Goes up when a field changes its meaning; fields that are only added are ignored by whoever does not know them."""

MAX_FAILED_POLLS = 5

STALE_AFTER_S = 180.0
"""Seconds after which a wait reads its connection and its project again: either may have been edited."""

START_BACKSTOP = 660.0
"""Seconds that Airflow waits beyond a deadline for a trigger that it started itself: the longest request, and more."""


@dataclass(frozen=True)
class Poll:
    """One look: whether the wait is over, and what was seen."""

    met: bool
    seen: Any


@dataclass(frozen=True)
class QueueCondition:
    """A stage's queue reaches a threshold.

    :param at_least: met when the count is this or more. Given both, the count must lie between them.
    :param unassigned: count only tasks nobody holds.
    :param by_listing: count by listing the queue, for servers whose own count means something else.
    """

    stage_name: str
    at_least: int | None = None
    at_most: int | None = None
    unassigned: bool = False
    by_listing: bool = False

    @property
    def lists(self) -> bool:
        """Whether the queue has to be listed; otherwise the server's own count will do."""
        return self.unassigned or self.by_listing

    @property
    def enough(self) -> int:
        """How far the queue has to be listed for the answer to be certain."""
        return max(self.at_least or 0, self.at_most + 1 if self.at_most is not None else 0)

    def look(self, project: RedBrickProject) -> Poll:
        """Count and compare; raises what :meth:`check` raises."""
        stage = self.check(project)
        if not self.lists:
            return self.judge(project.count(stage))
        return self.judge(project.count_by_listing(stage, unassigned=self.unassigned, stop_at=self.enough))

    def check(self, project: RedBrickProject) -> Stage:
        """Return the stage; refuse one that is not there, and one in which there will never be so many tasks.

        :raises RedBrickInputError: when it is one of these.
        """
        stage = project.stage(self.stage_name)
        self.check_stage(stage)
        return stage

    def check_stage(self, stage: Stage) -> None:
        """Refuse a stage in which there will never be so many tasks.

        :raises RedBrickInputError: if it is one of these.
        """
        if self.at_least and stage.is_passed_through:
            raise RedBrickInputError(f"Tasks only pass through {stage.name}: there will never be {self.at_least}.")
        if self.at_least and self.unassigned and stage.is_ground_truth:
            raise RedBrickInputError("Tasks in Ground Truth wait for nobody: none of them counts as unassigned.")

    def judge(self, count: int) -> Poll:
        """Compare a count with the threshold."""
        low = self.at_least is None or count >= self.at_least
        high = self.at_most is None or count <= self.at_most
        return Poll(low and high, count)


@dataclass(frozen=True)
class TasksCondition:
    """Given tasks have all left a stage, or have all reached one or gone past it.

    Reviews may be sampled, so a task can jump over the stage that is waited for: past it counts as reached.
    """

    task_ids: Sequence[str]
    left_stage: str | None = None
    reached_stage: str | None = None

    def look(self, project: RedBrickProject) -> Poll:
        """Read the tasks and compare; raises what :meth:`check` and :meth:`judge` raise."""
        self.check(project)
        return self.judge(project, project.read_tasks(self.task_ids, detail=Detail.PLACE))

    def check(self, project: RedBrickProject) -> None:
        """Refuse a stage that the project does not have, and one that nothing ever stays in.

        :raises RedBrickInputError: when it is one of these.
        """
        stage = project.stage(self.left_stage or self.reached_stage or "")
        workflow = project.info.workflow
        if self.reached_stage is not None and workflow.position(stage.public_name) < 0:
            raise RedBrickInputError(
                f"Tasks only pass through {stage.name} on their way back: wait for them to leave the stage before it."
            )

    def judge(self, project: RedBrickProject, tasks: Mapping[str, Task | RedBrickError]) -> Poll:
        """Compare where the tasks are, by their ids, with where they should be.

        :raises RedBrickNotFoundError: when a task does not exist any more, or is archived: it will never arrive.
        """
        workflow = project.info.workflow
        there: Counter[str] = Counter()
        waiting = 0
        for found in tasks.values():
            if isinstance(found, RedBrickError):
                raise found.with_traceback(None)
            there[found.stage_name] += 1
            waiting += not self._is_through(workflow, found)
        return Poll(waiting == 0, dict(sorted(there.items())))

    def _is_through(self, workflow: Workflow, task: Task) -> bool:
        if self.left_stage is not None:
            return not task.is_queued_in(workflow.find(self.left_stage).public_name)
        if task.stage_name == ARCHIVED:
            words = "It is archived, and will reach no stage any more."
            raise RedBrickNotFoundError(words, operation="task", task_ids=[task.task_id])
        target = workflow.find(self.reached_stage or "").public_name
        here = workflow.position(task.stage_name)
        return here >= 0 and here >= workflow.position(target)


Condition = QueueCondition | TasksCondition


@dataclass(frozen=True)
class Limits:
    """How long a sensor waits, in seconds, by its ``timeout`` and its ``execution_timeout``."""

    timeout: float
    execution_timeout: float | None = None

    @property
    def name(self) -> str:
        """Which of the two ends the wait."""
        shorter = self.execution_timeout is not None and self.execution_timeout < self.timeout
        return "execution_timeout" if shorter else "timeout"

    @property
    def seconds(self) -> float:
        """How long the wait may be."""
        return self.timeout if self.execution_timeout is None else min(self.timeout, self.execution_timeout)

    def deadline(self, *, given_up_at: float | None, now: float) -> float:
        """Return when a wait that Airflow began in the triggerer is over, in epoch seconds.

        A triggerer that takes it over later, from another, must not begin to count anew.

        :param given_up_at: when Airflow gives the trigger up, None where it does not say: then the wait begins now.
        """
        beyond = self.seconds + START_BACKSTOP
        # To Airflow an execution_timeout is a limit of such a wait too.
        if self.execution_timeout is not None:
            beyond = min(beyond, self.execution_timeout)
        begun = now if given_up_at is None else given_up_at - beyond
        return begun + self.seconds


class Patience:
    """Counts failed polls in a row and watches the deadline; turns each look into an event or into waiting on.

    :param deadline: epoch seconds, by the wall clock: a trigger may go on in another process.
    :param deadline_name: which of the sensor's limits that is, for the one who reads the event.
    :param tolerates_errors: whether only the deadline ends the wait, however many polls fail, and why.
    """

    def __init__(self, *, deadline: float, deadline_name: str, tolerates_errors: bool = False) -> None:
        self.deadline = deadline
        self.deadline_name = deadline_name
        self.tolerates_errors = tolerates_errors
        self.failed_in_a_row = 0
        self.last_error: RedBrickError | None = None

    def after(self, poll: Poll, *, now: float) -> dict[str, Any] | None:
        """Return the event that ends the wait, or None to go on, after a look that succeeded."""
        self.failed_in_a_row, self.last_error = 0, None
        if poll.met:
            return event("success", seen=poll.seen)
        return self._at_deadline(now)

    def after_error(self, error: RedBrickError, *, now: float) -> dict[str, Any] | None:
        """Return the event that ends the wait, or None to go on, after a look that failed."""
        self.failed_in_a_row += 1
        self.last_error = error
        if self.tolerates_errors:
            return self._at_deadline(now)
        if isinstance(error, HOPELESS):
            return event("error", message=f"Waiting makes no sense: {error}", error=type(error).__name__)
        if self.failed_in_a_row >= MAX_FAILED_POLLS:
            message = f"Gave up after {self.failed_in_a_row} failed polls in a row; the last: {error} A retry waits on."
            return event("error", message=message)
        return self._at_deadline(now)

    def _at_deadline(self, now: float) -> dict[str, Any] | None:
        if now < self.deadline:
            return None
        words = f"What was waited for did not happen within the sensor's {self.deadline_name}."
        if self.last_error is not None:
            words += f" The last poll failed: {self.last_error}"
        return event("timeout", message=words, deadline=self.deadline_name)


def event(status: str, **facts: Any) -> dict[str, Any]:
    """Return a trigger's event."""
    return {"version": EVENT_VERSION, "status": status, **facts}


def read_event(value: object) -> Mapping[str, Any]:
    """Check an event that a trigger sent, perhaps one of another version.

    :raises RedBrickInputError: when it is not one.
    """
    if not isinstance(value, Mapping) or value.get("status") not in ("success", "timeout", "error"):
        raise RedBrickInputError(f"The trigger sent an event that is not understood: {value!r}")
    return value
