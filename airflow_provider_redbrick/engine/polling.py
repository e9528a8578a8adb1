"""Conditions of sensors and triggers, and the limits of their polling.

A sensor that pokes and a trigger that defers share these rules, so that `deferrable` changes where a wait runs and
nothing else.

Invariants:

1. A condition that can never be met (unknown stage, archived task, a stage that tasks only pass through) is an error at
   the first poll, not a timeout.
2. A wait ends with exactly one event: `success`, `timeout` or `error`. A met condition wins over a passed deadline.
3. Permanent errors end the wait at once. Other errors end it after `MAX_FAILED_POLLS` failed polls in a row, or, if
   errors are tolerated, only at the deadline.
4. Deadlines are epoch seconds, since a trigger may continue in another process. A triggerer that takes a wait over does
   not extend it.
5. Reads may lag by ``settle_seconds``. A look within that time of the first one may show the state before a write that
   preceded the wait. If it meets the condition, a second look after a short pause must meet it, too.
6. Events are versioned, and readers ignore unknown fields: a triggerer and a worker may run different releases.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick._utils import count_tasks
from airflow_provider_redbrick.client.models.workflow import ARCHIVED
from airflow_provider_redbrick.exceptions import (
    PERMANENT_ERRORS,
    RedBrickError,
    RedBrickInputError,
    RedBrickNotFoundError,
)

if TYPE_CHECKING:
    from airflow_provider_redbrick.client.models.task import Task
    from airflow_provider_redbrick.client.models.workflow import Stage, Workflow
    from airflow_provider_redbrick.client.operations.project import RedBrickProject

EVENT_VERSION = 1
"""Version of trigger events. Incremented when a field changes its meaning; readers ignore unknown fields."""

MAX_FAILED_POLLS = 5
"""Failed polls in a row that end a wait."""

STALE_AFTER_S = 180.0
"""Age in seconds after which a wait reads its connection and its project again, since either may have been edited."""

CONFIRM_AFTER_S = 5.0
"""Longest pause in seconds before a met condition is looked at again. Replicas seldom lag longer."""

START_BACKSTOP_S = 660.0
"""Seconds beyond the deadline after which Airflow cancels a trigger that it started itself.

Longer than the longest request, so that the trigger normally ends the wait.
"""


@dataclass(frozen=True)
class Poll:
    """Result of one poll.

    :param met: whether the condition is met.
    :param observed: what the condition was compared with, as a JSON-compatible value: a count, or the number of tasks
        per stage.
    """

    met: bool
    observed: Any


@dataclass(frozen=True)
class QueueCondition:
    """A stage's queue reaches a threshold.

    :param stage_name: the stage whose queue is counted.
    :param at_least: lower bound, inclusive; None for no lower bound.
    :param at_most: upper bound, inclusive; None for no upper bound.
    :param unassigned: count only tasks without an assignee.
    :param by_listing: count by listing the queue, for servers whose count has another meaning.
    """

    stage_name: str
    at_least: int | None = None
    at_most: int | None = None
    unassigned: bool = False
    by_listing: bool = False

    @property
    def requires_listing(self) -> bool:
        """Whether the queue must be listed because the server's count is not enough."""
        return self.unassigned or self.by_listing

    @property
    def listing_limit(self) -> int:
        """Number of listed tasks after which the result cannot change any more."""
        return max(self.at_least or 0, self.at_most + 1 if self.at_most is not None else 0)

    def look(self, project: RedBrickProject) -> Poll:
        """Poll once: count the queue and compare.

        :raises RedBrickInputError: as :meth:`check`.
        """
        stage = self.check(project)
        if not self.requires_listing:
            return self.evaluate(project.count(stage))
        return self.evaluate(project.count_by_listing(stage, unassigned=self.unassigned, stop_at=self.listing_limit))

    def check(self, project: RedBrickProject) -> Stage:
        """Return the stage if the condition can be met in it.

        :raises RedBrickInputError: if the stage does not exist, or its queue can never reach the threshold.
        """
        stage = project.stage(self.stage_name)
        self.check_stage(stage)
        return stage

    def check_stage(self, stage: Stage) -> None:
        """Check that the queue of a stage can reach the threshold.

        :raises RedBrickInputError: if it never can.
        """
        if self.at_least and stage.is_passed_through:
            raise RedBrickInputError(
                f"Tasks only pass through {stage.name}, so its queue never reaches {self.at_least}."
            )
        if self.at_least and self.unassigned and stage.is_ground_truth:
            raise RedBrickInputError("Tasks in Ground Truth are finished, so none of them counts as unassigned.")

    def evaluate(self, count: int) -> Poll:
        """Compare a count with the threshold."""
        is_above = self.at_least is None or count >= self.at_least
        is_below = self.at_most is None or count <= self.at_most
        return Poll(is_above and is_below, count)

    def __str__(self) -> str:
        limits = (("at least", self.at_least), ("at most", self.at_most))
        thresholds = " and ".join(f"{words} {limit}" for words, limit in limits if limit is not None)
        kind = "unassigned " if self.unassigned else ""
        noun = "task" if thresholds.endswith(" 1") else "tasks"
        return f"the queue of {self.stage_name!r} to have {thresholds} {kind}{noun}"


