"""View model of the RedBrick page: project data and the JSON that is drawn.

Design note:

1. Every request is made once, with short timeouts: a user is waiting. At most ``MAX_LISTED_TASKS`` tasks per stage are
   listed.
2. Names of stages, people and tasks are untrusted text. They go into JSON only, never into markup.
3. The text of an unexpected error is not shown, because it may contain secrets. The API server's log has it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowNotFoundException

from airflow_provider_redbrick._utils import run_concurrently
from airflow_provider_redbrick.exceptions import (
    RedBrickAPIError,
    RedBrickAuthError,
    RedBrickInputError,
    RedBrickNotFoundError,
)
from airflow_provider_redbrick.hooks.redbrick import RedBrickQuickHook
from airflow_provider_redbrick.links import project_address
from airflow_provider_redbrick.plugins.access import BusyError

if TYPE_CHECKING:
    from datetime import datetime

    from airflow.providers.common.compat.sdk import Connection

    from airflow_provider_redbrick.client.models.workflow import Stage
    from airflow_provider_redbrick.client.operations.project import RedBrickProject


# The page shows at most this many rows of runs, and assignees of a stage.
MAX_RUNS = 12
MAX_PEOPLE = 8
# Tasks of a stage that are listed at most to count assignees.
MAX_LISTED_TASKS = 1_000
_KINDS = {
    "manual-labeling": "label",
    "remote-labeling": "model",
    "expert-review": "review",
    "labelset-output": "truth",
}
# Width and height of a chart. Samples that fall on the same point of its width are drawn as one.
_CHART_SIZE = (200, 24)

Sample = tuple[int, int]
"""Time in epoch seconds, and number of tasks."""


@dataclass(frozen=True)
class AssigneeCounts:
    """Number of a stage's tasks by assignee.

    :param by_name: the number of tasks by assignee's name.
    :param unassigned: the number of unassigned tasks.
    :param looked_at: the number of listed tasks; less than the queue's length when the queue is long.
    """

    by_name: Mapping[str, int] = field(default_factory=dict)
    unassigned: int = 0
    looked_at: int = 0


@dataclass(frozen=True)
class ProjectData:
    """Project data for the page.

    :param org_id: the organization's UUID.
    :param project_id: the project's UUID.
    :param name: the project's name.
    :param address: the project's address in RedBrick's web app; empty if it is unknown.
    :param stages: the stages, in the order of the workflow.
    :param counts: the number of tasks by stage name.
    :param held: assignees by stage name, for stages that people work in.
    """

    org_id: str
    project_id: str
    name: str
    address: str
    stages: Sequence[Stage]
    counts: Mapping[str, int]
    held: Mapping[str, AssigneeCounts]


@dataclass(frozen=True)
class TaskActivity:
    """What one Airflow task instance did to a project's tasks."""

    dag_id: str
    run_id: str
    task_id: str
    mapped: bool
    at: datetime
    state: str
    operation: str
    stage_name: str
    counts: Mapping[str, int]


def project_payload(data: ProjectData, history: Mapping[str, Sequence[Sample]], *, now: int) -> dict[str, Any]:
    """Return the project and its stages as JSON for the page.

    :param data: the project data.
    :param history: the recorded queue lengths by public stage name, oldest sample first.
    :param now: when the project data was read, in epoch seconds.
    """
    stages = []
    for stage in data.stages:
        count = data.counts.get(stage.name, 0)
        if count or not stage.is_passed_through:
            samples = [sample for sample in history.get(stage.public_name, ()) if sample[0] < now]
            stages.append(_stage_payload(stage, count, data.held.get(stage.name), [*samples, (now, count)]))
    address = data.address if data.address.startswith(("https://", "http://")) else ""
    project = {"name": data.name or data.project_id, "project_id": data.project_id, "address": address}
    return {"state": "ok", "message": "", "project": project, "stages": stages}


def _stage_payload(stage: Stage, count: int, held: AssigneeCounts | None, samples: Sequence[Sample]) -> dict[str, Any]:
    return {
        "title": stage.public_name,
        "kind": _KINDS.get(stage.kind, "other"),
        "count": count,
        "held": _assignee_rows(held) if held else [],
        "looked_at": held.looked_at if held and held.looked_at < count else None,
        "course": history_path(samples),
    }


def _assignee_rows(held: AssigneeCounts) -> list[dict[str, Any]]:
    """Return the assignees with most tasks first, and unassigned tasks last."""
    people = sorted(held.by_name.items(), key=lambda entry: (-entry[1], entry[0]))
    shown, rest = people[:MAX_PEOPLE], people[MAX_PEOPLE:]
    if rest:
        shown.append((f"{len(rest)} more people", sum(count for _, count in rest)))
    if held.unassigned:
        shown.append(("unassigned", held.unassigned))
    most = max((count for _, count in shown), default=1)
    return [{"name": name, "count": count, "share": round(count / most, 3)} for name, count in shown]


