"""Directories whose files appear together when all of them are complete.

1. New files are written to a hidden folder within the target. A run that fails removes it, and the target is unchanged.
2. While files are moved to their names, the index file is absent: a reader never sees an index of missing files.
3. The index is moved last. If publishing fails halfway, the files that were moved are removed again.
4. A killed process leaves its hidden folder. The next attempt of the same owner removes it: the folder's name has both.
   After a publication, the folders of others are removed in which no file has changed for a day. Both times are those
   of the file system. A folder that is in use is never removed.
"""

from __future__ import annotations

import hashlib
import logging
import re
import shutil
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar, cast

from airflow.providers.common.compat.sdk import ObjectStoragePath

from airflow_provider_redbrick.exceptions import RedBrickInputError, truncate_message
from airflow_provider_redbrick.hooks.files import find_write_problem

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from typing_extensions import Self

log = logging.getLogger(__name__)

T = TypeVar("T")

# Buffer per open file, in bytes. The smallest size that all object store clients accept is 5 MiB.
_BLOCK = 8 << 20

_HIDDEN = re.compile(r"\.unfinished-(?:(?P<owner>[0-9a-f]{16})-(?P<attempt>[0-9]+)-)?[0-9a-f]{32}")
_ABANDONED_AFTER = timedelta(days=1)


class StagedDirectory:
    """A set of files that is published to a folder as a whole.

    Until :meth:`publish`, files are in a hidden folder within the target. Leaving the context removes files that were
    not published. Files are named by their paths in the folder and may be added from several threads.

    :param path: target folder: a local path or a URI that Airflow's object storage supports. It is created if missing.
    :param owner: text that identifies who writes, the same for all of its attempts. Only one attempt may be alive.
    :param attempt: number of the owner's attempt. Folders of its earlier attempts are removed.
    :raises RedBrickInputError: if Airflow's object storage does not support the URI. :meth:`open` raises it if the
        first file cannot be written.
    """

    def __init__(self, path: str, *, owner: str = "", attempt: int = 1) -> None:
        try:
            place = ObjectStoragePath(path)
            # In some Airflow 3 releases, operations of the path itself ignore the URI's connection.
            self._fs: Any = place.fs
        except Exception as error:  # noqa: BLE001 - clients of object stores raise what they like
            raise _unwritable(path, error) from None
        self._path = path
        self._folder = str(place.path).rstrip("/")
        self._owner = hashlib.blake2b(owner.encode(), digest_size=8).hexdigest()
        self._attempt = attempt
        prefix = f"{self._owner}-{attempt}-" if owner else ""
        self._hidden = f"{self._folder}/.unfinished-{prefix}{uuid.uuid4().hex}"
        self._added: dict[str, None] = {}
        self._moved: list[str] = []

    def __enter__(self) -> Self:
        if self._attempt > 1:
            self._clean(self._is_of_earlier_attempt)
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
        except Exception as problem:  # noqa: BLE001 - must not hide the error that caused the cleanup
            log.warning("%s could not be removed: %s", self._hidden, problem)

    def open(self, name: str) -> BinaryIO:
        """Open a new file for writing bytes.

        :raises RedBrickInputError: if it is the first file and it cannot be written.
        """
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
        """Open a file of an earlier publication for reading.

        :return: the file, opened for bytes; None if there is none.
        """
        try:
            return cast("BinaryIO", self._fs.open(f"{self._folder}/{name}", "rb"))
        except FileNotFoundError:
            return None

    def add(self, name: str, file: BinaryIO) -> None:
        """Add a copy of an open file.

        :param name: path of the copy in the folder.
        :param file: the file, opened for bytes. It is copied from its start.
        """
        file.seek(0)
        with self.open(name) as copy:
            shutil.copyfileobj(file, copy)

    def publish(self, index: str, *, workers: int) -> None:
        """Move all added files to their names and replace existing ones.

        :param index: name of the file that lists the others. It is moved last and is absent in the meantime.
        :param workers: how many files are moved at the same time.
        """
        others = [name for name in self._added if name != index]
        if others:
            # An old index beside some new files would be worse than no index.
            self._remove(index)
            with ThreadPoolExecutor(workers, thread_name_prefix="redbrick") as pool:
                list(pool.map(self._move, others))
        self._move(index)
        self._moved = []
        self._clean(lambda folder: self._is_abandoned(folder, index))

    def _clean(self, is_dead: Callable[[str], bool]) -> None:
        """Remove hidden folders of killed processes. A failure is logged: the files themselves are not affected."""
        try:
            # Clients of object stores cache listings and times for as long as the process lives.
            self._fs.invalidate_cache()
            for folder in self._fs.ls(self._folder, detail=False):
                name = folder.rstrip("/").rpartition("/")[2]
                if _HIDDEN.fullmatch(name) and not self._hidden.endswith(f"/{name}") and is_dead(folder):
                    self._fs.rm(folder, recursive=True)
                    log.info("Removed %s, which a killed process left.", folder)
        except FileNotFoundError:
            pass  # The target does not exist yet, or another process has removed the folder.
        except Exception as problem:  # noqa: BLE001 - clients of object stores raise what they like
            log.warning("Unfinished folders in %s could not be removed: %s", self._path, problem)

    def _is_of_earlier_attempt(self, folder: str) -> bool:
        match = _HIDDEN.fullmatch(folder.rstrip("/").rpartition("/")[2])
        return match is not None and match["owner"] == self._owner and int(match["attempt"]) < self._attempt

    def _is_abandoned(self, folder: str, index: str) -> bool:
        """Return whether no file in a folder has changed for a day before the index was written."""
        limit = self._modified(f"{self._folder}/{index}") - _ABANDONED_AFTER
        return all(self._modified(path) < limit for path in self._fs.find(folder) or [folder])

    def _modified(self, path: str) -> datetime:
        modified: datetime = self._fs.modified(path)
        return modified if modified.tzinfo else modified.replace(tzinfo=timezone.utc)

    def _move(self, name: str) -> None:
        path = f"{self._folder}/{name}"
        # A rename where the store has one, else a copy within the store. Existing files are replaced.
        _in_folder(self._fs, path, lambda: self._fs.mv(f"{self._hidden}/{name}", path))
        self._moved.append(name)

    def _remove(self, name: str) -> None:
        with suppress(FileNotFoundError):
            self._fs.rm_file(f"{self._folder}/{name}")


def _unwritable(path: str, error: Exception) -> RedBrickInputError:
    reason = truncate_message(find_write_problem(path, folder=True) or str(error) or type(error).__name__)
    return RedBrickInputError(f"Nothing can be written to {path!r}: {reason.rstrip('.')}.")


def _in_folder(fs: Any, path: str, act: Callable[[], T]) -> T:
    """Call ``act`` for a new file, and create its folder if it is missing.

    Object stores have no folders, and may not permit the bucket lookup that precedes creating one. So the folder is
    created only if the first call fails.
    """
    try:
        return act()
    except FileNotFoundError:
        fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        return act()
