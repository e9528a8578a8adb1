"""Save given labels on tasks."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.client.transport.redaction import strip_signatures
from airflow_provider_redbrick.exceptions import RedBrickInputError
from airflow_provider_redbrick.hooks import validation
from airflow_provider_redbrick.lineage import ON, STAY
from airflow_provider_redbrick.operators.base import RedBrickListFileBaseOperator
from airflow_provider_redbrick.operators.stage_base import LABEL_KEYS, RedBrickStageBaseOperator, is_retry

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from os import PathLike

    from airflow.providers.common.compat.sdk import Context, XComArg

    from airflow_provider_redbrick.actions.stage_pipeline import StagePipeline
    from airflow_provider_redbrick.annotations.conversion import Converter, Labels
    from airflow_provider_redbrick.client.operations.project import RedBrickProject
    from airflow_provider_redbrick.engine.outcomes import Outcome
    from airflow_provider_redbrick.operators.task_inputs import TaskInput


class RedBrickPutLabelsOperator(RedBrickListFileBaseOperator, RedBrickStageBaseOperator):
    """Put given labels on tasks of a stage, and submit the tasks.

    In a review stage, tasks are accepted with the labels as a correction. Labels replace those that a task had. An
    invalid task fails alone; the others are processed. The base class describes ``stage_name``, ``claim`` and
    ``take_from_people``.

    :param tasks: a list of objects, each with a ``taskId`` or an exact ``name``, and with labels as ``series`` and/or
        ``classification``, or in the older form as ``labels``. With ``existing_labels``, plain task ids also work.
    :param labels_path: instead of ``tasks``, a file of such objects: JSON Lines or one JSON array (such as a
        ``tasks.json`` of the public SDK), optionally compressed with gzip; a local path or a URI that Airflow's object
        storage supports. The file is streamed. An invalid line fails alone, and so does a repeated task. Relative paths
        of masks are relative to the file's folder, and masks must be in it; see ``allowed_folders``.
    :param allowed_folders: further folders, as absolute paths or URIs, that masks named in the file may be in. A URI
        matches with its connection and bucket. Masks named in ``tasks`` may be anywhere.
    :param finalize: whether to submit the tasks. False saves the labels as drafts, and no task moves.
    :param existing_labels: submit the tasks with the labels that they already have. The input must then have no labels.
    """

    template_fields: Sequence[str] = (
        *RedBrickStageBaseOperator.template_fields,
        "tasks",
        "labels_path",
        "allowed_folders",
    )
    operation = "put_labels"
    work_lists = ("tasks",)
    reads_from = "labels_path"

    @property
    def moves(self) -> str:
        """How the operator moves tasks, for lineage."""
        return ON if self.finalize else STAY

    def __init__(
        self,
        *,
        tasks: Sequence[Mapping[str, Any] | str] | XComArg | None = None,
        labels_path: str | PathLike[str] | None = None,
        finalize: bool = True,
        existing_labels: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.tasks = tasks
        self.labels_path = labels_path
        self.finalize = finalize
        self.existing_labels = existing_labels

    def execute(self, context: Context) -> dict[str, Any]:
        """Save the labels and return the manifest.

        :param context: the Airflow task's context.
        :return: the manifest: what happened to the tasks, with counts by status.
        :raises RedBrickInputError: if a parameter is invalid, or a list has an invalid entry.
        :raises RedBrickTasksFailedError: if tasks failed and ``fail_on`` says that they fail the Airflow task.
        """
        from airflow_provider_redbrick.hooks.files import open_input
        from airflow_provider_redbrick.operators.task_inputs import read_task_file

        self.check_inputs()
        validation.flag("finalize", self.finalize)
        validation.flag("existing_labels", self.existing_labels)
        if self.existing_labels and not self.finalize:
            raise RedBrickInputError("existing_labels submits tasks and cannot be combined with finalize=False.")
        if self.is_given("tasks") == self.is_given("labels_path"):
            raise RedBrickInputError("Give either tasks or labels_path.")
        if self.labels_path is None:
            return self._put(context, self._listed())
        if self.existing_labels:
            raise RedBrickInputError("existing_labels cannot be combined with labels_path.")
        path = validation.path("labels_path", self.labels_path)
        with closing(open_input("labels_path", path)) as file:
            name = f"labels_path {strip_signatures(path)!r}"
            return self._put(context, self.tasks_of(lambda: read_task_file(file, name=name)))

    def converter(self, project: RedBrickProject) -> Converter:
        """Return a converter that also opens the masks named in ``labels_path``."""
        made = super().converter(project)
        if self.labels_path is None:
            return made
        return replace(made, open_file=self.files_beside(validation.path("labels_path", self.labels_path)))

    def _listed(self) -> list[TaskInput]:
        from airflow_provider_redbrick.operators.task_inputs import read_task_list

        listed = read_task_list(self.work_list("tasks") or ())
        if self.existing_labels and any(task.entry.keys() & LABEL_KEYS for task in listed):
            raise RedBrickInputError(
                "existing_labels submits the labels that tasks have. Remove the labels from tasks."
            )
        return listed

    def _put(self, context: Context, entries: Iterable[TaskInput]) -> dict[str, Any]:
        from airflow_provider_redbrick.client.models.task import Detail
        from airflow_provider_redbrick.engine.task_reader import KNOWN_CHUNK, ReadAhead
        from airflow_provider_redbrick.operators.task_inputs import (
            mark_repeated_tasks,
            refuse_duplicates,
            resolve_names,
        )

        project = self.get_project()
        known = [task.task_id for task in entries if task.task_id] if isinstance(entries, list) else []
        # What an earlier attempt may have saved is compared with the labels.
        detail = Detail.FULL if is_retry(context) else Detail.STATE
        ahead = ReadAhead(project, known, detail=detail, size=KNOWN_CHUNK)
        stage = self.get_stage(project, ahead.begin, labels=not self.existing_labels)
        if self.existing_labels and stage.is_review:
            raise RedBrickInputError(
                f"{stage.name!r} is a review stage. To accept tasks unchanged, use RedBrickAutoReviewOperator."
            )
        work = self.work_on(
            context,
            project,
            stage,
            detail=detail,
            draft_counts_as_done=not self.finalize,
            chunk=KNOWN_CHUNK,
            ahead=ahead,
        )
        found, total = resolve_names(work, entries), None
        if self.labels_path is None:
            listed = list(found)
            total = len(listed)
            refuse_duplicates("task", [task.task_id for task in listed])
            found = iter(listed)
        else:
            found = mark_repeated_tasks(found)
        outcomes = work.in_parallel(found, partial(self._put_batch, work))
        return self.settle(context, project, stage, outcomes, total=total)

    def _put_batch(self, work: StagePipeline, batch: Sequence[TaskInput]) -> list[Outcome]:
        from airflow_provider_redbrick.actions.put_labels import put_labels
        from airflow_provider_redbrick.annotations.conversion import Labels, read_body
        from airflow_provider_redbrick.engine.outcomes import failed

        by_id: dict[str, TaskInput] = {}
        labels: list[Labels] = []
        outcomes: list[Outcome] = []
        for task in batch:
            try:
                labels.append(Labels(task.get_valid_id(), None if self.existing_labels else read_body(task.entry)))
            except RedBrickInputError as error:
                outcomes.append(failed(task.task_id, task.with_place(error), name=task.name))
            else:
                by_id[task.task_id] = task
        for outcome in put_labels(work, labels, finished=self.finalize):
            bad = outcome.status.is_bad
            outcomes.append(
                replace(outcome, reason=by_id[outcome.task_id].with_place(outcome.reason)) if bad else outcome
            )
        return outcomes
