"""What a reviewer decides on one task."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.exceptions import RedBrickInputError, kind_of, storable, told

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_LONGEST_SHOWN = 60
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
        if self.comment is not None and self.comment != storable(self.comment):
            words = f"{self.comment[:_LONGEST_SHOWN]!a}"
            raise RedBrickInputError(f"the comment of a review has characters that cannot be sent or stored: {words}")
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
        raise RedBrickInputError(f"the reviewer must return True, False or a Review, not {kind_of(answer)}")
