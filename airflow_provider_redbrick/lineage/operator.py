"""What OpenLineage's listener asks an operator."""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.api.stage_names import as_users_see_it
from airflow_provider_redbrick.hooks.in_project import InRedBrickProject
from airflow_provider_redbrick.lineage.flow import IN, NOWHERE, STAY, Flow, file_place, leads_to, stage_place

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow.providers.openlineage.extractors import OperatorLineage

    from airflow_provider_redbrick.api.project import RedBrickProject
    from airflow_provider_redbrick.api.workflow import Stage


class TracedOperator(InRedBrickProject):
    """Base of the operators whose lineage OpenLineage can see.

    Nothing of OpenLineage is imported before its listener asks, and nothing is answered where its provider is not
    installed.
    """

    operation = ""
    reads_from = ""
    """The field with the file that is read, if there is one."""
    writes_to = ""
    """The field with the place of the file that is written, if there is one."""
    _seen: tuple[RedBrickProject, Stage | None, Mapping[str, int]] | None = None

    @property
    def moves(self) -> str:
        """Where tasks are when this is done: ``stay``, ``on``, ``back``, ``in`` (it makes them) or ``nowhere``."""
        return STAY

    def trace(self, project: RedBrickProject, stage: Stage | None, counts: Mapping[str, int]) -> None:
        """Remember what the run is about; ``counts`` are read when it has ended."""
        self._seen = (project, stage, counts)

    def flow(self) -> Flow:
        """Return what is known: before the run its parameters, after it also where the workflow leads."""
        read, written = self._files(self.reads_from), self._files(self.writes_to)
        if self._seen is None:
            settings = self.hook.settings
            org_id, project_id = self.org_id or settings.org_id, self.project_id or settings.project_id
            here = stage_place(str(org_id), str(project_id), self._stage_named())
            there = [here] if self.moves in {STAY, IN} else []
            counts: Mapping[str, int] = {}
        else:
            project, stage, counts = self._seen
            ids = (project.org_id, project.project_id)
            here = stage_place(*ids, stage.public_name if stage else None)
            if stage is None:
                there = [] if self.moves == NOWHERE else [here]
            else:
                there = [stage_place(*ids, name) for name in leads_to(project.info.workflow, stage, self.moves)]
        inputs = read if self.moves == IN else (here, *read)
        return Flow(self.operation, inputs, (*there, *written), dict(counts), self._of_model())

    def get_openlineage_facets_on_start(self) -> OperatorLineage[Any, Any] | None:
        """Return the project and stage as datasets."""
        return self._told()

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any] | None:  # noqa: ARG002
        """Return the datasets with what was done, in numbers."""
        return self._told()

    def get_openlineage_facets_on_failure(self, task_instance: Any) -> OperatorLineage[Any, Any] | None:  # noqa: ARG002
        """Return the same: what was done before the failure stays done."""
        return self._told()

    def _told(self) -> OperatorLineage[Any, Any] | None:
        try:
            from airflow_provider_redbrick.lineage.facets import told
        except ImportError:
            return None
        return told(self.flow())

    def _stage_named(self) -> str | None:
        name = getattr(self, "stage_name", None)
        return as_users_see_it(name) if isinstance(name, str) else None

    def _of_model(self) -> dict[str, str]:
        """Return what the operator was told of its model."""
        told = {key: getattr(self, f"model_{key}", None) for key in ("name", "version")}
        return {key: str(value) for key, value in told.items() if value is not None}

    def _files(self, name: str) -> tuple[Any, ...]:
        path = getattr(self, name, None) if name else None
        return (file_place(str(path)),) if isinstance(path, str | PathLike) else ()
