"""Changes of tasks, and what a read of a task proves about them.

1. A task that shows the effect was changed. If it had to leave its stage, its last event out of that stage decides who
   moved it: the API key with the same verdict (done), or another actor (skipped). Without readable events it counts as
   done. If the key saved its labels, they must be the ones that were sent: another run may have the same key.
2. A task that shows another actor's change of the same data is left alone (skipped).
3. A task in its old stage may have left and been sent back. It counts as done if the API key moved it, with the same
   verdict, after the version that was read before the change. Both times are the server's.
4. Everything else shows no effect, which is evidence only once the server has had time to apply the request.
5. A bundle that is refused as a whole, before anything was applied, is bisected: one bad mutation does not fail its
   neighbors.

`engine/executor` decides when to send and when to read.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_redbrick.client.models.task import Detail
from airflow_provider_redbrick.engine.outcomes import Outcome, done, failed, skipped
from airflow_provider_redbrick.exceptions import (
    RedBrickAnswerError,
    RedBrickAPIError,
    RedBrickConnectionError,
    RedBrickNotFoundError,
    RedBrickPayloadTooLargeError,
    RedBrickRefusedError,
    RedBrickServerError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from airflow_provider_redbrick.client.models.task import OutputEvent, Task
    from airflow_provider_redbrick.client.operations.project import RedBrickProject
    from airflow_provider_redbrick.client.transport.graphql import Call
    from airflow_provider_redbrick.engine.ledger import Ledger


class Mutation(ABC):
    """One change to one task, to be applied exactly once."""

    bundled: ClassVar[bool] = False
    """Whether several mutations of this class share a request."""

    @property
    @abstractmethod
    def key(self) -> str:
        """What identifies the task: its id, or its name before it is created."""

    @property
    @abstractmethod
    def not_applied_message(self) -> str:
        """Clause for messages: a read showed no effect. Without a final period."""

    @property
    def before(self) -> Task | None:
        """The task as it was read; None if it does not exist yet."""
        return None

    @abstractmethod
    def record_success(self, ledger: Ledger, outcome: Outcome) -> None:
        """Record in the ledger what the run has written, and what the key may keep.

        :param ledger: the ledger of the run.
        :param outcome: the outcome of the change.
        """

    @abstractmethod
    def attempt(self, project: RedBrickProject) -> Outcome:
        """Send the mutation once.

        :raises RedBrickAPIError: if it was not acknowledged.
        """

    @abstractmethod
    def verify(self, project: RedBrickProject, errors: Sequence[RedBrickAPIError]) -> Outcome | None:
        """Read whether the mutation was applied.

        :param project: the project of the task.
        :param errors: the errors of all attempts so far, oldest first.
        :return: the outcome; None if the read shows no effect.
        :raises RedBrickAPIError: if the read failed.
        """

    @abstractmethod
    def failure(self, reason: object) -> Outcome:
        """Return the outcome of a task that was not changed."""

    @classmethod
    def attempt_all(cls, project: RedBrickProject, mutations: Sequence[Any]) -> list[Outcome | RedBrickAPIError]:
        """Send mutations of this class once.

        :param project: the project of the tasks.
        :param mutations: instances of this class, for different tasks.
        :return: for each mutation its outcome, or the error of its attempt.
        """
        return attempt_separately(project, mutations)

    @classmethod
    def verify_all(
        cls, project: RedBrickProject, pending: Sequence[tuple[Any, Sequence[RedBrickAPIError]]]
    ) -> list[Outcome | RedBrickAPIError | None]:
        """Read whether mutations of this class were applied.

        :param project: the project of the tasks.
        :param pending: mutations with the errors of their attempts so far.
        :return: for each mutation its outcome, None if the read shows no effect, or the error of the read.
        """
        return [result_or_error(partial(mutation.verify, project, errors)) for mutation, errors in pending]


@dataclass(frozen=True)
class Change(Mutation):
    """A mutation of an existing task whose effect is visible on the task itself.

    :param task: the task as it was read before the change.
    :param call: prepares the mutation for sending; stores its files on the way.
    :param applied: returns whether the task, read again, shows the effect.
    :param superseded: returns whether the task, read again, shows a change of the same data by another actor.
    :param source_stage: name of the stage that the mutation moves the task out of; None if the task stays. Another
        actor can move it too, and a reviewer may already have sent it back.
    :param verdict: for a review, whether it accepts. Another run with this API key can decide the opposite.
    :param has_content: returns whether a task, read in full, has the labels that were sent; None if that is unknown.
        Another run with this API key can put other labels on it.
    :param keeps_task: whether the API key keeps the task after the change, as with a draft.
    :param detail: further columns of the report for a task that was changed.
    """

    bundled: ClassVar[bool] = True

    task: Task
    call: Callable[[], Call]
    applied: Callable[[Task], bool]
    superseded: Callable[[Task], bool] | None = None
    source_stage: str | None = None
    verdict: bool | None = None
    has_content: Callable[[Task], bool | None] | None = None
    keeps_task: bool = False
    detail: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The task's id."""
        return self.task.task_id

    @property
    def before(self) -> Task | None:
        """The task as it was read."""
        return self.task

    @property
    def not_applied_message(self) -> str:
        """Clause for messages: a read showed no effect."""
        return "The task was read afterwards and is unchanged"

    def attempt(self, project: RedBrickProject) -> Outcome:
        """Send the mutation in a request of its own."""
        project.change(self.call())
        return self.success()

    def verify(self, project: RedBrickProject, errors: Sequence[RedBrickAPIError]) -> Outcome | None:
        """Read the task again and compare it.

        :param project: the project of the task.
        :param errors: the errors of all attempts so far, oldest first.
        :return: the outcome; None if the task is unchanged.
        """
        (result,) = self.verify_all(project, [(self, errors)])
        if isinstance(result, RedBrickAPIError):
            raise result
        return result

    def record_success(self, ledger: Ledger, outcome: Outcome) -> None:  # noqa: ARG002
        """Record that a read must show the change before the operator returns.

        :param ledger: the ledger of the run.
        :param outcome: the outcome of the change.
        """
        ledger.wrote(self.key, self._is_shown)
        if self.keeps_task:
            ledger.keep(self.key, self.task.stage_name)

    def _is_shown(self, current: Task) -> bool:
        """Whether a read shows the change, or a later one."""
        return self.applied(current) or (self.superseded is not None and self.superseded(current))

    def success(self) -> Outcome:
        """Return the outcome of a task that was changed."""
        return done(self.task.task_id, name=self.task.name, **self.detail)

    def failure(self, reason: object) -> Outcome:
        """Return the outcome of a task that was not changed."""
        return failed(self.task.task_id, reason, name=self.task.name)

    @classmethod
    def attempt_all(cls, project: RedBrickProject, mutations: Sequence[Any]) -> list[Outcome | RedBrickAPIError]:
        """Send all changes in one request, bisected if the server refuses it.

        :param project: the project of the tasks.
        :param mutations: the changes.
        :return: for each change its outcome, or the error of its attempt.
        """
        prepared: list[Call | RedBrickAPIError] = [result_or_error(change.call) for change in mutations]
        calls = [call for call in prepared if not isinstance(call, RedBrickAPIError)]
        errors = iter(_send(project, calls) if calls else ())
        results: list[Outcome | RedBrickAPIError] = []
        for change, call in zip(mutations, prepared, strict=True):
            error = call if isinstance(call, RedBrickAPIError) else next(errors)
            results.append(change.success() if error is None else error)
        return results

    @classmethod
    def verify_all(
        cls, project: RedBrickProject, pending: Sequence[tuple[Any, Sequence[RedBrickAPIError]]]
    ) -> list[Outcome | RedBrickAPIError | None]:
        """Read the tasks again, with the events of those that had to move.

        :param project: the project of the tasks.
        :param pending: changes with the errors of their attempts so far.
        :return: for each change its outcome, None if its task is unchanged, or the error of the read.
        """
        ids = [change.task.task_id for change, _ in pending]
        in_full = any(change.has_content is not None for change, _ in pending)
        tasks = project.read_tasks(ids, detail=Detail.FULL if in_full else Detail.STATE)
        moved_ids = [
            change.task.task_id
            for change, _ in pending
            if change.source_stage is not None and not isinstance(tasks[change.task.task_id], RedBrickAPIError)
        ]
        events = project.output_events(moved_ids) if moved_ids else {}
        return [
            change.evaluate(tasks[change.task.task_id], events.get(change.task.task_id), errors, me=project.client.me)
            for change, errors in pending
        ]

    def evaluate(
        self,
        current: Task | RedBrickAPIError,
        events: Sequence[OutputEvent] | RedBrickAPIError | None,
        errors: Sequence[RedBrickAPIError],
        *,
        me: Callable[[], str],
    ) -> Outcome | RedBrickAPIError | None:
        """Compare the task, read again, with the effect of the change.

        :param current: the task as it is now, or the error of its read.
        :param events: the task's events, or the error of their read; None if they were not requested.
        :param errors: the errors of all attempts so far, oldest first.
        :param me: returns the user id of the API key.
        :return: the outcome, None if the task is unchanged, or the error of the read.
        """
        if isinstance(current, RedBrickNotFoundError):
            return self.failure(f"The task no longer exists: {current}")
        if isinstance(current, RedBrickAPIError):
            return current
        if not self.applied(current):
            return self._evaluate_without_effect(current, events, errors, me=me)
        if self._was_moved_by_key(events, me):
            return self._outcome_by_content(current, me())
        reason = f"it was moved on in the meantime, not by this attempt. {errors[-1]}"
        return skipped(self.task.task_id, reason, name=self.task.name)

    def _evaluate_without_effect(
        self,
        current: Task,
        events: Sequence[OutputEvent] | RedBrickAPIError | None,
        errors: Sequence[RedBrickAPIError],
        *,
        me: Callable[[], str],
    ) -> Outcome | RedBrickAPIError | None:
        """Evaluate a task that does not show the effect; None if it is unchanged."""
        if isinstance(events, RedBrickAPIError):
            return events
        if self.superseded is not None and self.superseded(current):
            reason = f"another user changed it in the meantime and that change was kept. {errors[-1]}"
            return skipped(self.task.task_id, reason, name=self.task.name)
        # The task may have left the stage and been sent back. Both times are the server's, so they can be compared.
        read_version_at = self.task.updated_at
        own_exits = (event for event in self._exits(events or ()) if event.by == me() and self._has_same_verdict(event))
        was_sent_back = read_version_at is not None and any(
            event.at is not None and event.at > read_version_at for event in own_exits
        )
        return self.success() if was_sent_back else None

    def _outcome_by_content(self, current: Task, me: str) -> Outcome:
        """Return the outcome of a task that the key has changed: by this run, or by another one with other labels."""
        is_own = self.has_content is not None and "labels_by" not in current.unread and current.saved_by(me)
        if is_own and self.has_content is not None and self.has_content(current) is False:
            return self.failure(
                "Another run with this API key put other labels on it, and the answer to this request was lost."
            )
        return self.success()

    def _exits(self, events: Sequence[OutputEvent]) -> list[OutputEvent]:
        """Return the events that moved the task out of this change's stage."""
        return [event for event in events if self.source_stage is not None and event.leaves(self.source_stage)]

    def _has_same_verdict(self, event: OutputEvent) -> bool:
        """Return whether an event has this verdict, or either has none."""
        return None in {self.verdict, event.accepted} or event.accepted == self.verdict

    def _was_moved_by_key(self, events: Sequence[OutputEvent] | RedBrickAPIError | None, me: Callable[[], str]) -> bool:
        """Return whether the API key moved the task; True if that is not known."""
        if events is None or isinstance(events, RedBrickAPIError):
            return True
        exits = self._exits(events)
        if not exits:
            return True
        return exits[-1].by == me() and self._has_same_verdict(exits[-1])


