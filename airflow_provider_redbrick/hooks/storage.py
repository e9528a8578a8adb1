"""Files by the names that users give them: local paths, and whatever Airflow's object storage knows."""

from __future__ import annotations

import posixpath
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from airflow.providers.common.compat.sdk import ObjectStoragePath

from airflow_provider_redbrick.api.signatures import unsigned
from airflow_provider_redbrick.exceptions import RedBrickInputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_redbrick.batch.masks import OpenFile


def open_file(path: str) -> BinaryIO | None:
    """Open a file for reading; None for a local path where there is none.

    :param path: a local path, or a URI such as ``s3://bucket/key`` or ``file:///data/mask.nii.gz``.
    """
    if _is_uri(path):
        return _open_uri(ObjectStoragePath(path))
    place = Path(path)
    return place.open("rb") if place.is_file() else None


def open_input(name: str, path: str) -> BinaryIO:
    """Open a file that must be there.

    :param name: the parameter that holds the path, for messages.
    :raises RedBrickInputError: when it is not there or cannot be read.
    """
    shown = unsigned(path, [path])
    try:
        file = open_file(path)
    except Exception as error:  # noqa: BLE001 - clients of object stores raise what they like
        words = unsigned(str(error), [path]) or type(error).__name__
        raise RedBrickInputError(f"{name} {shown!r} cannot be read: {words}") from None
    if file is None:
        raise RedBrickInputError(f"{name} {shown!r} cannot be read: there is no such file.")
    return file


def files_beside(path: str) -> OpenFile:
    """Return what opens files by the names that the file at ``path`` knows them by: relative to its own folder.

    Absolute paths and URIs are opened as they are. None stands for a relative path where there is no file.
    """

    def open_beside(name: str) -> BinaryIO | None:
        if _is_uri(name) or posixpath.isabs(name):
            return open_file(name)
        inside = posixpath.normpath(name)
        if inside.split("/")[0] == "..":
            raise RedBrickInputError(f"it leads out of the folder of {path}")
        found = (_open_beside(path, meant) for meant in _meanings(inside, posixpath.dirname(path)))
        return next((file for file in found if file is not None), None)

    return open_beside


def _meanings(inside: str, folder: str) -> Iterator[str]:
    """Yield what a relative path may mean in a folder.

    The public SDK puts the folder that it exports to, as it was told it, in front of every path in its files.
    """
    parts, home = inside.split("/"), folder.split("/")
    yield inside
    yield from ("/".join(parts[n:]) for n in range(1, len(parts)) if parts[:n] == home[-n:])


def _open_beside(path: str, inside: str) -> BinaryIO | None:
    if not _is_uri(path):
        return open_file(str(Path(path).parent / inside))
    try:
        return _open_uri(ObjectStoragePath(path).parent / inside)
    except FileNotFoundError:
        return None


def _is_uri(path: str) -> bool:
    """Whether a name is for Airflow's object storage."""
    return "://" in path


def _open_uri(place: ObjectStoragePath) -> BinaryIO:
    """Open a file of an object storage for reading."""
    return cast("BinaryIO", place.open("rb"))  # type: ignore[no-untyped-call]
