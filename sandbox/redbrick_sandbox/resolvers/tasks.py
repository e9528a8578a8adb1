"""Read and change tasks.

Queries list tasks, read single ones, and read label versions and time spent. Mutations assign, label, review, move,
comment and prioritize.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from redbrick_sandbox import actions, demo_project, listing, presenters, state_machine, store
from redbrick_sandbox.conversion import convert
from redbrick_sandbox.creation import check_priority
from redbrick_sandbox.sandbox import Arguments, Request, scope
from redbrick_sandbox.transitions import RefusalError

if TYPE_CHECKING:
    from redbrick_sandbox.sandbox import Sandbox


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
    size = min(listing.DEFAULT_PAGE if first is None else first, sandbox.behaviors.max_page)
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
    result = convert(arguments["original"], request.sandbox.behaviors.conversion)
    valid = result.error is None
    converted = store.write(result.converted) if valid and arguments.get("convert") else None
    return {"isValid": valid, "error": result.error, "converted": converted}


def check_many(sandbox: Sandbox, ids: list[Any]) -> None:
    """Refuse more ids than a mutation accepts.

    :param sandbox: the sandbox, whose behaviors have the limit.
    :param ids: the ids.
    """
    if len(ids) > sandbox.behaviors.max_ids:
        raise RefusalError(f"at most {sandbox.behaviors.max_ids} tasks per request, not {len(ids)}")


def _assign(request: Request, arguments: Arguments) -> list[dict[str, Any]] | None:
    sandbox, project = scope(request, arguments)
    check_many(sandbox, arguments["taskIds"])
    people = actions.people_by_email(project, arguments.get("emails") or [])
    users = [person.user_id for person in people]
    if arguments.get("currentUser"):
        users.append(demo_project.API_KEY_USER)
    refresh = arguments.get("refresh") is not False
    done = actions.assign(sandbox, project, arguments["taskIds"], users, sandbox.doing(), refresh=refresh)
    request.touched += [record.task.task_id for record, changed in done if changed]
    if sandbox.behaviors.assign_answer != "complete":
        return [] if sandbox.behaviors.assign_answer == "empty" else None
    return [{"taskId": record.task.task_id, "name": record.name, "stageName": record.task.stage} for record, _ in done]


def _put_with_labels(request: Request, arguments: Arguments) -> dict[str, Any]:
    sandbox, project = scope(request, arguments)
    actions.put_labels(
        sandbox,
        project,
        arguments["taskId"],
        arguments["stageName"],
        sandbox.doing(),
        finished=arguments["finished"],
        data=arguments.get("labelsData"),
        path=arguments.get("labelsDataPath"),
        labels_map=arguments.get("labelsMap") or [],
        time_ms=arguments["elapsedTimeMs"],
    )
    return _touched(request, arguments["taskId"])


def _put_as_is(request: Request, arguments: Arguments) -> dict[str, Any]:
    sandbox, project = scope(request, arguments)
    actions.submit_as_is(sandbox, project, arguments["taskId"], arguments["stageName"], sandbox.doing())
    return _touched(request, arguments["taskId"])


def _review(request: Request, arguments: Arguments) -> dict[str, Any]:
    sandbox, project = scope(request, arguments)
    actions.review(
        sandbox,
        project,
        arguments["taskId"],
        arguments["stageName"],
        sandbox.doing(),
        accept=arguments["reviewVal"],
        comment=arguments.get("comment"),
        pin=arguments.get("commentPin"),
        time_ms=arguments["elapsedTimeMs"],
    )
    return _touched(request, arguments["taskId"])


def put_labels(request: Request, arguments: Arguments) -> dict[str, Any]:
    """Write labels to a task in any stage: `putLabels` with a taskId.

    :param request: the request.
    :param arguments: arguments of the field.
    """
    sandbox, project = scope(request, arguments)
    actions.overwrite_labels(
        sandbox,
        project,
        arguments["taskId"],
        sandbox.doing(),
        data=arguments.get("labelsData"),
        path=arguments.get("labelsDataPath"),
        labels_map=arguments.get("labelsMap") or [],
        finalize=bool(arguments.get("finalize")),
        time_ms=arguments.get("timeSpentMs") or 0,
        extra=_extra(arguments.get("extraData")),
    )
    return _touched(request, arguments["taskId"])


def _extra(text: str | None) -> str | None:
    """Validate extraData.

    Clients send the text "null" for no data, which becomes None.
    """
    return None if text is None or store.given(text, "extraData") is None else text


def _move_to_start(request: Request, arguments: Arguments) -> dict[str, Any]:
    sandbox, project = scope(request, arguments)
    record = sandbox.record(project, arguments["taskId"])
    sandbox.apply(project, record, state_machine.reopen(project.flow, record.task, sandbox.doing()))
    return _touched(request, arguments["taskId"])


def _move(request: Request, arguments: Arguments) -> dict[str, Any]:
    sandbox, project = scope(request, arguments)
    check_many(sandbox, arguments["taskIds"])
    target = listing.paged_stage(project, arguments["stageName"])
    if project.flow.consensus:
        return {"ok": False, "message": "tasks of a consensus project cannot be sent to a stage"}
    doing = sandbox.doing()
    for task_id in dict.fromkeys(arguments["taskIds"]):
        record = sandbox.record(project, task_id)
        if record.task.stage == target and record.task.state != state_machine.COMPLETED:
            continue
        sandbox.apply(project, record, state_machine.move(project.flow, record.task, str(target), doing))
        _touched(request, task_id)
    return {"ok": True, "message": None}


def _priorities(request: Request, arguments: Arguments) -> dict[str, Any]:
    sandbox, project = scope(request, arguments)
    check_many(sandbox, arguments["tasks"])
    now = sandbox.clock.now()
    for change in {each["taskId"]: each for each in arguments["tasks"]}.values():
        priority = change.get("priority")
        sandbox.record(project, change["taskId"])
        check_priority(priority)
        sandbox.store.run(
            "UPDATE tasks SET priority = ?, rank = ?, updated_at = ? WHERE task_id = ?",
            (priority, -(priority or 0.0), now, change["taskId"]),
        )
        _touched(request, change["taskId"])
    return {"ok": True, "message": None}


def _comment(request: Request, arguments: Arguments) -> dict[str, Any]:
    sandbox, project = scope(request, arguments)
    if not arguments["textVal"].strip():
        raise RefusalError("a comment needs a text")
    record = sandbox.record(project, arguments["taskId"])
    comment = actions.add_comment(
        sandbox,
        record,
        arguments.get("stageName"),
        sandbox.doing(),
        arguments["textVal"],
        pin=arguments.get("pin"),
        issue=bool(arguments.get("issueComment")),
        label_id=arguments.get("labelEntityLabelId"),
        reply_to=arguments.get("replyTo"),
    )
    _touched(request, arguments["taskId"])
    return comment


def _delete_comment(request: Request, arguments: Arguments) -> bool:
    sandbox, project = scope(request, arguments)
    task_id, comment_id = arguments["taskId"], arguments["commentId"]
    sandbox.record(project, task_id)
    statement = "DELETE FROM events WHERE task_id = ? AND event_id = ? AND kind = 'comment'"
    if not sandbox.store.run(statement, (task_id, comment_id)):
        raise RefusalError(f"task {task_id} has no comment {comment_id}")
    _touched(request, arguments["taskId"])
    return True


def _toggle_reference(request: Request, arguments: Arguments) -> dict[str, Any]:
    sandbox, project = scope(request, arguments)
    sandbox.record(project, arguments["taskId"])
    return _touched(request, arguments["taskId"])


def _touched(request: Request, task_id: str) -> dict[str, Any]:
    request.touched.append(task_id)
    return {"ok": True, "message": None}


QUERIES = {
    "genericTasks": _generic_tasks,
    "tasksPaged": _tasks_paged,
    "task": _task,
    "taskData": _task_data,
    "taskActiveTime": _active_time,
    "firstLabelingTime": _labeling_time,
    "validateAndConvertToImportFormat": _validate,
}

MUTATIONS = {
    "assignTasksMultipleUsers": _assign,
    "putManualLabelingTaskAndLabels": _put_with_labels,
    "putManualLabelingTask": _put_as_is,
    "putExpertReviewTask": _review,
    "moveTaskToStart": _move_to_start,
    "moveTasks": _move,
    "updateTasksPriorities": _priorities,
    "createComment": _comment,
    "deleteComment": _delete_comment,
    "toggleReferenceStandardTask": _toggle_reference,
}
