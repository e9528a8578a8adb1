"""Storage methods, and signed URLs for uploads and downloads."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any

from redbrick_sandbox import demo_project, presenters
from redbrick_sandbox.sandbox import Arguments, Request, scope
from redbrick_sandbox.transitions import RefusalError

if TYPE_CHECKING:
    from redbrick_sandbox.sandbox import Sandbox

_STORAGES = (demo_project.PUBLIC_STORAGE, demo_project.REDBRICK_STORAGE)


def _label_storage(request: Request, arguments: Arguments) -> dict[str, Any]:
    _, project = scope(request, arguments)
    default = {"storageId": demo_project.REDBRICK_STORAGE, "path": "labels"}
    return dict(project.document["settings"].get("labelStorage") or default)


def _update_label_storage(request: Request, arguments: Arguments) -> dict[str, Any]:
    sandbox, project = scope(request, arguments)
    settings = {
        **project.document["settings"],
        "labelStorage": {"storageId": arguments["storageId"], "path": arguments["path"]},
    }
    sandbox.save_project({**project.document, "settings": settings})
    return {"ok": True}


def _methods(_request: Request, arguments: Arguments) -> list[dict[str, Any]]:
    return [presenters.storage(each) for each in _STORAGES] if arguments["orgId"] == demo_project.ORG_ID else []


def _method(_request: Request, arguments: Arguments) -> dict[str, Any] | None:
    return (
        presenters.storage(arguments["storageId"])
        if arguments["orgId"] == demo_project.ORG_ID and arguments["storageId"] in _STORAGES
        else None
    )


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
    batch = uuid.uuid4()
    return {
        "items": [
            _upload(sandbox, f"{project.project_id}/items/{batch}/{index}/{name}", name, kind, None)
            for index, (name, kind) in enumerate(zip(arguments["files"], arguments["fileType"], strict=True))
        ]
    }


def _item_list_upload(request: Request, arguments: Arguments) -> dict[str, Any]:
    upload_id = str(uuid.uuid4())
    name = arguments["fileName"]
    path = f"{arguments['orgId']}/lists/{upload_id}/{name}"
    found = _upload(request.sandbox, path, name, "application/json", None)
    return {**found, "uploadId": upload_id}


def _generate_items_list(_request: Request, arguments: Arguments) -> str:
    """Return one task per file. The real service also groups the files of a study."""
    return json.dumps([{"name": path, "items": [path]} for path in arguments["files"] if path])


QUERIES = {
    "getLabelStorage": _label_storage,
    "storageMethods": _methods,
    "storageMethod": _method,
    "presignItem": _presign_item,
    "presignItems": _presign_items,
    "presignUploads": _presign_uploads,
    "itemsUploadPresign": _items_upload,
    "itemListUploadPresign": _item_list_upload,
    "generateItemsList": _generate_items_list,
}
MUTATIONS = {"updateLabelStorage": _update_label_storage}
