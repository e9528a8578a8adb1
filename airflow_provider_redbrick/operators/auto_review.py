"""Review tasks automatically."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from airflow_provider_redbrick.actions.decision import Review
from airflow_provider_redbrick.client.models.parsing import check_uuid
from airflow_provider_redbrick.exceptions import RedBrickInputError, short_repr
from airflow_provider_redbrick.hooks import validation
from airflow_provider_redbrick.lineage import ON
from airflow_provider_redbrick.operators.stage_base import RedBrickQueueBaseOperator, TaskSelection

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airflow.providers.common.compat.sdk import Context, XComArg

    from airflow_provider_redbrick.actions.review import Reviewer
    from airflow_provider_redbrick.client.models.task import Task
    from airflow_provider_redbrick.client.models.workflow import Stage
    from airflow_provider_redbrick.client.operations.project import RedBrickProject


__all__ = ["RedBrickAutoReviewOperator", "Review"]

_KEYS = ("taskId", "reviewVal", "comment", "series", "classification")


class RedBrickAutoReviewOperator(RedBrickQueueBaseOperator):
    """Accept, reject or correct tasks of a review stage automatically.

    Each task can also be left to people. An exception of the reviewer fails the task it was called for and no other.
    The base class describes how tasks are selected (``stage_name``, ``task_ids``, ``limit``), claimed and released.

    :param reviewer: called with a :class:`~airflow_provider_redbrick.client.models.task.Task` that has its labels as
        ``series`` and ``classification``. It returns True to accept, False to reject, or a
        :class:`~airflow_provider_redbrick.actions.decision.Review`. The return value is copied, with the mask files
        that it names, before the reviewer is called again. A generator function yields exactly one value.
    :param review_result: instead of ``reviewer``: True accepts and False rejects the given ``task_ids``.
    :param comment: comment sent with ``review_result``.
    :param reviews: instead of both, a list with one decision per task. Each is an object with ``taskId``, and either
        ``reviewVal`` (True to accept, False to reject; optionally a ``comment``) or corrected labels as ``series``
        and/or ``classification``.
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
        """Review the tasks and return the manifest.

        :param context: the Airflow task's context.
        :return: the manifest: what happened to the tasks, with counts by status.
        :raises RedBrickInputError: if a parameter is invalid, or the stage is not a review stage.
        :raises RedBrickTasksFailedError: if tasks failed and ``fail_on`` says that they fail the Airflow task.
        """
        from airflow_provider_redbrick.actions.review import review

        self.check_inputs()
        selection, decisions = self._read_decisions()
        project = self.get_project()
        if decisions is not None:
            return self._apply_decisions(context, project, decisions)
        stage = self._review_stage(project)
        work, ids = self.take_up(context, project, stage, selection)
        outcomes = review(work, ids, cast("Reviewer", self.reviewer))
        return self.settle(context, project, stage, outcomes, total=len(ids))

    def _apply_decisions(
        self, context: Context, project: RedBrickProject, decisions: Mapping[str, Review]
    ) -> dict[str, Any]:
        from airflow_provider_redbrick.actions.review import apply_reviews
        from airflow_provider_redbrick.client.models.task import Detail
        from airflow_provider_redbrick.engine.task_reader import KNOWN_CHUNK, ReadAhead

        corrects = any(review.decision == "correct" for review in decisions.values())
        detail = Detail.STATE if corrects else Detail.PLACE
        ahead = ReadAhead(project, list(decisions), detail=detail, size=KNOWN_CHUNK)
        stage = self._review_stage(project, ahead.begin)
        work = self.work_on(context, project, stage, detail=detail, chunk=KNOWN_CHUNK, ahead=ahead)
        return self.settle(context, project, stage, apply_reviews(work, decisions), total=len(decisions))

    def _review_stage(self, project: RedBrickProject, *others: Callable[[], object]) -> Stage:
        stage = self.get_stage(project, *others)
        if stage.is_label:
            reviews = [known.name for known in project.info.workflow.stages if known.is_review]
            raise RedBrickInputError(
                f"{stage.name!r} is a label stage. The review stages are: {', '.join(reviews) or 'none'}."
            )
        return stage

    def _read_decisions(self) -> tuple[TaskSelection, Mapping[str, Review] | None]:
        """Return which tasks to take, and the decisions if they are known.

        :return: the selection, and a decision by task id; None if a reviewer decides.
        :raises RedBrickInputError: if not exactly one of ``reviewer``, ``review_result`` and ``reviews`` is given.
        """
        if self.is_given("reviews"):
            return TaskSelection(ids=None, limit=None), self._read_reviews()
        if self.reviewer is not None:
            if self.review_result is not None or self.comment is not None:
                raise RedBrickInputError("Give either reviewer or review_result with its comment, not both.")
            if not callable(self.reviewer):
                raise RedBrickInputError(f"reviewer must be callable, not {type(self.reviewer).__name__}.")
            return self.resolve_selection(), None
        if not isinstance(self.review_result, bool):
            raise RedBrickInputError(
                f"review_result must be True or False, not {short_repr(self.review_result)}. Otherwise give reviewer "
                f"or reviews. Nothing is accepted or rejected by default."
            )
        if not self.is_given("task_ids"):
            raise RedBrickInputError("review_result needs task_ids. It does not apply to a whole queue.")
        decision = Review("accept" if self.review_result else "reject", self.comment)
        selection = self.resolve_selection()
        return selection, dict.fromkeys(selection.ids or (), decision)

    def _read_reviews(self) -> Mapping[str, Review]:
        """Return the decisions in ``reviews`` by task id."""
        others = ("reviewer", "review_result", "comment", "task_ids", "limit")
        conflicts = [name for name in others if self.is_given(name)]
        if conflicts:
            raise RedBrickInputError(f"reviews cannot be combined with {', '.join(conflicts)}.")
        decisions: dict[str, Review] = {}
        for i, entry in enumerate(self.work_list("reviews") or ()):
            task_id, decision = _read(entry, f"reviews[{i}]")
            if task_id in decisions:
                raise RedBrickInputError(f"reviews[{i}] repeats task {task_id}. Nothing was sent.")
            decisions[task_id] = decision
        return decisions


