"""Decisions on tasks in a review stage."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.api.models import Task
from airflow_provider_redbrick.batch.calling import call, handed
from airflow_provider_redbrick.batch.converting import Labels, read_body
from airflow_provider_redbrick.batch.deciding import Decisions, Labelled, own_copy
from airflow_provider_redbrick.batch.labelling import leaving, putting
from airflow_provider_redbrick.batch.outcome import Outcome, skipped
from airflow_provider_redbrick.batch.parallel import Desk
from airflow_provider_redbrick.batch.verdict import Review

if TYPE_CHECKING:
    from airflow_provider_redbrick.api.calls import Call
    from airflow_provider_redbrick.batch.change import Change
    from airflow_provider_redbrick.batch.stage_work import StageWork

WHAT = "The correction"
Reviewer = Callable[[Task], Any]


def review(work: StageWork, task_ids: Iterable[str], reviewer: Reviewer) -> Iterator[Outcome]:
    """Review tasks as ``reviewer`` decides; yields one outcome a task."""
    desk = Desk()

    def decide(task: Task) -> Change | Outcome | Labelled:
        def take(answer: object) -> tuple[Review, Labels | None]:
            decision = Review.read(answer)
            if decision.decision != "correct":
                return decision, None
            labels = _corrected(task, decision)
            return decision, own_copy(labels, work.converter.open_file, what=WHAT, giver="reviewer")

        (decision, labels), elapsed_ms = call(reviewer, handed(work.project, task), what="reviewer", take=take)
        return _acted_on(work, task, decision, elapsed_ms, labels)

    decisions = Decisions(decide, work.converter, putting(work, finished=True), what=WHAT, desk=desk)
    return work.in_parallel(task_ids, lambda ids: work.run(ids, decisions.on), desk=desk)


def review_as_told(work: StageWork, decisions: Mapping[str, Review]) -> Iterator[Outcome]:
    """Review tasks as decided beforehand, by their ids; yields one outcome a task."""
    told = Decisions(
        lambda task: _acted_on(work, task, decisions[task.task_id], 0),
        work.converter,
        putting(work, finished=True),
        what=WHAT,
    )
    return work.in_parallel(decisions, lambda ids: work.run(ids, told.on))


def _corrected(task: Task, decision: Review) -> Labels:
    """Return the labels of a correction."""
    body = read_body({"series": decision.series, "classification": decision.classification})
    return Labels(task.task_id, body, task.mask_paths)


def _acted_on(
    work: StageWork, task: Task, decision: Review, elapsed_ms: int, labels: Labels | None = None
) -> Change | Outcome | Labelled:
    if decision.decision == "leave":
        return skipped(task.task_id, "the reviewer left it to people", name=task.name)
    if decision.decision == "correct":
        return Labelled(labels or _corrected(task, decision), elapsed_ms)
    return _verdict(work, task, decision, elapsed_ms)


def _verdict(work: StageWork, task: Task, decision: Review, elapsed_ms: int) -> Change:
    accept = decision.decision == "accept"

    def call() -> Call:
        return work.project.review(
            work.stage, task.task_id, accept=accept, comment=decision.comment, elapsed_ms=elapsed_ms
        )

    said = {"comment": decision.comment} if decision.comment else {}
    return leaving(work, task, call, verdict=accept, detail={"decision": decision.decision, **said})
