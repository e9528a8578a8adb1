"""Remote-labeling stages, in which programs label.

Only servers of the API's first generation have them, with root fields of their own. Labels are put on the task's data
and become visible when the task is submitted, so both mutations can be repeated safely.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick._utils import read_once
from airflow_provider_redbrick.client.models.parsing import identifier, reading
from airflow_provider_redbrick.client.operations import queries
from airflow_provider_redbrick.client.transport.graphql import Call
from airflow_provider_redbrick.exceptions import RedBrickNotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from airflow_provider_redbrick.client.models.task import Task
    from airflow_provider_redbrick.client.operations.account import Scope

# The name under which RedBrick's SDK of that generation stored its labels.
_SUB_NAME = "remote-labeling"


@dataclass(frozen=True)
class RemoteOutput:
    """The labels that a remote-labeling stage produces.

    :param kind: e.g. ``IMAGE_BBOX`` or ``VIDEO_BBOX``.
    :param taxonomy: the taxonomy's name.
    :param version: the taxonomy's version.
    :param paths: all paths through the taxonomy, from its root to a leaf.
    """

    kind: str
    taxonomy: str
    version: int
    paths: frozenset[tuple[str, ...]]


class RemoteStage:
    """Operations of one remote-labeling stage.

    :param scope: the project.
    :param name: the stage's name.
    """

    def __init__(self, scope: Scope, name: str) -> None:
        self._scope = scope
        self.name = name

    @read_once
    def output(self) -> RemoteOutput:
        """The labels that the stage produces, according to its taxonomy."""
        data = self._execute(queries.STAGE, {})
        with reading("stage"):
            stage = dict(data["stage"])
            kind, name, version = (stage[f"output{key}"] for key in ("Type", "TaxonomyName", "TaxonomyVersion"))
        variables = {"orgId": self._scope.org_id, "name": name, "version": version}
        found = self._scope.client.transport.execute(queries.STAGE_TAXONOMY, variables).get("taxonomy")
        if not found:
            raise RedBrickNotFoundError(f"Taxonomy {name!r} of stage {self.name!r} does not exist.")
        with reading("taxonomy"):
            paths = frozenset(_paths(found["categories"]))
            return RemoteOutput(str(kind), str(name), int(version), paths)

    def count(self) -> int:
        """Return the number of tasks in the stage."""
        data = self._execute(queries.STAGE_STAT, {})
        with reading("stageStat"):
            return int(data["stageStat"]["currentTaskCount"])

    def first(self, count: int) -> list[str]:
        """Return the ids of the first tasks in the stage, without claiming them."""
        data = self._execute(queries.TASKS_TO_LABEL_REMOTE, {"numTasks": count})
        with reading("tasksToLabelRemote"):
            return [identifier(task["taskId"]) for task in data["tasksToLabelRemote"] or ()]

    def submit(self, task: Task, labels: Sequence[Mapping[str, Any]]) -> Call:
        """Put labels on a task, and return the mutation that submits the task.

        The labels are not visible before the task is submitted, so both steps can be repeated.

        :param task: the task, read in full: labels refer to its data.
        :param labels: the return value of :func:`~airflow_provider_redbrick.labels.legacy.label_inputs`.
        :raises RedBrickAPIError: if the labels cannot be put on the task.
        """
        output = self.output
        variables = {
            "dpId": task.dp_id,
            "stageName": self.name,
            "subName": _SUB_NAME,
            "labels": list(labels),
            "taxonomyName": output.taxonomy,
            "taxonomyVersion": output.version,
            "tdType": output.kind,
        }
        self._scope.change(Call(queries.PUT_STAGE_LABELS, variables, task.task_id))
        finished = {**self._scope.ids, "stageName": self.name, "taskId": task.task_id, "newSubName": _SUB_NAME}
        return Call(queries.PUT_REMOTE_LABELING_TASK, {"finishedTask": finished}, task.task_id)

    def _execute(self, document: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        return self._scope.execute(document, {"stageName": self.name, **variables})


def _paths(nodes: Sequence[Mapping[str, Any]], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for node in nodes:
        path = (*above, str(node["name"]))
        yield from _paths(node["children"], path) if node.get("children") else [path]
