"""Apply each mutation exactly once, although the API has no idempotency key.

A mutation whose answer was lost (dropped connection, timeout, 5xx, a body that is not the API's) may or may not have
been applied. Its effect is read, and it is sent again only if the reads show none.

When to send and when to read:

1. An acknowledged mutation is done. It is neither read nor sent again.
2. An error that excludes that the mutation was applied (`maybe_applied` is false) is final, without a read.
3. Any other error leaves the mutation pending. Its task is read up to three times with growing pauses (`SETTLE`), since
   the server may still be processing the request.
4. A refusal that may follow an earlier, applied request is settled by one read: nothing is under way any more.
5. A pending mutation without a visible effect is sent again, up to `ATTEMPTS` times in total, each in a request of its
   own: when a bundle was refused, the answer does not say which mutation was meant.
6. If its task cannot be read, the outcome is `unknown`, and the next attempt of the Airflow task reads it first.

What a read of the task proves:

7. A task that shows the effect was changed. If it had to leave its stage, its last event out of that stage decides who
   moved it: the API key with the same verdict (done), or another actor (skipped). Without readable events it counts as
   done.
8. A task that shows another actor's change of the same data is left alone (skipped).
9. A task in its old stage may have left and been sent back. It counts as done if the API key moved it, with the same
   verdict, after the version that was read before the change. Both times are the server's.
10. Everything else shows no effect, which is evidence only once the server has had time to apply the request.
11. A bundle that is refused as a whole, before anything was applied, is bisected: one bad mutation does not fail its
    neighbors.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from threading import Event
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_redbrick._utils import in_chunks
from airflow_provider_redbrick.client.transport import http
from airflow_provider_redbrick.engine.concurrency import cancel_or_wait
from airflow_provider_redbrick.engine.outcomes import Outcome, Status, done, failed, skipped
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
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from airflow_provider_redbrick.client.models.task import OutputEvent, Task
    from airflow_provider_redbrick.client.operations.project import RedBrickProject
    from airflow_provider_redbrick.client.transport.graphql import Call

ATTEMPTS = 3
# Pause in seconds before each read of a task whose answer was lost: the server may still be processing the request.
SETTLE = (0.0, 0.5, 1.5)


class Mutation(ABC):
    """One change to one task, to be applied exactly once."""

    bundled: ClassVar[bool] = False
    """Whether several mutations of this class share a request."""

    @property
    @abstractmethod
    def not_applied_message(self) -> str:
        """Clause for messages: a read showed no effect. Without a final period."""

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
    :param detail: further columns of the report for a task that was changed.
    """

    bundled: ClassVar[bool] = True

    task: Task
    call: Callable[[], Call]
    applied: Callable[[Task], bool]
    superseded: Callable[[Task], bool] | None = None
    source_stage: str | None = None
    verdict: bool | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)

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
        tasks = project.read_tasks(ids)
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
            return self.success()
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


def apply_all(project: RedBrickProject, mutations: Sequence[Mutation], *, stop: Event | None = None) -> list[Outcome]:
    """Apply mutations of different tasks concurrently.

    :param project: the project of the tasks.
    :param mutations: at most one per task.
    :param stop: when it is set, nothing more is sent.
    :return: one outcome per mutation, in the same order.
    :raises RedBrickStoppedError: if `stop` was set before everything was sent.
    """
    bundles = list(_bundles(mutations, project.client.bundle.size))
    stop = stop or Event()

    def apply(bundle: Sequence[Mutation]) -> list[Outcome]:
        with http.until(stop):
            http.check()
            return apply_together(project, bundle)

    if min(project.client.max_concurrency, len(bundles)) <= 1:
        return [outcome for bundle in bundles for outcome in apply(bundle)]
    futures = [project.client.threads.submit(apply, bundle) for bundle in bundles]
    try:
        return [outcome for future in futures for outcome in future.result()]
    except BaseException:
        stop.set()
        cancel_or_wait(futures)
        raise


