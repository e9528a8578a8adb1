"""Present tasks and data points in the API's format."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_redbrick.sandbox import documents, seed, shapes
from airflow_provider_redbrick.sandbox.trail import events
from airflow_provider_redbrick.sandbox.workflow import Work

if TYPE_CHECKING:
    from airflow_provider_redbrick.sandbox.core import Project, Sandbox
    from airflow_provider_redbrick.sandbox.store import Record


def task(sandbox: Sandbox, found: Project, record: Record) -> shapes.Shape:
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
        "updatedAt": state.updated_at,
        "priority": record.priority,
        "datapoint": lambda: datapoint(sandbox, record.dp_id),
        "latestTaskData": lambda: shapes.version(sandbox, record.version),
        "currentStageSubTask": lambda **_: sub_task(sandbox, found, record),
        "genericEvents": lambda: events(sandbox, state.task_id),
    }


def sub_task(sandbox: Sandbox, found: Project, record: Record) -> shapes.Shape | None:
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


def _work(sandbox: Sandbox, work: Work, subs: list[shapes.Shape]) -> shapes.Shape:
    return {
        "__typename": "LabelingTask",
        "state": work.state,
        "assignedTo": seed.user(work.user),
        "assignedAt": work.assigned_at,
        "progressSavedAt": work.saved_at,
        "completedAt": work.completed_at,
        "completionTimeMs": work.time_ms if work.completed_at else None,
        "taskData": lambda: shapes.version(sandbox, work.version),
        "subTasks": subs,
        "overallConsensusScore": None,
        "consensusInfo": [],
    }


def datapoint(sandbox: Sandbox, dp_id: str) -> shapes.Shape | None:
    """Return a data point, or None if it does not exist.

    :param sandbox: the sandbox that stores the data point.
    :param dp_id: the data point.
    """
    row = sandbox.store.row("SELECT * FROM datapoints WHERE dp_id = ?", (dp_id,))
    if row is None:
        return None

    def items(*, presigned: bool | None = None) -> list[str]:
        paths: list[str] = documents.read(row["items"])
        return [sandbox.download_url(path) for path in paths] if presigned else paths

    return {
        "archived": False,
        "cohorts": [],
        **documents.read(row["body"]),
        "dpId": dp_id,
        "name": row["name"],
        "items": items,
        "itemsPresigned": lambda: items(presigned=True),
        "createdAt": row["created_at"],
        "createdByEntity": seed.user(row["created_by"]),
        "storageMethod": lambda: shapes.storage(row["storage_id"]),
    }
