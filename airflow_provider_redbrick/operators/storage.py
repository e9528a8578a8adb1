"""Files by the names that users give them: local paths, and whatever Airflow's object storage knows."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO, cast

from airflow.providers.common.compat.sdk import ObjectStoragePath


def open_file(path: str) -> BinaryIO | None:
    """Open a file for reading; None for a local path where there is none.

    :param path: a local path, or a URI such as ``s3://bucket/key`` or ``file:///data/mask.nii.gz``.
    """
    if "://" in path:
        return cast("BinaryIO", ObjectStoragePath(path).open("rb"))  # type: ignore[no-untyped-call]
    place = Path(path)
    return place.open("rb") if place.is_file() else None
