"""Open files by local path or URI, and resolve the paths in a list of tasks.

The author of a list is often not the author of the DAG. Without a restriction, a list could name any file that the
worker can read, and any bucket that its credentials open.

1. A list may only name files in its own folder, or in the folders that the DAG allows.
2. Locations are compared part by part, after local links are resolved. The resolved file is opened, so that changing a
   link after the check has no effect. A URI's connection and bucket are parts.
3. No object store is contacted for the comparison. A URI that stores interpret in different ways, such as one with
   ``..``, is refused.
4. A local path and a ``file://`` URI have the same checks. A folder, a broken link, a pipe or missing permission is
   reported as such, not as a missing file.
5. Signatures of presigned URLs are removed from messages.
"""

from __future__ import annotations

import logging
import os
import posixpath
import re
import stat
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar, cast
from urllib.parse import unquote

from airflow.providers.common.compat.sdk import ObjectStoragePath

from airflow_provider_redbrick.annotations.file_kinds import housekeeping, stand_in
from airflow_provider_redbrick.client.operations.uploads import file_name
from airflow_provider_redbrick.client.transport.redaction import strip_signatures
from airflow_provider_redbrick.exceptions import (
    NoSuchFileError,
    RedBrickInputError,
    has_line_break,
    short_repr,
    to_valid_utf8,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


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


PathKey = tuple[str, ...]
"""Comparable location of a file or folder: the store with its connection, followed by the parts of the path."""

_LOCAL = frozenset({"file", "local"})
_LOCAL_STORE = "file"
# Parsed as Airflow does. Airflow's own parser is not used, since it looks up the connection at once.
_URI = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?:(?P<connection>[^/?#]*)@)?(?P<rest>[^\x00-\x1f]*)")
_SEPARATORS = re.compile(r"[/\\]")


def is_uri(path: str) -> bool:
    """Return whether a path is a URI for Airflow's object storage."""
    return "://" in path


def local_path(place: PathKey) -> str | None:
    """Return the path of a location on this machine; None for another one."""
    return str(Path(*place[1:])) if place[0] == _LOCAL_STORE else None


def local_part(path: str) -> str | None:
    """Return the local path in a URI such as ``file:///data/a.dcm``.

    :return: the path; None if the URI is not local, or is not a URI.
    """
    found = _URI.fullmatch(path)
    return found["rest"] if found is not None and found["scheme"].lower() in _LOCAL else None


def get_path_key(path: str) -> PathKey:
    """Return the location of a path. Local links are resolved.

    :raises RedBrickInputError: for an ambiguous URI.
    """
    scheme, connection, rest = _split(path)
    if scheme in _LOCAL:
        return (_LOCAL_STORE, *Path(os.path.realpath(rest)).parts)
    if any(unquote(part) == ".." for part in _SEPARATORS.split(unquote(rest))):
        # Some stores treat it as an ordinary name.
        raise RedBrickInputError("'..' is not permitted in a URI")
    return (f"{scheme}://{connection}", *rest.strip("/").split("/"))


def _split(path: str) -> tuple[str, str, str]:
    """Return the scheme, connection and remainder of a path."""
    if not is_uri(path):
        return _LOCAL_STORE, "", path
    found = _URI.fullmatch(path)
    if found is None or "::" in path:
        raise RedBrickInputError("it is not one plain URI")
    return found["scheme"].lower(), found["connection"] or "", found["rest"]


def is_within(place: PathKey, folders: Sequence[PathKey]) -> bool:
    """Return whether a location is in one of several folders.

    Whole parts are compared: ``/data/ab`` is not within ``/data/a``.

    :param place: the location.
    :param folders: the folders.
    """
    return any(len(place) > len(folder) and place[: len(folder)] == folder for folder in folders)


def check_folders(name: str, value: object) -> tuple[PathKey, ...]:
    """Validate the folders that files may be in besides a list's own.

    :param name: the parameter, for messages.
    :param value: a list of absolute paths and URIs, or None.
    :raises RedBrickInputError: if it is anything else.
    """
    if value is None:
        return ()
    if not isinstance(value, (list, tuple)):
        raise RedBrickInputError(f"{name} must be a list of folders, not {short_repr(value)}.")
    return tuple(_folder(f"{name}[{i}]", folder) for i, folder in enumerate(value))


def _folder(name: str, value: object) -> PathKey:
    if isinstance(value, str) and not is_uri(value):
        value = os.path.expanduser(value)  # noqa: PTH111 - a Path would change what it names
    if (
        not isinstance(value, str)
        or value != to_valid_utf8(value)
        or has_line_break(value)
        or not (is_uri(value) or Path(value).is_absolute())
    ):
        # A relative path would depend on the directory in which the worker was started.
        raise RedBrickInputError(
            f"{name} must be an absolute path or a URI (an unrendered template?), not {short_repr(value)}."
        )
    try:
        place = get_path_key(value)
    except RedBrickInputError as error:
        raise RedBrickInputError(f"{name} {value!r} cannot be a folder: {error}.") from None
    if local_path(place) is None and not place[1]:
        raise RedBrickInputError(f"{name} {value!r} names no bucket.")
    return place


def open_local(path: str) -> BinaryIO:
    """Open a local file for reading.

    :param path: absolute, or relative to the working directory; ``~`` is expanded as the shell does.
    :raises NoSuchFileError: if nothing has this name.
    :raises RedBrickInputError: if it is a folder, a broken link or another non-file, or may not be read.
    """
    named = path if os.path.lexists(path) else os.path.expanduser(path)  # noqa: PTH111 - a Path would change it
    place = Path(named)
    mode = _translate_errors(place, lambda: place.stat().st_mode)
    if stat.S_ISDIR(mode):
        raise RedBrickInputError("it is a folder, not a file")
    if not stat.S_ISREG(mode):
        # Reading a pipe would block until another process writes to it.
        raise RedBrickInputError("it is a pipe or a device, not a file")
    return _translate_errors(place, lambda: place.open("rb"))


def check_links(path: str) -> None:
    """Check that no link in a path is broken.

    :raises RedBrickInputError: with the link and its target.
    """
    place = Path(path)
    for link in (place, *place.parents):
        if link.is_symlink() and not os.path.exists(link):  # noqa: PTH110 - Path.exists raises for some
            raise RedBrickInputError(f"{str(link)!r} is a link to {str(link.readlink())!r}, which does not exist")


def find_write_problem(path: str, *, folder: bool = False) -> str | None:
    """Return why a local path cannot be written to.

    :param path: a local path or a URI.
    :param folder: whether files will be written into it, rather than to it.
    :return: the reason; None if the system's own error is precise, or if the path is not local.
    """
    local = local_part(path) if is_uri(path) else path
    if local is None:
        return None
    place = Path(local)
    try:
        check_links(local)
        if place.is_dir() and not folder:
            return "it is a folder, not a file"
        above = next((part for part in (place, *place.parents)[not folder :] if part.exists()), None)
    except RedBrickInputError as error:
        return str(error)
    except (OSError, ValueError):
        return None
    return f"{str(above)!r} is a file, not a folder" if above is not None and not above.is_dir() else None


T = TypeVar("T")


def _translate_errors(place: Path, act: Callable[[], T]) -> T:
    """Call ``act`` for a file, and translate the system's error."""
    try:
        return act()
    except FileNotFoundError:
        check_links(str(place))
        raise NoSuchFileError(_missing_message(place)) from None
    except NotADirectoryError:
        above = next((part for part in place.parents if part.is_file()), place.parent)
        raise RedBrickInputError(f"{str(above)!r} is a file, not a folder") from None
    except PermissionError:
        raise RedBrickInputError(f"permission denied for user {os.geteuid()}") from None
    except ValueError:
        raise RedBrickInputError("its name has characters that are invalid in file names") from None
    except OSError as error:
        raise RedBrickInputError(error.strerror or type(error).__name__) from None


def _missing_message(place: Path) -> str:
    message = "there is no such file"
    if str(place).startswith("~"):
        return f"{message}, nor a home directory of {place.parts[0]!r}"
    if not place.is_absolute():
        return f"{message} in the working directory {str(Path.cwd())!r}"
    return message
