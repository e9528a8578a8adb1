"""Review tasks: accept, reject, correct, or leave them to people.

The decision comes from a callable that receives each task, or from a mapping. A correction puts new labels on the task
and accepts it in one mutation; its labels are validated like those of a prediction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.actions.decision import Review
from airflow_provider_redbrick.actions.decisions import Decisions, LabeledAnswer, copy_labels
from airflow_provider_redbrick.actions.put_labels import exit_change, label_writer
from airflow_provider_redbrick.annotations.conversion import Labels, read_body
from airflow_provider_redbrick.client.models.task import Task
from airflow_provider_redbrick.engine.concurrency import MainThreadExecutor, call
from airflow_provider_redbrick.engine.outcomes import Outcome, skipped
from airflow_provider_redbrick.engine.task_reader import with_series_labels

if TYPE_CHECKING:
    from airflow_provider_redbrick.actions.stage_pipeline import StagePipeline
    from airflow_provider_redbrick.client.transport.graphql import Call
    from airflow_provider_redbrick.engine.mutations import Change

WHAT = "The correction"
Reviewer = Callable[[Task], Any]


def review(pipeline: StagePipeline, task_ids: Iterable[str], reviewer: Reviewer) -> Iterator[Outcome]:
    """Review tasks with a callable.

    :param pipeline: the pipeline of the review stage.
    :param task_ids: ids of the tasks.
    :param reviewer: returns a :class:`Review`, True to accept, or False to reject.
    :return: one outcome per task.
    """
    executor = MainThreadExecutor()

    def decide(task: Task) -> Change | Outcome | LabeledAnswer:
        def take(answer: object) -> tuple[Review, Labels | None]:
            decision = Review.read(answer)
            if decision.decision != "correct":
                return decision, None
            labels = _corrected(task, decision)
            return decision, copy_labels(labels, pipeline.converter.open_file, what=WHAT, source="reviewer")

        (decision, labels), elapsed_ms = call(
            reviewer, with_series_labels(pipeline.project, task), what="reviewer", take=take
        )
        return _to_step(pipeline, task, decision, elapsed_ms, labels)

    decisions = Decisions(
        decide, pipeline.converter, label_writer(pipeline, finished=True), what=WHAT, executor=executor
    )
    return pipeline.in_parallel(task_ids, lambda ids: pipeline.run(ids, decisions.on), executor=executor)


def apply_reviews(pipeline: StagePipeline, decisions: Mapping[str, Review]) -> Iterator[Outcome]:
    """Review tasks with decisions made beforehand.

    :param pipeline: the pipeline of the review stage.
    :param decisions: a decision by task id.
    :return: one outcome per task.
    """
    prepared = Decisions(
        lambda task: _to_step(pipeline, task, decisions[task.task_id], 0),
        pipeline.converter,
        label_writer(pipeline, finished=True),
        what=WHAT,
    )
    return pipeline.in_parallel(decisions, lambda ids: pipeline.run(ids, prepared.on))


def _corrected(task: Task, decision: Review) -> Labels:
    """Return the labels of a correction."""
    body = read_body({"series": decision.series, "classification": decision.classification})
    return Labels(task.task_id, body, task.mask_paths)


def _to_step(
    pipeline: StagePipeline, task: Task, decision: Review, elapsed_ms: int, labels: Labels | None = None
) -> Change | Outcome | LabeledAnswer:
    if decision.decision == "leave":
        return skipped(task.task_id, "the reviewer left it to people", name=task.name)
    if decision.decision == "correct":
        return LabeledAnswer(labels or _corrected(task, decision), elapsed_ms)
    return _verdict_change(pipeline, task, decision, elapsed_ms)


def _verdict_change(pipeline: StagePipeline, task: Task, decision: Review, elapsed_ms: int) -> Change:
    accept = decision.decision == "accept"

    def call() -> Call:
        return pipeline.project.review(
            pipeline.stage, task.task_id, accept=accept, comment=decision.comment, elapsed_ms=elapsed_ms
        )

    comment = {"comment": decision.comment} if decision.comment else {}
    return exit_change(pipeline, task, call, verdict=accept, detail={"decision": decision.decision, **comment})
