"""Gzip data that are read to their end before they are used: their checksum is the last thing in them."""

from __future__ import annotations

import gzip
import tempfile
import zlib
from functools import partial
from typing import TYPE_CHECKING, BinaryIO, cast

from airflow_provider_redbrick.api.storage import LARGEST_FILE

if TYPE_CHECKING:
    from collections.abc import Iterator

GZIP = b"\x1f\x8b"
"""What gzip data begin with."""

_PIECE = 1 << 20
_MOST_UNPACKED = 64 << 30


def check_gzip(file: BinaryIO) -> int:
    """Read gzip data from the file's position to its end, and return their unpacked size.

    Several members in a row are one file.

    :raises ValueError: if they are damaged, cut short, followed by something else, or unpack to more than 64 GiB.
    """
    size = 0
    try:
        with gzip.GzipFile(fileobj=file) as unpacked:
            for piece in iter(partial(unpacked.read1, _PIECE), b""):
                size += len(piece)
                if size > _MOST_UNPACKED:
                    raise ValueError(f"it unpacks to more than {_MOST_UNPACKED >> 30} GiB")
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(damage(error)) from None
    return size


def check_if_gzip(file: BinaryIO) -> int | None:
    """Check a file from its beginning to its end if it is gzip data, and return their unpacked size.

    Any other file is not looked at: then None is returned.

    :raises ValueError: see :func:`check_gzip`.
    """
    file.seek(0)
    if file.read(len(GZIP)) != GZIP:
        return None
    file.seek(0)
    return check_gzip(file)


def damage(error: Exception) -> str:
    """Return what an error about gzip data means."""
    if isinstance(error, EOFError):
        return "its gzip data are cut short"
    if isinstance(error, (gzip.BadGzipFile, zlib.error)):
        return f"its gzip data are damaged: {error}"
    return str(error) or type(error).__name__


def checked_copy(file: BinaryIO) -> BinaryIO:
    """Return a copy of gzip data that are not damaged, in a file without a name: it is gone once closed.

    :raises ValueError: if they are damaged, or larger than what is put on the disk.
    """
    copy = cast("BinaryIO", tempfile.TemporaryFile())  # noqa: SIM115 - whoever asked for it closes it
    try:
        copy.writelines(_pieces(file))
        copy.seek(0)
        check_gzip(copy)
        copy.seek(0)
    except BaseException:
        copy.close()
        raise
    return copy


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    size = 0
    for piece in iter(partial(file.read, _PIECE), b""):
        size += len(piece)
        if size > LARGEST_FILE:
            raise ValueError(f"it is larger than {LARGEST_FILE >> 20} MiB")
        yield piece
