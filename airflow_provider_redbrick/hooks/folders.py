"""Which files a list of tasks may name: those in its own folder, and in the folders that a DAG's author adds.

Who writes a list is often not who wrote the DAG. Without a limit a list could name any file that the worker can read,
and any bucket that its credentials open.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from airflow_provider_redbrick.exceptions import RedBrickInputError, has_line_break, storable, told

if TYPE_CHECKING:
    from collections.abc import Sequence

Place = tuple[str, ...]
"""Where a file or a folder is: the store it is in, with the connection it is read with, and then part by part."""

_LOCAL = frozenset({"file", "local"})
_ON_THIS_MACHINE = "file"
# As Airflow reads them, which asks for the connection as soon as it has read one: so it is not asked here.
_URI = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?:(?P<connection>[^/?#]*)@)?(?P<rest>[^\x00-\x1f]*)")
_SEPARATORS = re.compile(r"[/\\]")


def is_uri(path: str) -> bool:
    """Whether a name is for Airflow's object storage."""
    return "://" in path


def local_path(place: Place) -> str | None:
    """Return the path of a place on this machine; None when it is elsewhere."""
    return str(Path(*place[1:])) if place[0] == _ON_THIS_MACHINE else None


def local_part(path: str) -> str | None:
    """Return the local path in a URI such as ``file:///data/a.dcm``; None for what is elsewhere, or no URI."""
    found = _URI.fullmatch(path)
    return found["rest"] if found is not None and found["scheme"].lower() in _LOCAL else None


def place_of(path: str) -> Place:
    """Return where something is; local links are followed, and nothing is asked of an object store.

    :raises RedBrickInputError: for a URI that may mean several things.
    """
    scheme, connection, rest = _split(path)
    if scheme in _LOCAL:
        return (_ON_THIS_MACHINE, *Path(os.path.realpath(rest)).parts)
    if any(unquote(part) == ".." for part in _SEPARATORS.split(unquote(rest))):
        # Stores differ in whether they take that for a name like any other.
        raise RedBrickInputError("'..' is no part of a URI")
    return (f"{scheme}://{connection}", *rest.strip("/").split("/"))


def _split(path: str) -> tuple[str, str, str]:
    """Return a name's scheme, connection and the rest."""
    if not is_uri(path):
        return _ON_THIS_MACHINE, "", path
    found = _URI.fullmatch(path)
    if found is None or "::" in path:
        raise RedBrickInputError("it is not one plain URI")
    return found["scheme"].lower(), found["connection"] or "", found["rest"]


def is_within(place: Place, folders: Sequence[Place]) -> bool:
    """Whether a place is in one of some folders: whole parts count, so that ``/data/a`` is not before ``/data/ab``."""
    return any(len(place) > len(folder) and place[: len(folder)] == folder for folder in folders)


def check_folders(name: str, value: object) -> tuple[Place, ...]:
    """Return the folders that files may come from besides a list's own.

    :param name: the parameter that holds them, for messages.
    :raises RedBrickInputError: for anything but a list of absolute paths and URIs.
    """
    if value is None:
        return ()
    if not isinstance(value, (list, tuple)):
        raise RedBrickInputError(f"{name} must be a list of folders, not {told(value)}.")
    return tuple(_folder(f"{name}[{i}]", folder) for i, folder in enumerate(value))


def _folder(name: str, value: object) -> Place:
    if isinstance(value, str) and not is_uri(value):
        value = os.path.expanduser(value)  # noqa: PTH111 - a Path would change what it names
    if (
        not isinstance(value, str)
        or value != storable(value)
        or has_line_break(value)
        or not (is_uri(value) or Path(value).is_absolute())
    ):
        # Relative ones would be relative to wherever the worker was started.
        raise RedBrickInputError(
            f"{name} must be an absolute path or a URI (an unrendered template?), not {told(value)}."
        )
    try:
        place = place_of(value)
    except RedBrickInputError as error:
        raise RedBrickInputError(f"{name} {value!r} cannot be a folder: {error}.") from None
    if local_path(place) is None and not place[1]:
        raise RedBrickInputError(f"{name} {value!r} names no bucket.")
    return place
