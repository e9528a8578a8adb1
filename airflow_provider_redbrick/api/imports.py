"""Bringing new tasks into a project: items into RedBrick's own storage, and the tasks themselves."""

from __future__ import annotations

import json
import posixpath
import re
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import unquote

from airflow_provider_redbrick.api import documents
from airflow_provider_redbrick.api.answers import elements, identifier, reading, text, text_as_it_is
from airflow_provider_redbrick.exceptions import RedBrickAnswerError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from airflow_provider_redbrick.api.scope import Scope

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
"""The endings of files that can be items; DICOM files need none."""

_WEB = frozenset({"http", "https"})
_KEPT_AS_THEY_ARE = frozenset({"file", "local"})
_OF_MASKS = frozenset({"binaryMask", "semanticMask", "pngMask", "masks"})
_EXTRAS = ("heatMaps", "transforms", "centerline")


@dataclass(frozen=True)
class Place:
    """Where an item will be in storage.

    :param url: where to put it; a secret while its signature lives.
    """

    path: str
    content_type: str
    url: str = field(repr=False)


@dataclass(frozen=True, repr=False)
class Datapoint:
    """A task to be created; the repr shows nothing of it.

    :param items: paths in the storage.
    :param layout: how the items make up series, by the API's names: ``seriesInfo``, ``heatMaps``, ``transforms`` and
        ``centerline`` as the conversion tells them; other keys are not looked at.
    :param labels: what :meth:`ProjectFiles.carry` returned.
    :param pre_assign: by stage one e-mail or several.
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
    """A task that was created.

    :param task_ids: one, or several where the project duplicates its tasks; the first is the task itself.
    """

    task_ids: tuple[str, ...]
    dp_id: str | None


class ProjectImports:
    """Brings new tasks into a project."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope

    def places(self, files: Sequence[tuple[str, str]], *, task_name: str) -> list[Place]:
        """Return for each file a place of its own in RedBrick's storage.

        :param files: the name and the content type of each.
        """
        asked = {"files": [name for name, _ in files], "fileType": [kind for _, kind in files]}
        data = self._scope.execute(documents.ITEMS_UPLOAD_PRESIGN, asked, task_ids=[task_name])
        with reading("itemsUploadPresign"):
            items = elements(data["itemsUploadPresign"]["items"], dict, nulls=False)
            signed = [(text_as_it_is(item["filePath"]), text_as_it_is(item["presignedUrl"])) for item in items]
        paths = {path for path, url in signed if path and url}
        if len(signed) != len(files) or len(paths) != len(files):
            # Something would be put over something else, or nowhere.
            words = f"RedBrick gave {len(paths)} places for {len(files)} files."
            raise RedBrickAnswerError(words, operation="itemsUploadPresign", task_ids=[task_name])
        return [Place(str(path), kind, str(url)) for (path, url), (_, kind) in zip(signed, files, strict=True)]

    def put(self, place: Place, file: BinaryIO) -> None:
        """Put an open file into its place, from its beginning to its end; it is streamed and left open."""
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
            # Also when there is none: the API wants the text "null" then.
            "preAssign": json.dumps(new.pre_assign),
            "priority": new.priority,
        }
        data = self._scope.execute(documents.CREATE_DATAPOINT, variables, task_ids=[new.name])
        with reading("createDatapoint", task_ids=[new.name], maybe_applied=True):
            return _created(data["createDatapoint"])


def content_type(name: str) -> str | None:
    """Return what kind of item a file is, by its name; None for one that RedBrick does not take.

    :param name: a path or URL. A last part that is a number is taken for a DICOM UID's.
    """
    return _CONTENT_TYPES.get(suffix_of(name)[0])


def suffix_of(name: str) -> tuple[str, bool]:
    """Return the ending of a file's name in lower case, and whether ``.gz`` comes after it.

    :param name: a path or URL. The ending is empty where it is a number, the last part of a DICOM UID.
    """
    suffixes = PurePosixPath(file_name(name).lower()).suffixes
    compressed = suffixes[-1:] == [".gz"]
    if compressed:
        suffixes.pop()
    suffix = suffixes[-1] if suffixes else ""
    return "" if suffix[1:].isdecimal() else suffix, compressed


def file_name(name: str) -> str:
    """Return the last part of a path or of a URL's path: neither signature nor fragment is part of it."""
    scheme, mark, rest = name.partition("://")
    if mark and scheme.lower() not in _KEPT_AS_THEY_ARE:
        rest = _path_of(rest, always=scheme.lower() in _WEB)
    return posixpath.basename((rest if mark else name).rstrip("/"))


def _path_of(rest: str, *, always: bool) -> str:
    """Return what comes before the query and the fragment of a URL.

    :param always: whether there can be no such characters in the path. A key in an object store may have them, so
        there only what leaves a name with a known ending is cut off.
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
    kept = ({key: value for key, value in one.items() if key not in _OF_MASKS} for one in series)
    return _with_text(list(kept), "metaData", "imageHeaders")


def _with_text(entries: Sequence[Mapping[str, Any]] | None, *keys: str) -> list[dict[str, Any]] | None:
    """Return objects with what some of their keys hold as JSON text."""
    if entries is None:
        return None
    return [
        {key: json.dumps(value) if key in keys and _is_plain(value) else value for key, value in one.items()}
        for one in entries
    ]


def _is_plain(value: object) -> bool:
    return value is not None and not isinstance(value, str)
