"""A remote-labeling stage: where servers of the first generation let programs label, by root fields of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.api import documents
from airflow_provider_redbrick.api.answers import identifier, reading
from airflow_provider_redbrick.api.calls import Call
from airflow_provider_redbrick.api.threads import read_once
from airflow_provider_redbrick.exceptions import RedBrickNotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from airflow_provider_redbrick.api.models import Task
    from airflow_provider_redbrick.api.scope import Scope

# The name under which RedBrick's own client of that time kept its labels.
_SUB_NAME = "remote-labeling"


@dataclass(frozen=True)
class RemoteOutput:
    """What labels such a stage makes.

    :param kind: e.g. ``IMAGE_BBOX`` or ``VIDEO_BBOX``.
    :param paths: every way through the taxonomy, from its root to a leaf.
    """

    kind: str
    taxonomy: str
    version: int
    paths: frozenset[tuple[str, ...]]


class RemoteStage:
    """The operations of one remote-labeling stage."""

    def __init__(self, scope: Scope, name: str) -> None:
        self._scope = scope
        self.name = name

    @read_once
    def output(self) -> RemoteOutput:
        """What labels the stage makes, by the taxonomy it names."""
        data = self._execute(documents.STAGE, {})
        with reading("stage"):
            stage = dict(data["stage"])
            kind, name, version = (stage[f"output{key}"] for key in ("Type", "TaxonomyName", "TaxonomyVersion"))
        asked = {"orgId": self._scope.org_id, "name": name, "version": version}
        found = self._scope.client.transport.execute(documents.STAGE_TAXONOMY, asked).get("taxonomy")
        if not found:
            raise RedBrickNotFoundError(f"There is no taxonomy {name!r}, by which stage {self.name} labels.")
        with reading("taxonomy"):
            paths = frozenset(_paths(found["categories"]))
            return RemoteOutput(str(kind), str(name), int(version), paths)

    def count(self) -> int:
        """Return how many tasks wait in the stage."""
        data = self._execute(documents.STAGE_STAT, {})
        with reading("stageStat"):
            return int(data["stageStat"]["currentTaskCount"])

    def first(self, count: int) -> list[str]:
        """Return the ids of the first tasks that wait; reading them takes none of them."""
        data = self._execute(documents.TASKS_TO_LABEL_REMOTE, {"numTasks": count})
        with reading("tasksToLabelRemote"):
            return [identifier(task["taskId"]) for task in data["tasksToLabelRemote"] or ()]

    def submit(self, task: Task, labels: Sequence[Mapping[str, Any]]) -> Call:
        """Put labels on a task, and return what hands it on with them.

        The labels change nothing that people see before the task is handed on: both can be sent again.

        :param task: read in full, since labels are put on the data that it is about.
        :param labels: what :func:`~airflow_provider_redbrick.labels.label_input.label_inputs` returned.
        """
        output = self.output
        labelled = {
            "dpId": task.dp_id,
            "stageName": self.name,
            "subName": _SUB_NAME,
            "labels": list(labels),
            "taxonomyName": output.taxonomy,
            "taxonomyVersion": output.version,
            "tdType": output.kind,
        }
        self._scope.change(Call(documents.PUT_STAGE_LABELS, labelled, task.task_id))
        place = {**self._scope.ids, "stageName": self.name, "taskId": task.task_id, "newSubName": _SUB_NAME}
        return Call(documents.PUT_REMOTE_LABELING_TASK, {"finishedTask": place}, task.task_id)

    def _execute(self, document: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        return self._scope.execute(document, {"stageName": self.name, **variables})


def _paths(nodes: Sequence[Mapping[str, Any]], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for node in nodes:
        path = (*above, str(node["name"]))
        yield from _paths(node["children"], path) if node.get("children") else [path]
