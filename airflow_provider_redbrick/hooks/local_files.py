"""Local files, and what stands in the way of one: said for what it is, not as a file that is missing."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar

from airflow_provider_redbrick.exceptions import NoSuchFileError, RedBrickInputError
from airflow_provider_redbrick.hooks.folders import is_uri, local_part

if TYPE_CHECKING:
    from collections.abc import Callable


def open_local(path: str) -> BinaryIO:
    """Open a local file for reading.

    :param path: relative to the working directory, or absolute; ``~`` is read as the shell does.
    :raises NoSuchFileError: when there is nothing of this name.
    :raises RedBrickInputError: for a folder, a broken link, anything else that is no file, or one that may not be read.
    """
    named = path if os.path.lexists(path) else os.path.expanduser(path)  # noqa: PTH111 - a Path would change it
    place = Path(named)
    mode = _tried(place, lambda: place.stat().st_mode)
    if stat.S_ISDIR(mode):
        raise RedBrickInputError("it is a folder, not a file")
    if not stat.S_ISREG(mode):
        # Reading a pipe would wait for somebody to write.
        raise RedBrickInputError("it is a pipe or a device, not a file")
    return _tried(place, lambda: place.open("rb"))


def check_links(path: str) -> None:
    """Check that no link on the way to a file is broken.

    :raises RedBrickInputError: naming the link and what it leads to.
    """
    place = Path(path)
    for link in (place, *place.parents):
        if link.is_symlink() and not os.path.exists(link):  # noqa: PTH110 - Path.exists raises for some
            raise RedBrickInputError(f"{str(link)!r} is a link to {str(link.readlink())!r}, which is not there")


def trouble_at(path: str, *, folder: bool = False) -> str | None:
    """Return what keeps a local path from being written to; None where the system's own error says it.

    :param path: a path, or a URI, of which nothing is said unless it is of this machine.
    :param folder: whether files are to be written into it.
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


def _tried(place: Path, act: Callable[[], T]) -> T:
    """Do something with a file, and say what is the matter when that fails."""
    try:
        return act()
    except FileNotFoundError:
        check_links(str(place))
        raise NoSuchFileError(_nothing_there(place)) from None
    except NotADirectoryError:
        above = next((part for part in place.parents if part.is_file()), place.parent)
        raise RedBrickInputError(f"{str(above)!r} is a file, not a folder") from None
    except PermissionError:
        raise RedBrickInputError(f"permission denied for user {os.geteuid()}") from None
    except ValueError:
        raise RedBrickInputError("its name has characters that no file's name has") from None
    except OSError as error:
        raise RedBrickInputError(error.strerror or type(error).__name__) from None


def _nothing_there(place: Path) -> str:
    words = "there is no such file"
    if str(place).startswith("~"):
        return f"{words}, nor a home directory of {place.parts[0]!r}"
    if not place.is_absolute():
        return f"{words} in the working directory {str(Path.cwd())!r}"
    return words