@dataclass(frozen=True)
class TasksCondition:
    """All of the listed tasks have left a stage, or have reached it or a later one.

    Reviews may be sampled, so a task can skip the stage that is waited for. A later stage therefore counts as reached.

    :param task_ids: the tasks; all of them must meet the condition.
    :param left_stage: the stage to leave; exactly one of `left_stage` and `reached_stage` is set.
    :param reached_stage: the stage to reach.
    """

    task_ids: Sequence[str]
    left_stage: str | None = None
    reached_stage: str | None = None

    def look(self, project: RedBrickProject) -> Poll:
        """Poll once: read the tasks and compare.

        :raises RedBrickError: as :meth:`check` and :meth:`evaluate`.
        """
        self.check(project)
        # Imported here: every DAG file with a sensor or operator loads this module.
        from airflow_provider_redbrick.client.models.task import Detail  # noqa: PLC0415

        return self.evaluate(project, project.read_tasks(self.task_ids, detail=Detail.PLACE))

    def check(self, project: RedBrickProject) -> None:
        """Check that the stage exists and that tasks can be waited for in it.

        :raises RedBrickInputError: if the project does not have the stage, or tasks only pass through it.
        """
        stage = project.stage(self.left_stage or self.reached_stage or "")
        workflow = project.info.workflow
        if self.reached_stage is not None and workflow.position(stage.public_name) < 0:
            raise RedBrickInputError(
                f"Tasks only pass through {stage.name} on their way back. Wait for them to leave the previous stage."
            )

    def evaluate(self, project: RedBrickProject, tasks: Mapping[str, Task | RedBrickError]) -> Poll:
        """Compare the tasks' stages with the stage that is waited for.

        :param project: the project of the tasks.
        :param tasks: each id's task, or the error of its read.
        :return: the number of tasks per stage is in the poll.
        :raises RedBrickNotFoundError: if a task no longer exists, or is archived and can never reach the stage.
        :raises RedBrickError: if a task could not be read.
        """
        workflow = project.info.workflow
        stage_counts: Counter[str] = Counter()
        waiting = 0
        for task in tasks.values():
            if isinstance(task, RedBrickError):
                raise task.with_traceback(None)
            stage_counts[task.stage_name] += 1
            waiting += not self._is_met_by(workflow, task)
        return Poll(waiting == 0, dict(sorted(stage_counts.items())))

    def _is_met_by(self, workflow: Workflow, task: Task) -> bool:
        if self.left_stage is not None:
            return not task.is_queued_in(workflow.find(self.left_stage).public_name)
        if task.stage_name == ARCHIVED:
            message = "The task is archived and can no longer reach a stage."
            raise RedBrickNotFoundError(message, operation="task", task_ids=[task.task_id])
        target = workflow.find(self.reached_stage or "").public_name
        position = workflow.position(task.stage_name)
        return position >= 0 and position >= workflow.position(target)

    def __str__(self) -> str:
        change = f"leave {self.left_stage!r}" if self.left_stage is not None else f"reach {self.reached_stage!r}"
        return f"{count_tasks(len(self.task_ids))} to {change}"


Condition = QueueCondition | TasksCondition


@dataclass(frozen=True)
class Limits:
    """Limits of a sensor's wait.

    :param timeout: the sensor's ``timeout`` in seconds.
    :param execution_timeout: its ``execution_timeout`` in seconds; None for none.
    """

    timeout: float
    execution_timeout: float | None = None

    @property
    def name(self) -> str:
        """Name of the parameter that ends the wait first."""
        shorter = self.execution_timeout is not None and self.execution_timeout < self.timeout
        return "execution_timeout" if shorter else "timeout"

    @property
    def seconds(self) -> float:
        """Longest wait in seconds."""
        return self.timeout if self.execution_timeout is None else min(self.timeout, self.execution_timeout)

    def deadline(self, *, cancel_at: float | None, now: float) -> float:
        """Return the deadline of a wait that Airflow started in the triggerer.

        A triggerer that takes the wait over from another one gets the same deadline: it is derived from the time at
        which Airflow cancels the trigger.

        :param cancel_at: when Airflow cancels the trigger, in epoch seconds; None if Airflow does not say. The wait
            then begins now.
        :param now: the current time in epoch seconds.
        :return: epoch seconds.
        """
        budget_s = self.seconds + START_BACKSTOP_S
        # Airflow also applies execution_timeout to a trigger that it starts itself.
        if self.execution_timeout is not None:
            budget_s = min(budget_s, self.execution_timeout)
        started_at = now if cancel_at is None else cancel_at - budget_s
        return started_at + self.seconds


