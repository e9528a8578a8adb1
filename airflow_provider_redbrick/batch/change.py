"""What is to be applied to one task, and how it can be seen whether it was."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_redbrick.batch.outcome import Outcome, done, failed, skipped
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

    from airflow_provider_redbrick.api.calls import Call
    from airflow_provider_redbrick.api.models import OutputEvent, Task
    from airflow_provider_redbrick.api.project import RedBrickProject


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
        return each_alone(project, mutations)

    @classmethod
    def look_all(
        cls, project: RedBrickProject, doubts: Sequence[tuple[Any, Sequence[RedBrickAPIError]]]
    ) -> list[Outcome | RedBrickAPIError | None]:
        """Look at each, with what came of it so far; return for each what was seen, or why nothing could be."""
        return [tried(partial(one.look, project, errors)) for one, errors in doubts]


@dataclass(frozen=True)
class Change(Mutation):
    """A mutation to apply to a task that was read before, and tells by itself whether it was applied.

    :param task: the task as it was read.
    :param call: makes the mutation ready to be sent; files are stored on the way.
    :param applied: whether the task, read again, shows that the mutation was applied.
    :param overtaken: whether the task, read again, shows that somebody else changed the same since.
    :param leaves: the stage that the mutation takes the task out of, if it does: somebody else can do that too, and a
        reviewer may have sent it back already.
    :param verdict: for a review, what it decides: another run with this key can decide the opposite.
    :param detail: what the report says of a task that was changed.
    """

    bundled: ClassVar[bool] = True

    task: Task
    call: Callable[[], Call]
    applied: Callable[[Task], bool]
    overtaken: Callable[[Task], bool] | None = None
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
        made: list[Call | RedBrickAPIError] = [tried(change.call) for change in mutations]
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
        leaving = [
            change.task.task_id
            for change, _ in doubts
            if change.leaves is not None and not isinstance(found[change.task.task_id], RedBrickAPIError)
        ]
        events = project.output_events(leaving) if leaving else {}
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
            return self._seen_here(found, events, errors, me=me)
        if self._is_ours(events, me):
            return self.success()
        reason = f"it was moved on in the meantime, not by this try. {errors[-1]}"
        return skipped(self.task.task_id, reason, name=self.task.name)

    def _seen_here(
        self,
        found: Task,
        events: Sequence[OutputEvent] | RedBrickAPIError | None,
        errors: Sequence[RedBrickAPIError],
        *,
        me: Callable[[], str],
    ) -> Outcome | RedBrickAPIError | None:
        """Return what a task that is where it was says of the change; None when it is unchanged."""
        if isinstance(events, RedBrickAPIError):
            return events
        if self.overtaken is not None and self.overtaken(found):
            reason = f"somebody else changed it in the meantime, and that was left alone. {errors[-1]}"
            return skipped(self.task.task_id, reason, name=self.task.name)
        # It may have left and been sent back since. Both times are the server's.
        since = self.task.updated_at
        mine = (event for event in self._left(events or ()) if event.by == me() and self._decides(event))
        came_back = since is not None and any(event.at is not None and event.at > since for event in mine)
        return self.success() if came_back else None

    def _left(self, events: Sequence[OutputEvent]) -> list[OutputEvent]:
        """Return the events that took the task out of the stage that this change takes it out of."""
        return [event for event in events if self.leaves is not None and event.leaves(self.leaves)]

    def _decides(self, event: OutputEvent) -> bool:
        """Whether an event is of the same verdict, as far as either has one."""
        return None in {self.verdict, event.accepted} or event.accepted == self.verdict

    def _is_ours(self, events: Sequence[OutputEvent] | RedBrickAPIError | None, me: Callable[[], str]) -> bool:
        """Whether it was this key that took the task out of its stage; events that cannot be read do not deny it."""
        if events is None or isinstance(events, RedBrickAPIError):
            return True
        left = self._left(events)
        if not left:
            return True
        return left[-1].by == me() and self._decides(left[-1])


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


def each_alone(project: RedBrickProject, mutations: Sequence[Mutation]) -> list[Outcome | RedBrickAPIError]:
    """Send each in a request of its own; return for each what came of it."""
    return [tried(partial(one.attempt, project)) for one in mutations]


def tried(action: Callable[[], Any]) -> Any:
    """Return what an action returns, or the error of the API that it raised."""
    try:
        return action()
    except RedBrickAPIError as error:
        return error
