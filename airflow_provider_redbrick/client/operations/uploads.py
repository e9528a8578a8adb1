"""Create tasks: upload items to RedBrick's storage and create the tasks.

Design notes on task creation:

1. Each file has an upload target of its own. If the server returns fewer distinct targets than files, nothing is
   uploaded: files would overwrite each other or be lost.
2. A task's name must be new in the project, so a repeated request cannot create a second task.
3. The answer to ``createDatapoint`` has several task ids if the project duplicates its tasks; the first is the task
   itself.

Files are uploaded to presigned URLs of the label storage. A list of more than :data:`INLINE_LABELS` labels is
uploaded as a gzip file, and the mutation carries its path; shorter lists go inline.
"""

from __future__ import annotations

import gzip
import json
import posixpath
import re
import tempfile
import uuid
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import unquote

from airflow_provider_redbrick.client.models.parsing import elements, flat_labels, identifier, raw_text, reading, text
from airflow_provider_redbrick.client.operations import queries
from airflow_provider_redbrick.exceptions import RedBrickAnswerError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from airflow_provider_redbrick.client.operations.account import Scope


_DICOM, _VOLUME = "application/dicom", "application/octet-stream"
_CONTENT_TYPES = {
    **dict.fromkeys(("", ".dcm", ".dicom", ".ima"), _DICOM),
    **dict.fromkeys((".nii", ".nrrd"), _VOLUME),
    **dict.fromkeys((".jpg", ".jpeg"), "image/jpeg"),
    ".png": "image/png",
    ".bmp": "image/bmp",
    ".json": "application/json",
    ".txt": "text/plain",
    ".html": "text/html",
}
ITEM_SUFFIXES = tuple(filter(None, _CONTENT_TYPES))
"""Suffixes of files that can be items. DICOM files need none."""

_WEB = frozenset({"http", "https"})
_PATH_SCHEMES = frozenset({"file", "local"})
_MASK_KEYS = frozenset({"binaryMask", "semanticMask", "pngMask", "masks"})
_EXTRAS = ("heatMaps", "transforms", "centerline")


@dataclass(frozen=True)
class UploadTarget:
    """Upload target of an item in the storage.

    :param path: the path in the storage.
    :param content_type: the content type that the URL is signed for.
    :param url: the presigned URL for the upload; secret as long as its signature is valid.
    """

    path: str
    content_type: str
    url: str = field(repr=False)


@dataclass(frozen=True, repr=False)
class Datapoint:
    """A task to be created. Its ``repr`` shows no content.

    :param name: the task's name, new in the project.
    :param storage_id: the id of the storage that has the items.
    :param items: paths in the storage.
    :param layout: how the items form series, with the API's keys ``seriesInfo``, ``heatMaps``, ``transforms`` and
        ``centerline`` as the label conversion returns them; other keys are ignored.
    :param labels: the return value of :meth:`ProjectFiles.label_variables`.
    :param is_ground_truth: whether the task starts in ground truth.
    :param metadata: the task's own metadata.
    :param pre_assign: by stage name, one email or several.
    :param priority: from 0 to 1; ``None`` for none.
    """

    name: str
    storage_id: str
    items: Sequence[str]
    layout: Mapping[str, Any]
    labels: Mapping[str, Any]
    is_ground_truth: bool = False
    metadata: Mapping[str, str] | None = None
    pre_assign: Mapping[str, Any] | None = None
    priority: float | None = None


@dataclass(frozen=True)
class Created:
    """A created task.

    :param task_ids: one id, or several if the project duplicates its tasks; the first is the task itself.
    :param dp_id: the id of its data.
    """

    task_ids: tuple[str, ...]
    dp_id: str | None


