"""Files by the names that users give them: local paths, and whatever Airflow's object storage knows."""

from __future__ import annotations

import posixpath
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from airflow.providers.common.compat.sdk import ObjectStoragePath

from airflow_provider_redbrick.api.signatures import unsigned
from airflow_provider_redbrick.exceptions import RedBrickInputError
from airflow_provider_redbrick.hooks.folders import is_uri, is_within, local_path, place_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from airflow_provider_redbrick.hooks.folders import Place


def open_file(path: str) -> BinaryIO | None:
    """Open a file for reading; None for a local path where there is none.

    :param path: a local path, or a URI such as ``s3://bucket/key`` or ``file:///data/mask.nii.gz``.
    """
    if is_uri(path):
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


class FilesBeside:
    """Opens files by the names that a list knows them by: relative to its own folder, or absolute.

    Wherever a name leads, the file must be in the list's folder or in one of ``allowed``. None stands for a name that
    there is no file of.

    :param path: of the list.
    :param allowed: other folders that its files may come from.
    """

    def __init__(self, path: str, allowed: Sequence[Place] = ()) -> None:
        self._path = path
        try:
            self._folders = (place_of(_beside(path, "")), *allowed)
        except RedBrickInputError as error:
            raise RedBrickInputError(f"{path!r} can name no files: {error}.") from None

    def __call__(self, name: str) -> BinaryIO | None:
        """Open a file.

        :raises RedBrickInputError: when it is not where it may be.
        """
        if is_uri(name) or posixpath.isabs(name):
            return self._open(name)
        inside = posixpath.normpath(name)
        found = (self._open(_beside(self._path, meant)) for meant in _meanings(inside, posixpath.dirname(self._path)))
        return next((file for file in found if file is not None), None)

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

    def _open(self, name: str) -> BinaryIO | None:
        local = local_path(self._checked(name))
        if local is not None:
            # Where the links led when they were looked at, in case somebody turns them now.
            return open_file(local)
        try:
            return open_file(name)
        except FileNotFoundError:
            return None


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