def apply_together(
    project: RedBrickProject, mutations: Sequence[Mutation], *, sleep: Callable[[float], None] = time.sleep
) -> list[Outcome]:
    """Apply mutations of one class: bundled at first, then one by one.

    :param project: the project of the tasks.
    :param mutations: instances of one class, for different tasks.
    :param sleep: waits before reads of tasks; replaced in tests.
    :return: one outcome per mutation, in the same order.
    """
    all_pending = [PendingMutation(mutation) for mutation in mutations]
    for attempt in range(ATTEMPTS):
        unsettled = [pending for pending in all_pending if pending.outcome is None]
        if not unsettled:
            break
        to_send = [pending.mutation for pending in unsettled]
        send = attempt_separately if attempt else type(to_send[0]).attempt_all
        for pending, answer in zip(unsettled, send(project, to_send), strict=True):
            pending.record_answer(answer)
        _settle(project, [pending for pending in unsettled if pending.outcome is None], sleep)
    return [pending.outcome or pending.exhausted() for pending in all_pending]


@dataclass
class PendingMutation:
    """A mutation and what is known of it so far.

    :param mutation: the mutation.
    :param outcome: None until it is known.
    :param errors: the errors of its attempts, oldest first.
    """

    mutation: Mutation
    outcome: Outcome | None = None
    errors: list[RedBrickAPIError] = field(default_factory=list)

    @property
    def is_final(self) -> bool:
        """Whether sending the mutation again would not help, by its last error."""
        return isinstance(self.errors[-1], RedBrickRefusedError) or not self.errors[-1].maybe_applied

    def record_answer(self, answer: Outcome | RedBrickAPIError) -> None:
        """Record the result of an attempt."""
        if isinstance(answer, Outcome):
            self.outcome = answer
            return
        self.errors.append(answer)
        if not answer.maybe_applied:
            self.outcome = self.mutation.failure(answer)

    def record_read(self, result: Outcome | RedBrickAPIError | None) -> None:
        """Record the result of a read after an attempt; None if it showed no effect."""
        if isinstance(result, RedBrickAPIError):
            undecided = self.mutation.failure(
                f"{self.errors[-1]} Whether it was applied is not known: the task could not be read afterwards "
                f"({result}). The next attempt reads it first."
            )
            self.outcome = replace(undecided, status=Status.UNKNOWN)
        else:
            self.outcome = result

    def exhausted(self) -> Outcome:
        """Return the outcome after the last attempt without a visible effect."""
        reason = f"{self.errors[-1]} {self.mutation.not_applied_message}. Gave up after {ATTEMPTS} attempts."
        return self.mutation.failure(reason)


def _settle(project: RedBrickProject, unsettled: Sequence[PendingMutation], sleep: Callable[[float], None]) -> None:
    """Read tasks until every mutation is settled, or `SETTLE` is exhausted."""
    for number, pause_s in enumerate(SETTLE):
        # One read is enough after a refusal: no request is under way any more.
        to_read = [pending for pending in unsettled if pending.outcome is None and not (pending.is_final and number)]
        if not to_read:
            break
        sleep(pause_s)
        mutations = [(pending.mutation, pending.errors) for pending in to_read]
        results = result_or_error(partial(type(mutations[0][0]).verify_all, project, mutations))
        for i, pending in enumerate(to_read):
            pending.record_read(results if isinstance(results, RedBrickAPIError) else results[i])
    for pending in unsettled:
        if pending.outcome is None and pending.is_final:
            pending.outcome = pending.mutation.failure(pending.errors[-1])


def _bundles(mutations: Sequence[Mutation], size: int) -> Iterator[list[Mutation]]:
    """Yield the mutations of each request: up to `size` of one class, or a single one."""
    for bundled, group in groupby(mutations, key=lambda mutation: mutation.bundled):
        yield from in_chunks(group, size if bundled else 1)
