"""Present stored data in the API's format.

Fields that are expensive are functions, which are called only if the client selects the field.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from redbrick_sandbox import demo_project, store
from redbrick_sandbox.demo_project import TAXONOMY, interpolate
from redbrick_sandbox.labels import parse_labels
from redbrick_sandbox.state_machine import Work
from redbrick_sandbox.transitions import RefusalError

if TYPE_CHECKING:
    import sqlite3

    from redbrick_sandbox.sandbox import Project, Sandbox
    from redbrick_sandbox.store import Record


Shape = dict[str, Any]

_ROUTING_TYPES = (
    ("passed", "BooleanRouting"),
    ("failed", "BooleanRouting"),
    ("feedbackStageName", "FeedbackRouting"),
    ("stageNames", "MultiRouting"),
    ("nextStageName", "NextRouting"),
)


def storage(storage_id: str) -> Shape:
    """Return a storage method."""
    names = {
        demo_project.PUBLIC_STORAGE: ("Public", "PUBLIC"),
        demo_project.REDBRICK_STORAGE: ("Direct Upload", "REDBRICK"),
        demo_project.ALTADB_STORAGE: ("AltaDB", "ALTA_DB"),
    }
    name, provider = names.get(storage_id, ("Sandbox storage", "S3"))
    return {
        "orgId": demo_project.ORG_ID,
        "storageId": storage_id,
        "name": name,
        "provider": provider,
        "details": None,
        "createdBy": None,
        "createdAt": demo_project.EPOCH,
        "deleted": False,
    }


def stage(document: Shape) -> Shape:
    """Return a stage. The keys of its routing determine the type of the routing."""
    routing = dict(document.get("routing") or {})
    kind = next((name for key, name in _ROUTING_TYPES if key in routing), "NoRouting")
    return {
        "stageName": document["stageName"],
        "brickName": document["brickName"],
        "stageConfig": json.dumps(document.get("stageConfig") or {}),
        "routing": {"__typename": kind, **routing},
    }


def project(sandbox: Sandbox, found: Project) -> Shape:
    """Return a project.

    :param sandbox: the sandbox that stores the project.
    :param found: the project.
    """
    document = found.document
    settings = document["settings"]
    return {
        "orgId": demo_project.ORG_ID,
        "projectId": found.project_id,
        "name": document["name"],
        "desc": "",
        "status": "CREATION_SUCCESS",
        "tdType": "DICOM_SEGMENTATION",
        "taxonomy": TAXONOMY,
        "projectUrl": f"{sandbox.url}/?project={found.project_id}",
        "createdAt": document["createdAt"],
        "updatedAt": document["createdAt"],
        "consensusSettings": {"enabled": document["consensus"]},
        "workspace": {"workspaceId": demo_project.WORKSPACE_ID},
        "stages": [stage(each) for each in document["stages"]],
        "labelValidationSettings": settings.get("labelValidation"),
        "hangingProtocol": settings.get("hangingProtocol"),
        "webhookSettings": settings.get("webhook"),
        "taskDuplicationCount": settings.get("taskDuplicationCount"),
        "workforceSummary": lambda **asked: workforce(sandbox, found, asked.get("userIds")),
    }


def workforce(sandbox: Sandbox, found: Project, user_ids: list[str] | None) -> Shape:
    """Return completed work by stage, user and day.

    :param sandbox: the sandbox that stores the completions.
    :param found: the project.
    :param user_ids: users to include. None includes all.
    """

    def summary(name: str) -> Shape:
        def days(start: str, end: str) -> dict[str, dict[str, list[sqlite3.Row]]]:
            query = "SELECT * FROM completions WHERE project_id = ? AND stage = ? AND at >= ? AND at <= ?"
            by_user: dict[str, dict[str, list[sqlite3.Row]]] = {}
            for row in sandbox.store.rows(query, (found.project_id, name, start, end)):
                if user_ids is None or row["user"] in user_ids:
                    by_user.setdefault(row["user"], {}).setdefault(row["at"][:10], []).append(row)
            return by_user

        def productivity(**period: str) -> list[Shape]:
            return [
                {
                    "userId": user,
                    "dailyProductivity": [
                        {
                            "tasksCompleted": len(rows),
                            "timeSpentMs": sum(row["time_ms"] for row in rows),
                            "date": day,
                        }
                        for day, rows in by_day.items()
                    ],
                }
                for user, by_day in days(period["startDate"], period["endDate"]).items()
            ]

        def accuracy(**period: str) -> list[Shape]:
            def tally(day: str, rows: list[sqlite3.Row]) -> Shape:
                states = [row["review_state"] for row in rows]
                return {
                    "tasksPassed": states.count("PASSED"),
                    "tasksFailed": states.count("FAILED"),
                    "tasksCorrected": states.count("CORRECTED"),
                    "date": day,
                }

            return [
                {"userId": user, "dailyAccuracy": [tally(day, rows) for day, rows in by_day.items()]}
                for user, by_day in days(period["startDate"], period["endDate"]).items()
            ]

        return {
            "stageName": name,
            "allUsersProductivity": productivity,
            "allUsersAccuracy": accuracy,
        }

    working = found.flow.working_stages
    return {
        "projectId": found.project_id,
        "labelStages": [summary(each.name) for each in working if each.is_label],
        "reviewStages": [summary(each.name) for each in working if each.is_review],
    }


def version(sandbox: Sandbox, td_id: str | None) -> Shape | None:
    """Return a version of a task's labels, or None if it does not exist.

    :param sandbox: the sandbox that stores the labels.
    :param td_id: id of the version.
    """
    if td_id is None:
        return None
    row = sandbox.store.row("SELECT * FROM versions WHERE td_id = ?", (td_id,))
    return None if row is None else version_row(sandbox, row)


def version_row(sandbox: Sandbox, row: sqlite3.Row) -> Shape:
    """Return a version of a task's labels from its row.

    :param sandbox: the sandbox, which signs the paths of files.
    :param row: row of the versions table.
    """

    def labels_data(*, interpolate: bool | None = None) -> str | None:
        if row["labels_path"]:
            return None
        text: str = row["labels"]
        return json.dumps(_interpolated(text)) if interpolate else text

    def labels_path(*, presigned: bool | None = None) -> str | None:
        path: str | None = row["labels_path"]
        return sandbox.field_url(path) if path and presigned else path

    def labels_map(*, presigned: bool | None = None) -> list[Shape | None]:
        entries: list[Shape | None] = store.read(row["labels_map"])
        if not presigned:
            return entries
        return [
            {**entry, "labelName": sandbox.field_url(entry["labelName"])} if entry and entry.get("labelName") else entry
            for entry in entries
        ]

    return {
        "tdId": row["td_id"],
        "stageName": row["stage"],
        "createdAt": row["created_at"],
        "createdBy": row["created_by"],
        "createdByEntity": demo_project.user(row["created_by"]),
        "labelsData": labels_data,
        "labelsDataPath": labels_path,
        "labelsStorage": lambda: storage(demo_project.REDBRICK_STORAGE),
        "labelsMap": labels_map,
    }


def _interpolated(text: str) -> list[Shape]:
    return interpolate(parse_labels(text))


def task(sandbox: Sandbox, found: Project, record: Record) -> Shape:
    """Return a task. Tasks in ground truth have no sub-task.

    :param sandbox: the sandbox that stores the task.
    :param found: the project of the task.
    :param record: the task.
    """
    state = record.task
    return {
        "taskId": state.task_id,
        "dpId": record.dp_id,
        "currentStageName": state.stage,
        "createdAt": record.created_at,
        "updatedAt": None if sandbox.behaviors.updated_at == "absent" else state.updated_at,
        "priority": record.priority,
        "datapoint": lambda: datapoint(sandbox, record.dp_id),
        "latestTaskData": lambda: version(sandbox, record.version),
        "currentStageSubTask": lambda **_: sub_task(sandbox, found, record),
        "genericEvents": lambda: events(sandbox, state.task_id),
    }


def sub_task(sandbox: Sandbox, found: Project, record: Record) -> Shape | None:
    """Return the work on a task in its stage, or None if the stage has no assignees.

    The first assignee is the sub-task; further assignees are its `subTasks`.

    :param sandbox: the sandbox that stores the task.
    :param found: the project of the task.
    :param record: the task.
    """
    stage = found.flow.find(record.task.stage)
    if stage is None or stage.is_remote or record.task.state is None:
        return None
    works = record.task.works
    if not works:
        return _work(sandbox, Work("", record.task.state), []) | {"assignedTo": None}
    shown = [_work(sandbox, work, []) for work in works]
    return {**shown[0], "subTasks": shown[1:]}


def _work(sandbox: Sandbox, work: Work, subs: list[Shape]) -> Shape:
    return {
        "__typename": "LabelingTask",
        "state": work.state,
        "assignedTo": demo_project.user(work.user),
        "assignedAt": work.assigned_at,
        "progressSavedAt": work.saved_at,
        "completedAt": work.completed_at,
        "completionTimeMs": work.time_ms if work.completed_at else None,
        "taskData": lambda: version(sandbox, work.version),
        "subTasks": subs,
        "overallConsensusScore": None,
        "consensusInfo": [],
    }


def datapoint(sandbox: Sandbox, dp_id: str) -> Shape | None:
    """Return a data point, or None if it does not exist.

    :param sandbox: the sandbox that stores the data point.
    :param dp_id: the data point.
    """
    row = sandbox.store.row("SELECT * FROM datapoints WHERE dp_id = ?", (dp_id,))
    if row is None:
        return None

    def items(*, presigned: bool | None = None) -> list[str]:
        paths: list[str] = store.read(row["items"])
        return [sandbox.field_url(path) for path in paths] if presigned else paths

    return {
        "archived": False,
        "cohorts": [],
        **store.read(row["body"]),
        "dpId": dp_id,
        "name": row["name"],
        "items": items,
        "itemsPresigned": lambda: items(presigned=True),
        "createdAt": row["created_at"],
        "createdByEntity": demo_project.user(row["created_by"]),
        "storageMethod": lambda: storage(row["storage_id"]),
    }


_TASK_EVENTS = {"create": "createEvent", "input": "inputEvent", "output": "outputEvent"}


def events(sandbox: Sandbox, task_id: str) -> list[Shape]:
    """Return all events of a task, oldest first.

    A reply is nested in the comment that it answers.

    :param sandbox: the sandbox that stores the events.
    :param task_id: the task.
    :raises RefusalError: if the sandbox forbids reading them.
    """
    if sandbox.behaviors.events == "forbidden":
        raise RefusalError("the API key has no permission to read the events of a task")
    if sandbox.behaviors.events == "empty":
        return []
    rows = sandbox.store.rows("SELECT * FROM events WHERE task_id = ? ORDER BY at, seq", (task_id,))
    shown: list[Shape] = []
    comments: dict[str, Shape] = {}
    for row in rows:
        data = store.read(row["data"])
        if row["kind"] == "comment":
            comment = _comment(sandbox, row, data)
            comments[data["commentId"]] = comment
            above = comments.get(data.get("replyTo") or "")
            (above["replies"] if above else shown).append(comment)
        elif row["kind"] == "state":
            shown.append(_change(row, data))
        else:
            shown.append(_task_event(sandbox, row, data))
    return [_without_users(event) for event in shown] if sandbox.behaviors.events == "anonymous" else shown


_USERS = ("updatedBy", "createdBy", "assignedToBeforeEntity", "assignedToAfterEntity")
_SEVERAL_USERS = ("consensusAssigneesBefore", "consensusAssigneesAfter")


def _without_users(event: Shape) -> Shape:
    hidden: Shape = {name: None for name in (*_USERS, *_SEVERAL_USERS) if name in event}
    if "replies" in event:
        hidden["replies"] = [_without_users(reply) for reply in event["replies"]]
    return {**event, **hidden}


def _task_event(sandbox: Sandbox, row: sqlite3.Row, data: dict[str, Any]) -> Shape:
    several = data.pop("multiLabels", None)
    if several:
        data["multiLabels"] = [
            {"user": demo_project.user(user), "taskData": version(sandbox, td_id)} for user, td_id in several
        ]
    return {
        "__typename": "TaskEvent",
        "eventId": row["event_id"],
        "createdAt": row["at"],
        "updatedBy": row["actor"],
        _TASK_EVENTS[row["kind"]]: data,
        "taskData": lambda: version(sandbox, row["version"]),
    }


def _change(row: sqlite3.Row, data: dict[str, Any]) -> Shape:
    return {
        "__typename": "TaskStateChanges",
        **data,
        "createdAt": row["at"],
        "updatedBy": row["actor"],
        "assignedToBeforeEntity": demo_project.user(data["assignedToBefore"]),
        "assignedToAfterEntity": demo_project.user(data["assignedToAfter"]),
    }


def _comment(sandbox: Sandbox, row: sqlite3.Row, data: dict[str, Any]) -> Shape:
    return {
        "__typename": "Comment",
        **data,
        "createdAt": row["at"],
        "createdBy": demo_project.user(row["actor"]),
        "taskData": lambda: version(sandbox, row["version"]),
        "replies": [],
    }
