"""Verify gzip data completely before they are used.

The checksum is at the end of gzip data, so damage is detected only after the last byte is read.
"""

from __future__ import annotations

import gzip
import tempfile
import zlib
from functools import partial
from typing import TYPE_CHECKING, BinaryIO, cast

from airflow_provider_redbrick.client.transport.storage import LARGEST_FILE

if TYPE_CHECKING:
    from collections.abc import Iterator

GZIP = b"\x1f\x8b"
"""The magic number of gzip data."""

_READ_BYTES = 1 << 20
_MAX_UNCOMPRESSED_BYTES = 64 << 30


def check_gzip(file: BinaryIO) -> int:
    """Read gzip data from the current position to the end and verify them.

    Several consecutive members form one file.

    :param file: a file positioned at the start of the gzip data.
    :return: the uncompressed size in bytes.
    :raises ValueError: if the data are damaged, truncated, followed by other data, or larger than 64 GiB uncompressed.
    """
    size = 0
    try:
        with gzip.GzipFile(fileobj=file) as unpacked:
            for piece in iter(partial(unpacked.read1, _READ_BYTES), b""):
                size += len(piece)
                if size > _MAX_UNCOMPRESSED_BYTES:
                    raise ValueError(f"its uncompressed size exceeds {_MAX_UNCOMPRESSED_BYTES >> 30} GiB")
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(damage(error)) from None
    return size


def check_if_gzip(file: BinaryIO) -> int | None:
    """Verify a file if it contains gzip data.

    :param file: a seekable file, read from its beginning.
    :return: the uncompressed size in bytes; None if the file does not contain gzip data.
    :raises ValueError: see :func:`check_gzip`.
    """
    file.seek(0)
    if file.read(len(GZIP)) != GZIP:
        return None
    file.seek(0)
    return check_gzip(file)


def damage(error: Exception) -> str:
    """Return an error message for an exception raised while gzip data were read."""
    if isinstance(error, EOFError):
        return "its gzip data are truncated"
    if isinstance(error, (gzip.BadGzipFile, zlib.error)):
        return f"its gzip data are damaged: {error}"
    return str(error) or type(error).__name__


def checked_copy(file: BinaryIO) -> BinaryIO:
    """Return a verified copy of gzip data.

    :param file: a file positioned at the start of the gzip data.
    :return: an unnamed temporary file, positioned at its beginning and deleted when closed.
    :raises ValueError: if the data are damaged or exceed the size limit.
    """
    copy = cast("BinaryIO", tempfile.TemporaryFile())  # noqa: SIM115 - the caller closes it
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
    for piece in iter(partial(file.read, _READ_BYTES), b""):
        size += len(piece)
        if size > LARGEST_FILE:
            raise ValueError(f"it is larger than {LARGEST_FILE >> 20} MiB")
        yield piece
