"""Put a model's predictions on new tasks."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pendulum

from airflow_provider_redbrick import __version__
from airflow_provider_redbrick.exceptions import RedBrickInputError
from airflow_provider_redbrick.hooks import check
from airflow_provider_redbrick.lineage.flow import ON, STAY
from airflow_provider_redbrick.operators.stage_base import RedBrickQueueBaseOperator
from airflow_provider_redbrick.operators.tries import retry_since

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_redbrick.api.models import Task
    from airflow_provider_redbrick.api.project import RedBrickProject
    from airflow_provider_redbrick.api.workflow import Stage
    from airflow_provider_redbrick.batch.outcome import Outcome
    from airflow_provider_redbrick.operators.stage_base import Which


class RedBrickPrelabelOperator(RedBrickQueueBaseOperator):
    """Take tasks of a stage, call a model for each, and put its labels on them.

    What the labeler raises for one task is that task's failure and nobody else's. See the base class for how tasks
    are chosen (``stage_name``, ``task_ids``, ``limit``), claimed and released.

    A remote-labeling stage, as servers of the API's first generation have it, is worked on by its own root fields:
    its tasks are submitted, and claiming, drafts and masks do not exist there.

    :param labeler: called with a :class:`~airflow_provider_redbrick.api.models.Task` that has ``name``, ``metadata``,
        ``item_urls`` (presigned, short-lived) and the current labels as ``series`` and ``classification``; returns
        labels as an object with ``series`` and/or ``classification``, or as a list of series, or None to leave the
        task alone. The answer is copied, with the masks that it names, before the labeler is called again. A generator
        function yields its one answer, so that files which it deletes afterwards can still be copied.
    :param write: ``submit`` sends them on to the next stage, ``draft`` saves and keeps them assigned to the key,
        ``draft_and_release`` saves and hands them to people. ``anywhere`` replaces the labels of tasks where they are:
        nothing is claimed, no task moves, and given ``task_ids`` may be in any stage, so that no ``stage_name`` is
        needed for them. Tasks that a person holds are left alone, unless ``take_from_people``.
    :param overwrite: also take tasks that have labels, and replace those. By default only given ``task_ids`` are
        labelled whatever they have: what was predicted or corrected before is not predicted again every night.
        In a remote-labeling stage all that waits is labelled, unless this is False.
    :param stage_name: the stage the tasks wait in; with ``anywhere`` and ``task_ids`` none is needed.
    :param model_name: with ``anywhere``: what the audit trail of each task keeps of the model, beside the DAG run.
    :param model_version: with ``anywhere``: the model's version, kept there too.
    """

    template_fields: Sequence[str] = (*RedBrickQueueBaseOperator.template_fields, "model_name", "model_version")
    operation = "prelabel"

    @property
    def moves(self) -> str:
        """Where tasks are when this is done."""
        return ON if self.write == "submit" else STAY

    def __init__(
        self,
        *,
        labeler: Callable[[Task], Any],
        stage_name: str | None = None,
        write: str = "submit",
        overwrite: bool | None = None,
        model_name: str | None = None,
        model_version: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(stage_name=stage_name, **kwargs)
        self.labeler = labeler
        self.write = write
        self.overwrite = overwrite
        self.model_name = model_name
        self.model_version = model_version

    def execute(self, context: Context) -> dict[str, Any]:
        """Prelabel and return the manifest."""
        from airflow_provider_redbrick.batch.prelabel import WRITES, prelabel

        self.check_inputs()
        write = check.one_of("write", self.write, WRITES)
        if not callable(self.labeler):
            raise RedBrickInputError(f"labeler must be callable, not {type(self.labeler).__name__}.")
        if self.overwrite is not None:
            check.flag("overwrite", self.overwrite)
        model = self._model()
        which = self.which_tasks()
        project = self.get_project()
        if write == "anywhere":
            stage = self._stage_anywhere(project, which)
            outcomes = self._anywhere(context, project, stage, which, model)
            total = None if which.ids is None else len(which.ids)
            return self.settle(context, project, stage, outcomes, total=total)
        stage = self._stage(project)
        if stage.is_remote:
            return self.settle(context, project, stage, self._remotely(context, project, stage, which))
        if write == "draft_and_release" and project.info.consensus:
            raise RedBrickInputError(
                "In a consensus project releasing a task would take it from everybody who labels it."
            )
        work, ids = self.take_up(
            context,
            project,
            stage,
            which,
            saved_counts=write != "submit",
            hands_over=write == "draft_and_release",
            only_unlabelled=not self._overwrites(which),
        )
        return self.settle(context, project, stage, prelabel(work, ids, self.labeler, write=write), total=len(ids))

    def _stage(self, project: RedBrickProject) -> Stage:
        stage = self.get_stage(project)
        if stage.is_review and self.write != "anywhere":
            raise RedBrickInputError(
                f"{stage.name} is a review stage, where labels would be taken for a correction and accepted: "
                f"use RedBrickAutoReviewOperator there."
            )
        if stage.is_remote and self.write != "submit":
            raise RedBrickInputError(f"{stage.name} is a remote-labeling stage, to which labels can only be submitted.")
        return stage

    def _stage_anywhere(self, project: RedBrickProject, which: Which) -> Stage | None:
        project.open()
        named = None if self.stage_name is None else project.stage(check.text("stage_name", self.stage_name))
        if which.ids is not None:
            return named
        if named is not None and named.is_ground_truth:
            raise RedBrickInputError("Which tasks of Ground Truth are to be labelled must be told: give task_ids.")
        return self._stage(project)

    def _overwrites(self, which: Which) -> bool:
        return which.ids is not None if self.overwrite is None else self.overwrite

    def _model(self) -> Mapping[str, str]:
        """Return what is told of the model."""
        given = {"name": self.model_name, "version": self.model_version}
        told = {key: check.text(f"model_{key}", value) for key, value in given.items() if value is not None}
        if told and self.write != "anywhere":
            raise RedBrickInputError(
                f"model_name and model_version go with write='anywhere': with {self.write!r} the API keeps neither."
            )
        return told

    def _remotely(self, context: Context, project: RedBrickProject, stage: Stage, which: Which) -> Iterator[Outcome]:
        """Prelabel in a remote-labeling stage."""
        from airflow_provider_redbrick.api.detail import Detail
        from airflow_provider_redbrick.batch.prelabel import prelabel
        from airflow_provider_redbrick.batch.remote import putting_remotely, queue, refuse_mask

        remote = project.remote(stage)
        # Whatever waits there waits for a model; what has labels may be what an earlier try did not hand on any more.
        only_unlabelled = self.overwrite is False
        work = self.work_on(context, project, stage, claim=False, detail=Detail.FULL, only_unlabelled=only_unlabelled)
        # Its labels are held against the stage's own taxonomy instead of the project's.
        work = replace(work, converter=replace(work.converter, check=None, open_file=refuse_mask))
        wanted: Iterable[str] | None = which.ids
        if wanted is None:
            wanted = queue(remote, limit=which.limit, page_size=project.client.page_size)
        return prelabel(work, wanted, self.labeler, write="submit", put=putting_remotely(work, remote))

    def _anywhere(
        self, context: Context, project: RedBrickProject, stage: Stage | None, which: Which, model: Mapping[str, str]
    ) -> Iterator[Outcome]:
        """Prelabel tasks where they are."""
        from airflow_provider_redbrick.batch.anywhere import Overwriting
        from airflow_provider_redbrick.batch.queue import candidates

        only_unlabelled = not self._overwrites(which)
        ids: Iterable[str] | None = which.ids
        if ids is None and stage is not None:
            work = self.work_on(context, project, stage, claim=False, only_unlabelled=only_unlabelled)
            ids = candidates(work, limit=which.limit, now=pendulum.now("UTC")).task_ids
        overwriting = Overwriting(
            project,
            self.converter(project),
            extra={"model": dict(model), "written_by": f"airflow-provider-redbrick {__version__}", **_run(context)},
            since=retry_since(context),
            only_unlabelled=only_unlabelled,
            take_from_people=self.take_from_people,
        )
        return overwriting.run(ids or (), self.labeler)


def _run(context: Context) -> dict[str, Any]:
    """Return which run of which DAG this is, as far as Airflow says so."""
    task_instance = context.get("ti")
    names = ("dag_id", "run_id", "task_id")
    return {name: getattr(task_instance, name) for name in names if getattr(task_instance, name, None)}
