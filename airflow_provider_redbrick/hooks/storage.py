"""Open files by local path or URI, and resolve the paths in a list of tasks.

1. A local path and a ``file://`` URI have the same checks.
2. A list may only name files in its own folder, or in the folders that the DAG allows. Links are resolved first, and
   the resolved file is opened, so that changing a link after the check has no effect.
3. Signatures of presigned URLs are removed from messages.
"""

from __future__ import annotations

import logging
import os
import posixpath
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from airflow.providers.common.compat.sdk import ObjectStoragePath

from airflow_provider_redbrick.api.imports import file_name
from airflow_provider_redbrick.api.signatures import strip_signatures
from airflow_provider_redbrick.batch.file_kinds import housekeeping, stand_in
from airflow_provider_redbrick.exceptions import NoSuchFileError, RedBrickInputError
from airflow_provider_redbrick.hooks.folders import get_path_key, is_uri, is_within, local_part, local_path
from airflow_provider_redbrick.hooks.local_files import check_links, open_local

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from airflow_provider_redbrick.hooks.folders import PathKey

log = logging.getLogger(__name__)


def open_file(path: str) -> BinaryIO:
    """Open a file for reading.

    :param path: a local path, with ``~`` expanded as the shell does, or a URI such as ``s3://bucket/key`` or
        ``file:///data/mask.nii.gz``.
    :raises NoSuchFileError: if a local file does not exist.
    :raises RedBrickInputError: if a local path leads to something other than a readable file.
    """
    if not is_uri(path):
        return open_local(path)
    local = local_part(path)
    if local is None:
        return _open_uri(ObjectStoragePath(path))
    try:
        return open_local(local)
    except RedBrickInputError as error:
        # Like the error of any other store's client, not as for a relative path.
        raise OSError(str(error)) from None


def open_input(name: str, path: str) -> BinaryIO:
    """Open a file that must exist.

    :param name: the parameter, for messages.
    :param path: a local path or URI.
    :raises RedBrickInputError: if it does not exist, cannot be read, or is a placeholder such as a Git LFS pointer.
    """
    shown = strip_signatures(path, [path])
    try:
        file = open_file(path)
        problem = stand_in(file)
    except Exception as error:  # noqa: BLE001 - clients of object stores raise what they like
        reason = strip_signatures(str(error), [path]) or type(error).__name__
        raise RedBrickInputError(f"{name} {shown!r} cannot be read: {reason.rstrip('.')}.") from None
    if problem is not None:
        file.close()
        raise RedBrickInputError(f"{name} {shown!r} cannot be read: it looks like {problem}.")
    return file


def find_items(folder: str) -> list[str]:
    """Return the files of a folder that may be items, sorted by name.

    Files that systems keep in folders (DICOMDIR, ``.DS_Store``, ``._x``, Thumbs.db, other hidden files) are left out;
    the log has their count. The content of files is checked when they are uploaded.

    :param folder: a local path or a URI that Airflow's object storage supports. A missing folder has no files.
    """
    place = ObjectStoragePath(folder if is_uri(folder) else os.path.expanduser(folder))  # noqa: PTH111 - no Path of a URI
    found = sorted(str(path) for path in place.iterdir() if path.is_file()) if place.is_dir() else []
    items = [path for path in found if housekeeping(path) is None and not file_name(path).startswith(".")]
    if len(items) < len(found):
        left = len(found) - len(items)
        log.info("%s: left out %d of %d files, which are hidden or system files.", folder, left, len(found))
    return items


class FilesBeside:
    """Open files by the names in a list: relative to the list's folder, or absolute.

    The resolved file must be in the list's folder or in an allowed one.

    :param path: path of the list.
    :param allowed: further folders that its files may be in.
    """

    def __init__(self, path: str, allowed: Sequence[PathKey] = ()) -> None:
        self._path = path
        try:
            self._folders = (get_path_key(_beside(path, "")), *allowed)
        except RedBrickInputError as error:
            raise RedBrickInputError(f"{path!r} can name no files: {error}.") from None

    def __call__(self, name: str) -> BinaryIO:
        """Open a file.

        :raises NoSuchFileError: if it does not exist.
        :raises RedBrickInputError: if it is outside of the allowed folders, or cannot be read.
        """
        if is_uri(name) or posixpath.isabs(name):
            return self._open(name)
        inside = posixpath.normpath(name)
        for meant in _meanings(inside, posixpath.dirname(self._path)):
            with suppress(NoSuchFileError):
                return self._open(_beside(self._path, meant))
        at_home = os.path.expanduser(name)  # noqa: PTH111 - a Path would change what it names
        if at_home != name:
            return self._open(at_home)
        raise NoSuchFileError(f"there is no such file in the folder of {self._path}")

    def check(self, name: str) -> None:
        """Check that a file is in an allowed folder, whether or not it exists.

        :raises RedBrickInputError: if it is not.
        """
        self._checked(name)

    def _checked(self, name: str) -> PathKey:
        out = f"it leads out of the folder of {self._path}, and into none of allowed_folders"
        try:
            place = get_path_key(name)
        except RedBrickInputError as error:
            raise RedBrickInputError(f"{out} ({error})") from None
        if not is_within(place, self._folders):
            raise RedBrickInputError(out)
        return place

    def _open(self, name: str) -> BinaryIO:
        local = local_path(self._checked(name))
        if local is not None:
            check_links(local_part(name) or name)
            # Open the path that was checked, in case a link is changed now.
            return open_local(local)
        try:
            return open_file(name)
        except FileNotFoundError:
            raise NoSuchFileError("there is no such file") from None


def _meanings(inside: str, folder: str) -> Iterator[str]:
    """Yield the possible meanings of a relative path in a folder.

    The public SDK prefixes every path in its files with the export folder, as the user wrote it.
    """
    parts, home = inside.split("/"), folder.split("/")
    yield inside
    yield from ("/".join(parts[n:]) for n in range(1, len(parts)) if parts[:n] == home[-n:])


def _beside(path: str, inside: str) -> str:
    """Return the path of a file in the folder of another file."""
    if not is_uri(path):
        return str(Path(path).parent / inside)
    folder, _, _ = path.rpartition("/")
    return f"{folder}/{inside}"


def _open_uri(place: ObjectStoragePath) -> BinaryIO:
    """Open a file of an object store for reading."""
    return cast("BinaryIO", place.open("rb"))  # type: ignore[no-untyped-call]
