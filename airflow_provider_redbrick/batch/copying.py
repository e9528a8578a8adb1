"""Copy remote files to make them seekable, and masks to keep their content.

A copy has no name. It is in memory or, above 256 KiB, in a temporary file that the system
deletes when the process ends.
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
    """A copy of a mask, taken when it was returned.

    :param file: a seekable file without a name.
    :param sha256: the hash of the original bytes.
    """

    file: BinaryIO
    sha256: str


def copied(file: BinaryIO) -> BinaryIO:
    """Copy the rest of a file to an unnamed temporary file, deleted when closed.

    :raises RedBrickInputError: if it exceeds the size limit, which keeps it from filling the disk.
    """
    return _written(_pieces(file.read))


def copied_mask(value: Any) -> MaskCopy | None:
    """Copy a mask given as bytes, an open file or a nibabel image.

    :return: the copy; None for any other value.
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
    """Copy an open file from its beginning, and restore its position.

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
    """Return the SHA-256 of a whole open file in hexadecimal digits."""
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
    copy: Any = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
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
