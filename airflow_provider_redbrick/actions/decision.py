"""The decision of a reviewer on one task."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.exceptions import RedBrickInputError, short_repr, to_valid_utf8, type_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_MAX_SHOWN_CHARS = 60
DECISIONS = ("accept", "reject", "correct", "leave")


@dataclass(frozen=True)
class Review:
    """A reviewer's decision on one task.

    :param decision: ``accept`` and ``reject`` keep the labels. ``correct`` replaces them and accepts the task.
        ``leave`` leaves the task to people.
    :param comment: shown to the labeler. The API takes no comment with a correction.
    :param series: the corrected labels, in the ``series`` format.
    :param classification: the corrected label of the whole task.
    :raises RedBrickInputError: if the parts contradict each other, so that no decision turns into another one.
    """

    decision: str
    comment: str | None = None
    series: Sequence[Mapping[str, Any]] | None = field(default=None, repr=False)
    classification: Mapping[str, Any] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        has_labels = self.series is not None or self.classification is not None
        if not isinstance(self.decision, str) or self.decision not in DECISIONS:
            raise RedBrickInputError(f"a review must be one of {', '.join(DECISIONS)}, not {short_repr(self.decision)}")
        if self.comment is not None and not isinstance(self.comment, str):
            raise RedBrickInputError(f"the comment of a review must be text, not {short_repr(self.comment)}")
        if self.comment is not None and self.comment != to_valid_utf8(self.comment):
            shown = f"{self.comment[:_MAX_SHOWN_CHARS]!a}"
            raise RedBrickInputError(f"the comment of a review has characters that cannot be sent or stored: {shown}")
        if self.decision == "correct" and not has_labels:
            raise RedBrickInputError("a correction needs the corrected series or classification")
        if self.decision == "correct" and self.comment:
            raise RedBrickInputError("the API takes no comment with a correction, so the comment would be lost")
        if self.decision != "correct" and has_labels:
            raise RedBrickInputError(f"{self.decision!r} takes no labels; to replace them use 'correct'")

    @classmethod
    def accept(cls, comment: str | None = None) -> Review:
        """Accept the task with its labels as they are.

        :param comment: shown to the labeler.
        """
        return cls("accept", comment)

    @classmethod
    def reject(cls, comment: str | None = None) -> Review:
        """Return the task to its labeler.

        :param comment: shown to the labeler.
        """
        return cls("reject", comment)

    @classmethod
    def correct(
        cls, series: Sequence[Mapping[str, Any]] | None = None, *, classification: Mapping[str, Any] | None = None
    ) -> Review:
        """Replace the labels and accept the task.

        :param series: the corrected labels, in the ``series`` format.
        :param classification: the corrected label of the whole task.
        """
        return cls("correct", None, series, classification)

    @classmethod
    def leave(cls) -> Review:
        """Leave the task to people."""
        return cls("leave")

    @classmethod
    def read(cls, answer: object) -> Review:
        """Convert the answer of a reviewer to a decision.

        :param answer: a :class:`Review`, True to accept, or False to reject.
        :raises RedBrickInputError: if the answer is anything else. None neither accepts nor rejects.
        """
        if isinstance(answer, Review):
            return answer
        if isinstance(answer, bool):
            return cls("accept" if answer else "reject")
        raise RedBrickInputError(f"the reviewer must return True, False or a Review, not {type_name(answer)}")
