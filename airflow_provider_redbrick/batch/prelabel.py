"""Label tasks with a model: in a stage, anywhere, or in a remote-labeling stage.

``write`` decides what happens to a prediction in a stage: ``submit`` moves the task on, ``draft`` keeps it with the
key, and ``draft_and_release`` unassigns it so that people find the draft. Saved drafts are released even if the run is
stopped. A task that a reviewer returned to the key is skipped, since the same prediction would not help.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.api.models import Task
from airflow_provider_redbrick.batch.calling import call, with_series_labels
from airflow_provider_redbrick.batch.claiming import release
from airflow_provider_redbrick.batch.converting import Labels, read_body
from airflow_provider_redbrick.batch.deciding import Decisions, LabeledAnswer, copy_labels
from airflow_provider_redbrick.batch.labelling import label_writer
from airflow_provider_redbrick.batch.outcome import Outcome, failed, skipped
from airflow_provider_redbrick.batch.parallel import MainThreadExecutor

if TYPE_CHECKING:
    from airflow_provider_redbrick.api.project import RedBrickProject
    from airflow_provider_redbrick.batch.deciding import Put
    from airflow_provider_redbrick.batch.masks import OpenFile
    from airflow_provider_redbrick.batch.stage_work import StagePipeline

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
    :param write: ``submit``, ``draft`` or ``draft_and_release``.
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

    def on(ids: Sequence[str]) -> Iterator[Outcome]:
        outcomes = pipeline.run(ids, decisions.on)
        return _released_after_save(pipeline, outcomes) if write == "draft_and_release" else outcomes

    return pipeline.in_parallel(task_ids, on, executor=executor)


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


def _released_after_save(pipeline: StagePipeline, outcomes: Iterator[Outcome]) -> Iterator[Outcome]:
    """Pass on outcomes; release saved drafts before theirs."""
    saved: list[Outcome] = []
    try:
        for outcome in outcomes:
            if not outcome.status.is_done:
                yield outcome
                continue
            saved.append(outcome)
        yield from _release_drafts(pipeline, saved)
        saved = []
    finally:
        # If the run was killed or timed out, people must still be able to take the saved drafts.
        if saved:
            list(_release_drafts(pipeline, saved))


def _release_drafts(pipeline: StagePipeline, saved: Sequence[Outcome]) -> Iterator[Outcome]:
    """Release tasks with saved drafts to people."""
    if not saved:
        return
    problems = release(pipeline.project, [outcome.task_id for outcome in saved], me=pipeline.me)
    for outcome in saved:
        problem = problems[outcome.task_id]
        if problem is None:
            yield outcome
        else:
            reason = (
                f"Its draft is saved, but it could not be released to people: {problem}. The next attempt releases it."
            )
            yield failed(outcome.task_id, reason, name=outcome.name)
