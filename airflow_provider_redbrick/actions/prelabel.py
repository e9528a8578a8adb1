"""Label tasks with a model: in a stage, anywhere, or in a remote-labeling stage.

``write`` decides what happens to a prediction in a stage: ``submit`` moves the task on, ``draft`` keeps it with the
key, and ``draft_and_release`` unassigns it so that people find the draft. Saved drafts are released even if the run is
stopped. A task that a reviewer returned to the key is skipped, since the same prediction would not help.

With ``anywhere``, tasks are not claimed, so a person may label one while the model runs. Two rules protect that work:

1. A task that a person holds is skipped unless ``take_from_people`` is set.
2. A task that was read too long ago is read again before its labels are sent. It is skipped if its labels have changed,
   and checked again if it moved or was assigned.

A remote-labeling stage: the API returns its first N tasks and has no cursor. Submitted tasks leave the stage, skipped
ones stay in front. The listing therefore asks for one page more whenever an answer contains nothing new.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from threading import Event
from typing import TYPE_CHECKING, Any, NoReturn

from airflow_provider_redbrick._utils import in_chunks
from airflow_provider_redbrick.actions.decisions import Decisions, LabeledAnswer, act, copy_labels
from airflow_provider_redbrick.actions.put_labels import (
    content_check,
    exit_change,
    find_mismatch,
    label_storer,
    label_writer,
    relabel_change,
)
from airflow_provider_redbrick.annotations.conversion import Labels, read_body
from airflow_provider_redbrick.assignments.settlement import settled
from airflow_provider_redbrick.client.models.task import Detail, Task
from airflow_provider_redbrick.client.models.workflow import ARCHIVED
from airflow_provider_redbrick.engine.concurrency import MainThreadExecutor, call, in_parallel
from airflow_provider_redbrick.engine.ledger import Ledger, ledger_of
from airflow_provider_redbrick.engine.mutations import Change
from airflow_provider_redbrick.engine.outcomes import (
    Outcome,
    already_done,
    existing_labels_outcome,
    failed,
    failed_read,
    skipped,
)
from airflow_provider_redbrick.engine.task_reader import (
    CHUNK,
    CircuitBreaker,
    TaskBatch,
    is_fresh,
    read_batch,
    read_in_chunks,
    with_series_labels,
)
from airflow_provider_redbrick.exceptions import RedBrickAPIError, RedBrickInputError, RedBrickRefusedError
from airflow_provider_redbrick.labels.legacy import label_inputs
from airflow_provider_redbrick.labels.validation import misplaced, series_items

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import pendulum

    from airflow_provider_redbrick.actions.decisions import Put, Step
    from airflow_provider_redbrick.actions.stage_pipeline import StagePipeline
    from airflow_provider_redbrick.annotations.conversion import Converted, Converter
    from airflow_provider_redbrick.annotations.masks import OpenFile
    from airflow_provider_redbrick.client.operations.project import RedBrickProject
    from airflow_provider_redbrick.client.operations.remote_labeling import RemoteStage
    from airflow_provider_redbrick.client.transport.graphql import Call

log = logging.getLogger(__name__)


WRITES = ("submit", "draft", "draft_and_release", "anywhere")
WHAT = "The prediction"

Labeler = Callable[[Task], Any]


def prelabel(
    pipeline: StagePipeline, task_ids: Iterable[str], labeler: Labeler, *, write: str, put: Put | None = None
) -> Iterator[Outcome]:
    """Label tasks of a stage with a model, and submit or save them.

    :param pipeline: the pipeline of the stage.
    :param task_ids: ids of the tasks.
    :param labeler: returns the labels of a task, or None to skip the task.
    :param write: ``submit``, ``draft``, or ``draft_and_release`` in a pipeline that releases after saving.
    :param put: returns the change that puts labels on a task, for stages with their own mutation.
    :return: one outcome per task.
    """
    executor = MainThreadExecutor()
    decisions = Decisions(
        lambda task: _predict_unless_rejected(pipeline, task, labeler),
        pipeline.converter,
        put or label_writer(pipeline, finished=write == "submit"),
        what=WHAT,
        executor=executor,
    )

    return pipeline.in_parallel(task_ids, lambda ids: pipeline.run(ids, decisions.on), executor=executor)


def predict(project: RedBrickProject, task: Task, labeler: Labeler, open_file: OpenFile) -> Outcome | LabeledAnswer:
    """Call a labeler for a task and validate its answer.

    :param project: the project of the task.
    :param task: a task read with ``Detail.FULL``.
    :param labeler: returns labels, or None to skip the task.
    :param open_file: opens the mask files that the answer names.
    :return: the labels, or the outcome of a skipped task.
    """

    def take(answer: object) -> Labels | None:
        if answer is None:
            return None
        labels = Labels(task.task_id, read_body(answer, task.task_id), task.mask_paths)
        return copy_labels(labels, open_file, what=WHAT, source="labeler")

    labels, elapsed_ms = call(labeler, with_series_labels(project, task), what="labeler", take=take)
    if labels is None:
        return skipped(task.task_id, "the labeler returned no labels", name=task.name)
    return LabeledAnswer(labels, elapsed_ms)


def _predict_unless_rejected(pipeline: StagePipeline, task: Task, labeler: Labeler) -> Outcome | LabeledAnswer:
    # Applies only to tasks that the operator chose itself. Tasks given by id are always labeled.
    if pipeline.resumable_task_ids is not None and pipeline.was_rejected_to_key(task):
        reason = "a reviewer returned it to this key with the key's own labels; a person should check it"
        return skipped(task.task_id, reason, name=task.name)
    return predict(pipeline.project, task, labeler, pipeline.converter.open_file)


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
    ledger: Ledger = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "me", self.project.client.me())
        object.__setattr__(self, "ledger", ledger_of(self.project.client))

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
        outcomes = in_parallel(chunks, partial(self._on, decisions), workers=workers, stop=self.stop, executor=executor)
        return settled(self.project, outcomes, self.ledger, stop=self.stop)

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
        yield from act(self.project, batches, ledger=self.ledger, stop=self.stop)

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

        return relabel_change(
            task, call, me=self.me, has_content=content_check(converted, task), detail=converted.detail
        )


def list_waiting(remote: RemoteStage, *, limit: int | None, page_size: int) -> Iterator[str]:
    """Yield the ids of the tasks waiting in the stage, each once.

    :param remote: the stage.
    :param limit: maximum number of tasks; None for all.
    :param page_size: number of tasks by which a request grows.
    :raises RedBrickRefusedError: if the first request is refused. A later refusal ends the listing with a warning.
    """
    seen: set[str] = set()
    requested = page_size if limit is None else min(limit, page_size)
    while limit is None or len(seen) < limit:
        try:
            found = remote.first(requested)
        except RedBrickRefusedError as error:
            if not seen:
                raise
            log.warning(
                "RedBrick refused to list more of stage %r after %d tasks. The others are left for another run: %s",
                remote.name,
                len(seen),
                error,
            )
            return
        answer = dict.fromkeys(found)
        new_ids = [task_id for task_id in answer if task_id not in seen]
        new_ids = new_ids if limit is None else new_ids[: limit - len(seen)]
        if not new_ids and len(answer) < requested:
            return
        requested += 0 if new_ids else page_size
        seen.update(new_ids)
        yield from new_ids


def refuse_mask(path: str) -> NoReturn:
    """Refuse to open a mask file.

    :param path: the mask file, for the message.
    :raises RedBrickInputError: always.
    """
    raise RedBrickInputError(f"masks have no place in a remote-labeling stage ({path!r})")


def remote_label_writer(pipeline: StagePipeline, remote: RemoteStage) -> Put:
    """Return a function that creates the change which submits a task with labels.

    :param pipeline: the pipeline of the stage.
    :param remote: the remote-labeling stage.
    """
    output = remote.output

    def put(task: Task, converted: Converted, _elapsed_ms: int) -> Step:
        problem = "its masks have no place in a remote-labeling stage" if converted.masks else None
        problem = problem or misplaced(
            converted.references, series_items(task.series_info or (), task.items or ()), task.items or ()
        )
        try:
            labels = label_inputs(converted.labels, output)
        except RedBrickInputError as error:
            problem = problem or str(error)
        if problem:
            return failed(task.task_id, f"The prediction cannot be sent: {problem}. Nothing was sent.", name=task.name)
        return exit_change(pipeline, task, lambda: remote.submit(task, labels), detail=converted.detail)

    return put
