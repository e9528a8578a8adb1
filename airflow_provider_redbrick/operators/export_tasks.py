"""Export tasks with their labels and masks."""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.assets.stages import add_to_outlet_events
from airflow_provider_redbrick.client.models.workflow import GROUND_TRUTH
from airflow_provider_redbrick.exceptions import RedBrickInputError
from airflow_provider_redbrick.hooks import validation
from airflow_provider_redbrick.lineage import NOWHERE
from airflow_provider_redbrick.operators.base import Progress, StoppableOperator
from airflow_provider_redbrick.operators.run_state import (
    MANIFEST,
    Window,
    get_export_identity,
    get_window,
    push_overlap,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from os import PathLike

    import pendulum
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_redbrick.client.models.workflow import Stage
    from airflow_provider_redbrick.client.operations.project import RedBrickProject
    from airflow_provider_redbrick.client.operations.task_reads import BulkRead
    from airflow_provider_redbrick.operators.staged_directory import StagedDirectory

TASKS = "tasks.jsonl"


class RedBrickExportTasksOperator(StoppableOperator):
    """Export a stage's tasks with labels to JSON Lines, and their masks.

    The export folder contains ``tasks.jsonl``, with one task per line in the ``series`` format that
    ``RedBrickPutLabelsOperator`` and ``RedBrickUploadTasksOperator`` read. Masks are copied unchanged to
    ``masks/<task id>/<series>.nii.gz`` (``.nii`` if they are not compressed). A second mask file of one series is named
    ``<series>-1``. Lines name masks relative to the folder, so that the folder can be moved.

    The export is published when it is complete. A page, task or mask that cannot be read fails the Airflow task, and an
    earlier export in the folder stays. If publishing is interrupted, the folder has no ``tasks.jsonl`` until a retry
    completes. In a consensus project the labels are those that the task continues with.

    The operator returns a manifest. Its ``watermark`` is the time from which the next incremental export must read to
    miss no change, although reads may lag behind; see ``watermark_from``.

    :param export_path: export folder: a local path or a URI that Airflow's object storage supports.
    :param stage_name: the stage to export. Default: Ground Truth. None exports all stages.
    :param updated_after: export only tasks changed at or after this time, in any way: a date and time, or ISO-8601
        text, in UTC if it names no time zone. Default: no limit.
    :param watermark_from: id of an Airflow task of this DAG, instead of ``updated_after``. The export starts at the
        last ``watermark`` that this Airflow task returned in earlier runs, and leaves out what the export that ended
        there contains. With the export's own ``task_id``, each export starts where the previous one ended, and each
        version of a task is in one of them. Without a watermark, as in the first run, all tasks are exported. An
        earlier value is any XCom that is an object with ``watermark``; another Airflow task can therefore return the
        manifest's watermark after it has processed the export. The manifest is also written to ``manifest.json`` in the
        folder: if the same run exports again, it uses the same window and watermark.
    :param masks: whether to copy masks. If False, labels name masks by their paths in RedBrick's label storage.
    """

    template_fields: Sequence[str] = (
        *StoppableOperator.template_fields,
        "export_path",
        "stage_name",
        "updated_after",
        "watermark_from",
    )
    operation = "export_tasks"
    moves = NOWHERE
    writes_to = "export_path"
    stopping = "the files of the incomplete export are removed"
    next_attempt = "starts over"

    def __init__(
        self,
        *,
        export_path: str | PathLike[str],
        stage_name: str | None = GROUND_TRUTH,
        updated_after: Any = None,
        watermark_from: str | None = None,
        masks: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.export_path = export_path
        self.stage_name = stage_name
        self.updated_after = updated_after
        self.watermark_from = watermark_from
        self.masks = masks

    def execute(self, context: Context) -> dict[str, Any]:
        """Export the tasks and return the manifest.

        :param context: the Airflow task's context.
        :return: the manifest: counts, ``uri``, ``masks_uri``, ``updated_after`` and ``watermark``.
        :raises RedBrickInputError: if a parameter is invalid, or nothing can be written to ``export_path``.
        """
        from airflow_provider_redbrick.client.operations.task_reads import BulkRead
        from airflow_provider_redbrick.hooks.redbrick import measured
        from airflow_provider_redbrick.operators.staged_directory import StagedDirectory

        self.check_inputs()
        path = validation.path("export_path", self.export_path)
        name = None if self.stage_name is None else validation.text("stage_name", self.stage_name)
        after = validation.time("updated_after", self.updated_after)
        if self.watermark_from is not None and after is not None:
            raise RedBrickInputError("Give either updated_after or watermark_from, not both.")
        validation.flag("masks", self.masks)
        counts = {"tasks": 0, "labels": 0, "masks": 0}
        owner = json.dumps(get_export_identity(context))
        with StagedDirectory(path, owner=owner, attempt=context["ti"].try_number) as directory:
            project = self.get_project()
            window = Window(after) if self.watermark_from is None else self._window(context, project, directory)
            stage = None if name is None else project.stage(name)
            _ = project.info  # If the project is missing, this read has a clearer error than the listing.
            tasks = BulkRead(project, stage, updated_after=window.after)
            self.trace(project, stage, counts)
            with measured(self.operation, {}), self.at_work(lambda: f"{counts['tasks']} tasks were read"):
                self._write(project, window, tasks, directory, counts)
                watermark = window.end(tasks.watermark)
                manifest = self._manifest(
                    project, stage, counts, place=path.rstrip("/"), after=window.after, watermark=watermark
                )
                if window.export is not None:
                    state = {**manifest, "export": window.export, "overlap": window.overlap(watermark).to_json()}
                    with directory.open(MANIFEST) as file:
                        file.write(json.dumps(state).encode())
                directory.publish(TASKS, workers=project.client.max_concurrency)
        if window.export is not None:
            push_overlap(context, watermark, window.overlap(watermark))
        self.log.info(
            "%s: exported %d tasks with %d labels and %d masks to %s",
            self.operation,
            *counts.values(),
            manifest["uri"],
        )
        add_to_outlet_events(context, self.outlets, manifest)
        return self.format_return_value(manifest)

    def _window(self, context: Context, project: RedBrickProject, directory: StagedDirectory) -> Window:
        """Return the window of this run's previous export, or a new one."""
        export = get_export_identity(context, project_id=project.project_id, stage_name=self.stage_name)
        watermark_from = validation.text("watermark_from", self.watermark_from)
        return get_window(context, watermark_from, export=export, directory=directory, index=TASKS)

    def _manifest(
        self,
        project: RedBrickProject,
        stage: Stage | None,
        counts: Mapping[str, int],
        *,
        place: str,
        after: pendulum.DateTime | None,
        watermark: pendulum.DateTime,
    ) -> dict[str, Any]:
        from airflow_provider_redbrick.actions.export import MASKS
        from airflow_provider_redbrick.engine.outcomes import SCHEMA_VERSION

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
            "watermark": watermark.isoformat(),
        }

    def _write(
        self,
        project: RedBrickProject,
        window: Window,
        tasks: BulkRead,
        directory: StagedDirectory,
        counts: dict[str, int],
    ) -> None:
        """Write the tasks of the window and their masks, and update the counts."""
        from airflow_provider_redbrick.actions.export import export

        progress = Progress()
        exported = export(project, window.tasks(tasks), directory.add if self.masks else None)
        with directory.open(TASKS) as file, closing(exported):
            for task in exported:
                file.write(f"{task.line}\n".encode())
                window.add(task.task_id, task.version, tasks.watermark)
                counts["tasks"] += 1
                counts["labels"] += task.labels
                counts["masks"] += task.masks
                if line := progress.after():
                    self.log.info("%s: %s, %d masks", self.operation, line, counts["masks"])
