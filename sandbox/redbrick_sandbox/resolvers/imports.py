"""Sign addresses of files, and create, change and delete tasks and data points."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from redbrick_sandbox import demo_project, store
from redbrick_sandbox.creation import NewTask, create
from redbrick_sandbox.labels import current_labels, current_map
from redbrick_sandbox.resolvers.tasks import check_many
from redbrick_sandbox.sandbox import Arguments, Request, scope
from redbrick_sandbox.store import make_id
from redbrick_sandbox.transitions import RefusalError

if TYPE_CHECKING:
    from redbrick_sandbox.sandbox import Project, Sandbox

_BODY = ("heatMaps", "transforms", "centerline", "seriesInfo", "metaData", "attributes")


def _create_datapoint(request: Request, arguments: Arguments) -> dict[str, Any]:
    if arguments.get("projectId") is None:
        raise RefusalError("the sandbox has no workspaces: projectId is needed")
    sandbox, project = scope(request, arguments)
    for name in ("metaData", "attributes"):
        store.given(arguments.get(name) or "null", name)
    new = NewTask(
        name=arguments["name"],
        items=arguments["items"],
        storage_id=arguments["storageId"],
        body={key: arguments[key] for key in _BODY if arguments.get(key) is not None},
        labels=arguments.get("labelsData"),
        labels_path=arguments.get("labelsDataPath"),
        labels_map=arguments.get("labelsMap") or [],
        ground_truth=arguments["isGroundTruth"],
        pre_assign=_object(arguments.get("preAssign"), "preAssign"),
        priority=arguments.get("priority"),
    )
    doing = sandbox.doing()
    copies = project.document["settings"].get("taskDuplicationCount") or 1
    made = [create(sandbox, project, _copied(new, index), doing) for index in range(copies)]
    request.touched += [task_id for _, task_id in made]
    return {"dpId": made[0][0], "taskId": made[0][1], "taskIds": [task_id for _, task_id in made]}


def _copied(new: NewTask, index: int) -> NewTask:
    return replace(new, name=f"{new.name} ({index + 1})") if index else new


def _object(value: Any, what: str) -> dict[str, Any]:
    """Parse an object that is JSON text in mutations and plain JSON in uploaded lists."""
    found = (store.given(value or "null", what) if isinstance(value, str) else value) or {}
    if not isinstance(found, dict):
        raise RefusalError(f"{what} must be an object")
    return found


def _update_items(request: Request, arguments: Arguments) -> dict[str, Any]:
    sandbox, project = scope(request, arguments)
    task_id, dp_id = arguments.get("taskId"), arguments.get("dpId")
    items = arguments.get("items")
    row = sandbox.store.row(
        "SELECT datapoints.*, tasks.task_id FROM datapoints LEFT JOIN tasks USING (dp_id)"
        " WHERE datapoints.project_id = ? AND (tasks.task_id = ? OR datapoints.dp_id = ?)",
        (project.project_id, task_id, dp_id),
    )
    if row is None:
        raise RefusalError(f"there is no task {task_id or dp_id} in project {project.project_id}")
    body = json.loads(row["body"])
    paths = json.loads(row["items"])
    given = {key: arguments[key] for key in _BODY if arguments.get(key) is not None}
    if arguments.get("append"):
        moved = [
            {**series, "itemsIndices": [index + len(paths) for index in series.get("itemsIndices") or []]}
            for series in given.get("seriesInfo") or []
        ]
        given["seriesInfo"] = [*(body.get("seriesInfo") or []), *moved]
        items = [*paths, *(items or [])]
    sandbox.store.run(
        "UPDATE datapoints SET items = ?, body = ?, storage_id = ? WHERE dp_id = ?",
        (
            json.dumps(paths if items is None else items),
            json.dumps({**body, **given}),
            arguments["storageId"],
            row["dp_id"],
        ),
    )
    if row["task_id"] is not None:
        sandbox.store.run("UPDATE tasks SET updated_at = ? WHERE task_id = ?", (sandbox.clock.now(), row["task_id"]))
        request.touched.append(row["task_id"])
    return {"ok": True, "message": None}


def _item_list(request: Request, arguments: Arguments) -> dict[str, Any]:
    sandbox, project = scope(request, {**arguments, "projectId": arguments.get("projectId") or ""})
    payload = arguments["payload"]
    row = sandbox.store.row("SELECT content FROM files WHERE path = ?", (payload.get("filePath"),))
    try:
        entries = json.loads(bytes(row["content"])) if row else None
    except ValueError:
        entries = None
    if not isinstance(entries, list):
        raise RefusalError(f"{payload.get('filePath')!r} is not the path of an uploaded list of items")
    for entry in entries:
        request.touched.append(create(sandbox, project, _listed(entry, payload), sandbox.doing())[1])
    return {"ok": True}


def _listed(entry: Any, payload: dict[str, Any]) -> NewTask:
    """Convert an entry of an uploaded list to a task.

    Missing fields have the defaults of a task.
    """
    items = entry.get("items") if isinstance(entry, dict) else None
    if not (isinstance(items, list) and all(isinstance(each, str) for each in items)):
        raise RefusalError("each entry of an uploaded list needs a name and a list of items")
    meta, labels = entry.get("metaData"), entry.get("labels")
    return NewTask(
        name=str(entry.get("name") or ""),
        items=items,
        storage_id=str(payload.get("storageId") or demo_project.REDBRICK_STORAGE),
        body={} if not meta else {"metaData": meta if isinstance(meta, str) else json.dumps(meta)},
        labels=json.dumps(labels) if labels else None,
        ground_truth=bool(payload.get("isGroundTruth")),
        pre_assign=_object(entry.get("preAssign"), "preAssign"),
        priority=entry.get("priority"),
    )


def _delete(request: Request, arguments: Arguments) -> dict[str, Any]:
    sandbox, project = scope(request, arguments)
    check_many(sandbox, arguments.get("taskIds") or arguments.get("taskNames") or [])
    ids = [sandbox.record(project, task_id).task.task_id for task_id in arguments.get("taskIds") or []]
    for name in arguments.get("taskNames") or []:
        query = "SELECT task_id FROM tasks WHERE project_id = ? AND name = ?"
        found = sandbox.store.rows(query, (project.project_id, name))
        if not found:
            raise RefusalError(f"there is no task with the name {name!r}")
        ids += [row["task_id"] for row in found]
    for task_id in dict.fromkeys(ids):
        _forget(sandbox, task_id)
        request.touched.append(task_id)
    return {"ok": True}


def _forget(sandbox: Sandbox, task_id: str) -> None:
    for statement in (
        "DELETE FROM datapoints WHERE dp_id = (SELECT dp_id FROM tasks WHERE task_id = ?)",
        "DELETE FROM tasks WHERE task_id = ?",
        "DELETE FROM versions WHERE task_id = ?",
        "DELETE FROM events WHERE task_id = ?",
        "DELETE FROM completions WHERE task_id = ?",
    ):
        sandbox.store.run(statement, (task_id,))


def _from_workspace(request: Request, arguments: Arguments) -> dict[str, Any]:
    sandbox, project = scope(request, arguments)
    source = sandbox.project(demo_project.ORG_ID, arguments["sourceProjectId"])
    for each in arguments["tasks"]:
        new = _copy(sandbox, source, each["taskId"], with_labels=bool(arguments.get("withLabels")))
        request.touched.append(create(sandbox, project, new, sandbox.doing())[1])
    return {"ok": True, "message": None}


def _copy(sandbox: Sandbox, source: Project, task_id: str, *, with_labels: bool) -> NewTask:
    record = sandbox.record(source, task_id)
    row = sandbox.store.row("SELECT * FROM datapoints WHERE dp_id = ?", (record.dp_id,))
    if row is None:
        raise RefusalError(f"task {task_id} has no data point")
    return NewTask(
        name=record.name,
        items=json.loads(row["items"]),
        storage_id=row["storage_id"],
        body=json.loads(row["body"]),
        labels=json.dumps(current_labels(sandbox, record.version)) if with_labels else None,
        labels_map=current_map(sandbox, record.version) if with_labels else (),
    )


def _from_altadb(request: Request, arguments: Arguments) -> dict[str, Any]:
    scope(request, {**arguments, "projectId": arguments.get("projectId") or demo_project.PROJECT_ID})
    return {"ok": False, "message": "the sandbox has no AltaDB"}


def _presign_item(request: Request, arguments: Arguments) -> str | None:
    return _presign_items(request, {**arguments, "items": [arguments["item"]]})[0]


def _presign_items(request: Request, arguments: Arguments) -> list[str | None]:
    if arguments["orgId"] != demo_project.ORG_ID:
        raise RefusalError(f"there is no organization {arguments['orgId']}")
    sandbox = request.sandbox
    # Items in AltaDB and missing items cannot be signed.
    return [
        sandbox.download_url(item) if item and not item.startswith("altadb:") else None for item in arguments["items"]
    ]


def _presign_uploads(request: Request, arguments: Arguments) -> list[dict[str, Any]]:
    sandbox, project = scope(request, arguments)
    kind, encoding = arguments["fileType"], arguments.get("fileEncoding")
    return [_upload(sandbox, f"{project.project_id}/{name}", name, kind, encoding) for name in arguments["files"]]


def _upload(sandbox: Sandbox, path: str, name: str, kind: str, encoding: str | None) -> dict[str, Any]:
    return {
        "presignedUrl": sandbox.upload_url(path, kind, encoding),
        "filePath": path,
        "fileName": name.rsplit("/", 1)[-1],
    }


def _items_upload(request: Request, arguments: Arguments) -> dict[str, Any]:
    sandbox, project = scope(request, arguments)
    if len(arguments["files"]) != len(arguments["fileType"]):
        raise RefusalError("files and fileType must be equally long")
    # Files with the same name must not overwrite each other.
    batch = make_id(f"upload {sandbox.clock.now()}", 0)
    return {
        "items": [
            _upload(sandbox, f"{project.project_id}/items/{batch}/{index}/{name}", name, kind, None)
            for index, (name, kind) in enumerate(zip(arguments["files"], arguments["fileType"], strict=True))
        ]
    }


def _item_list_upload(request: Request, arguments: Arguments) -> dict[str, Any]:
    upload_id = make_id(f"upload {request.sandbox.clock.now()}", 0)
    name = arguments["fileName"]
    path = f"{arguments['orgId']}/lists/{upload_id}/{name}"
    found = _upload(request.sandbox, path, name, "application/json", None)
    return {**found, "uploadId": upload_id}


def _generate_items_list(_request: Request, arguments: Arguments) -> str:
    """Return one task per file. The real service also groups the files of a study."""
    return json.dumps([{"name": path, "items": [path]} for path in arguments["files"] if path])


QUERIES = {
    "presignItem": _presign_item,
    "presignItems": _presign_items,
    "presignUploads": _presign_uploads,
    "itemsUploadPresign": _items_upload,
    "itemListUploadPresign": _item_list_upload,
    "generateItemsList": _generate_items_list,
}
MUTATIONS = {
    "createDatapoint": _create_datapoint,
    "updateTaskItems": _update_items,
    "itemListUploadSuccess": _item_list,
    "deleteTasks": _delete,
    "importTasksFromWorkspace": _from_workspace,
    "importDatapointsFromAltaDb": _from_altadb,
}
