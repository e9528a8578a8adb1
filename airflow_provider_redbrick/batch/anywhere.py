"""Model predictions onto tasks wherever they are: nothing is claimed, and no task moves."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from threading import Event
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.api.chunks import in_chunks
from airflow_provider_redbrick.api.detail import Detail
from airflow_provider_redbrick.api.stage_names import ARCHIVED
from airflow_provider_redbrick.batch.change import Change
from airflow_provider_redbrick.batch.deciding import Decisions, act
from airflow_provider_redbrick.batch.labelling import carrier, misfit, relabelling
from airflow_provider_redbrick.batch.outcome import Outcome, already_done, failed, labelled, skipped, unread
from airflow_provider_redbrick.batch.parallel import Desk, in_parallel
from airflow_provider_redbrick.batch.prelabel import WHAT, predict
from airflow_provider_redbrick.batch.reading import CHUNK, CircuitBreaker, Found, is_fresh, look, read_in_chunks
from airflow_provider_redbrick.exceptions import RedBrickAPIError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import pendulum

    from airflow_provider_redbrick.api.calls import Call
    from airflow_provider_redbrick.api.models import Task
    from airflow_provider_redbrick.api.project import RedBrickProject
    from airflow_provider_redbrick.batch.converting import Converted, Converter
    from airflow_provider_redbrick.batch.deciding import Step
    from airflow_provider_redbrick.batch.prelabel import Labeler


@dataclass(frozen=True)
class Overwriting:
    """Replaces the labels of tasks where they are.

    :param extra: what the audit trail keeps with each write.
    :param since: on a retry, when the first try began: labels this key saved since then are an earlier try's.
    :param only_unlabelled: leave tasks alone that have labels.
    :param take_from_people: also replace the labels of tasks that a person holds.
    """

    project: RedBrickProject
    converter: Converter
    extra: Mapping[str, Any]
    since: pendulum.DateTime | None = None
    only_unlabelled: bool = False
    take_from_people: bool = False
    breaker: CircuitBreaker = field(default_factory=CircuitBreaker)
    stop: Event = field(default_factory=Event)
    me: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "me", self.project.client.me())

    def run(self, task_ids: Iterable[str], labeler: Labeler) -> Iterator[Outcome]:
        """Label tasks with a model and yield the outcome of each, exactly one a task."""
        desk = Desk()
        decisions = Decisions(
            lambda task: predict(self.project, task, labeler, self.converter.open_file),
            self.converter,
            self._put,
            what=WHAT,
            desk=desk,
        )
        chunks, workers = in_chunks(task_ids, CHUNK), self.project.client.max_concurrency
        return in_parallel(chunks, partial(self._on, decisions), workers=workers, stop=self.stop, desk=desk)

    def _on(self, decisions: Decisions, task_ids: Sequence[str]) -> Iterator[Outcome]:
        (found,) = read_in_chunks(self.project, task_ids, detail=Detail.FULL, breaker=self.breaker)
        tasks: list[Task] = []
        for task_id, task in found.tasks.items():
            if isinstance(task, RedBrickAPIError):
                yield unread(task_id, task)
            elif (ending := self._ending(task)) is not None:
                yield ending
            else:
                tasks.append(task)
        batches = (self._still_as_read(steps, found) for steps in decisions.on(tasks))
        yield from act(self.project, batches, stop=self.stop)

    def _still_as_read(self, steps: Sequence[Step], found: Found) -> Sequence[Step]:
        """Look again at tasks that were read long ago: nothing is claimed here that keeps people from them."""
        if is_fresh(found.read_at):
            return steps
        again = look(self.project, [step.task.task_id for step in steps if isinstance(step, Change)])
        return [self._unless_changed(step, again.tasks) if isinstance(step, Change) else step for step in steps]

    def _unless_changed(self, change: Change, found: Mapping[str, Task | RedBrickAPIError]) -> Step:
        before, now = change.task, found[change.task.task_id]
        if isinstance(now, RedBrickAPIError):
            return failed(before.task_id, f"It could not be read again, and nothing was sent: {now}", name=before.name)
        if now.labels_id != before.labels_id:
            reason = "somebody labelled it while the model was at work"
            return skipped(before.task_id, reason, name=before.name)
        return self._ending(replace(before, stage_name=now.stage_name, assignee=now.assignee)) or change

    def _ending(self, task: Task) -> Outcome | None:
        """Return the outcome of a task that is not to be labelled, None for one that is."""
        if self.since is not None and task.saved_by(self.me) and task.labels_at and task.labels_at >= self.since:
            return already_done(task.task_id, "an earlier try wrote its labels", name=task.name)
        if task.stage_name == ARCHIVED:
            return skipped(task.task_id, "it is archived", name=task.name)
        if self.only_unlabelled and (before := labelled(task, me=self.me)) is not None:
            return before
        if task.assignee is not None and not task.held_by(self.me) and not self.take_from_people:
            return skipped(task.task_id, f"it is {task.where}; take_from_people is off", name=task.name)
        return None

    def _put(self, task: Task, converted: Converted, elapsed_ms: int) -> Step:
        problem = misfit(converted, task)
        if problem is not None:
            return failed(task.task_id, problem, name=task.name)
        carried = carrier(self.project, task, converted)

        def call() -> Call:
            return self.project.put_labels_anywhere(task.task_id, carried(), extra=self.extra, elapsed_ms=elapsed_ms)

        return relabelling(task, call, me=self.me, detail=converted.detail)
