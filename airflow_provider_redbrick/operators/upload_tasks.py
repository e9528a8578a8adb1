"""Create new tasks in a project."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.client.models.parsing import check_uuid
from airflow_provider_redbrick.client.transport.redaction import strip_signatures
from airflow_provider_redbrick.exceptions import RedBrickInputError
from airflow_provider_redbrick.hooks import validation
from airflow_provider_redbrick.lineage import IN
from airflow_provider_redbrick.operators.base import RedBrickListFileBaseOperator
from airflow_provider_redbrick.operators.stage_base import render_except_labels

if TYPE_CHECKING:
    from os import PathLike

    from airflow.providers.common.compat.sdk import Context, XComArg

    from airflow_provider_redbrick.actions.task_specs import NewTask
    from airflow_provider_redbrick.actions.upload import Uploading
    from airflow_provider_redbrick.annotations.conversion import Converter
    from airflow_provider_redbrick.client.operations.project import RedBrickProject

_MORE_LABELS = frozenset({"classification", "segmentMap", "heatMaps", "transforms", "centerline"})


class RedBrickUploadTasksOperator(RedBrickListFileBaseOperator):
    """Create tasks with their items, once per name.

    A task whose name already exists is left unchanged, and nothing is uploaded for it. Each task is described by an
    object with

    * ``name``: unique in the project;
    * ``items``: the path of a file or a list of paths, for a task of one series; or instead ``series``, a list of
      objects with ``items`` each, and optionally a ``name``, ``metaData`` and labels in the ``series`` format;
    * optionally ``classification``, the label of the whole task; ``priority``, from 0 to 1, highest first;
      ``metaData``, texts by name; ``preAssign``, the email or emails of the assignees by stage; ``isGroundTruth``; and
      ``storageId``, the storage that already contains the items.

    The row of an export is a valid description. Its ``taskId``, ``currentStageName``, ``updatedBy`` and ``updatedAt``
    belong to the exported task and are ignored.

    Several tasks are created at the same time. In a project that duplicates its tasks, the outcome has the id of the
    first copy; the report has all of them as ``task_ids``.

    :param tasks: a list of descriptions.
    :param tasks_path: instead of ``tasks``, a file of descriptions: JSON Lines or one JSON array, optionally compressed
        with gzip; a local path or a URI that Airflow's object storage supports. The file is streamed. An invalid line
        fails alone, and so does a repeated name. Relative paths are relative to the file's folder, and files must be in
        it; see ``allowed_folders``.
    :param allowed_folders: further folders, as absolute paths or URIs, that items and masks named in the file may be
        in. A URI matches with its connection and bucket. Files named in ``tasks`` may be anywhere.
    :param storage_id: the storage that already contains the items. Items are then sent unchanged, and a description
        that names another storage fails. Without a storage, items are files (local paths or URIs that Airflow's object
        storage supports) and are uploaded to RedBrick's own storage.
    :param is_ground_truth: create tasks in ground truth, which requires labels. ``isGroundTruth`` of a description
        takes precedence.
    :param validate: how to treat labels that are malformed, outside of the image, or not allowed by the project's
        taxonomy. ``strict`` fails the task and sends nothing for it. ``warn`` logs the problems and sends the labels.
        ``off`` does not validate.
    """

    template_fields: Sequence[str] = (
        *RedBrickListFileBaseOperator.template_fields,
        "tasks",
        "tasks_path",
        "storage_id",
        "allowed_folders",
    )
    operation = "upload_tasks"
    work_lists = ("tasks",)
    moves = IN
    reads_from = "tasks_path"

    def __init__(
        self,
        *,
        tasks: Sequence[Mapping[str, Any]] | XComArg | str | None = None,
        tasks_path: str | PathLike[str] | None = None,
        storage_id: str | None = None,
        is_ground_truth: bool = False,
        validate: str = "strict",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.tasks = tasks
        self.tasks_path = tasks_path
        self.storage_id = storage_id
        self.is_ground_truth = is_ground_truth
        self.validate = validate

    def render_template(self, content: Any, *args: Any, **kwargs: Any) -> Any:
        """Render templates, except in labels.

        A ``{{`` in a label's comment is not a template.

        :param content: the value to render.
        :param args: passed to Airflow.
        """
        if not isinstance(content, Mapping):
            return super().render_template(content, *args, **kwargs)
        from airflow_provider_redbrick.labels.schema import LISTED

        render = super().render_template
        return render_except_labels(content, _MORE_LABELS | LISTED.keys(), lambda rest: render(rest, *args, **kwargs))

    def execute(self, context: Context) -> dict[str, Any]:
        """Create the tasks and return the manifest.

        :param context: the Airflow task's context.
        :return: the manifest: what happened to the tasks, with counts by status.
        :raises RedBrickInputError: if a parameter is invalid, or a list has an invalid entry.
        :raises RedBrickTasksFailedError: if tasks failed and ``fail_on`` says that they fail the Airflow task.
        """
        from airflow_provider_redbrick.actions.task_specs import read_new_tasks
        from airflow_provider_redbrick.annotations.conversion import MODES, Converter
        from airflow_provider_redbrick.hooks.files import open_file, open_input
        from airflow_provider_redbrick.operators.task_inputs import read_file_entries

        self.check_inputs()
        validation.flag("is_ground_truth", self.is_ground_truth)
        validation.one_of("validate", self.validate, MODES)
        storage_id = None if self.storage_id is None else check_uuid("storage_id", self.storage_id)
        if self.is_given("tasks") == self.is_given("tasks_path"):
            raise RedBrickInputError("Give either tasks or tasks_path.")
        if self.tasks_path is None:
            tasks = self._listed()
            project = self.get_project()
            _ = project.info  # Fail on a wrong key or project before the first task.
            converter = Converter.for_project(project, open_file, validate=self.validate)
            uploading = self._uploading(project, converter, storage_id)
            for i, new in enumerate(tasks):
                with _about(i):
                    uploading.assignees.check(new.pre_assign)
            return self.settle(context, project, None, uploading.run(tasks), total=len(tasks))
        path = validation.path("tasks_path", self.tasks_path)
        with closing(open_input("tasks_path", path)) as file:
            name = f"tasks_path {strip_signatures(path)!r}"
            given = read_new_tasks(self.tasks_of(lambda: read_file_entries(file, name=name)))
            project = self.get_project()
            _ = project.info  # Fail on a wrong key or project before the first task.
            files = self.files_beside(path)
            converter = Converter.for_project(project, files, validate=self.validate)
            uploading = replace(self._uploading(project, converter, storage_id), may_open=files.check)
            return self.settle(context, project, None, uploading.run(given))

    def _listed(self) -> list[NewTask]:
        """Parse ``tasks``. One invalid description refuses the whole list."""
        from airflow_provider_redbrick.actions.task_specs import read_new_task
        from airflow_provider_redbrick.annotations.conversion import Labels
        from airflow_provider_redbrick.operators.task_inputs import refuse_duplicates

        listed = []
        for i, description in enumerate(self.work_list("tasks") or ()):
            with _about(i):
                labels = Labels("", description).plain()
                listed.append(replace(read_new_task(labels.body), copies=labels.copies or {}))
        refuse_duplicates("name", [new.name for new in listed])
        return listed

    def _uploading(self, project: RedBrickProject, converter: Converter, storage_id: str | None) -> Uploading:
        """Return how to create tasks in a project."""
        from airflow_provider_redbrick.actions.upload import Uploading

        return Uploading(project, converter, storage_id, is_ground_truth=self.is_ground_truth)


@contextmanager
def _about(index: int) -> Iterator[None]:
    """Prefix messages with the position of a description in the list."""
    try:
        yield
    except RedBrickInputError as error:
        raise RedBrickInputError(f"tasks[{index}]: {error}") from None
