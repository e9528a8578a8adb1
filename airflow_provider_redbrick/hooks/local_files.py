"""Open local files with precise errors.

A folder, a broken link, a pipe or missing permission is reported as such, not as a missing file.
"""

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
