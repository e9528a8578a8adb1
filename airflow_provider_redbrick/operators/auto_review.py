"""Review automatically what rules can decide."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.batch.review import Review, review
from airflow_provider_redbrick.exceptions import RedBrickInputError
from airflow_provider_redbrick.operators.base import working_stage
from airflow_provider_redbrick.operators.stage_base import RedBrickQueueOperator

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_redbrick.api.models import Task

__all__ = ["RedBrickAutoReviewOperator", "Review"]


class RedBrickAutoReviewOperator(RedBrickQueueOperator):
    """Take tasks of a review stage and accept, reject or correct them, or leave them to people.

    What the reviewer raises for one task is that task's failure and nobody else's. See the base class for how tasks
    are chosen (``stage_name``, ``task_ids``, ``limit``), claimed and released.

    :param reviewer: called with a :class:`~airflow_provider_redbrick.api.models.Task` that has its labels as
        ``series`` and ``classification``; returns True to accept, False to reject, or a
        :class:`~airflow_provider_redbrick.batch.review.Review`.
    :param review_result: instead of a reviewer: True accepts and False rejects the given ``task_ids``.
    :param comment: the comment that goes with ``review_result``.
    """

    template_fields: Sequence[str] = (*RedBrickQueueOperator.template_fields, "comment")
    operation = "auto_review"

    def __init__(
        self,
        *,
        reviewer: Callable[[Task], Any] | None = None,
        review_result: bool | None = None,
        comment: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.reviewer = reviewer
        self.review_result = review_result
        self.comment = comment

    def execute(self, context: Context) -> dict[str, Any]:
        """Review and return the manifest."""
        reviewer = self._reviewer()
        which = self.which_tasks()
        project = self.get_project()
        stage = working_stage(project, self.stage_name)
        if stage.is_label:
            reviews = [known.name for known in project.info.workflow.stages if known.is_review]
            raise RedBrickInputError(
                f"{stage.name} is a label stage; review stages are: {', '.join(reviews) or 'none'}."
            )
        work, ids = self.take_up(context, project, stage, which)
        return self.settle(context, project, stage, review(work, ids, reviewer))

    def _reviewer(self) -> Callable[[Task], Any]:
        """Return who decides; exactly one of the two ways to say so must be used."""
        if self.reviewer is not None:
            if self.review_result is not None or self.comment is not None:
                raise RedBrickInputError("Give a reviewer, or review_result with its comment, not both.")
            if not callable(self.reviewer):
                raise RedBrickInputError(f"reviewer must be callable, not {type(self.reviewer).__name__}.")
            return self.reviewer
        if not isinstance(self.review_result, bool):
            raise RedBrickInputError(
                f"Give a reviewer, or review_result as True or False, not {self.review_result!r}: "
                f"nothing is accepted or rejected by default."
            )
        if self.task_ids is None:
            raise RedBrickInputError("review_result needs task_ids: a whole queue is not accepted or rejected blindly.")
        decision = Review("accept" if self.review_result else "reject", self.comment)
        return lambda _task: decision
