"""Lineage of an operator's run as plain data: its input and output datasets.

``lineage_facets`` converts it to OpenLineage's classes, which may not be installed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_redbrick.client.models.workflow import Stage, Workflow

# Position of the tasks after an operator: in the same stage, in the next one, in the first one, not changed because it
# only reads, or newly created.
STAY = "stay"
ON = "on"
BACK = "back"
NOWHERE = "nowhere"
IN = "in"


@dataclass(frozen=True)
class Dataset:
    """A dataset: a project, one of its stages, or a file."""

    namespace: str
    name: str


@dataclass(frozen=True)
class Flow:
    """Inputs and outputs of one operator run.

    :param operation: the operation's name.
    :param inputs: the datasets that it reads.
    :param outputs: the datasets that it writes.
    :param counts: task counts by outcome; empty before the run has ended.
    :param model: the model's ``name`` and ``version``, as far as they are known.
    """

    operation: str
    inputs: tuple[Dataset, ...] = ()
    outputs: tuple[Dataset, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    model: Mapping[str, str] = field(default_factory=dict)


def stage_dataset(org_id: str, project_id: str, stage_name: str | None) -> Dataset:
    """Return a stage as a dataset, or the project if no stage is named.

    RedBrick's ids are unique across servers, so the server is not part of the name.

    :param org_id: the organization's UUID.
    :param project_id: the project's UUID.
    :param stage_name: the stage's public name; None for the whole project.
    """
    name = f"{project_id}/{stage_name}" if stage_name else project_id
    return Dataset(f"redbrick://{org_id}", name)


def file_dataset(path: str) -> Dataset:
    """Return a file, given by local path or URI, as a dataset.

    The connection id of an Airflow URI is left out.
    """
    parts = urlsplit(path)
    if not parts.scheme or parts.scheme == "file":
        return Dataset("file", str(Path(parts.path if parts.scheme else path).absolute()))
    return Dataset(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}", parts.path.strip("/") or "/")


def destination_stages(workflow: Workflow, stage: Stage, move: str) -> list[str]:
    """Return the public names of the stages that tasks are in after an operator.

    :param workflow: the project's workflow.
    :param stage: the stage that the operator works on.
    :param move: ``stay``, ``on`` to the next stage, ``back`` to the first stage, or ``nowhere`` for an operator
        that only reads.
    """
    if move == STAY:
        return [stage.public_name]
    if move == ON:
        return _next_stages(workflow, stage)
    if move == BACK and workflow.stages:
        first = workflow.stages[0]
        return _next_stages(workflow, first)[:1] if first.is_passed_through else [first.public_name]
    return []


def _next_stages(workflow: Workflow, stage: Stage) -> list[str]:
    """Return the public names of the next stages in which tasks wait."""
    known = {other.name: other for other in workflow.stages}
    names: list[str] = []
    for name in stage.next_names:
        other = known.get(name)
        if other is not None and other.is_passed_through:
            names += [known[after].public_name if after in known else after for after in other.next_names]
        else:
            names.append(name if other is None else other.public_name)
    return list(dict.fromkeys(names))
