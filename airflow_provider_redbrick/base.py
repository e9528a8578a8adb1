"""Base class of all operators and sensors of this provider.

It adds the connection, the organization and the project to an Airflow operator, and validates template fields.
"""

from __future__ import annotations

from functools import cached_property
from os import PathLike
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperator

from airflow_provider_redbrick.client.models.workflow import normalize_stage_name
from airflow_provider_redbrick.hooks.redbrick import RedBrickHook
from airflow_provider_redbrick.hooks.validation import CheckedOperatorInputs
from airflow_provider_redbrick.lineage import IN, NOWHERE, STAY, Flow, destination_stages, file_dataset, stage_dataset

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.providers.openlineage.extractors import OperatorLineage

    from airflow_provider_redbrick.client.models.workflow import Stage
    from airflow_provider_redbrick.client.operations.project import RedBrickProject


class InRedBrickProject(CheckedOperatorInputs, BaseOperator):
    """Base of all operators and sensors: a connection and a project.

    :param redbrick_conn_id: the connection. Default: ``redbrick_default``.
    :param org_id: the organization. Default: that of the connection.
    :param project_id: the project. Default: that of the connection.
    """

    template_fields: Sequence[str] = ("redbrick_conn_id", "org_id", "project_id")
    ui_color = "#f6e3e0"

    def __init__(
        self,
        *,
        redbrick_conn_id: str = RedBrickHook.default_conn_name,
        org_id: str | None = None,
        project_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.redbrick_conn_id = redbrick_conn_id
        self.org_id = org_id
        self.project_id = project_id

    @cached_property
    def hook(self) -> RedBrickHook:
        """The hook for the connection."""
        return RedBrickHook(self.redbrick_conn_id)

    def get_project(self) -> RedBrickProject:
        """Return the project.

        :raises RedBrickInputError: if a template renders to nothing, or no project is set.
        """
        self.check_inputs()
        return self.hook.project(self.project_id, org_id=self.org_id)


class TracedOperator(InRedBrickProject):
    """Base of the operators with OpenLineage lineage.

    OpenLineage is imported only when its listener calls. Without its provider, no lineage is recorded.
    """

    operation = ""
    reads_from = ""
    """Name of the field with the path of the input file; empty without one."""
    writes_to = ""
    """Name of the field with the path of the output file; empty without one."""
    _traced_run: tuple[RedBrickProject, Stage | None, Mapping[str, int]] | None = None

    @property
    def moves(self) -> str:
        """Position of the tasks after the operator.

        One of ``stay``, ``on`` (the next stage), ``back`` (the first stage), ``in`` (newly created) or ``nowhere`` (it
        only reads).
        """
        return STAY

    def trace(self, project: RedBrickProject, stage: Stage | None, counts: Mapping[str, int]) -> None:
        """Record the run's project, stage and counts for lineage.

        :param project: the project.
        :param stage: the stage; None for the whole project.
        :param counts: task counts by outcome. Read when the run has ended, so it may still change.
        """
        self._traced_run = (project, stage, counts)

    def flow(self) -> Flow:
        """Return the run's inputs and outputs.

        Before the run they come from its parameters; after it, also from the project's workflow.
        """
        read, written = self._files(self.reads_from), self._files(self.writes_to)
        if self._traced_run is None:
            settings = self.hook.settings
            org_id, project_id = self.org_id or settings.org_id, self.project_id or settings.project_id
            source = stage_dataset(str(org_id), str(project_id), self._stage_name_given())
            destinations = [source] if self.moves in {STAY, IN} else []
            counts: Mapping[str, int] = {}
        else:
            project, stage, counts = self._traced_run
            ids = (project.org_id, project.project_id)
            source = stage_dataset(*ids, stage.public_name if stage else None)
            if stage is None:
                destinations = [] if self.moves == NOWHERE else [source]
            else:
                destinations = [
                    stage_dataset(*ids, name) for name in destination_stages(project.info.workflow, stage, self.moves)
                ]
        inputs = read if self.moves == IN else (source, *read)
        return Flow(self.operation, inputs, (*destinations, *written), dict(counts), self._model())

    def get_openlineage_facets_on_start(self) -> OperatorLineage[Any, Any] | None:
        """Return the project and stage as datasets."""
        return self._openlineage()

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any] | None:  # noqa: ARG002
        """Return the datasets with task counts."""
        return self._openlineage()

    def get_openlineage_facets_on_failure(self, task_instance: Any) -> OperatorLineage[Any, Any] | None:  # noqa: ARG002
        """Return the datasets with the counts up to the failure, which stay applied."""
        return self._openlineage()

    def _openlineage(self) -> OperatorLineage[Any, Any] | None:
        try:
            from airflow_provider_redbrick.lineage_facets import to_openlineage
        except ImportError:
            return None
        return to_openlineage(self.flow())

    def _stage_name_given(self) -> str | None:
        name = getattr(self, "stage_name", None)
        return normalize_stage_name(name) if isinstance(name, str) else None

    def _model(self) -> dict[str, str]:
        """Return the model's name and version, as far as they are set."""
        model = {key: getattr(self, f"model_{key}", None) for key in ("name", "version")}
        return {key: str(value) for key, value in model.items() if value is not None}

    def _files(self, name: str) -> tuple[Any, ...]:
        path = getattr(self, name, None) if name else None
        return (file_dataset(str(path)),) if isinstance(path, str | PathLike) else ()
