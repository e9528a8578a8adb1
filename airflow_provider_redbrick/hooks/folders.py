"""Restrict the files that a list of tasks may name.

The author of a list is often not the author of the DAG. Without a restriction, a list could name any file that the
worker can read, and any bucket that its credentials open.

1. A list may name files in its own folder and in the folders that the DAG allows.
2. Locations are compared part by part, after local links are resolved. A URI's connection and bucket are parts.
3. No object store is contacted. A URI that stores interpret in different ways, such as one with ``..``, is refused.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from airflow_provider_redbrick.exceptions import RedBrickInputError, has_line_break, short_repr, to_valid_utf8

if TYPE_CHECKING:
    from collections.abc import Sequence

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