def _read(entry: object, place: str) -> tuple[str, Review]:
    """Parse one entry of ``reviews``.

    :param entry: the entry.
    :param place: its position, for messages, such as ``reviews[0]``.
    :return: the task id and the decision.
    :raises RedBrickInputError: if the entry is malformed or ambiguous.
    """
    from airflow_provider_redbrick.annotations.conversion import list_of_objects

    if not isinstance(entry, Mapping):
        raise RedBrickInputError(f"{place} must be an object, not {type(entry).__name__}.")
    unknown = [str(key) for key in entry if key not in _KEYS]
    if unknown:
        raise RedBrickInputError(f"{place} has unknown keys: {', '.join(unknown)}. Known keys are: {', '.join(_KEYS)}.")
    values = {key: value for key, value in entry.items() if value is not None}
    task_id = check_uuid(f"{place}.taskId", values.get("taskId"))
    comment = validation.text(f"{place}.comment", values["comment"]) if "comment" in values else None
    labels = {key: values[key] for key in ("series", "classification") if key in values}
    if labels and "reviewVal" in values:
        raise RedBrickInputError(f"{place} has both reviewVal and {' and '.join(labels)}. Give one of them.")
    if not labels:
        accepted = validation.flag(f"{place}.reviewVal", values.get("reviewVal"))
        return task_id, Review("accept" if accepted else "reject", comment)
    if not isinstance(labels.get("classification", {}), Mapping):
        raise RedBrickInputError(f"{place}.classification must be an object.")
    try:
        list_of_objects(labels.get("series", []), "series")
        return task_id, Review("correct", comment, **labels)
    except RedBrickInputError as error:
        raise RedBrickInputError(f"{place}: {error}.") from None