def history_path(samples: Sequence[Sample]) -> dict[str, Any] | None:
    """Return the queue history as an SVG path in a box of ``_CHART_SIZE``.

    The line has steps: it stays level until the next sample. Its scale starts at zero.

    :return: the path and its limits; None with fewer than two points in time.
    """
    if len(samples) < 2 or samples[-1][0] <= samples[0][0]:
        return None
    width, height = _CHART_SIZE
    begin, end = samples[0][0], samples[-1][0]
    lengths = [count for _, count in samples]
    most = max(1, *lengths)
    # Of samples on the same point, the last one is drawn. The range has all of them.
    levels = {round(width * (at - begin) / (end - begin)): height * (1 - count / most) for at, count in samples}
    path = f"M0 {levels.pop(0):.2f}" + "".join(f"H{x}V{y:.2f}" for x, y in levels.items())
    return {"path": path, "low": min(lengths), "high": max(lengths), "begin": begin, "end": end}


def run_rows(activity: Sequence[TaskActivity]) -> list[dict[str, Any]]:
    """Return the rows of the runs table, the latest first.

    Mapped instances of one Airflow task are summed up.
    """
    groups: dict[tuple[str, str, str], list[TaskActivity]] = {}
    for instance in activity:
        groups.setdefault((instance.dag_id, instance.run_id, instance.task_id), []).append(instance)
    rows = [_run_row(group) for group in groups.values()]
    return sorted(rows, key=lambda row: row["at"], reverse=True)[:MAX_RUNS]


def _run_row(group: Sequence[TaskActivity]) -> dict[str, Any]:
    latest = max(group, key=lambda instance: instance.at)
    counts: dict[str, int] = {}
    for instance in group:
        for name, number in instance.counts.items():
            counts[name] = counts.get(name, 0) + number
    state = "failed" if any(instance.state == "failed" for instance in group) else latest.state
    return {
        "dag_id": latest.dag_id,
        "run_id": latest.run_id,
        "task_id": latest.task_id,
        "mapped": latest.mapped,
        "at": latest.at.isoformat(),
        "state": state,
        "operation": latest.operation.replace("_", " "),
        "stage": latest.stage_name,
        "counts": [{"name": name.replace("_", " "), "number": number} for name, number in counts.items() if number],
    }


def read_manifest(value: object) -> tuple[str, str, dict[str, int]] | None:
    """Return a manifest's operation, stage and counts; None for other values."""
    if not isinstance(value, Mapping) or not isinstance(value.get("counts"), Mapping):
        return None
    counts = {
        str(name): number
        for name, number in value["counts"].items()
        if isinstance(number, int) and not isinstance(number, bool)
    }
    return str(value.get("operation") or ""), str(value.get("stage_name") or ""), counts


def error_payload(error: Exception) -> dict[str, Any]:
    """Return the state and message that the page shows when a read failed."""
    if isinstance(error, RedBrickAPIError):
        states = {RedBrickAuthError: "wrong_key", RedBrickNotFoundError: "no_project"}
        return {"state": states.get(type(error), "no_answer"), "message": error.message}
    if isinstance(error, RedBrickInputError):
        return {"state": "bad_settings", "message": str(error)}
    if isinstance(error, AirflowNotFoundException):
        return {"state": "no_connection", "message": str(error)}
    if isinstance(error, BusyError):
        return {"state": "busy", "message": "Too many projects are being read at the moment."}
    # The text of other errors may contain secrets, so the page shows the type only.
    kind = type(error).__name__
    return {"state": "broken", "message": f"The project could not be read ({kind}). See the API server's log."}


class PageHook(RedBrickQuickHook):
    """Hook for connection ids that come from a URL."""

    @classmethod
    def get_connection(cls, conn_id: str) -> Connection:
        """Return a connection of RedBrick's type.

        The password of another type must not be sent to RedBrick.

        :raises RedBrickInputError: if the connection has another type.
        """
        connection = super().get_connection(conn_id)
        if connection.conn_type == cls.conn_type:
            return connection
        # Error trackers store the local variables of each frame, so remove the connection from them.
        del connection
        raise RedBrickInputError(f"The connection {conn_id!r} must be of type {cls.conn_type!r}.")


def read_project(connection_id: str, project_id: str | None) -> ProjectData:
    """Read a project's stages, queue lengths and assignees.

    Takes one or two requests, and one for each page of a queue.

    :param connection_id: the connection id.
    :param project_id: the project's UUID; None for the connection's.
    :raises RedBrickError: if the project cannot be read.
    """
    hook = PageHook(connection_id)
    with closing(hook):
        project = hook.project(project_id)
        info = project.info
        stages = info.workflow.stages
        counts = project.counts(stages)
        busy = [stage for stage in stages if (stage.is_label or stage.is_review) and counts[stage.name]]
        held = run_concurrently(*(partial(_count_assignees, project, stage) for stage in busy)) if busy else []
        return ProjectData(
            project.org_id,
            project.project_id,
            info.name,
            info.url or project_address(hook.settings, project.org_id, project.project_id),
            stages,
            counts,
            {stage.name: assignees for stage, assignees in zip(busy, held, strict=True)},
        )


def _count_assignees(project: RedBrickProject, stage: Stage) -> AssigneeCounts:
    holders = Counter(task.assignee for task in islice(project.list_tasks(stage), MAX_LISTED_TASKS))
    names: Counter[str] = Counter()
    for user, count in holders.items():
        if user is not None:
            names[str(user)] += count
    return AssigneeCounts(dict(names), holders[None], holders.total())
