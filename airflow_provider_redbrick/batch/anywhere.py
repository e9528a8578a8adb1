"""Label tasks in any stage, without claiming or moving them.

Tasks are not claimed, so a person may label one while the model runs. Two rules protect that work:

1. A task that a person holds is skipped unless ``take_from_people`` is set.
2. A task that was read too long ago is read again before its labels are sent. It is skipped if its labels have changed,
   and checked again if it moved or was assigned.
"""

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
from airflow_provider_redbrick.batch.labelling import find_mismatch, label_storer, relabel_change
from airflow_provider_redbrick.batch.outcome import (
    Outcome,
    already_done,
    existing_labels_outcome,
    failed,
    failed_read,
    skipped,
)
from airflow_provider_redbrick.batch.parallel import MainThreadExecutor, in_parallel
from airflow_provider_redbrick.batch.prelabel import WHAT, predict
from airflow_provider_redbrick.batch.reading import (
    CHUNK,
    CircuitBreaker,
    TaskBatch,
    is_fresh,
    read_batch,
    read_in_chunks,
)
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
class LabelOverwriter:
    """Replace the labels of tasks in their current stage.

    :param project: the project of the tasks.
    :param converter: converts labels to the form that is sent.
    :param extra: values that RedBrick's audit trail keeps with each write.
    :param first_attempt_at: on a retry, when the first attempt began. Labels that this key saved since then are an
        earlier attempt's.
    :param only_unlabeled: skip tasks that have labels.
    :param take_from_people: also replace the labels of tasks that a person holds.
    :param breaker: stops requests to a server that does not answer.
    :param stop: once set, nothing more is sent.
    """

    project: RedBrickProject
    converter: Converter
    extra: Mapping[str, Any]
    first_attempt_at: pendulum.DateTime | None = None
    only_unlabeled: bool = False
    take_from_people: bool = False
    breaker: CircuitBreaker = field(default_factory=CircuitBreaker)
    stop: Event = field(default_factory=Event)
    me: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "me", self.project.client.me())

    def run(self, task_ids: Iterable[str], labeler: Labeler) -> Iterator[Outcome]:
        """Label tasks with a model; yield exactly one outcome per task.

        :param task_ids: ids of the tasks, in any stage.
        :param labeler: returns the labels of a task, or None to skip the task.
        """
        executor = MainThreadExecutor()
        decisions = Decisions(
            lambda task: predict(self.project, task, labeler, self.converter.open_file),
            self.converter,
            self._put,
            what=WHAT,
            executor=executor,
        )
        chunks, workers = in_chunks(task_ids, CHUNK), self.project.client.max_concurrency
        return in_parallel(chunks, partial(self._on, decisions), workers=workers, stop=self.stop, executor=executor)

    def _on(self, decisions: Decisions, task_ids: Sequence[str]) -> Iterator[Outcome]:
        (found,) = read_in_chunks(self.project, task_ids, detail=Detail.FULL, breaker=self.breaker)
        tasks: list[Task] = []
        for task_id, task in found.tasks.items():
            if isinstance(task, RedBrickAPIError):
                yield failed_read(task_id, task)
            elif (outcome := self._outcome_without_write(task)) is not None:
                yield outcome
            else:
                tasks.append(task)
        batches = (self._still_as_read(steps, found) for steps in decisions.on(tasks))
        yield from act(self.project, batches, stop=self.stop)

    def _still_as_read(self, steps: Sequence[Step], found: TaskBatch) -> Sequence[Step]:
        """Replace changes of tasks that others have changed since they were read."""
        if is_fresh(found.read_at):
            return steps
        again = read_batch(self.project, [step.task.task_id for step in steps if isinstance(step, Change)])
        return [self._unless_changed(step, again.tasks) if isinstance(step, Change) else step for step in steps]

    def _unless_changed(self, change: Change, found: Mapping[str, Task | RedBrickAPIError]) -> Step:
        before, now = change.task, found[change.task.task_id]
        if isinstance(now, RedBrickAPIError):
            return failed(
                before.task_id, f"It could not be read again before sending. Nothing was sent: {now}", name=before.name
            )
        if now.labels_id != before.labels_id:
            reason = "its labels changed while the model was running"
            return skipped(before.task_id, reason, name=before.name)
        return self._outcome_without_write(replace(before, stage_name=now.stage_name, assignee=now.assignee)) or change

    def _outcome_without_write(self, task: Task) -> Outcome | None:
        """Return the outcome of a task that must not be labeled, or None."""
        if (
            self.first_attempt_at is not None
            and task.saved_by(self.me)
            and task.labels_at
            and task.labels_at >= self.first_attempt_at
        ):
            return already_done(task.task_id, "an earlier attempt wrote its labels", name=task.name)
        if task.stage_name == ARCHIVED:
            return skipped(task.task_id, "it is archived", name=task.name)
        if self.only_unlabeled and (before := existing_labels_outcome(task, me=self.me)) is not None:
            return before
        if task.assignee is not None and not task.held_by(self.me) and not self.take_from_people:
            return skipped(task.task_id, f"it is {task.where}; take_from_people is off", name=task.name)
        return None

    def _put(self, task: Task, converted: Converted, elapsed_ms: int) -> Step:
        problem = find_mismatch(converted, task)
        if problem is not None:
            return failed(task.task_id, problem, name=task.name)
        stored_labels = label_storer(self.project, task, converted)

        def call() -> Call:
            return self.project.put_labels_anywhere(
                task.task_id, stored_labels(), extra=self.extra, elapsed_ms=elapsed_ms
            )

        return relabel_change(task, call, me=self.me, detail=converted.detail)
