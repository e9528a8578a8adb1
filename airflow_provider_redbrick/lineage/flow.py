"""What an operator takes and where it leads: plain data, of which OpenLineage's own objects are made later."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_redbrick.api.workflow import Stage, Workflow

# Where tasks are when an operator is done with them.
STAY = "stay"
ON = "on"
BACK = "back"
NOWHERE = "nowhere"
IN = "in"


@dataclass(frozen=True)
class Place:
    """A dataset: a project, one of its stages, or a file."""

    namespace: str
    name: str


@dataclass(frozen=True)
class Flow:
    """What one run of an operator takes from where, and puts where.

    :param counts: what it did, in numbers; empty before it has ended.
    :param model: what is known of the model whose predictions these are.
    """

    operation: str
    inputs: tuple[Place, ...] = ()
    outputs: tuple[Place, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    model: Mapping[str, str] = field(default_factory=dict)


def stage_place(org_id: str, project_id: str, stage_name: str | None) -> Place:
    """Return a stage as a dataset, or the whole project when no stage is named.

    Ids are unique wherever RedBrick runs, so that the server has no part in it.
    """
    name = f"{project_id}/{stage_name}" if stage_name else project_id
    return Place(f"redbrick://{org_id}", name)


def file_place(path: str) -> Place:
    """Return a file as a dataset: a local path, or a URI, whose connection id is Airflow's business."""
    parts = urlsplit(path)
    if not parts.scheme or parts.scheme == "file":
        return Place("file", str(Path(parts.path if parts.scheme else path).absolute()))
    return Place(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}", parts.path.strip("/") or "/")


def leads_to(workflow: Workflow, stage: Stage, move: str) -> list[str]:
    """Return the names of the stages that tasks of a stage are in when an operator is done with them.

    :param move: ``stay``, ``on``, ``back`` to the first stage, or ``nowhere`` if it only looks.
    """
    if move == STAY:
        return [stage.public_name]
    if move == ON:
        return _named(workflow, stage)
    if move == BACK and workflow.stages:
        first = workflow.stages[0]
        return _named(workflow, first)[:1] if first.is_passed_through else [first.public_name]
    return []


def _named(workflow: Workflow, stage: Stage) -> list[str]:
    """Return the public names of the stages that the routing leads to, and in which tasks wait."""
    known = {other.name: other for other in workflow.stages}
    found: list[str] = []
    for name in stage.next_names:
        other = known.get(name)
        if other is not None and other.is_passed_through:
            found += [known[after].public_name if after in known else after for after in other.next_names]
        else:
            found.append(name if other is None else other.public_name)
    return list(dict.fromkeys(found))
