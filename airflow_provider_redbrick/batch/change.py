"""Mutations applied once each, although the API has no idempotency key."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from airflow_provider_redbrick.batch.outcome import Outcome, done, failed, skipped
from airflow_provider_redbrick.exceptions import RedBrickAPIError, RedBrickRefusedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from airflow_provider_redbrick.api.models import Task
    from airflow_provider_redbrick.api.project import RedBrickProject

ATTEMPTS = 3
# Seconds before each look at a task whose answer was lost: the server may still be busy with the request.
SETTLE = (0.0, 0.5, 1.5)
# Seconds that requests under way get when the work is stopped.
LAST_MOMENT = 2.0


class Mutation(Protocol):
    """What is to be applied once to one task."""

    @property
    def unapplied(self) -> str:
        """What a look says that shows nothing of the mutation, for messages."""

    def attempt(self, project: RedBrickProject) -> Outcome:
        """Send it once."""

    def look(self, project: RedBrickProject, errors: Sequence[RedBrickAPIError]) -> Outcome | None:
        """Read what shows whether it was applied; None when it was not.

        :param errors: what came of the attempts so far, none of which was answered as it should be.
        """

    def failure(self, reason: object) -> Outcome:
        """Return the outcome of a task that nothing was applied to."""


@dataclass(frozen=True)
class Change:
    """A mutation to apply to a task.

    :param task: the task as it was read before.
    :param send: sends the mutation once.
    :param applied: whether a task, read again, shows that the mutation was applied.
    :param leaves: the stage that the mutation takes the task out of, if it does: somebody else can do that too.
    :param verdict: for a review, what it decides: another run with this key can decide the opposite.
    """

    task: Task
    send: Callable[[], None]
    applied: Callable[[Task], bool]
    leaves: str | None = None
    verdict: bool | None = None

    @property
    def unapplied(self) -> str:
        """What a look says that shows nothing of the change."""
        return "The task was read afterwards and is unchanged"

    def attempt(self, _project: RedBrickProject) -> Outcome:
        """Send the mutation."""
        self.send()
        return done(self.task.task_id, name=self.task.name)

    def look(self, project: RedBrickProject, errors: Sequence[RedBrickAPIError]) -> Outcome | None:
        """Read the task; None when it is unchanged."""
        task_id, name = self.task.task_id, self.task.name
        found = project.read_tasks([task_id])[task_id]
        if isinstance(found, RedBrickAPIError):
            raise found
        if not self.applied(found):
            return None
        if self._is_ours(project):
            return done(task_id, name=name)
        return skipped(task_id, f"it was moved on in the meantime, not by this try. {errors[-1]}", name=name)

    def failure(self, reason: object) -> Outcome:
        """Return the outcome of a task that was not changed."""
        return failed(self.task.task_id, reason, name=self.task.name)

    def _is_ours(self, project: RedBrickProject) -> bool:
        """Whether it was this key that took the task out of its stage; events that cannot be read do not deny it."""
        if self.leaves is None:
            return True
        events = project.output_events([self.task.task_id])[self.task.task_id]
        if isinstance(events, RedBrickAPIError):
            return True
        left = [event for event in events if event.stage_name == self.leaves and not event.is_edit]
        if not left:
            return True
        decided = None in {self.verdict, left[-1].accepted} or left[-1].accepted == self.verdict
        return left[-1].by == project.client.me() and decided


def apply_all(project: RedBrickProject, mutations: Sequence[Mutation]) -> list[Outcome]:
    """Apply mutations of different tasks, several at a time; outcomes come in the order of the mutations."""
    workers = min(project.client.max_concurrency, len(mutations))
    if workers <= 1:
        return [apply_once(project, mutation) for mutation in mutations]
    pool = ThreadPoolExecutor(workers, thread_name_prefix="redbrick")
    futures = [pool.submit(apply_once, project, mutation) for mutation in mutations]
    try:
        return [future.result() for future in futures]
    except BaseException:
        cut_short(pool, futures)
        raise
    finally:
        pool.shutdown(wait=False)


def cut_short(pool: ThreadPoolExecutor, futures: Iterable[Future[Any]]) -> None:
    """Stop what a pool works on, when Airflow has killed or timed out the task.

    What has not begun never will. What is under way gets a moment, no more: Airflow kills for good a few seconds
    later, and there is still to be cleaned up.
    """
    pool.shutdown(wait=False, cancel_futures=True)
    wait([future for future in futures if not future.cancelled()], timeout=LAST_MOMENT)


def apply_once(project: RedBrickProject, mutation: Mutation, *, sleep: Callable[[float], None] = time.sleep) -> Outcome:
    """Apply a mutation; settle a lost answer by reading, and send again only what was not applied.

    A refusal is final. An answer that was lost (dropped connection, time-out, 5xx, a body that is not the API's) says
    nothing about the mutation, and there is no idempotency key, so what it was to change is asked.
    """
    errors: list[RedBrickAPIError] = []
    for _ in range(ATTEMPTS):
        try:
            return mutation.attempt(project)
        except RedBrickAPIError as problem:
            errors.append(problem)
        outcome = _settle(project, mutation, errors, sleep)
        if outcome is not None:
            return outcome
    return mutation.failure(f"{errors[-1]} {mutation.unapplied}; given up after {ATTEMPTS} attempts.")


def _settle(
    project: RedBrickProject, mutation: Mutation, errors: Sequence[RedBrickAPIError], sleep: Callable[[float], None]
) -> Outcome | None:
    """Return what became of the mutation, or None when it was not applied and another attempt may help."""
    error = errors[-1]
    final = isinstance(error, RedBrickRefusedError) or not error.maybe_applied
    looks = SETTLE[: 1 if final else None] if error.maybe_applied else ()
    for pause in looks:
        sleep(pause)
        try:
            outcome = mutation.look(project, errors)
        except RedBrickAPIError as unread:
            return mutation.failure(
                f"{error} Whether it was applied is not known: the task could not be read afterwards ({unread}). "
                f"The next try reads it first."
            )
        if outcome is not None:
            return outcome
    return mutation.failure(error) if final else None
