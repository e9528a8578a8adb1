"""Files that appear in a folder when all of them are whole, and not before."""

from __future__ import annotations

import logging
import shutil
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar, cast

from airflow.providers.common.compat.sdk import ObjectStoragePath

from airflow_provider_redbrick.exceptions import RedBrickInputError, readable
from airflow_provider_redbrick.hooks.local_files import trouble_at

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from typing_extensions import Self

log = logging.getLogger(__name__)

T = TypeVar("T")

# An object store's client holds so much of each file that is being written; the least that any of them takes is 5 MiB.
_BLOCK = 8 << 20


class Publication:
    """Files on their way into a folder, named by their paths in it.

    Until :meth:`publish` they are in a hidden folder within; leaving the context removes those that were not published.
    Files may be added in several threads at a time.

    :param path: a local folder or any URI that Airflow's object storage knows; it is made when there is none.
    :raises RedBrickInputError: when Airflow's object storage does not know it; :meth:`open` raises it when the first
        file cannot be written there.
    """

    def __init__(self, path: str) -> None:
        try:
            place = ObjectStoragePath(path)
            # Operations of the path itself know nothing of the URI's connection in some releases of Airflow 3.
            self._fs: Any = place.fs
        except Exception as error:  # noqa: BLE001 - clients of object stores raise what they like
            raise _unwritable(path, error) from None
        self._path = path
        self._folder = str(place.path).rstrip("/")
        self._hidden = f"{self._folder}/.unfinished-{uuid.uuid4().hex}"
        self._added: dict[str, None] = {}
        self._moved: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            for name in self._moved:
                self._remove(name)
            self._fs.rm(self._hidden, recursive=True)
        except FileNotFoundError:
            pass
        except Exception as problem:  # noqa: BLE001 - what made it necessary is the thing to tell
            log.warning("%s could not be removed: %s", self._hidden, problem)

    def open(self, name: str) -> BinaryIO:
        """Open a new file for writing bytes."""
        path = f"{self._hidden}/{name}"
        try:
            file = _in_folder(self._fs, path, lambda: self._fs.open(path, "wb", block_size=_BLOCK))
        except Exception as error:
            if self._added:
                raise
            raise _unwritable(self._path, error) from None
        self._added[name] = None
        return cast("BinaryIO", file)

    def published(self, name: str) -> BinaryIO | None:
        """Open a file that an earlier publication has left in the folder, for reading bytes; None if there is none."""
        try:
            return cast("BinaryIO", self._fs.open(f"{self._folder}/{name}", "rb"))
        except FileNotFoundError:
            return None

    def add(self, name: str, file: BinaryIO) -> None:
        """Add a copy of an open file, from its beginning to its end."""
        file.seek(0)
        with self.open(name) as copy:
            shutil.copyfileobj(file, copy)

    def publish(self, index: str, *, workers: int) -> None:
        """Give all files that were added their own names, replacing those that have them.

        :param index: the file that names the others: it is the last to appear, and there is none while they do.
        :param workers: how many are moved at a time.
        """
        others = [name for name in self._added if name != index]
        if others:
            # An older index beside some of the newer files would be worse than none.
            self._remove(index)
            with ThreadPoolExecutor(workers, thread_name_prefix="redbrick") as pool:
                list(pool.map(self._move, others))
        self._move(index)
        self._moved = []

    def _move(self, name: str) -> None:
        path = f"{self._folder}/{name}"
        # A rename where there is such a thing, elsewhere a copy made within the store; files are replaced.
        _in_folder(self._fs, path, lambda: self._fs.mv(f"{self._hidden}/{name}", path))
        self._moved.append(name)

    def _remove(self, name: str) -> None:
        with suppress(FileNotFoundError):
            self._fs.rm_file(f"{self._folder}/{name}")


def _unwritable(path: str, error: Exception) -> RedBrickInputError:
    words = readable(trouble_at(path, folder=True) or str(error) or type(error).__name__)
    return RedBrickInputError(f"Nothing can be written to {path!r}: {words.rstrip('.')}.")


def _in_folder(fs: Any, path: str, act: Callable[[], T]) -> T:
    """Do something with a new file, in a folder that is made where it is missing.

    Object stores have no folders, and may not let us look whether there is a bucket, which comes before making one.
    """
    try:
        return act()
    except FileNotFoundError:
        fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        return act()
