"""OpenLineage methods of operators."""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.api.stage_names import normalize_stage_name
from airflow_provider_redbrick.hooks.in_project import InRedBrickProject
from airflow_provider_redbrick.lineage.flow import IN, NOWHERE, STAY, Flow, file_place, leads_to, stage_place

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow.providers.openlineage.extractors import OperatorLineage

    from airflow_provider_redbrick.api.project import RedBrickProject
    from airflow_provider_redbrick.api.workflow import Stage


class TracedOperator(InRedBrickProject):
    """Base of the operators with OpenLineage lineage.

    OpenLineage is imported only when its listener calls. Without its provider, there is no lineage.
    """

    operation = ""
    reads_from = ""
    """The field with the path of the input file, if there is one."""
    writes_to = ""
    """The field with the path of the output file, if there is one."""
    _seen: tuple[RedBrickProject, Stage | None, Mapping[str, int]] | None = None

    @property
    def moves(self) -> str:
        """Position of the tasks after the operator.

        One of ``stay``, ``on``, ``back``, ``in`` (it creates them) or ``nowhere``.
        """
        return STAY

    def trace(self, project: RedBrickProject, stage: Stage | None, counts: Mapping[str, int]) -> None:
        """Record the run's project, stage and counts for lineage.

        :param project: the project.
        :param stage: the stage; None for the whole project.
        :param counts: task counts by outcome. Read when the run has ended, so it may still change.
        """
        self._seen = (project, stage, counts)

    def flow(self) -> Flow:
        """Return the run's inputs and outputs.

        Before the run they come from its parameters; after it, also from the project's workflow.
        """
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
        return Flow(self.operation, inputs, (*there, *written), dict(counts), self._model())

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
            from airflow_provider_redbrick.lineage.facets import to_openlineage
        except ImportError:
            return None
        return to_openlineage(self.flow())

    def _stage_named(self) -> str | None:
        name = getattr(self, "stage_name", None)
        return normalize_stage_name(name) if isinstance(name, str) else None

    def _model(self) -> dict[str, str]:
        """Return the model's name and version, as far as they are set."""
        model = {key: getattr(self, f"model_{key}", None) for key in ("name", "version")}
        return {key: str(value) for key, value in model.items() if value is not None}

    def _files(self, name: str) -> tuple[Any, ...]:
        path = getattr(self, name, None) if name else None
        return (file_place(str(path)),) if isinstance(path, str | PathLike) else ()
