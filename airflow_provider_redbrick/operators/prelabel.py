"""Label tasks with a model's predictions."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick import __version__
from airflow_provider_redbrick.exceptions import RedBrickInputError
from airflow_provider_redbrick.hooks import validation
from airflow_provider_redbrick.lineage import ON, STAY
from airflow_provider_redbrick.operators.stage_base import RedBrickQueueBaseOperator, first_attempt_at

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_redbrick.client.models.task import Task
    from airflow_provider_redbrick.client.models.workflow import Stage
    from airflow_provider_redbrick.client.operations.project import RedBrickProject
    from airflow_provider_redbrick.engine.outcomes import Outcome
    from airflow_provider_redbrick.operators.stage_base import TaskSelection


class RedBrickPrelabelOperator(RedBrickQueueBaseOperator):
    """Call a model for each task of a stage and save its labels.

    An exception of the labeler fails the task it was called for and no other. The base class describes how tasks are
    selected (``stage_name``, ``task_ids``, ``limit``), claimed and released.

    A remote-labeling stage, selection servers of the first API generation have, uses its own API fields: tasks are only
    submitted. Claims, drafts and masks do not exist there.

    :param labeler: called with a :class:`~airflow_provider_redbrick.client.models.task.Task` that has ``name``,
        ``metadata``, ``item_urls`` (presigned, short-lived) and the current labels as ``series`` and
        ``classification``. It returns labels as an object with ``series`` and/or ``classification``, or as a list
        of series, or None to skip the task. The return value is copied, with the mask files that it names, before
        the labeler is called again. A generator function yields exactly one value; files that it deletes afterwards
        have been copied by then.
    :param stage_name: the stage of the tasks. Not needed for ``write="anywhere"`` with ``task_ids``.
    :param write: what happens to the labels. ``submit`` sends each task to the next stage. ``draft`` saves the labels
        and keeps the task assigned to the API key. ``draft_and_release`` saves them and releases the task to people.
        ``anywhere`` replaces the labels of tasks in any stage: nothing is claimed and no task moves. Tasks that a
        person holds are skipped, unless ``take_from_people`` is True.
    :param overwrite: whether to replace existing labels. Default: only for given ``task_ids``. Tasks of a queue that
        have labels are skipped, so that a scheduled DAG does not predict them again. In a remote-labeling stage all
        waiting tasks are labeled, unless this is False.
    :param model_name: name of the model, for the audit trail of each task. Only with ``write="anywhere"``.
    :param model_version: version of the model, for the audit trail. Only with ``write="anywhere"``.
    """

    template_fields: Sequence[str] = (*RedBrickQueueBaseOperator.template_fields, "model_name", "model_version")
    operation = "prelabel"

    @property
    def moves(self) -> str:
        """How the operator moves tasks, for lineage."""
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
        """Label the tasks and return the manifest.

        :param context: the Airflow task's context.
        :return: the manifest: what happened to the tasks, with counts by status.
        :raises RedBrickInputError: if a parameter is invalid, or the stage does not support ``write``.
        :raises RedBrickTasksFailedError: if tasks failed and ``fail_on`` says that they fail the Airflow task.
        """
        from airflow_provider_redbrick.actions.prelabel import WRITES, prelabel

        self.check_inputs()
        write = validation.one_of("write", self.write, WRITES)
        if not callable(self.labeler):
            raise RedBrickInputError(f"labeler must be callable, not {type(self.labeler).__name__}.")
        if self.overwrite is not None:
            validation.flag("overwrite", self.overwrite)
        model = self._model()
        selection = self.resolve_selection()
        project = self.get_project()
        if write == "anywhere":
            stage = self._stage_anywhere(project, selection)
            outcomes = self._anywhere(context, project, stage, selection, model)
            total = None if selection.ids is None else len(selection.ids)
            return self.settle(context, project, stage, outcomes, total=total)
        stage = self._stage(project)
        if stage.is_remote:
            return self.settle(context, project, stage, self._remotely(context, project, stage, selection))
        if write == "draft_and_release" and project.info.consensus:
            raise RedBrickInputError(
                "In a consensus project several people label each task, and a release would unassign all of them."
            )
        work, ids = self.take_up(
            context,
            project,
            stage,
            selection,
            draft_counts_as_done=write != "submit",
            release_after_save=write == "draft_and_release",
            only_unlabeled=not self._overwrites(selection),
        )
        return self.settle(context, project, stage, prelabel(work, ids, self.labeler, write=write), total=len(ids))

    def _stage(self, project: RedBrickProject) -> Stage:
        stage = self.get_stage(project)
        if stage.is_review and self.write != "anywhere":
            raise RedBrickInputError(
                f"{stage.name!r} is a review stage, where new labels would be accepted as a correction. "
                f"Use RedBrickAutoReviewOperator there."
            )
        if stage.is_remote and self.write != "submit":
            raise RedBrickInputError(f"{stage.name!r} is a remote-labeling stage. Only write='submit' works there.")
        return stage

    def _stage_anywhere(self, project: RedBrickProject, selection: TaskSelection) -> Stage | None:
        project.open()
        named = None if self.stage_name is None else project.stage(validation.text("stage_name", self.stage_name))
        if selection.ids is not None:
            return named
        if named is not None and named.is_ground_truth:
            raise RedBrickInputError("Ground Truth tasks are never selected automatically. Give task_ids.")
        return self._stage(project)

    def _overwrites(self, selection: TaskSelection) -> bool:
        return selection.ids is not None if self.overwrite is None else self.overwrite

    def _model(self) -> dict[str, str]:
        """Return the name and version of the model for the audit trail."""
        values = {"name": self.model_name, "version": self.model_version}
        model = {key: validation.text(f"model_{key}", value) for key, value in values.items() if value is not None}
        if model and self.write != "anywhere":
            raise RedBrickInputError(
                f"model_name and model_version need write='anywhere'. The API does not store them with {self.write!r}."
            )
        return model

    def _remotely(
        self, context: Context, project: RedBrickProject, stage: Stage, selection: TaskSelection
    ) -> Iterator[Outcome]:
        """Prelabel tasks of a remote-labeling stage."""
        from airflow_provider_redbrick.actions.prelabel import list_waiting, prelabel, refuse_mask, remote_label_writer
        from airflow_provider_redbrick.client.models.task import Detail

        remote = project.remote(stage)
        # All waiting tasks wait for a model. One with labels may be one that an earlier attempt did not submit.
        only_unlabeled = self.overwrite is False
        work = self.work_on(context, project, stage, claim=False, detail=Detail.FULL, only_unlabeled=only_unlabeled)
        # The labels are validated against the taxonomy of the stage, not of the project.
        work = replace(work, converter=replace(work.converter, check=None, open_file=refuse_mask))
        ids: Iterable[str] | None = selection.ids
        if ids is None:
            ids = list_waiting(remote, limit=selection.limit, page_size=project.client.page_size)
        return prelabel(work, ids, self.labeler, write="submit", put=remote_label_writer(work, remote))

    def _anywhere(
        self,
        context: Context,
        project: RedBrickProject,
        stage: Stage | None,
        selection: TaskSelection,
        model: Mapping[str, str],
    ) -> Iterator[Outcome]:
        """Prelabel tasks without moving them."""
        from airflow_provider_redbrick.actions.candidates import choose_candidates
        from airflow_provider_redbrick.actions.prelabel import LabelOverwriter

        only_unlabeled = not self._overwrites(selection)
        ids: Iterable[str] | None = selection.ids
        if ids is None and stage is not None:
            work = self.work_on(context, project, stage, claim=False, only_unlabeled=only_unlabeled)
            ids = choose_candidates(work, limit=selection.limit, now=project.client.clock.now()).task_ids
        overwriter = LabelOverwriter(
            project,
            self.converter(project),
            extra={"model": dict(model), "written_by": f"airflow-provider-redbrick {__version__}", **_run(context)},
            first_attempt_at=first_attempt_at(context, project.client.clock),
            only_unlabeled=only_unlabeled,
            take_from_people=self.take_from_people,
        )
        return overwriter.run(ids or (), self.labeler)


def _run(context: Context) -> dict[str, Any]:
    """Return the ids of the DAG run and Airflow task, if Airflow provides them."""
    task_instance = context.get("ti")
    names = ("dag_id", "run_id", "task_id")
    return {name: getattr(task_instance, name) for name in names if getattr(task_instance, name, None)}
