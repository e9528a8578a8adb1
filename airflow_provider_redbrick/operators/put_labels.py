"""Put finished labels on tasks."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.api.signatures import unsigned
from airflow_provider_redbrick.exceptions import RedBrickInputError
from airflow_provider_redbrick.hooks import check
from airflow_provider_redbrick.lineage.flow import ON, STAY
from airflow_provider_redbrick.operators.list_file import RedBrickListFileBaseOperator
from airflow_provider_redbrick.operators.stage_base import LABEL_KEYS, RedBrickStageBaseOperator

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from os import PathLike

    from airflow.providers.common.compat.sdk import Context, XComArg

    from airflow_provider_redbrick.api.project import RedBrickProject
    from airflow_provider_redbrick.batch.converting import Converter, Labels
    from airflow_provider_redbrick.batch.outcome import Outcome
    from airflow_provider_redbrick.batch.stage_work import StageWork
    from airflow_provider_redbrick.operators.given import Given


class RedBrickPutLabelsOperator(RedBrickListFileBaseOperator, RedBrickStageBaseOperator):
    """Put labels on tasks of a stage, and submit them; in a review stage, accept them with the labels as correction.

    Labels replace those the task had. One invalid task does not sink the others. See the base class for
    ``stage_name``, ``claim`` and ``take_from_people``.

    :param tasks: a list of tasks, each naming itself by ``taskId`` or by its exact ``name``, with its labels as
        ``series`` and/or ``classification``, or in the older form as ``labels``. With ``existing_labels`` a plain id
        will do.
    :param labels_path: instead of ``tasks``, a file of such objects: JSON Lines or one JSON array (a ``tasks.json``
        of the public SDK, say), also compressed with gzip; a local path or any URI that Airflow's object storage
        knows. It is read as it is worked on, never held as a whole. A broken line is a failure of its own, and when
        a task is named a second time, that mention is. Relative paths of masks are relative to the file's folder, and
        masks must be in it; see ``allowed_folders``.
    :param allowed_folders: folders, as absolute paths or URIs, that masks named in the file may come from besides its
        own. A URI's connection and bucket count. What ``tasks`` names may come from anywhere.
    :param finalize: submit; False saves the labels as a draft and leaves the task where it is.
    :param existing_labels: submit the labels the tasks already have; they must not bring any.
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
        """Where tasks are when this is done."""
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
        """Put the labels and return the manifest."""
        from airflow_provider_redbrick.hooks.storage import open_input
        from airflow_provider_redbrick.operators.given import in_file

        self.check_inputs()
        check.flag("finalize", self.finalize)
        check.flag("existing_labels", self.existing_labels)
        if self.existing_labels and not self.finalize:
            raise RedBrickInputError("existing_labels submits what is there, so it does not go with finalize=False.")
        if self.is_given("tasks") == self.is_given("labels_path"):
            raise RedBrickInputError("Give either tasks or labels_path: one of them says where the labels are.")
        if self.labels_path is None:
            return self._put(context, self._listed())
        if self.existing_labels:
            raise RedBrickInputError("existing_labels submits what is there, so it does not go with labels_path.")
        path = check.path("labels_path", self.labels_path)
        with closing(open_input("labels_path", path)) as file:
            name = f"labels_path {unsigned(path)!r}"
            return self._put(context, self.tasks_of(lambda: in_file(file, name=name)))

    def converter(self, project: RedBrickProject) -> Converter:
        """Return what makes labels ready to be sent, with the masks that a file of labels names."""
        made = super().converter(project)
        if self.labels_path is None:
            return made
        return replace(made, open_file=self.files_beside(check.path("labels_path", self.labels_path)))

    def _listed(self) -> list[Given]:
        from airflow_provider_redbrick.operators.given import in_list

        listed = in_list(self.work_list("tasks") or ())
        if self.existing_labels and any(given.entry.keys() & LABEL_KEYS for given in listed):
            raise RedBrickInputError("existing_labels submits what is there, but some of the tasks bring labels.")
        return listed

    def _put(self, context: Context, entries: Iterable[Given]) -> dict[str, Any]:
        from airflow_provider_redbrick.api.detail import Detail
        from airflow_provider_redbrick.batch.reading import KNOWN_CHUNK, ReadAhead
        from airflow_provider_redbrick.operators.given import once_each, refuse_twins, with_ids

        project = self.get_project()
        known = [given.task_id for given in entries if given.task_id] if isinstance(entries, list) else []
        ahead = ReadAhead(project, known, detail=Detail.STATE, size=KNOWN_CHUNK)
        stage = self.get_stage(project, ahead.begin, labels=not self.existing_labels)
        if self.existing_labels and stage.is_review:
            raise RedBrickInputError(
                f"{stage.name} is a review stage: to accept tasks as they are, use RedBrickAutoReviewOperator."
            )
        work = self.work_on(context, project, stage, saved_counts=not self.finalize, chunk=KNOWN_CHUNK, ahead=ahead)
        found, total = with_ids(work, entries), None
        if self.labels_path is None:
            listed = list(found)
            total = len(listed)
            refuse_twins("task", [given.task_id for given in listed])
            found = iter(listed)
        else:
            found = once_each(found)
        outcomes = work.in_parallel(found, partial(self._put_batch, work))
        return self.settle(context, project, stage, outcomes, total=total)

    def _put_batch(self, work: StageWork, batch: Sequence[Given]) -> list[Outcome]:
        from airflow_provider_redbrick.batch.converting import Labels, read_body
        from airflow_provider_redbrick.batch.labelling import put_labels
        from airflow_provider_redbrick.batch.outcome import failed

        by_id: dict[str, Given] = {}
        labels: list[Labels] = []
        outcomes: list[Outcome] = []
        for given in batch:
            try:
                labels.append(Labels(given.sound_id(), None if self.existing_labels else read_body(given.entry)))
            except RedBrickInputError as error:
                outcomes.append(failed(given.task_id, given.told(error), name=given.name))
            else:
                by_id[given.task_id] = given
        for outcome in put_labels(work, labels, finished=self.finalize):
            bad = outcome.status.is_bad
            outcomes.append(replace(outcome, reason=by_id[outcome.task_id].told(outcome.reason)) if bad else outcome)
        return outcomes
