"""OpenLineage objects of an operator's lineage.

This module is imported only where OpenLineage's provider is installed, by the methods that its listener calls.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
from airflow.providers.common.compat.openlineage.facet import (
    InputDataset,
    OutputDataset,
    OutputStatisticsOutputDatasetFacet,
    RunFacet,
)
from airflow.providers.openlineage.extractors import OperatorLineage

from airflow_provider_redbrick import __version__

if TYPE_CHECKING:
    from airflow_provider_redbrick.lineage import Dataset, Flow


@attrs.define
class RedBrickRunFacet(RunFacet):
    """Operation, task counts by outcome, and the model if it is known."""

    operation: str
    counts: dict[str, int]
    model: dict[str, str]
    providerVersion: str = __version__  # noqa: N815 - the spelling of OpenLineage facets


def to_openlineage(flow: Flow) -> OperatorLineage[Any, Any]:
    """Convert a flow to OpenLineage's operator lineage."""
    facet = RedBrickRunFacet(flow.operation, dict(flow.counts), dict(flow.model))
    return OperatorLineage(
        inputs=[InputDataset(dataset.namespace, dataset.name) for dataset in flow.inputs],
        outputs=[_output(flow, dataset) for dataset in flow.outputs],
        run_facets={"redbrick": facet},
    )


def _output(flow: Flow, dataset: Dataset) -> OutputDataset:
    """Return an output, with its task count if there is only one output."""
    count = flow.counts.get("done", flow.counts.get("tasks"))
    if count is None or len(flow.outputs) > 1:
        return OutputDataset(dataset.namespace, dataset.name)
    rows = OutputStatisticsOutputDatasetFacet(rowCount=count)
    return OutputDataset(dataset.namespace, dataset.name, outputFacets={"outputStatistics": rows})