class ProjectImports:
    """Create tasks in a project."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope

    def request_targets(self, files: Sequence[tuple[str, str]], *, task_name: str) -> list[UploadTarget]:
        """Request an upload target for each file.

        :param files: the name and the content type of each file.
        :param task_name: the task's name, for error messages.
        :return: the targets, in the order of ``files``.
        :raises RedBrickAnswerError: if the server does not return one distinct target for each file.
        """
        variables = {"files": [name for name, _ in files], "fileType": [kind for _, kind in files]}
        data = self._scope.execute(queries.ITEMS_UPLOAD_PRESIGN, variables, task_ids=[task_name])
        with reading("itemsUploadPresign"):
            items = elements(data["itemsUploadPresign"]["items"], dict, nulls=False)
            signed = [(raw_text(item["filePath"]), raw_text(item["presignedUrl"])) for item in items]
        paths = {path for path, url in signed if path and url}
        if len(signed) != len(files) or len(paths) != len(files):
            # Files would overwrite each other or be lost.
            words = f"RedBrick returned {len(paths)} of {len(files)} requested upload targets."
            raise RedBrickAnswerError(words, operation="itemsUploadPresign", task_ids=[task_name])
        return [UploadTarget(str(path), kind, str(url)) for (path, url), (_, kind) in zip(signed, files, strict=True)]

    def put(self, place: UploadTarget, file: BinaryIO) -> None:
        """Upload an open file, from its start to its end. It is streamed and left open.

        :param place: the upload target.
        :param file: the open file.
        """
        self._scope.client.transport.storage.put(place.url, file, kind=place.content_type)

    def create(self, new: Datapoint) -> Created:
        """Create a task. Its name must be new in the project."""
        layout = {key: new.layout.get(key) for key in _EXTRAS}
        variables = {
            "name": new.name,
            "storageId": new.storage_id,
            "items": list(new.items),
            **layout,
            "centerline": _with_text(layout["centerline"], "centerline"),
            "seriesInfo": _series_info(new.layout.get("seriesInfo")),
            **new.labels,
            "metaData": None if new.metadata is None else json.dumps(new.metadata),
            "isGroundTruth": new.is_ground_truth,
            # Also if there is none: the API expects the text "null".
            "preAssign": json.dumps(new.pre_assign),
            "priority": new.priority,
        }
        data = self._scope.execute(queries.CREATE_DATAPOINT, variables, task_ids=[new.name])
        with reading("createDatapoint", task_ids=[new.name], maybe_applied=True):
            return _created(data["createDatapoint"])


def content_type(name: str) -> str | None:
    """Return an item's content type by its file name.

    :param name: a path or URL. A numeric ending is part of a DICOM UID, so the file is DICOM.
    :return: ``None`` if RedBrick does not accept such files.
    """
    return _CONTENT_TYPES.get(suffix_of(name)[0])


def suffix_of(name: str) -> tuple[str, bool]:
    """Return a file name's suffix in lower case, and whether ``.gz`` follows it.

    :param name: a path or URL.
    :return: an empty suffix if the ending is numeric (the last part of a DICOM UID).
    """
    suffixes = PurePosixPath(file_name(name).lower()).suffixes
    compressed = suffixes[-1:] == [".gz"]
    if compressed:
        suffixes.pop()
    suffix = suffixes[-1] if suffixes else ""
    return "" if suffix[1:].isdecimal() else suffix, compressed


def file_name(name: str) -> str:
    """Return the last part of a path or URL, without query and fragment."""
    scheme, mark, rest = name.partition("://")
    if mark and scheme.lower() not in _PATH_SCHEMES:
        rest = _path_of(rest, always=scheme.lower() in _WEB)
    return posixpath.basename((rest if mark else name).rstrip("/"))


def _path_of(rest: str, *, always: bool) -> str:
    """Return the part of a URL before its query and fragment.

    :param always: whether ``?`` and ``#`` cannot be part of the path. In an object store a key may contain them;
        there the rest is only cut off if the remaining name has a known suffix.
    """
    path = re.split(r"[?#]", rest, maxsplit=1)[0]
    if always:
        decoded = unquote(path)
        return decoded if decoded.isprintable() else path
    suffixes = PurePosixPath(path.lower().removesuffix(".gz")).suffixes
    return path if suffixes and suffixes[-1] in _CONTENT_TYPES else rest


def _created(answer: Mapping[str, Any]) -> Created:
    ids = [task_id for task_id in answer.get("taskIds") or [answer["taskId"]] if task_id]
    if not ids:
        raise KeyError("taskId")
    return Created(tuple(map(identifier, ids)), text(answer.get("dpId")) or None)


def _series_info(series: Iterable[Mapping[str, Any]] | None) -> list[dict[str, Any]] | None:
    if series is None:
        return None
    kept = ({key: value for key, value in one.items() if key not in _MASK_KEYS} for one in series)
    return _with_text(list(kept), "metaData", "imageHeaders")


def _with_text(entries: Sequence[Mapping[str, Any]] | None, *keys: str) -> list[dict[str, Any]] | None:
    """Return copies of objects, with the values of the given keys as JSON text."""
    if entries is None:
        return None
    return [
        {key: json.dumps(value) if key in keys and _is_plain(value) else value for key, value in one.items()}
        for one in entries
    ]


def _is_plain(value: object) -> bool:
    return value is not None and not isinstance(value, str)


INLINE_LABELS = 1000
"""Maximum number of a task's labels sent inline; RedBrick's SDK has the same limit."""

NIFTI = "application/octet-stream"
"""Content type of a stored mask."""


def mask_name(mask: BinaryIO, stem: str) -> str:
    """Return the file name for an open NIfTI file, with ``.gz`` if it is compressed.

    :param mask: the open file; its position changes.
    :param stem: the name without endings.
    """
    mask.seek(0)
    return f"{stem}.nii.gz" if mask.read(2) == b"\x1f\x8b" else f"{stem}.nii"


class ProjectFiles:
    """Upload files to a project's label storage, and fetch stored files."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope

    def label_variables(
        self, labels: Sequence[Any] | None, labels_map: Sequence[Mapping[str, Any] | None], *, task_id: str
    ) -> dict[str, Any]:
        """Return labels as variables for a mutation. A long list is uploaded first.

        :param labels: the labels in the stored ("flat") format; ``None`` keeps those that the task has.
        :param labels_map: by series, where the masks are in the label storage.
        :param task_id: the task, for error messages.
        """
        path = None
        if labels is not None and len(labels) > INLINE_LABELS:
            content = gzip.compress(json.dumps(labels).encode())
            path = self._store(content, "data.json", task_id, kind="application/json", encoding="gzip")
            labels = []
        return {
            "labelsData": None if labels is None else json.dumps(labels, separators=(",", ":")),
            "labelsDataPath": path,
            "labelsMap": list(labels_map),
        }

    def store_mask(self, mask: BinaryIO, task_id: str, *, series: int) -> str:
        """Upload a segmentation mask (NIfTI) and return its path in the label storage.

        :param mask: an open file; it is sent from its start to its end, and left open.
        :param task_id: the task, for error messages.
        :param series: the index of the series it belongs to; part of the file name.
        """
        return self._store(mask, mask_name(mask, f"{series}"), task_id, kind=NIFTI)

    def get(self, url: str) -> bytes:
        """Fetch the file behind a presigned URL, decompressed if it is gzip."""
        return self._scope.client.transport.storage.get(url)

    def labels(self, url: str) -> tuple[Mapping[str, Any], ...]:
        """Fetch labels that are stored in a file because they do not fit inline."""
        content = self.get(url)
        with reading("labels file"):
            return flat_labels(content)

    def fetch_mask(self, url: str) -> BinaryIO:
        """Fetch a mask, without decompressing it, into an anonymous temporary file.

        The caller closes the file, which deletes it.
        """
        mask = tempfile.TemporaryFile()  # noqa: SIM115 - closed by the caller
        try:
            self._scope.client.transport.storage.fetch(url, mask)
        except BaseException:
            mask.close()
            raise
        return mask

    def _store(
        self, content: bytes | BinaryIO, name: str, task_id: str, *, kind: str, encoding: str | None = None
    ) -> str:
        name_in_storage = f"labels/{uuid.uuid4()}/{uuid.uuid4()}/{name}"
        variables = {"files": [name_in_storage], "fileType": kind, "fileEncoding": encoding}
        data = self._scope.execute(queries.PRESIGN_UPLOADS, variables, task_ids=[task_id])
        with reading("presignUploads"):
            signed = data["presignUploads"][0]
            url, path = raw_text(signed["presignedUrl"]), raw_text(signed["filePath"])
            if not url or not path:
                raise KeyError("presignedUrl")
        self._scope.client.transport.storage.put(url, content, kind=kind, encoding=encoding)
        return path
