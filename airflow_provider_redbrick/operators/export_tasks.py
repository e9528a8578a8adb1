"""Export tasks with their labels and masks."""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.api.stage_names import GROUND_TRUTH
from airflow_provider_redbrick.assets.outlets import tell_outlets
from airflow_provider_redbrick.exceptions import RedBrickInputError
from airflow_provider_redbrick.hooks import check
from airflow_provider_redbrick.lineage.flow import NOWHERE
from airflow_provider_redbrick.operators.progress import Progress
from airflow_provider_redbrick.operators.stopping import StoppableOperator
from airflow_provider_redbrick.operators.windows import MANIFEST, Window, new_or_same_window, this_export

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from os import PathLike

    import pendulum
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_redbrick.api.exports import StoredTask
    from airflow_provider_redbrick.api.project import RedBrickProject
    from airflow_provider_redbrick.api.workflow import Stage
    from airflow_provider_redbrick.operators.publishing import Publication

TASKS = "tasks.jsonl"


class RedBrickExportTasksOperator(StoppableOperator):
    """Write a stage's tasks with their labels into ``<export_path>/tasks.jsonl``, and their masks beside it.

    One task a line, in the ``series`` format, which ``RedBrickPutLabelsOperator`` and ``RedBrickUploadTasksOperator``
    take again. Masks are as they are
    stored, in ``masks/<task id>/<series>.nii.gz`` (``.nii`` where they are not compressed), and named relative to the
    folder, which may be moved. Where two files of one series are stored, the second is ``<series>-1``.

    The export appears when it is whole: a page, task or mask that cannot be read fails the Airflow task, and what an
    earlier export left in the folder stays. Should the files not all get their places, there is no ``tasks.jsonl``
    until the next try is through. In a consensus project the labels are those that a task goes on with.

    Returns a manifest. Its ``mark`` is where an export begins that is to have what changed since: see ``mark_from``.

    :param export_path: the folder: a local path or any URI that Airflow's object storage knows.
    :param stage_name: the stage; None exports all stages.
    :param updated_after: only tasks changed at this moment or later, in any way.
    :param mark_from: instead of ``updated_after``: an Airflow task of this DAG, by its id, from whose last ``mark`` in
        earlier runs this export goes on. The export's own id makes each export begin where the last one did. Without
        a mark, as in the first run, all tasks are exported. What counts is an XCom that is an object with ``mark``,
        so that another Airflow task may hand a manifest's mark on when its part is done. The folder then has the
        manifest as ``manifest.json``, too: when the same run exports again, its window is the same, and so its mark.
    :param masks: whether masks are fetched; else labels name them by their paths in RedBrick's label storage.
    """

    template_fields: Sequence[str] = (
        *StoppableOperator.template_fields,
        "export_path",
        "stage_name",
        "updated_after",
        "mark_from",
    )
    operation = "export_tasks"
    moves = NOWHERE
    writes_to = "export_path"
    stopping = "what was written of a half export is removed"
    next_try = "begins anew"

    def __init__(
        self,
        *,
        export_path: str | PathLike[str],
        stage_name: str | None = GROUND_TRUTH,
        updated_after: Any = None,
        mark_from: str | None = None,
        masks: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.export_path = export_path
        self.stage_name = stage_name
        self.updated_after = updated_after
        self.mark_from = mark_from
        self.masks = masks

    def execute(self, context: Context) -> dict[str, Any]:
        """Export and return the manifest."""
        from airflow_provider_redbrick.api import documents
        from airflow_provider_redbrick.api.exports import BulkRead
        from airflow_provider_redbrick.hooks.metrics import measured
        from airflow_provider_redbrick.operators.publishing import Publication

        self.check_inputs()
        path = check.path("export_path", self.export_path)
        name = None if self.stage_name is None else check.text("stage_name", self.stage_name)
        after = check.time("updated_after", self.updated_after)
        if self.mark_from is not None and after is not None:
            raise RedBrickInputError("Give updated_after or mark_from, and not both.")
        check.flag("masks", self.masks)
        counts = {"tasks": 0, "labels": 0, "masks": 0}
        with Publication(path) as publication:
            project = self.get_project()
            window = Window(after) if self.mark_from is None else self._window(context, project, publication)
            stage = None if name is None else project.stage(name)
            _ = project.info  # a listing of a project that is not there says something less clear
            document = documents.TASKS_TO_EXPORT if window.until is None else documents.TASKS_TO_EXPORT_WITH_TIMES
            tasks = BulkRead(project, stage, updated_after=window.after, document=document)
            self.trace(project, stage, counts)
            with measured(self.operation, {}), self.at_work(lambda: f"{counts['tasks']} tasks were read"):
                self._write(project, window.tasks(tasks), publication, counts)
                mark = window.until or tasks.mark
                manifest = self._manifest(project, stage, counts, place=path.rstrip("/"), after=window.after, mark=mark)
                if window.export is not None:
                    with publication.open(MANIFEST) as file:
                        file.write(json.dumps({**manifest, "export": window.export}).encode())
                publication.publish(TASKS, workers=project.client.max_concurrency)
        self.log.info(
            "%s: %d tasks with %d labels and %d masks are in %s", self.operation, *counts.values(), manifest["uri"]
        )
        tell_outlets(context, self.outlets, manifest)
        return self.as_returned(manifest)

    def _window(self, context: Context, project: RedBrickProject, publication: Publication) -> Window:
        """Return the window of an earlier export of this run, else one from the last mark on."""
        export = this_export(context, project_id=project.project_id, stage_name=self.stage_name)
        mark_from = check.text("mark_from", self.mark_from)
        return new_or_same_window(context, mark_from, export=export, publication=publication, index=TASKS)

    def _manifest(
        self,
        project: RedBrickProject,
        stage: Stage | None,
        counts: Mapping[str, int],
        *,
        place: str,
        after: pendulum.DateTime | None,
        mark: pendulum.DateTime,
    ) -> dict[str, Any]:
        from airflow_provider_redbrick.batch.exporting import MASKS
        from airflow_provider_redbrick.batch.outcome import SCHEMA_VERSION

        return {
            "schema_version": SCHEMA_VERSION,
            "operation": self.operation,
            "org_id": project.org_id,
            "project_id": project.project_id,
            "stage_name": stage.public_name if stage else None,
            "counts": dict(counts),
            "uri": f"{place}/{TASKS}",
            "masks_uri": f"{place}/{MASKS}" if counts["masks"] else None,
            "updated_after": after.isoformat() if after else None,
            "mark": mark.isoformat(),
        }

    def _write(
        self, project: RedBrickProject, tasks: Iterable[StoredTask], publication: Publication, counts: dict[str, int]
    ) -> None:
        """Write the tasks and their masks, and count them."""
        from airflow_provider_redbrick.batch.exporting import export

        progress = Progress()
        exported = export(project, tasks, publication.add if self.masks else None)
        with publication.open(TASKS) as file, closing(exported):
            for each in exported:
                file.write(f"{each.line}\n".encode())
                counts["tasks"] += 1
                counts["labels"] += each.labels
                counts["masks"] += each.masks
                if line := progress.after():
                    self.log.info("%s: %s, %d masks", self.operation, line, counts["masks"])
