"""OpenLineage's own objects. Only imported where its provider is installed, by what OpenLineage calls."""

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
    from airflow_provider_redbrick.lineage.flow import Flow, Place


@attrs.define
class RedBrickRunFacet(RunFacet):
    """What the run did: the operation, how many tasks ended how, and the model behind it where that is known."""

    operation: str
    counts: dict[str, int]
    model: dict[str, str]
    providerVersion: str = __version__  # noqa: N815 - as facets are spelt


def told(flow: Flow) -> OperatorLineage[Any, Any]:
    """Return a flow as OpenLineage wants it."""
    facet = RedBrickRunFacet(flow.operation, dict(flow.counts), dict(flow.model))
    return OperatorLineage(
        inputs=[InputDataset(place.namespace, place.name) for place in flow.inputs],
        outputs=[_output(flow, place) for place in flow.outputs],
        run_facets={"redbrick": facet},
    )


def _output(flow: Flow, place: Place) -> OutputDataset:
    """Return an output with its number of tasks, where it is clear how many went there."""
    number = flow.counts.get("done", flow.counts.get("tasks"))
    if number is None or len(flow.outputs) > 1:
        return OutputDataset(place.namespace, place.name)
    rows = OutputStatisticsOutputDatasetFacet(rowCount=number)
    return OutputDataset(place.namespace, place.name, outputFacets={"outputStatistics": rows})
