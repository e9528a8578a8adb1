"""Copies of files: of those from elsewhere, to seek in, and of masks, to have them as they were when they were given.

A copy has no name: it is in memory or, when it is large, in a file that the system removes with the process, however
that ends.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import tempfile
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, BinaryIO, cast

from airflow_provider_redbrick.api.storage import LARGEST_FILE
from airflow_provider_redbrick.exceptions import RedBrickInputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

LARGEST_IN_MEMORY = 1 << 18
"""Bytes of a mask's copy that is kept in memory; a larger one is on the disk."""

_PIECE = 1 << 20
_FAST = 3  # masks are mostly zeros: a higher level takes longer and gains little


@dataclass(frozen=True)
class MaskCopy:
    """A mask as it was when it was given.

    :param file: nobody else has a name for it; it can be sought in.
    :param sha256: of the bytes that were given.
    """

    file: BinaryIO
    sha256: str


def copied(file: BinaryIO) -> BinaryIO:
    """Return a copy of what is left of a file, in a file without a name: it is gone once closed.

    :raises RedBrickInputError: when there is more than anybody means: it must not fill the disk.
    """
    return _written(_pieces(file.read))


def copied_mask(value: Any) -> MaskCopy | None:
    """Return a copy of a mask that is given as bytes, as an open file, or as an image of nibabel; None for all else.

    :raises RedBrickInputError: if it is too large, or text.
    """
    if isinstance(value, (bytes, bytearray, memoryview)):
        return _copy(iter([bytes(value)]))
    if callable(getattr(value, "to_bytes", None)):
        content = value.to_bytes()
        # Such images are not compressed, and mostly zeros. No time in it: the same mask is the same file.
        packed = gzip.compress(content, _FAST, mtime=0)
        return MaskCopy(_copy(iter([packed])).file, hashlib.sha256(content).hexdigest())
    if callable(getattr(value, "read", None)):
        return copied_mask_file(value)
    return None


def copied_mask_file(file: Any) -> MaskCopy:
    """Return a copy of an open file from its beginning to its end, and leave the file where it was.

    :raises RedBrickInputError: if it is too large, or text.
    """
    if not _can_seek(file):
        return _copy(_pieces(file.read))
    at = file.tell()
    file.seek(0)
    try:
        return _copy(_pieces(file.read))
    finally:
        file.seek(at)


def sha256_of(file: BinaryIO) -> str:
    """Return the SHA-256 of an open file from its beginning to its end, in hexadecimal digits."""
    digest = hashlib.sha256()
    file.seek(0)
    for piece in iter(partial(file.read, _PIECE), b""):
        digest.update(piece)
    return digest.hexdigest()


def _copy(pieces: Iterator[bytes]) -> MaskCopy:
    digest = hashlib.sha256()

    def hashed() -> Iterator[bytes]:
        for piece in pieces:
            digest.update(piece)
            yield piece

    through = hashed()
    beginning = b""
    for piece in through:
        beginning += piece
        if len(beginning) > LARGEST_IN_MEMORY:
            file = _written(chain([beginning], through))
            break
    else:
        file = io.BytesIO(beginning)
    return MaskCopy(file, digest.hexdigest())


def _written(pieces: Iterable[bytes]) -> BinaryIO:
    copy: Any = tempfile.TemporaryFile()  # noqa: SIM115 - whoever uses it closes it
    try:
        copy.writelines(pieces)
    except BaseException:
        copy.close()
        raise
    return cast("BinaryIO", copy)


def _pieces(read: Callable[[int], Any]) -> Iterator[bytes]:
    size = 0
    while piece := read(_PIECE):
        if not isinstance(piece, bytes):
            raise RedBrickInputError("it gives text, not bytes: open it with mode 'rb'")
        size += len(piece)
        if size > LARGEST_FILE:
            raise RedBrickInputError(f"it is larger than {LARGEST_FILE >> 20} MiB")
        yield piece


def _can_seek(file: Any) -> bool:
    try:
        return bool(file.seekable())
    except AttributeError:
        return callable(getattr(file, "seek", None)) and callable(getattr(file, "tell", None))
