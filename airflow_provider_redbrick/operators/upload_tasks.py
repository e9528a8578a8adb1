"""Bring new tasks into a project."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.api.ids import check_uuid
from airflow_provider_redbrick.api.signatures import unsigned
from airflow_provider_redbrick.exceptions import RedBrickInputError
from airflow_provider_redbrick.hooks import check
from airflow_provider_redbrick.lineage.flow import IN
from airflow_provider_redbrick.operators.list_file import RedBrickListFileBaseOperator
from airflow_provider_redbrick.operators.rendering import beside_labels

if TYPE_CHECKING:
    from os import PathLike

    from airflow.providers.common.compat.sdk import Context, XComArg

    from airflow_provider_redbrick.api.project import RedBrickProject
    from airflow_provider_redbrick.batch.converting import Converter
    from airflow_provider_redbrick.batch.new_tasks import NewTask
    from airflow_provider_redbrick.batch.uploading import Uploading

_MORE_LABELS = frozenset({"classification", "segmentMap", "heatMaps", "transforms", "centerline"})


class RedBrickUploadTasksOperator(RedBrickListFileBaseOperator):
    """Create tasks, each name once: one that is there already is left as it is, and nothing of it is uploaded.

    A description is an object with

    * ``name``: unique in the project;
    * ``items``: the path of a file or a list of paths, for a task of one series; or else ``series``, a list of objects
      that have ``items`` each, and may have a ``name``, ``metaData`` and labels in the ``series`` format;
    * if wanted ``classification``, the task's own label; ``priority``, from 0 to 1, the highest first; ``metaData``,
      texts by name; ``preAssign``, by stage the e-mail or the e-mails of who is to have it there;
      ``isGroundTruth``; and ``storageId``, the storage that has its items already.

    The row of an export is such a description. Its ``taskId``, ``currentStageName``, ``updatedBy`` and ``updatedAt``
    are those of the task that was exported, and are not taken over.

    Tasks are created several at a time. In a project that duplicates its tasks the first copy's id counts; the report
    has all of them as ``task_ids``.

    :param tasks: a list of descriptions.
    :param tasks_path: instead of ``tasks``, a file of descriptions: JSON Lines or one JSON array, also compressed with
        gzip; a local path or any URI that Airflow's object storage knows. It is read as it is worked on, never held as
        a whole. A broken line is a failure of its own, and when a name comes a second time, that mention is. Relative
        paths are relative to the file's folder, and files must be in it; see ``allowed_folders``.
    :param allowed_folders: folders, as absolute paths or URIs, that items and masks named in the file may come from
        besides its own. A URI's connection and bucket count. What ``tasks`` names may come from anywhere.
    :param storage_id: the storage that has the items already, which are then sent as they are; a description that
        names another one fails. Without one here or there, items are
        files (local paths or URIs that Airflow's object storage knows) and are uploaded into RedBrick's own storage.
    :param is_ground_truth: put tasks straight into ground truth, for which they need labels; a description's own
        ``isGroundTruth`` counts for more.
    :param validate: what becomes of labels that are malformed, outside of the image, or not allowed by the project's
        taxonomy: ``strict`` fails their task and sends nothing of it, ``warn`` logs what is wrong and sends them,
        ``off`` does not look.
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
        """Render templates everywhere but in labels: a per cent sign in somebody's comment is no template."""
        if not isinstance(content, Mapping):
            return super().render_template(content, *args, **kwargs)
        from airflow_provider_redbrick.labels.kinds import LISTED

        render = super().render_template
        return beside_labels(content, _MORE_LABELS | LISTED.keys(), lambda rest: render(rest, *args, **kwargs))

    def execute(self, context: Context) -> dict[str, Any]:
        """Create the tasks and return the manifest."""
        from airflow_provider_redbrick.batch.checking import MODES
        from airflow_provider_redbrick.batch.new_tasks import read_new_tasks
        from airflow_provider_redbrick.hooks.storage import open_input
        from airflow_provider_redbrick.hooks.working import label_converter
        from airflow_provider_redbrick.operators.given import entries_of

        self.check_inputs()
        check.flag("is_ground_truth", self.is_ground_truth)
        check.one_of("validate", self.validate, MODES)
        storage_id = None if self.storage_id is None else check_uuid("storage_id", self.storage_id)
        if self.is_given("tasks") == self.is_given("tasks_path"):
            raise RedBrickInputError("Give either tasks or tasks_path: which tasks to create.")
        if self.tasks_path is None:
            tasks = self._listed()
            project = self.get_project()
            _ = project.info  # a wrong key or project is known before the first task
            uploading = self._uploading(project, label_converter(project, validate=self.validate), storage_id)
            for i, new in enumerate(tasks):
                with _about(i):
                    uploading.assignees.check(new.pre_assign)
            return self.settle(context, project, None, uploading.run(tasks), total=len(tasks))
        path = check.path("tasks_path", self.tasks_path)
        with closing(open_input("tasks_path", path)) as file:
            name = f"tasks_path {unsigned(path)!r}"
            given = read_new_tasks(self.tasks_of(lambda: entries_of(file, name=name)))
            project = self.get_project()
            _ = project.info  # a wrong key or project is known before the first task
            files = self.files_beside(path)
            converter = replace(label_converter(project, validate=self.validate), open_file=files)
            uploading = replace(self._uploading(project, converter, storage_id), may_open=files.check)
            return self.settle(context, project, None, uploading.run(given))

    def _listed(self) -> list[NewTask]:
        """Read ``tasks``; anything wrong with the list is refused as a whole."""
        from airflow_provider_redbrick.batch.converting import Labels
        from airflow_provider_redbrick.batch.new_tasks import read_new_task
        from airflow_provider_redbrick.operators.given import refuse_twins

        listed = []
        for i, description in enumerate(self.work_list("tasks") or ()):
            with _about(i):
                labels = Labels("", description).plain()
                listed.append(replace(read_new_task(labels.body), copies=labels.copies or {}))
        refuse_twins("name", [new.name for new in listed])
        return listed

    def _uploading(self, project: RedBrickProject, converter: Converter, storage_id: str | None) -> Uploading:
        """Return how to create tasks in a project."""
        from airflow_provider_redbrick.batch.uploading import Uploading

        return Uploading(project, converter, storage_id, is_ground_truth=self.is_ground_truth)


@contextmanager
def _about(index: int) -> Iterator[None]:
    """Say in messages which description of the list they are about."""
    try:
        yield
    except RedBrickInputError as error:
        raise RedBrickInputError(f"tasks[{index}]: {error}") from None