def _send(project: RedBrickProject, calls: Sequence[Call]) -> list[RedBrickAPIError | None]:
    """Send calls in one request, bisected if refused; return each error."""
    bundle = project.client.bundle
    try:
        errors = project.send(calls)
    except (RedBrickPayloadTooLargeError, RedBrickRefusedError) as error:
        # Unless `maybe_applied` is set, nothing was applied. One call may be the reason for refusing the whole request.
        if isinstance(error, RedBrickPayloadTooLargeError):
            bundle.shrink(len(calls))
        if len(calls) == 1 or error.maybe_applied:
            return [error] * len(calls)
        middle = len(calls) // 2
        return _send(project, calls[:middle]) + _send(project, calls[middle:])
    except (RedBrickServerError, RedBrickConnectionError, RedBrickAnswerError) as error:
        bundle.shrink(len(calls))
        return [error] * len(calls)
    except RedBrickAPIError as error:
        return [error] * len(calls)
    bundle.record_success(len(calls))
    return errors


def attempt_separately(project: RedBrickProject, mutations: Sequence[Mutation]) -> list[Outcome | RedBrickAPIError]:
    """Send each mutation in a request of its own.

    :param project: the project of the tasks.
    :param mutations: what to send, in this order.
    :return: for each mutation its outcome, or the error of its attempt.
    """
    return [result_or_error(partial(mutation.attempt, project)) for mutation in mutations]


def result_or_error(action: Callable[[], Any]) -> Any:
    """Return the result of a callable, or the RedBrickAPIError that it raised."""
    try:
        return action()
    except RedBrickAPIError as error:
        return error
