"""Upload the item files of new tasks to RedBrick's own storage.

1. Names are checked, and local files opened, before any request.
2. Content must match the file name, so an error page or a Git LFS pointer is never uploaded as an image.
3. Compressed files are verified to their end: local ones before the first upload of a task, remote ones when sent.
4. Upload URLs expire, so they are requested in batches of 50 files.
5. Uploads of all tasks share one thread pool, which limits their number.
"""

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

FILES_A_REQUEST = 50
_VIDEOS = (".mp4", ".mov", ".avi")


class Items:
    """Upload item files concurrently. Use it as a context manager.

    :param imports: the project's import operations.
    :param open_file: opens files.
    :param max_concurrency: the maximum number of concurrent uploads.
    :param may_open: raises for a URI that must not be opened; object store files are opened only when sent.
    """

    def __init__(
        self,
        imports: ProjectImports,
        open_file: OpenFile,
        *,
        max_concurrency: int,
        may_open: Callable[[str], None] | None = None,
    ) -> None:
        self._imports = imports
        self._open_file = open_file
        self._may_open = may_open
        self._pool = ThreadPoolExecutor(max_concurrency, thread_name_prefix="redbrick-items")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def check(self, files: Sequence[str]) -> None:
        """Check that files can be items and, without remote requests, that they exist.

        :param files: paths and URIs.
        :raises RedBrickInputError: for the first file that cannot be an item or does not exist.
        """
        for name in files:
            _content_type(name)
        for name in files:
            if "://" not in name:
                with self._opened(name):
                    pass
            elif self._may_open is not None:
                with _naming_item(name):
                    self._may_open(name)

    def store(self, files: Sequence[str], *, task_name: str) -> dict[str, str]:
        """Upload files.

        :param files: paths and URIs.
        :param task_name: the task that they belong to.
        :return: the storage path of each file.
        :raises RedBrickInputError: if a file cannot be read, or its compression is damaged.
        """
        self._check_compressed([name for name in files if "://" not in name])
        stored: dict[str, str] = {}
        named_files = zip(files, _file_names(files), strict=True)
        for batch in in_chunks(named_files, FILES_A_REQUEST):
            requested = [(stored_name, _content_type(name)) for name, stored_name in batch]
            targets = self._imports.request_targets(requested, task_name=task_name)
            _await(
                [self._pool.submit(self._put, name, target) for (name, _), target in zip(batch, targets, strict=True)]
            )
            stored.update((name, target.path) for (name, _), target in zip(batch, targets, strict=True))
        return stored

    def _check_compressed(self, files: Sequence[str]) -> None:
        """Verify local compressed files before any upload; remote ones when sent."""
        _await([self._pool.submit(self._check_compressed_file, name) for name in files if _is_gzip_name(name)])

    def _check_compressed_file(self, name: str) -> None:
        with self._opened(name) as file:
            _check_packed_item(name, file)

    def _put(self, name: str, target: UploadTarget) -> None:
        with self._opened(name) as file:
            if "://" in name and _is_gzip_name(name):
                _check_packed_item(name, file)
            self._imports.put(target, file)

    @contextmanager
    def _opened(self, name: str) -> Iterator[BinaryIO]:
        """Open a file as seekable, and check that its content matches its name."""
        with _naming_item(name), ExitStack() as stack:
            file = self._open_file(name)
            if file is None:
                raise RedBrickInputError("there is no such file")
            seekable = stack.enter_context(_seekable(stack.enter_context(closing(file))))
            size = seekable.seek(0, io.SEEK_END)
            if not size:
                raise RedBrickInputError("it is empty")
            seekable.seek(0)
            head = seekable.read(LOOKED_AT)
            problem = what_is_wrong(name, head) or (None if _is_gzip_name(name) else cut_short(name, head, size))
            if problem is not None:
                raise RedBrickInputError(problem)
            yield seekable


def _await(futures: Sequence[Future[None]]) -> None:
    """Wait until all uploads have succeeded; cancel the others if one fails."""
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


def _is_gzip_name(name: str) -> bool:
    return name.lower().endswith(".gz")


def check_names(files: Sequence[str]) -> None:
    """Check the names of items in external storage, whose content cannot be read.

    :raises RedBrickInputError: for the first name that no image has.
    """
    for name in files:
        description = housekeeping(name)
        if description is not None:
            raise RedBrickInputError(f"{_item_label(name)} is {description}")


@contextmanager
def _naming_item(name: str) -> Iterator[None]:
    """Name the item in errors.

    Any exception of an object store client, on opening or reading, is this file's failure.
    """
    try:
        yield
    except RedBrickInputError as error:
        raise RedBrickInputError(f"{_item_label(name)}: {strip_signatures(str(error), [name])}") from None
    except RedBrickError:
        raise
    except Exception as error:  # noqa: BLE001 - see above
        reason = strip_signatures(str(error), [name]) or type(error).__name__
        raise RedBrickInputError(f"{_item_label(name)} cannot be read: {reason}") from None


@contextmanager
def _seekable(file: BinaryIO) -> Iterator[BinaryIO]:
    """Yield the file, or an unnamed copy if it is not seekable."""
    if file.seekable():
        yield file
        return
    with closing(copied(file)) as copy:
        yield copy


def _item_label(name: str) -> str:
    """Return an item's name for messages; a URL's signature is removed."""
    return f"item {strip_signatures(name, [name])!r}"


def _content_type(name: str) -> str:
    """Return an item's content type."""
    mime_type = content_type(name)
    if mime_type is not None:
        return mime_type
    description = housekeeping(name)
    if description is not None:
        raise RedBrickInputError(f"{_item_label(name)} is {description}")
    if suffix_of(name)[0] in _VIDEOS:
        raise RedBrickInputError(
            f"{_item_label(name)} is a video, which RedBrick splits in a separate import that names no task. Upload "
            f"its frames as images, or specify a storage_id and the path of the video in that storage"
        )
    raise RedBrickInputError(
        f"{_item_label(name)} has an unsupported file type. RedBrick accepts {', '.join(ITEM_SUFFIXES)}, and "
        f"DICOM files without a suffix"
    )


def _file_names(files: Sequence[str]) -> Iterator[str]:
    """Yield a distinct file name for each file; repeated names get a number."""
    taken: set[str] = set()
    for number, name in enumerate(files):
        base_name = file_name(name)
        while base_name in taken:
            base_name = f"{number}-{base_name}"
        taken.add(base_name)
        yield base_name
