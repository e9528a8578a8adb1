"""Present stored data in the API's format.

Fields that are expensive are functions, which are called only if the client selects the field.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.sandbox import documents, seed
from airflow_provider_redbrick.sandbox.labels import parse_labels
from airflow_provider_redbrick.sandbox.taxonomy import TAXONOMY, interpolate

if TYPE_CHECKING:
    import sqlite3

    from airflow_provider_redbrick.sandbox.core import Project, Sandbox

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
        seed.PUBLIC_STORAGE: ("Public", "PUBLIC"),
        seed.REDBRICK_STORAGE: ("Direct Upload", "REDBRICK"),
        seed.ALTADB_STORAGE: ("AltaDB", "ALTA_DB"),
    }
    name, provider = names.get(storage_id, ("Sandbox storage", "S3"))
    return {
        "orgId": seed.ORG_ID,
        "storageId": storage_id,
        "name": name,
        "provider": provider,
        "details": None,
        "createdBy": None,
        "createdAt": seed.EPOCH,
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
        "orgId": seed.ORG_ID,
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
        "workspace": {"workspaceId": seed.WORKSPACE_ID},
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
        return sandbox.download_url(path) if path and presigned else path

    def labels_map(*, presigned: bool | None = None) -> list[Shape | None]:
        entries: list[Shape | None] = documents.read(row["labels_map"])
        if not presigned:
            return entries
        return [
            {**entry, "labelName": sandbox.download_url(entry["labelName"])}
            if entry and entry.get("labelName")
            else entry
            for entry in entries
        ]

    return {
        "tdId": row["td_id"],
        "stageName": row["stage"],
        "createdAt": row["created_at"],
        "createdBy": row["created_by"],
        "createdByEntity": seed.user(row["created_by"]),
        "labelsData": labels_data,
        "labelsDataPath": labels_path,
        "labelsStorage": lambda: storage(seed.REDBRICK_STORAGE),
        "labelsMap": labels_map,
    }


def _interpolated(text: str) -> list[Shape]:
    return interpolate(parse_labels(text))
