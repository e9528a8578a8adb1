"""Present the audit trail of a task in the API's format."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.sandbox import documents, seed, shapes

if TYPE_CHECKING:
    import sqlite3

    from airflow_provider_redbrick.sandbox.core import Sandbox

_TASK_EVENTS = {"create": "createEvent", "input": "inputEvent", "output": "outputEvent"}


def events(sandbox: Sandbox, task_id: str) -> list[shapes.Shape]:
    """Return all events of a task, oldest first.

    A reply is nested in the comment that it answers.

    :param sandbox: the sandbox that stores the events.
    :param task_id: the task.
    """
    rows = sandbox.store.rows("SELECT * FROM events WHERE task_id = ? ORDER BY at, seq", (task_id,))
    shown: list[shapes.Shape] = []
    comments: dict[str, shapes.Shape] = {}
    for row in rows:
        data = documents.read(row["data"])
        if row["kind"] == "comment":
            comment = _comment(sandbox, row, data)
            comments[data["commentId"]] = comment
            above = comments.get(data.get("replyTo") or "")
            (above["replies"] if above else shown).append(comment)
        elif row["kind"] == "state":
            shown.append(_change(row, data))
        else:
            shown.append(_task_event(sandbox, row, data))
    return shown


def _task_event(sandbox: Sandbox, row: sqlite3.Row, data: dict[str, Any]) -> shapes.Shape:
    several = data.pop("multiLabels", None)
    if several:
        data["multiLabels"] = [
            {"user": seed.user(user), "taskData": shapes.version(sandbox, td_id)} for user, td_id in several
        ]
    return {
        "__typename": "TaskEvent",
        "eventId": row["event_id"],
        "createdAt": row["at"],
        "updatedBy": row["actor"],
        _TASK_EVENTS[row["kind"]]: data,
        "taskData": lambda: shapes.version(sandbox, row["version"]),
    }


def _change(row: sqlite3.Row, data: dict[str, Any]) -> shapes.Shape:
    return {
        "__typename": "TaskStateChanges",
        **data,
        "createdAt": row["at"],
        "updatedBy": row["actor"],
        "assignedToBeforeEntity": seed.user(data["assignedToBefore"]),
        "assignedToAfterEntity": seed.user(data["assignedToAfter"]),
    }


def _comment(sandbox: Sandbox, row: sqlite3.Row, data: dict[str, Any]) -> shapes.Shape:
    return {
        "__typename": "Comment",
        **data,
        "createdAt": row["at"],
        "createdBy": seed.user(row["actor"]),
        "taskData": lambda: shapes.version(sandbox, row["version"]),
        "replies": [],
    }
