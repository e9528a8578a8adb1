"""Read tasks: queues, pages, single tasks, label versions and time spent."""

from __future__ import annotations

from typing import Any

from redbrick_sandbox import demo_project, listing, presenters, store
from redbrick_sandbox.conversion import convert
from redbrick_sandbox.sandbox import Arguments, Request, scope
from redbrick_sandbox.transitions import RefusalError


def _generic_tasks(request: Request, arguments: Arguments) -> dict[str, Any]:
    sandbox, project = scope(request, arguments)
    stage = listing.listed_stage(project, arguments.get("stageName"))
    filters = arguments.get("manualLabelingFilters") or {}
    query = listing.filtered(project, stage, arguments.get("taskSearch"), filters)
    page = _page(request, query, arguments)
    return {
        "entries": [presenters.task(sandbox, project, record) for record in page.records],
        "cursor": page.cursor,
    }


def _page(request: Request, query: listing.Query, arguments: Arguments) -> listing.Page:
    first, after = arguments.get("first"), arguments.get("after")
    return listing.page(request.sandbox, query, first, after, empty=request.empty_page)


def _tasks_paged(request: Request, arguments: Arguments) -> dict[str, Any]:
    sandbox, project = scope(request, arguments)
    now = sandbox.clock.now()
    query = listing.in_stage(project, listing.paged_stage(project, arguments.get("stageName")))
    if arguments.get("cacheTime") is not None:
        query = query.where("tasks.updated_at >= ?", arguments.get("cacheTime"))
    page = _page(request, query, arguments)
    return {
        "entries": [presenters.task(sandbox, project, record) for record in page.records],
        "cursor": page.cursor,
        "cacheTime": now,
        "count": lambda: listing.count(sandbox, query),
    }


def _task(request: Request, arguments: Arguments) -> dict[str, Any] | None:
    sandbox, project = scope(request, arguments)
    record = sandbox.store.task(project.project_id, arguments["taskId"])
    return None if record is None else presenters.task(sandbox, project, record)


def _task_data(request: Request, arguments: Arguments) -> dict[str, Any] | None:
    sandbox, project = scope(request, arguments)
    task_id, td_id = arguments.get("taskId"), arguments.get("tdId")
    query = (
        "SELECT versions.* FROM versions JOIN tasks USING (task_id)"
        " WHERE tasks.project_id = ? AND (? IS NULL OR versions.task_id = ?)"
        " AND (? IS NULL OR versions.td_id = ?) ORDER BY versions.seq DESC LIMIT 1"
    )
    if task_id is None and td_id is None:
        raise RefusalError("taskId or tdId is needed")
    row = sandbox.store.row(query, (project.project_id, task_id, task_id, td_id, td_id))
    return None if row is None else presenters.version_row(sandbox, row)


def _active_time(request: Request, arguments: Arguments) -> dict[str, Any]:
    _, project = scope(request, arguments)
    condition = "project_id = ? AND stage = ? AND (? IS NULL OR task_id = ?)"
    task_id = arguments.get("taskId")
    return _completions(request, arguments, condition, project.project_id, arguments["stageName"], task_id, task_id)


def _labeling_time(request: Request, arguments: Arguments) -> dict[str, Any]:
    if arguments["orgId"] != demo_project.ORG_ID:
        raise RefusalError(f"there is no organization {arguments['orgId']}")
    condition = "review_state IS NULL AND cycle = 0 AND at >= ? AND at <= ?"
    return _completions(request, arguments, condition, arguments["startDate"], arguments["endDate"])


def _completions(request: Request, arguments: Arguments, condition: str, *values: Any) -> dict[str, Any]:
    sandbox, first = request.sandbox, arguments.get("first")
    size = min(listing.DEFAULT_PAGE if first is None else first, sandbox.settings.max_page)
    place, _ = listing.read_cursor(arguments.get("after"))
    rows = sandbox.store.rows(
        f"SELECT * FROM completions WHERE {condition} AND seq > ? ORDER BY seq LIMIT ?",  # noqa: S608 - constants of the code
        (*values, place[1] if place else 0, size + 1),
    )
    more, rows = len(rows) > size, rows[:size]
    return {
        "entries": [
            {
                "project": {"projectId": row["project_id"]},
                "taskId": row["task_id"],
                "user": demo_project.user(row["user"]),
                "timeSpent": row["time_ms"],
                "cycle": row["cycle"],
                "date": row["at"],
            }
            for row in rows
        ],
        "cursor": listing.write_cursor((0.0, rows[-1]["seq"])) if more and rows else None,
    }


def _validate(request: Request, arguments: Arguments) -> dict[str, Any]:
    result = convert(arguments["original"], request.sandbox.behaviors["conversion"])
    valid = result.error is None
    converted = store.write(result.converted) if valid and arguments.get("convert") else None
    return {"isValid": valid, "error": result.error, "converted": converted}


QUERIES = {
    "genericTasks": _generic_tasks,
    "tasksPaged": _tasks_paged,
    "task": _task,
    "taskData": _task_data,
    "taskActiveTime": _active_time,
    "firstLabelingTime": _labeling_time,
    "validateAndConvertToImportFormat": _validate,
}
