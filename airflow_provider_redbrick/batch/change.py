"""Mutations applied once each, although the API has no idempotency key."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_redbrick.api.chunks import in_chunks
from airflow_provider_redbrick.batch.outcome import Outcome, Status, done, failed, skipped
from airflow_provider_redbrick.batch.parallel import cut_short
from airflow_provider_redbrick.exceptions import (
    RedBrickAnswerError,
    RedBrickAPIError,
    RedBrickConnectionError,
    RedBrickNotFoundError,
    RedBrickPayloadTooLargeError,
    RedBrickRefusedError,
    RedBrickServerError,
    RedBrickStoppedError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from threading import Event

    from airflow_provider_redbrick.api.calls import Call
    from airflow_provider_redbrick.api.models import OutputEvent, Task
    from airflow_provider_redbrick.api.project import RedBrickProject

ATTEMPTS = 3
# Seconds before each look at a task whose answer was lost: the server may still be busy with the request.
SETTLE = (0.0, 0.5, 1.5)


class Mutation(ABC):
    """What is to be applied once to one task."""

    bundled: ClassVar[bool] = False
    """Whether several go in one request."""

    @property
    @abstractmethod
    def unapplied(self) -> str:
        """What a look says that shows nothing of the mutation, for messages."""

    @abstractmethod
    def attempt(self, project: RedBrickProject) -> Outcome:
        """Send it once."""

    @abstractmethod
    def look(self, project: RedBrickProject, errors: Sequence[RedBrickAPIError]) -> Outcome | None:
        """Read what shows whether it was applied; None when it was not.

        :param errors: what came of the attempts so far, none of which was answered as it should be.
        """

    @abstractmethod
    def failure(self, reason: object) -> Outcome:
        """Return the outcome of a task that nothing was applied to."""

    @classmethod
    def attempt_all(cls, project: RedBrickProject, mutations: Sequence[Any]) -> list[Outcome | RedBrickAPIError]:
        """Send each once; return for each what came of it."""
        return _each_alone(project, mutations)

    @classmethod
    def look_all(
        cls, project: RedBrickProject, doubts: Sequence[tuple[Any, Sequence[RedBrickAPIError]]]
    ) -> list[Outcome | RedBrickAPIError | None]:
        """Look at each, with what came of it so far; return for each what was seen, or why nothing could be."""
        return [_tried(partial(one.look, project, errors)) for one, errors in doubts]


@dataclass(frozen=True)
class Change(Mutation):
    """A mutation to apply to a task that was read before, and tells by itself whether it was applied.

    :param task: the task as it was read.
    :param call: makes the mutation ready to be sent; files are stored on the way.
    :param applied: whether the task, read again, shows that the mutation was applied.
    :param leaves: the stage that the mutation takes the task out of, if it does: somebody else can do that too.
    :param verdict: for a review, what it decides: another run with this key can decide the opposite.
    :param detail: what the report says of a task that was changed.
    """

    bundled: ClassVar[bool] = True

    task: Task
    call: Callable[[], Call]
    applied: Callable[[Task], bool]
    leaves: str | None = None
    verdict: bool | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)

    @property
    def unapplied(self) -> str:
        """What a look says that shows nothing of the change."""
        return "The task was read afterwards and is unchanged"

    def attempt(self, project: RedBrickProject) -> Outcome:
        """Send the mutation."""
        project.change(self.call())
        return self.success()

    def look(self, project: RedBrickProject, errors: Sequence[RedBrickAPIError]) -> Outcome | None:
        """Read the task; None when it is unchanged."""
        (seen,) = self.look_all(project, [(self, errors)])
        if isinstance(seen, RedBrickAPIError):
            raise seen
        return seen

    def success(self) -> Outcome:
        """Return the outcome of a task that was changed."""
        return done(self.task.task_id, name=self.task.name, **self.detail)

    def failure(self, reason: object) -> Outcome:
        """Return the outcome of a task that was not changed."""
        return failed(self.task.task_id, reason, name=self.task.name)

    @classmethod
    def attempt_all(cls, project: RedBrickProject, mutations: Sequence[Any]) -> list[Outcome | RedBrickAPIError]:
        """Send all in one request, as far as the server takes it."""
        made: list[Call | RedBrickAPIError] = [_tried(change.call) for change in mutations]
        calls = [call for call in made if not isinstance(call, RedBrickAPIError)]
        problems = iter(_send(project, calls) if calls else ())
        answers: list[Outcome | RedBrickAPIError] = []
        for change, call in zip(mutations, made, strict=True):
            problem = call if isinstance(call, RedBrickAPIError) else next(problems)
            answers.append(change.success() if problem is None else problem)
        return answers

    @classmethod
    def look_all(
        cls, project: RedBrickProject, doubts: Sequence[tuple[Any, Sequence[RedBrickAPIError]]]
    ) -> list[Outcome | RedBrickAPIError | None]:
        """Read all tasks again, several a request."""
        ids = [change.task.task_id for change, _ in doubts]
        found = project.read_tasks(ids)
        gone = [
            change.task.task_id
            for change, _ in doubts
            if change.leaves is not None and _shows(change, found[change.task.task_id])
        ]
        events = project.output_events(gone) if gone else {}
        return [
            change.seen(found[change.task.task_id], events.get(change.task.task_id), errors, me=project.client.me)
            for change, errors in doubts
        ]

    def seen(
        self,
        found: Task | RedBrickAPIError,
        events: Sequence[OutputEvent] | RedBrickAPIError | None,
        errors: Sequence[RedBrickAPIError],
        *,
        me: Callable[[], str],
    ) -> Outcome | RedBrickAPIError | None:
        """Return what a task, read again, says of the change; None when it is unchanged."""
        if isinstance(found, RedBrickNotFoundError):
            return self.failure(f"It is gone: {found}")
        if isinstance(found, RedBrickAPIError):
            return found
        if not self.applied(found):
            return None
        if self._is_ours(events, me):
            return self.success()
        reason = f"it was moved on in the meantime, not by this try. {errors[-1]}"
        return skipped(self.task.task_id, reason, name=self.task.name)

    def _is_ours(self, events: Sequence[OutputEvent] | RedBrickAPIError | None, me: Callable[[], str]) -> bool:
        """Whether it was this key that took the task out of its stage; events that cannot be read do not deny it."""
        if events is None or isinstance(events, RedBrickAPIError):
            return True
        left = [event for event in events if event.stage_name == self.leaves and not event.is_edit]
        if not left:
            return True
        decided = None in {self.verdict, left[-1].accepted} or left[-1].accepted == self.verdict
        return left[-1].by == me() and decided


def apply_all(project: RedBrickProject, mutations: Sequence[Mutation], *, stop: Event | None = None) -> list[Outcome]:
    """Apply mutations of different tasks, several at a time; outcomes come in the order of the mutations.

    :param stop: when it is set, nothing more is sent.
    :raises RedBrickStoppedError: when it was set before all was sent.
    """
    bundles = list(_bundles(mutations, project.client.bundle.size))
    workers = min(project.client.max_concurrency, len(bundles))

    def apply(bundle: Sequence[Mutation]) -> list[Outcome]:
        if stop is not None and stop.is_set():
            raise RedBrickStoppedError("Not sent: the work was stopped.")
        return apply_together(project, bundle)

    if workers <= 1:
        return [outcome for bundle in bundles for outcome in apply(bundle)]
    pool = ThreadPoolExecutor(workers, thread_name_prefix="redbrick")
    futures = [pool.submit(apply, bundle) for bundle in bundles]
    try:
        return [outcome for future in futures for outcome in future.result()]
    except BaseException:
        cut_short(pool, futures)
        raise
    finally:
        pool.shutdown(wait=False)


def apply_together(
    project: RedBrickProject, mutations: Sequence[Mutation], *, sleep: Callable[[float], None] = time.sleep
) -> list[Outcome]:
    """Apply mutations of one kind; settle lost answers by reading, and send again only what was not applied.

    A refusal is final. An answer that was lost (dropped connection, time-out, 5xx, a body that is not the API's) says
    nothing about the mutation, and there is no idempotency key, so what it was to change is asked. What is sent again
    goes alone: when several were refused together, the one that was meant is not known.
    """
    every = [_Doubt(mutation) for mutation in mutations]
    for attempt in range(ATTEMPTS):
        doubts = [doubt for doubt in every if doubt.outcome is None]
        if not doubts:
            break
        sent = [doubt.mutation for doubt in doubts]
        answers = _each_alone(project, sent) if attempt else type(sent[0]).attempt_all(project, sent)
        for doubt, answer in zip(doubts, answers, strict=True):
            doubt.answered(answer)
        _settle(project, [doubt for doubt in doubts if doubt.outcome is None], sleep)
    return [doubt.outcome or doubt.given_up() for doubt in every]


@dataclass
class _Doubt:
    """A mutation until its outcome is known."""

    mutation: Mutation
    outcome: Outcome | None = None
    errors: list[RedBrickAPIError] = field(default_factory=list)

    @property
    def is_final(self) -> bool:
        """Whether the last error says that sending it again does not help."""
        return isinstance(self.errors[-1], RedBrickRefusedError) or not self.errors[-1].maybe_applied

    def answered(self, answer: Outcome | RedBrickAPIError) -> None:
        """Take the answer to an attempt."""
        if isinstance(answer, Outcome):
            self.outcome = answer
            return
        self.errors.append(answer)
        if not answer.maybe_applied:
            self.outcome = self.mutation.failure(answer)

    def looked(self, seen: Outcome | RedBrickAPIError | None) -> None:
        """Take what was seen after an attempt."""
        if isinstance(seen, RedBrickAPIError):
            undecided = self.mutation.failure(
                f"{self.errors[-1]} Whether it was applied is not known: the task could not be read afterwards "
                f"({seen}). The next try reads it first."
            )
            self.outcome = replace(undecided, status=Status.UNKNOWN)
        else:
            self.outcome = seen

    def given_up(self) -> Outcome:
        """Return the outcome after the last attempt."""
        reason = f"{self.errors[-1]} {self.mutation.unapplied}; given up after {ATTEMPTS} attempts."
        return self.mutation.failure(reason)


def _settle(project: RedBrickProject, doubts: Sequence[_Doubt], sleep: Callable[[float], None]) -> None:
    """Look until all doubts have an outcome, or long enough to say that they were not applied."""
    for number, pause in enumerate(SETTLE):
        # One look is enough after a refusal: nothing is under way any more.
        looking = [doubt for doubt in doubts if doubt.outcome is None and not (doubt.is_final and number)]
        if not looking:
            break
        sleep(pause)
        asked = [(doubt.mutation, doubt.errors) for doubt in looking]
        seen = _tried(partial(type(asked[0][0]).look_all, project, asked))
        for i, doubt in enumerate(looking):
            doubt.looked(seen if isinstance(seen, RedBrickAPIError) else seen[i])
    for doubt in doubts:
        if doubt.outcome is None and doubt.is_final:
            doubt.outcome = doubt.mutation.failure(doubt.errors[-1])


def _bundles(mutations: Sequence[Mutation], size: int) -> Iterator[list[Mutation]]:
    """Yield what goes together: mutations of one kind, no more than so many, or one that goes alone."""
    for bundled, group in groupby(mutations, key=lambda one: one.bundled):
        yield from in_chunks(group, size if bundled else 1)


def _send(project: RedBrickProject, calls: Sequence[Call]) -> list[RedBrickAPIError | None]:
    """Send calls in one request, or in smaller ones when that is too much; return what is wrong with each."""
    bundle = project.client.bundle
    try:
        answers = project.send(calls)
    except (RedBrickPayloadTooLargeError, RedBrickRefusedError) as error:
        # Nothing was applied. A refusal of the request as a whole may be about one of them.
        if isinstance(error, RedBrickPayloadTooLargeError):
            bundle.was_too_much(len(calls))
        if len(calls) == 1 or error.maybe_applied:
            return [error] * len(calls)
        middle = len(calls) // 2
        return _send(project, calls[:middle]) + _send(project, calls[middle:])
    except (RedBrickServerError, RedBrickConnectionError, RedBrickAnswerError) as error:
        bundle.was_too_much(len(calls))
        return [error] * len(calls)
    except RedBrickAPIError as error:
        return [error] * len(calls)
    bundle.went_well(len(calls))
    return answers


def _shows(change: Change, found: Task | RedBrickAPIError) -> bool:
    return not isinstance(found, RedBrickAPIError) and change.applied(found)


def _each_alone(project: RedBrickProject, mutations: Sequence[Mutation]) -> list[Outcome | RedBrickAPIError]:
    return [_tried(partial(one.attempt, project)) for one in mutations]


def _tried(action: Callable[[], Any]) -> Any:
    """Return what an action returns, or the error of the API that it raised."""
    try:
        return action()
    except RedBrickAPIError as error:
        return error
