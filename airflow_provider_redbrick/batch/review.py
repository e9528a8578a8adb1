"""Decisions on tasks in a review stage."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.api.models import Task
from airflow_provider_redbrick.batch.calling import call, handed
from airflow_provider_redbrick.batch.converting import Labels, read_body
from airflow_provider_redbrick.batch.deciding import Decisions, Labelled
from airflow_provider_redbrick.batch.labelling import leaving, putting
from airflow_provider_redbrick.batch.outcome import Outcome, skipped
from airflow_provider_redbrick.batch.parallel import Desk
from airflow_provider_redbrick.exceptions import RedBrickInputError, told

if TYPE_CHECKING:
    from airflow_provider_redbrick.api.calls import Call
    from airflow_provider_redbrick.batch.change import Change
    from airflow_provider_redbrick.batch.stage_work import StageWork

WHAT = "The correction"
DECISIONS = ("accept", "reject", "correct", "leave")


@dataclass(frozen=True)
class Review:
    """A reviewer's decision on one task.

    ``accept`` and ``reject`` leave the labels as they are; ``correct`` replaces them with ``series`` and
    ``classification`` and accepts; ``leave`` leaves the task for people.

    :param comment: shown to the labeler; the API takes none with a correction.
    :raises RedBrickInputError: when the parts contradict each other: a decision must not turn into another one.
    """

    decision: str
    comment: str | None = None
    series: Sequence[Mapping[str, Any]] | None = field(default=None, repr=False)
    classification: Mapping[str, Any] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        has_labels = self.series is not None or self.classification is not None
        if not isinstance(self.decision, str) or self.decision not in DECISIONS:
            raise RedBrickInputError(f"a review must be one of {', '.join(DECISIONS)}, not {told(self.decision)}")
        if self.comment is not None and not isinstance(self.comment, str):
            raise RedBrickInputError(f"the comment of a review must be text, not {told(self.comment)}")
        if self.decision == "correct" and not has_labels:
            raise RedBrickInputError("a correction needs the corrected series or classification")
        if self.decision == "correct" and self.comment:
            raise RedBrickInputError("the API takes no comment with a correction: it would be lost")
        if self.decision != "correct" and has_labels:
            raise RedBrickInputError(f"{self.decision!r} takes no labels; to replace them use 'correct'")

    @classmethod
    def accept(cls, comment: str | None = None) -> Review:
        """Pass the task on as it is."""
        return cls("accept", comment)

    @classmethod
    def reject(cls, comment: str | None = None) -> Review:
        """Send the task back to its labeler."""
        return cls("reject", comment)

    @classmethod
    def correct(
        cls, series: Sequence[Mapping[str, Any]] | None = None, *, classification: Mapping[str, Any] | None = None
    ) -> Review:
        """Replace the labels and pass the task on."""
        return cls("correct", None, series, classification)

    @classmethod
    def leave(cls) -> Review:
        """Leave the task for people."""
        return cls("leave")

    @classmethod
    def read(cls, answer: object) -> Review:
        """Read what a reviewer returned: a Review, or True to accept, or False to reject.

        :raises RedBrickInputError: for anything else. None is no answer: it is neither accepting nor rejecting.
        """
        if isinstance(answer, Review):
            return answer
        if isinstance(answer, bool):
            return cls("accept" if answer else "reject")
        kind = type(answer)
        hint = "; turn it into one with bool(...)" if kind.__module__ == "numpy" else ""
        name = f"{kind.__module__}.{kind.__name__}".removeprefix("builtins.")
        raise RedBrickInputError(f"the reviewer must return True, False or a Review, not {name}{hint}")


Reviewer = Callable[[Task], Any]


def review(work: StageWork, task_ids: Iterable[str], reviewer: Reviewer) -> Iterator[Outcome]:
    """Review tasks as ``reviewer`` decides; yields one outcome a task."""
    desk = Desk()

    def decide(task: Task) -> Change | Outcome | Labelled:
        answer, elapsed_ms = call(reviewer, handed(work.project, task), what="reviewer")
        return _acted_on(work, task, Review.read(answer), elapsed_ms)

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


def _acted_on(work: StageWork, task: Task, decision: Review, elapsed_ms: int) -> Change | Outcome | Labelled:
    if decision.decision == "leave":
        return skipped(task.task_id, "the reviewer left it to people", name=task.name)
    if decision.decision == "correct":
        body = read_body({"series": decision.series, "classification": decision.classification})
        return Labelled(Labels(task.task_id, body), elapsed_ms)
    return _verdict(work, task, decision, elapsed_ms)


def _verdict(work: StageWork, task: Task, decision: Review, elapsed_ms: int) -> Change:
    accept = decision.decision == "accept"

    def call() -> Call:
        return work.project.review(
            work.stage, task.task_id, accept=accept, comment=decision.comment, elapsed_ms=elapsed_ms
        )

    return leaving(work, task, call, verdict=accept)
