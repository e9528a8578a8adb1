"""Put a model's predictions on new tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.batch.prelabel import WRITES, prelabel
from airflow_provider_redbrick.exceptions import RedBrickInputError
from airflow_provider_redbrick.hooks import check
from airflow_provider_redbrick.operators.base import working_stage
from airflow_provider_redbrick.operators.stage_base import RedBrickQueueOperator

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_redbrick.api.models import Task


class RedBrickPrelabelOperator(RedBrickQueueOperator):
    """Take tasks of a stage, call a model for each, and put its labels on them.

    What the labeler raises for one task is that task's failure and nobody else's. See the base class for how tasks
    are chosen (``stage_name``, ``task_ids``, ``limit``), claimed and released.

    :param labeler: called with a :class:`~airflow_provider_redbrick.api.models.Task` that has ``name``, ``metadata``,
        ``item_urls`` (presigned, short-lived) and the current labels as ``series`` and ``classification``; returns
        labels as an object with ``series`` and/or ``classification``, or as a list of series, or None to leave the
        task alone.
    :param write: ``submit`` sends them on to the next stage, ``draft`` saves and keeps them assigned to the key,
        ``draft_and_release`` saves and hands them to people.
    :param overwrite: also take tasks that have labels, and replace those. By default only given ``task_ids`` are
        labelled whatever they have: what was predicted or corrected before is not predicted again every night.
    """

    operation = "prelabel"

    def __init__(
        self,
        *,
        labeler: Callable[[Task], Any],
        write: str = "submit",
        overwrite: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.labeler = labeler
        self.write = write
        self.overwrite = overwrite

    def execute(self, context: Context) -> dict[str, Any]:
        """Prelabel and return the manifest."""
        write = check.one_of("write", self.write, WRITES)
        if not callable(self.labeler):
            raise RedBrickInputError(f"labeler must be callable, not {type(self.labeler).__name__}.")
        if self.overwrite is not None:
            check.flag("overwrite", self.overwrite)
        which = self.which_tasks()
        project = self.get_project()
        stage = working_stage(project, self.stage_name)
        if stage.is_review:
            raise RedBrickInputError(
                f"{stage.name} is a review stage, where labels would be taken for a correction and accepted: "
                f"use RedBrickAutoReviewOperator there."
            )
        if write == "draft_and_release" and project.info.consensus:
            raise RedBrickInputError(
                "In a consensus project releasing a task would take it from everybody who labels it."
            )
        given, _ = which
        overwrite = given is not None if self.overwrite is None else self.overwrite
        work, ids = self.take_up(
            context, project, stage, which, saved_counts=write != "submit", only_unlabelled=not overwrite
        )
        return self.settle(context, project, stage, prelabel(work, ids, self.labeler, write=write))
