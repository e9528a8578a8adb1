"""Files by the names that users give them: local paths, and whatever Airflow's object storage knows."""

from __future__ import annotations

import logging
import os
import posixpath
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from airflow.providers.common.compat.sdk import ObjectStoragePath

from airflow_provider_redbrick.api.imports import file_name
from airflow_provider_redbrick.api.signatures import unsigned
from airflow_provider_redbrick.batch.file_kinds import housekeeping, stand_in
from airflow_provider_redbrick.exceptions import NoSuchFileError, RedBrickInputError
from airflow_provider_redbrick.hooks.folders import is_uri, is_within, local_part, local_path, place_of
from airflow_provider_redbrick.hooks.local_files import check_links, open_local

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from airflow_provider_redbrick.hooks.folders import Place

log = logging.getLogger(__name__)


def open_file(path: str) -> BinaryIO:
    """Open a file for reading.

    :param path: a local path, with ``~`` as the shell reads it, or a URI such as ``s3://bucket/key`` or
        ``file:///data/mask.nii.gz``.
    :raises NoSuchFileError: for a local path of which there is nothing.
    :raises RedBrickInputError: for a local path that leads to something else than a file that can be read.
    """
    if not is_uri(path):
        return open_local(path)
    local = local_part(path)
    if local is None:
        return _open_uri(ObjectStoragePath(path))
    try:
        return open_local(local)
    except RedBrickInputError as error:
        # As the client of any other store says it, and not as if a relative path were meant.
        raise OSError(str(error)) from None


def open_input(name: str, path: str) -> BinaryIO:
    """Open a file that must be there.

    :param name: the parameter that holds the path, for messages.
    :raises RedBrickInputError: when it is not there, cannot be read, or is something else than the file.
    """
    shown = unsigned(path, [path])
    try:
        file = open_file(path)
        problem = stand_in(file)
    except Exception as error:  # noqa: BLE001 - clients of object stores raise what they like
        words = unsigned(str(error), [path]) or type(error).__name__
        raise RedBrickInputError(f"{name} {shown!r} cannot be read: {words.rstrip('.')}.") from None
    if problem is not None:
        file.close()
        raise RedBrickInputError(f"{name} {shown!r} cannot be read: it looks like {problem}.")
    return file


def find_items(folder: str) -> list[str]:
    """Return the files of a folder that may be items of tasks, in the order of their names.

    What systems keep in folders is left out (DICOMDIR, ``.DS_Store``, ``._x``, Thumbs.db, other hidden files), and
    counted in the log. What a file holds is looked at when it is uploaded.

    :param folder: a local path or any URI that Airflow's object storage knows; one that is not there has no files.
    """
    place = ObjectStoragePath(folder if is_uri(folder) else os.path.expanduser(folder))  # noqa: PTH111 - no Path of a URI
    found = sorted(str(path) for path in place.iterdir() if path.is_file()) if place.is_dir() else []
    items = [path for path in found if housekeeping(path) is None and not file_name(path).startswith(".")]
    if len(items) < len(found):
        left = len(found) - len(items)
        log.info("%s: %d of %d files are left out, which systems keep in folders.", folder, left, len(found))
    return items


class FilesBeside:
    """Opens files by the names that a list knows them by: relative to its own folder, or absolute.

    Wherever a name leads, the file must be in the list's folder or in one of ``allowed``.

    :param path: of the list.
    :param allowed: other folders that its files may come from.
    """

    def __init__(self, path: str, allowed: Sequence[Place] = ()) -> None:
        self._path = path
        try:
            self._folders = (place_of(_beside(path, "")), *allowed)
        except RedBrickInputError as error:
            raise RedBrickInputError(f"{path!r} can name no files: {error}.") from None

    def __call__(self, name: str) -> BinaryIO:
        """Open a file.

        :raises NoSuchFileError: when there is nothing of this name.
        :raises RedBrickInputError: when it is not where it may be, or is no file that can be read.
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
        """Check that a file may be opened, whether or not it is there.

        :raises RedBrickInputError: when it is not where it may be.
        """
        self._checked(name)

    def _checked(self, name: str) -> Place:
        out = f"it leads out of the folder of {self._path}, and into none of allowed_folders"
        try:
            place = place_of(name)
        except RedBrickInputError as error:
            raise RedBrickInputError(f"{out} ({error})") from None
        if not is_within(place, self._folders):
            raise RedBrickInputError(out)
        return place

    def _open(self, name: str) -> BinaryIO:
        local = local_path(self._checked(name))
        if local is not None:
            check_links(local_part(name) or name)
            # Where the links led when they were looked at, in case somebody turns them now.
            return open_local(local)
        try:
            return open_file(name)
        except FileNotFoundError:
            raise NoSuchFileError("there is no such file") from None


def _meanings(inside: str, folder: str) -> Iterator[str]:
    """Yield what a relative path may mean in a folder.

    The public SDK puts the folder that it exports to, as it was told it, in front of every path in its files.
    """
    parts, home = inside.split("/"), folder.split("/")
    yield inside
    yield from ("/".join(parts[n:]) for n in range(1, len(parts)) if parts[:n] == home[-n:])


def _beside(path: str, inside: str) -> str:
    """Return the name of what is in the folder of a file."""
    if not is_uri(path):
        return str(Path(path).parent / inside)
    folder, _, _ = path.rpartition("/")
    return f"{folder}/{inside}"


def _open_uri(place: ObjectStoragePath) -> BinaryIO:
    """Open a file of an object storage for reading."""
    return cast("BinaryIO", place.open("rb"))  # type: ignore[no-untyped-call]
