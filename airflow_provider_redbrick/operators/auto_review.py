"""Review automatically what rules can decide."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from airflow_provider_redbrick.api.ids import check_uuid
from airflow_provider_redbrick.batch.verdict import Review
from airflow_provider_redbrick.exceptions import RedBrickInputError, told
from airflow_provider_redbrick.hooks import check
from airflow_provider_redbrick.lineage.flow import ON
from airflow_provider_redbrick.operators.stage_base import RedBrickQueueBaseOperator, Which

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airflow.providers.common.compat.sdk import Context, XComArg

    from airflow_provider_redbrick.api.models import Task
    from airflow_provider_redbrick.api.project import RedBrickProject
    from airflow_provider_redbrick.api.workflow import Stage
    from airflow_provider_redbrick.batch.review import Reviewer


__all__ = ["RedBrickAutoReviewOperator", "Review"]

_KEYS = ("taskId", "reviewVal", "comment", "series", "classification")


class RedBrickAutoReviewOperator(RedBrickQueueBaseOperator):
    """Take tasks of a review stage and accept, reject or correct them, or leave them to people.

    What the reviewer raises for one task is that task's failure and nobody else's. See the base class for how tasks
    are chosen (``stage_name``, ``task_ids``, ``limit``), claimed and released.

    :param reviewer: called with a :class:`~airflow_provider_redbrick.api.models.Task` that has its labels as
        ``series`` and ``classification``; returns True to accept, False to reject, or a
        :class:`~airflow_provider_redbrick.batch.verdict.Review`. The answer is copied, with the masks that it names,
        before the reviewer is called again. A generator function yields its one answer.
    :param review_result: instead of a reviewer: True accepts and False rejects the given ``task_ids``.
    :param comment: the comment that goes with ``review_result``.
    :param reviews: instead of both, a decision for each of some tasks: objects with ``taskId``, and with ``reviewVal``
        (True to accept, False to reject; perhaps a ``comment``) or corrected labels as ``series`` and/or
        ``classification``.
    """

    template_fields: Sequence[str] = (*RedBrickQueueBaseOperator.template_fields, "comment", "reviews")
    operation = "auto_review"
    work_lists = ("task_ids", "reviews")
    moves = ON

    def __init__(
        self,
        *,
        reviewer: Callable[[Task], Any] | None = None,
        review_result: bool | None = None,
        comment: str | None = None,
        reviews: Sequence[Mapping[str, Any]] | XComArg | str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.reviewer = reviewer
        self.review_result = review_result
        self.comment = comment
        self.reviews = reviews

    def execute(self, context: Context) -> dict[str, Any]:
        """Review and return the manifest."""
        from airflow_provider_redbrick.batch.review import review

        self.check_inputs()
        which, decided = self._decided()
        project = self.get_project()
        if decided is not None:
            return self._review_as_told(context, project, decided)
        stage = self._review_stage(project)
        work, ids = self.take_up(context, project, stage, which)
        outcomes = review(work, ids, cast("Reviewer", self.reviewer))
        return self.settle(context, project, stage, outcomes, total=len(ids))

    def _review_as_told(
        self, context: Context, project: RedBrickProject, decided: Mapping[str, Review]
    ) -> dict[str, Any]:
        from airflow_provider_redbrick.api.detail import Detail
        from airflow_provider_redbrick.batch.reading import KNOWN_CHUNK, ReadAhead
        from airflow_provider_redbrick.batch.review import review_as_told

        corrects = any(review.decision == "correct" for review in decided.values())
        detail = Detail.STATE if corrects else Detail.PLACE
        ahead = ReadAhead(project, list(decided), detail=detail, size=KNOWN_CHUNK)
        stage = self._review_stage(project, ahead.begin)
        work = self.work_on(context, project, stage, detail=detail, chunk=KNOWN_CHUNK, ahead=ahead)
        return self.settle(context, project, stage, review_as_told(work, decided), total=len(decided))

    def _review_stage(self, project: RedBrickProject, *others: Callable[[], object]) -> Stage:
        stage = self.get_stage(project, *others)
        if stage.is_label:
            reviews = [known.name for known in project.info.workflow.stages if known.is_review]
            raise RedBrickInputError(
                f"{stage.name} is a label stage; review stages are: {', '.join(reviews) or 'none'}."
            )
        return stage

    def _decided(self) -> tuple[Which, Mapping[str, Review] | None]:
        """Return which tasks to take, and what is decided on each unless a reviewer does that.

        Exactly one of the three ways to say so must be used.
        """
        if self.is_given("reviews"):
            return Which(ids=None, limit=None), self._listed()
        if self.reviewer is not None:
            if self.review_result is not None or self.comment is not None:
                raise RedBrickInputError("Give a reviewer, or review_result with its comment, not both.")
            if not callable(self.reviewer):
                raise RedBrickInputError(f"reviewer must be callable, not {type(self.reviewer).__name__}.")
            return self.which_tasks(), None
        if not isinstance(self.review_result, bool):
            raise RedBrickInputError(
                f"Give a reviewer, or reviews, or review_result as True or False, not {told(self.review_result)}: "
                f"nothing is accepted or rejected by default."
            )
        if not self.is_given("task_ids"):
            raise RedBrickInputError("review_result needs task_ids: a whole queue is not accepted or rejected blindly.")
        decision = Review("accept" if self.review_result else "reject", self.comment)
        which = self.which_tasks()
        return which, dict.fromkeys(which.ids or (), decision)

    def _listed(self) -> Mapping[str, Review]:
        """Return the decisions on the tasks that are reviewed."""
        others = ("reviewer", "review_result", "comment", "task_ids", "limit")
        given = [name for name in others if self.is_given(name)]
        if given:
            raise RedBrickInputError(f"reviews say which tasks and how: they do not go with {', '.join(given)}.")
        decisions: dict[str, Review] = {}
        for i, entry in enumerate(self.work_list("reviews") or ()):
            task_id, decision = _read(entry, f"reviews[{i}]")
            if task_id in decisions:
                raise RedBrickInputError(f"reviews[{i}].taskId is reviewed twice: {task_id}. Nothing was sent.")
            decisions[task_id] = decision
        return decisions


def _read(entry: object, place: str) -> tuple[str, Review]:
    """Return the task that an entry of ``reviews`` is about, and the decision on it.

    :raises RedBrickInputError: when that is not clear.
    """
    from airflow_provider_redbrick.batch.converting import list_of_objects

    if not isinstance(entry, Mapping):
        raise RedBrickInputError(f"{place} must be an object, not {type(entry).__name__}.")
    unknown = [str(key) for key in entry if key not in _KEYS]
    if unknown:
        raise RedBrickInputError(f"{place} has unknown keys: {', '.join(unknown)}; known are: {', '.join(_KEYS)}.")
    said = {key: value for key, value in entry.items() if value is not None}
    task_id = check_uuid(f"{place}.taskId", said.get("taskId"))
    comment = check.text(f"{place}.comment", said["comment"]) if "comment" in said else None
    labels = {key: said[key] for key in ("series", "classification") if key in said}
    if labels and "reviewVal" in said:
        raise RedBrickInputError(f"{place} has reviewVal and {' and '.join(labels)}: reviewed or corrected, not both.")
    if not labels:
        accepted = check.flag(f"{place}.reviewVal", said.get("reviewVal"))
        return task_id, Review("accept" if accepted else "reject", comment)
    if not isinstance(labels.get("classification", {}), Mapping):
        raise RedBrickInputError(f"{place}.classification must be an object.")
    try:
        list_of_objects(labels.get("series", []), "series")
        return task_id, Review("correct", comment, **labels)
    except RedBrickInputError as error:
        raise RedBrickInputError(f"{place}: {error}.") from None