class PollBudget:
    """Decide after each poll whether the wait ends.

    :param deadline: epoch seconds by the wall clock, since a trigger may continue in another process.
    :param deadline_name: the sensor parameter that sets the deadline, for the event's message.
    :param awaited: the condition in words, for the event's message.
    :param tolerates_errors: whether errors, even permanent ones, never end the wait before the deadline.
    """

    def __init__(
        self, *, deadline: float, deadline_name: str, awaited: object = "", tolerates_errors: bool = False
    ) -> None:
        self.deadline = deadline
        self.deadline_name = deadline_name
        self.awaited = awaited
        self.tolerates_errors = tolerates_errors
        self.failed_in_a_row = 0
        self.last_error: RedBrickError | None = None
        self._last_poll: Poll | None = None
        self._first_look_at: float | None = None

    @property
    def status(self) -> str:
        """What the wait is for, and what was seen last, as sentences."""
        if self._last_poll is None:
            return f"It waited for {self.awaited}. No poll succeeded."
        return f"It waited for {self.awaited}. Last seen: {_in_words(self._last_poll.observed)}."

    def must_confirm(self, poll: Poll, *, now: float, settle_seconds: float) -> bool:
        """Record a successful poll, and return whether another one must confirm it.

        :param poll: result of the poll.
        :param now: the current time in epoch seconds.
        :param settle_seconds: how far behind a read may be.
        """
        if self._first_look_at is None:
            self._first_look_at = now
        was_met = self._last_poll is not None and self._last_poll.met
        self._record(poll)
        return poll.met and not was_met and now - self._first_look_at < settle_seconds

    def pause_to_confirm(self, poke_interval: float) -> float:
        """Return the seconds until a met condition is looked at again."""
        return min(poke_interval, CONFIRM_AFTER_S)

    def after(self, poll: Poll, *, now: float) -> dict[str, Any] | None:
        """Return the event that ends the wait after a successful poll.

        :param poll: result of the poll.
        :param now: the current time in epoch seconds.
        :return: None if the wait continues.
        """
        self._record(poll)
        if poll.met:
            return event("success", seen=poll.observed)
        return self._at_deadline(now)

    def after_error(self, error: RedBrickError, *, now: float) -> dict[str, Any] | None:
        """Return the event that ends the wait after a failed poll.

        :param error: why the poll failed.
        :param now: the current time in epoch seconds.
        :return: None if the wait continues.
        """
        self.failed_in_a_row += 1
        self.last_error = error
        if self.tolerates_errors:
            return self._at_deadline(now)
        if isinstance(error, PERMANENT_ERRORS):
            return error_event(error)
        if self.failed_in_a_row >= MAX_FAILED_POLLS:
            message = (
                f"Gave up after {self.failed_in_a_row} failed polls in a row. Last error: {error} "
                "A retry resumes the wait."
            )
            return event("error", message=message)
        return self._at_deadline(now)

    def _record(self, poll: Poll) -> None:
        self.failed_in_a_row, self.last_error, self._last_poll = 0, None, poll

    def _at_deadline(self, now: float) -> dict[str, Any] | None:
        if now < self.deadline:
            return None
        message = f"The condition was not met within the sensor's {self.deadline_name}. {self.status}"
        if self.last_error is not None:
            message += f" The last poll failed: {self.last_error}"
        return event("timeout", message=message, deadline=self.deadline_name)


def _in_words(observed: Any) -> str:
    """Return a count, or the number of tasks per stage, for a message."""
    if isinstance(observed, Mapping):
        return ", ".join(f"{number} in {stage}" for stage, number in observed.items())
    return count_tasks(observed)


def error_event(error: Exception) -> dict[str, Any]:
    """Return the event of an error that ends the wait at once.

    :param error: a permanent error, or one that no rule covers. The message of the latter may contain anything, so that
        only its type is named.
    """
    if isinstance(error, RedBrickError):
        message = f"Stopped waiting because of a permanent error: {error}"
    else:
        message = (
            f"Stopped waiting because of an unexpected {type(error).__name__}. The triggerer's log has the details. "
            "A retry resumes the wait."
        )
    return event("error", message=message, error=type(error).__name__)


def event(status: str, **facts: Any) -> dict[str, Any]:
    """Return the payload of a trigger's event.

    :param status: ``success``, ``timeout`` or ``error``.
    :param facts: further fields; they must be JSON-compatible.
    """
    return {"version": EVENT_VERSION, "status": status, **facts}


def read_event(value: object) -> Mapping[str, Any]:
    """Validate the payload of an event, possibly of another release's trigger.

    :raises RedBrickInputError: if it is not such a payload.
    """
    if not isinstance(value, Mapping) or value.get("status") not in ("success", "timeout", "error"):
        raise RedBrickInputError(f"The trigger sent an event that is not understood: {value!r}")
    return value
