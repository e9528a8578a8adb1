"""Upload the item files of new tasks to RedBrick's own storage."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, BinaryIO

from airflow_provider_redbrick._utils import in_chunks
from airflow_provider_redbrick.annotations.file_kinds import LOOKED_AT, cut_short, housekeeping, what_is_wrong
from airflow_provider_redbrick.annotations.snapshot import copied
from airflow_provider_redbrick.client.operations.uploads import ITEM_SUFFIXES, content_type, file_name, suffix_of
from airflow_provider_redbrick.client.transport.redaction import strip_signatures
from airflow_provider_redbrick.exceptions import RedBrickError, RedBrickInputError
from airflow_provider_redbrick.labels.compression import check_if_gzip

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Future
    from types import TracebackType

    from typing_extensions import Self

    from airflow_provider_redbrick.annotations.masks import OpenFile
    from airflow_provider_redbrick.client.operations.uploads import ProjectImports, UploadTarget

# Upload URLs expire, so they are requested batch by batch.
FILES_A_REQUEST = 50
_VIDEOS = (".mp4", ".mov", ".avi")


class Items:
    """Upload item files concurrently. Use it as a context manager.

    :param imports: the project's import operations.
    :param open_file: opens files.
    :param at_a_time: the number of concurrent uploads.
    :param may_open: raises for a URI that must not be opened; object store files are opened only when sent.
    """

    def __init__(
        self,
        imports: ProjectImports,
        open_file: OpenFile,
        *,
        at_a_time: int,
        may_open: Callable[[str], None] | None = None,
    ) -> None:
        self._imports = imports
        self._open_file = open_file
        self._may_open = may_open
        self._pool = ThreadPoolExecutor(at_a_time, thread_name_prefix="redbrick-items")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def check(self, files: Sequence[str]) -> None:
        """Check that files can be items and, without remote requests, that they exist.

        :raises RedBrickInputError: for the first file that is not.
        """
        for name in files:
            _kind(name)
        for name in files:
            if "://" not in name:
                with self._opened(name):
                    pass
            elif self._may_open is not None:
                with _about(name):
                    self._may_open(name)

    def store(self, files: Sequence[str], *, task_name: str) -> dict[str, str]:
        """Upload files.

        :param files: paths and URIs.
        :param task_name: the task that they belong to.
        :return: the storage path of each file.
        :raises RedBrickInputError: if a file cannot be read, or its compression is damaged.
        """
        self._check_packed([name for name in files if "://" not in name])
        stored: dict[str, str] = {}
        named = zip(files, _file_names(files), strict=True)
        for batch in in_chunks(named, FILES_A_REQUEST):
            asked = [(called, _kind(name)) for name, called in batch]
            places = self._imports.request_targets(asked, task_name=task_name)
            _await([self._pool.submit(self._put, name, place) for (name, _), place in zip(batch, places, strict=True)])
            stored.update((name, place.path) for (name, _), place in zip(batch, places, strict=True))
        return stored

    def _check_packed(self, files: Sequence[str]) -> None:
        """Verify local compressed files before any upload; remote ones when sent."""
        _await([self._pool.submit(self._check_whole, name) for name in files if _is_packed(name)])

    def _check_whole(self, name: str) -> None:
        with self._opened(name) as file:
            _check_packed_item(name, file)

    def _put(self, name: str, place: UploadTarget) -> None:
        with self._opened(name) as file:
            if "://" in name and _is_packed(name):
                _check_packed_item(name, file)
            self._imports.put(place, file)

    @contextmanager
    def _opened(self, name: str) -> Iterator[BinaryIO]:
        """Open a file as seekable, and check that its content matches its name."""
        with _about(name), ExitStack() as stack:
            file = self._open_file(name)
            if file is None:
                raise RedBrickInputError("there is no such file")
            whole = stack.enter_context(_seekable(stack.enter_context(closing(file))))
            size = whole.seek(0, io.SEEK_END)
            if not size:
                raise RedBrickInputError("it is empty")
            whole.seek(0)
            head = whole.read(LOOKED_AT)
            problem = what_is_wrong(name, head) or (None if _is_packed(name) else cut_short(name, head, size))
            if problem is not None:
                raise RedBrickInputError(problem)
            yield whole


def _await(futures: Sequence[Future[None]]) -> None:
    """Wait until all have succeeded, or one has failed."""
    try:
        for future in futures:
            future.result()
    finally:
        for future in futures:
            future.cancel()


def _check_packed_item(name: str, file: BinaryIO) -> None:
    """Verify a compressed file completely.

    :raises ValueError: if it is damaged or truncated.
    """
    size = check_if_gzip(file)
    if size is None:
        return
    file.seek(0)
    problem = cut_short(name, file.read(LOOKED_AT), size)
    if problem is not None:
        raise ValueError(problem)


def _is_packed(name: str) -> bool:
    return name.lower().endswith(".gz")


def check_names(files: Sequence[str]) -> None:
    """Check the names of items in external storage, whose content cannot be read.

    :raises RedBrickInputError: for the first name that no image has.
    """
    for name in files:
        words = housekeeping(name)
        if words is not None:
            raise RedBrickInputError(f"{_called(name)} is {words}")


@contextmanager
def _about(name: str) -> Iterator[None]:
    """Name the item in errors.

    Any exception of an object store client, on opening or reading, is this file's failure.
    """
    try:
        yield
    except RedBrickInputError as error:
        raise RedBrickInputError(f"{_called(name)}: {strip_signatures(str(error), [name])}") from None
    except RedBrickError:
        raise
    except Exception as error:  # noqa: BLE001 - see above
        words = strip_signatures(str(error), [name]) or type(error).__name__
        raise RedBrickInputError(f"{_called(name)} cannot be read: {words}") from None


@contextmanager
def _seekable(file: BinaryIO) -> Iterator[BinaryIO]:
    """Yield the file, or an unnamed copy if it is not seekable."""
    if file.seekable():
        yield file
        return
    with closing(copied(file)) as copy:
        yield copy


def _called(name: str) -> str:
    """Return an item's name for messages; a URL's signature is removed."""
    return f"item {strip_signatures(name, [name])!r}"


def _kind(name: str) -> str:
    """Return an item's content type."""
    kind = content_type(name)
    if kind is not None:
        return kind
    words = housekeeping(name)
    if words is not None:
        raise RedBrickInputError(f"{_called(name)} is {words}")
    if suffix_of(name)[0] in _VIDEOS:
        raise RedBrickInputError(
            f"{_called(name)} is a video, which RedBrick takes apart in an import of its own that names no task: give "
            f"its frames as images, or a storage_id and where in that storage the video is"
        )
    raise RedBrickInputError(
        f"{_called(name)} is of a kind that RedBrick does not take; it takes {', '.join(ITEM_SUFFIXES)}, and DICOM "
        f"files without an ending"
    )


def _file_names(files: Sequence[str]) -> Iterator[str]:
    """Yield a distinct file name for each file; repeated names get a number."""
    taken: set[str] = set()
    for number, name in enumerate(files):
        called = file_name(name)
        while called in taken:
            called = f"{number}-{called}"
        taken.add(called)
        yield called
