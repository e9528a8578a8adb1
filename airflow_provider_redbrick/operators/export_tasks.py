"""Export tasks with their labels and masks."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.api.stage_names import GROUND_TRUTH
from airflow_provider_redbrick.assets.outlets import tell_outlets
from airflow_provider_redbrick.exceptions import RedBrickInputError
from airflow_provider_redbrick.hooks import check
from airflow_provider_redbrick.lineage.flow import NOWHERE
from airflow_provider_redbrick.operators.marks import last_mark
from airflow_provider_redbrick.operators.progress import Progress
from airflow_provider_redbrick.operators.stopping import StoppableOperator

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

    import pendulum
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_redbrick.api.exports import BulkRead
    from airflow_provider_redbrick.api.project import RedBrickProject
    from airflow_provider_redbrick.api.workflow import Stage
    from airflow_provider_redbrick.operators.publishing import Publication

TASKS = "tasks.jsonl"


class RedBrickExportTasksOperator(StoppableOperator):
    """Write a stage's tasks with their labels into ``<export_path>/tasks.jsonl``, and their masks beside it.

    One task a line, in the ``series`` format, which ``RedBrickPutLabelsOperator`` takes again. Masks are as they are
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
        so that another Airflow task may hand a manifest's mark on when its part is done.
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
        from airflow_provider_redbrick.api.exports import BulkRead
        from airflow_provider_redbrick.batch.exporting import MASKS
        from airflow_provider_redbrick.batch.outcome import SCHEMA_VERSION
        from airflow_provider_redbrick.operators.publishing import Publication

        path = check.path("export_path", self.export_path)
        name = None if self.stage_name is None else check.text("stage_name", self.stage_name)
        after = self._after(context)
        check.flag("masks", self.masks)
        with Publication(path) as publication:
            project = self.get_project()
            stage = None if name is None else project.stage(name)
            _ = project.info  # a listing of a project that is not there says something less clear
            tasks = BulkRead(project, stage, updated_after=after)
            counts = self._export(project, stage, tasks, publication)
        place = path.rstrip("/")
        self.log.info(
            "%s: %d tasks with %d labels and %d masks are in %s", self.operation, *counts.values(), f"{place}/{TASKS}"
        )
        manifest = {
            "schema_version": SCHEMA_VERSION,
            "operation": self.operation,
            "org_id": project.org_id,
            "project_id": project.project_id,
            "stage_name": stage.public_name if stage else None,
            "counts": counts,
            "uri": f"{place}/{TASKS}",
            "masks_uri": f"{place}/{MASKS}" if counts["masks"] else None,
            "updated_after": after.isoformat() if after else None,
            "mark": tasks.mark.isoformat(),
        }
        tell_outlets(context, self.outlets, manifest)
        return self.as_returned(manifest)

    def _after(self, context: Context) -> pendulum.DateTime | None:
        """Return the moment from which on what changed is exported, None for all."""
        if self.mark_from is None:
            return check.time("updated_after", self.updated_after)
        if self.updated_after is not None:
            raise RedBrickInputError("Give updated_after or mark_from, and not both.")
        return last_mark(context, check.text("mark_from", self.mark_from))

    def _export(
        self, project: RedBrickProject, stage: Stage | None, tasks: BulkRead, publication: Publication
    ) -> dict[str, int]:
        from airflow_provider_redbrick.batch.exporting import export
        from airflow_provider_redbrick.hooks.metrics import measured

        counts, progress = {"tasks": 0, "labels": 0, "masks": 0}, Progress()
        self.trace(project, stage, counts)
        exported = export(project, tasks, publication.add if self.masks else None)
        with measured(self.operation, {}), self.at_work(lambda: f"{counts['tasks']} tasks were read"):
            with publication.open(TASKS) as file, closing(exported):
                for each in exported:
                    file.write(f"{each.line}\n".encode())
                    counts["tasks"] += 1
                    counts["labels"] += each.labels
                    counts["masks"] += each.masks
                    if line := progress.after():
                        self.log.info("%s: %s, %d masks", self.operation, line, counts["masks"])
            publication.publish(TASKS, workers=project.client.max_concurrency)
        return counts
