"""Model predictions onto new tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.api.models import Task
from airflow_provider_redbrick.batch.calling import call, handed
from airflow_provider_redbrick.batch.claiming import release
from airflow_provider_redbrick.batch.converting import Labels, read_body
from airflow_provider_redbrick.batch.deciding import Decisions, Labelled, own_copy
from airflow_provider_redbrick.batch.labelling import putting
from airflow_provider_redbrick.batch.outcome import Outcome, failed, skipped
from airflow_provider_redbrick.batch.parallel import Desk

if TYPE_CHECKING:
    from airflow_provider_redbrick.api.project import RedBrickProject
    from airflow_provider_redbrick.batch.deciding import Put
    from airflow_provider_redbrick.batch.masks import OpenFile
    from airflow_provider_redbrick.batch.stage_work import StageWork

WRITES = ("submit", "draft", "draft_and_release", "anywhere")
WHAT = "The prediction"

Labeler = Callable[[Task], Any]


def prelabel(
    work: StageWork, task_ids: Iterable[str], labeler: Labeler, *, write: str, put: Put | None = None
) -> Iterator[Outcome]:
    """Label tasks with a model and submit them, save drafts, or save drafts and hand them to people.

    :param labeler: from a task to its labels, or None to leave it alone.
    :param write: ``submit``, ``draft`` or ``draft_and_release``.
    :param put: how labels get onto a task, where the stage has a way of its own.
    """
    desk = Desk()
    decisions = Decisions(
        lambda task: _predict_unless_back(work, task, labeler),
        work.converter,
        put or putting(work, finished=write == "submit"),
        what=WHAT,
        desk=desk,
    )

    def on(ids: Sequence[str]) -> Iterator[Outcome]:
        outcomes = work.run(ids, decisions.on)
        return _handed_over(work, outcomes) if write == "draft_and_release" else outcomes

    return work.in_parallel(task_ids, on, desk=desk)


def predict(project: RedBrickProject, task: Task, labeler: Labeler, open_file: OpenFile) -> Outcome | Labelled:
    """Ask a labeler about a task read in full.

    :param open_file: finds the mask files that its answer names.
    """

    def take(answer: object) -> Labels | None:
        if answer is None:
            return None
        labels = Labels(task.task_id, read_body(answer, task.task_id), task.mask_paths)
        return own_copy(labels, open_file, what=WHAT, giver="labeler")

    labels, elapsed_ms = call(labeler, handed(project, task), what="labeler", take=take)
    if labels is None:
        return skipped(task.task_id, "the labeler left it alone", name=task.name)
    return Labelled(labels, elapsed_ms)


def _predict_unless_back(work: StageWork, task: Task, labeler: Labeler) -> Outcome | Labelled:
    # Only of tasks the operator chose itself; ids that were given are labelled as told.
    if work.may_hold is not None and work.came_back(task):
        # This key labelled it before and a reviewer sent it back: labelling it again changes nothing.
        reason = "it came back to this key with the key's own labels; a person should look at it"
        return skipped(task.task_id, reason, name=task.name)
    return predict(work.project, task, labeler, work.converter.open_file)


def _handed_over(work: StageWork, outcomes: Iterator[Outcome]) -> Iterator[Outcome]:
    """Pass outcomes on, those of saved drafts once their tasks are released to people."""
    saved: list[Outcome] = []
    try:
        for outcome in outcomes:
            if not outcome.status.is_done:
                yield outcome
                continue
            saved.append(outcome)
        yield from _hand_over(work, saved)
        saved = []
    finally:
        # Killed or timed out: the drafts are there, and people must be able to take them.
        if saved:
            list(_hand_over(work, saved))


def _hand_over(work: StageWork, saved: Sequence[Outcome]) -> Iterator[Outcome]:
    """Release tasks whose drafts are saved, so that people can pick them up."""
    if not saved:
        return
    problems = release(work.project, [outcome.task_id for outcome in saved], me=work.me)
    for outcome in saved:
        problem = problems[outcome.task_id]
        if problem is None:
            yield outcome
        else:
            reason = f"Its draft is saved, but it could not be released to people: {problem}. The next try releases it."
            yield failed(outcome.task_id, reason, name=outcome.name)
