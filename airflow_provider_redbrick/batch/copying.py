"""Files from elsewhere, as files that can be sought in."""

from __future__ import annotations

import tempfile
from functools import partial
from typing import TYPE_CHECKING, BinaryIO, cast

from airflow_provider_redbrick.api.storage import LARGEST_FILE
from airflow_provider_redbrick.exceptions import RedBrickInputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

_PIECE = 1 << 20


def copied(file: BinaryIO) -> BinaryIO:
    """Return a copy of what is left of a file, in a file without a name: it is gone once closed.

    :raises RedBrickInputError: when there is more than anybody means: it must not fill the disk.
    """
    copy: Any = tempfile.TemporaryFile()  # noqa: SIM115 - whoever uses it closes it
    try:
        copy.writelines(_pieces(file))
    except BaseException:
        copy.close()
        raise
    return cast("BinaryIO", copy)


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    size = 0
    for piece in iter(partial(file.read, _PIECE), b""):
        size += len(piece)
        if size > LARGEST_FILE:
            raise RedBrickInputError(f"it is larger than {LARGEST_FILE >> 20} MiB")
        yield piece
