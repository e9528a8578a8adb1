"""Take snapshots of user labels: plain values, and the bytes of their masks.

Labels are converted and sent later, in batches. Meanwhile user code may change a returned object, reuse an array, or
write the next mask to the same path.

1. A result is copied before the user's callable is called again: its values and the bytes of its mask files.
2. A path that the task already has as a mask comes from the server, and is never opened as a file.
3. The hash covers what is sent: a mask is hashed while it is copied.
4. A copy has no name. It is kept in memory or, above 256 KiB, in a temporary file that the system deletes when the
   process ends.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from airflow_provider_redbrick.client.transport.storage import LARGEST_FILE
from airflow_provider_redbrick.exceptions import RedBrickInputError
from airflow_provider_redbrick.labels.fields import is_list
from airflow_provider_redbrick.labels.plain import place_of, to_plain
from airflow_provider_redbrick.labels.segmentation import segmentation_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    from airflow_provider_redbrick.labels.plain import PathKey


MaskKey = tuple[int, str]
"""A mask of a task: the series index, and the mask's path or name in the labels."""

NOT_LABELS = frozenset({"name", "items", "imageHeaders", "metaData"})
"""Fields of a series that describe the series itself; they are not labels."""


def plain_body(body: object) -> tuple[Any, dict[MaskKey, MaskCopy]]:
    """Return labels as plain values, and copies of masks given as objects.

    In the labels, a name replaces each such mask.

    :param body: the labels.
    :raises RedBrickInputError: if JSON cannot represent a value.
    """
    copies: dict[MaskKey, MaskCopy] = {}

    def take(value: Any, place: PathKey) -> str | None:
        if not _is_mask_place(place):
            return None
        name = f"{_mask_name(place)} ({type(value).__name__})"
        try:
            copy = copied_mask(value)
        except Exception as error:  # noqa: BLE001 - a user's object may raise any exception
            raise _unreadable(place, name, error) from None
        if copy is None:
            _refuse_array(value, place)
            return None
        copies[place[1], name] = copy
        return name

    return to_plain(body, take), copies


def copied_files(
    body: Any, stored: Collection[str], open_file: Callable[[str], BinaryIO | None], *, known: Collection[MaskKey]
) -> dict[MaskKey, MaskCopy]:
    """Copy the mask files that labels name.

    :param body: the labels as plain values.
    :param stored: the paths of masks that the task already has.
    :param open_file: raises if there is no such file, or returns None to skip the copy.
    :param known: masks that are copied already.
    :raises RedBrickInputError: if a file cannot be read.
    """
    copies: dict[MaskKey, MaskCopy] = {}
    for index, path in _mask_paths(body):
        key = (index, path)
        if path in stored or key in known or key in copies:
            continue
        try:
            file = open_file(path)
            if file is not None:
                with closing(file):
                    copies[key] = copied_mask_file(file)
        except Exception as error:  # noqa: BLE001 - object store clients raise exceptions of any type
            raise _unreadable(("series", index), path, error) from None
    return copies


def open_mask(path: str, open_file: Callable[[str], BinaryIO | None]) -> BinaryIO | None:
    """Open a mask file; return None if it does not exist.

    :param path: the path; a leading ``~`` is the home directory unless a file has that name.
    :param open_file: opens files.
    """
    file = open_file(path)
    if file is None and path.startswith("~"):
        return open_file(os.path.expanduser(path))  # noqa: PTH111 - keeps the path if there is no such user
    return file


def content_hash(body: Mapping[str, Any], digests: Mapping[MaskKey, str]) -> str:
    """Return the SHA-256 of the canonical JSON of labels.

    The SHA-256 of each mask replaces its path.

    :param body: the labels as plain values.
    :param digests: the SHA-256 of the masks that are sent; masks stored on the server remain paths.
    """
    labels: dict[str, Any] = {key: body[key] for key in ("classification", "labels") if body.get(key) is not None}
    if body.get("series") is not None:
        labels["series"] = [_hashed(series, index, digests) for index, series in enumerate(body["series"])]
    text = json.dumps(labels, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _hashed(series: Mapping[str, Any], index: int, digests: Mapping[MaskKey, str]) -> dict[str, Any]:
    def replace_path(value: Any) -> Any:
        if is_list(value):
            return [replace_path(element) for element in value]
        digest = digests.get((index, value)) if isinstance(value, str) else None
        return value if digest is None else f"sha256:{digest}"

    labels = {key: value for key, value in series.items() if value is not None and key not in NOT_LABELS}
    if "segmentations" in labels:
        labels["segmentations"] = replace_path(labels["segmentations"])
    segments = labels.get("segmentMap")
    if isinstance(segments, Mapping):
        labels["segmentMap"] = {
            key: {**segment, "mask": replace_path(segment["mask"])}
            if isinstance(segment, Mapping) and "mask" in segment
            else segment
            for key, segment in segments.items()
        }
    return labels


# ------------------------------------------------------------------ mask locations


def _mask_paths(body: Any) -> Iterator[MaskKey]:
    """Yield the masks that labels name; invalid series are refused later."""
    all_series = body.get("series") if isinstance(body, Mapping) else None
    for index, series in enumerate(all_series if is_list(all_series) else ()):
        try:
            segmentation = segmentation_of(series) if isinstance(series, Mapping) else None
        except RedBrickInputError:
            continue
        for path in segmentation.paths if segmentation else ():
            yield index, path


def _is_mask_place(place: PathKey) -> bool:
    if len(place) < 3 or place[0] != "series":
        return False
    rest = place[2:]
    if rest[0] == "segmentations":
        return len(rest) <= 2
    return rest[0] == "segmentMap" and len(rest) in {3, 4} and rest[2] == "mask"


def _mask_name(place: PathKey) -> str:
    """Return the name of a mask without a path within its series."""
    return place_of(("series", *place[1:])).partition(", ")[2].replace(", ", ".")


def _refuse_array(value: Any, place: PathKey) -> None:
    kind = getattr(getattr(value, "dtype", None), "kind", None)
    if kind is not None and kind not in "OSU":
        raise RedBrickInputError(
            f"{place_of(place)}: {type(value).__name__} has no affine. Use a nibabel image with the affine of the "
            f"series, the bytes of a NIfTI file, or its path"
        )


def _unreadable(path_key: PathKey, name: str, error: Exception) -> RedBrickInputError:
    reason = str(error) or type(error).__name__
    return RedBrickInputError(f"{place_of(path_key[:2])}: mask {name!r} cannot be read: {reason}")


LARGEST_IN_MEMORY = 1 << 18
"""Maximum bytes of a mask copy in memory; a larger copy is written to disk."""

_READ_BYTES = 1 << 20
_GZIP_LEVEL = 3  # masks are mostly zeros: a higher level takes longer and gains little


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

    :raises RedBrickInputError: if it exceeds the size limit, which protects the disk.
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
        # These images are uncompressed and mostly zeros. mtime=0: equal masks give equal files.
        packed = gzip.compress(content, _GZIP_LEVEL, mtime=0)
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
    for piece in iter(partial(file.read, _READ_BYTES), b""):
        digest.update(piece)
    return digest.hexdigest()


def _copy(pieces: Iterator[bytes]) -> MaskCopy:
    digest = hashlib.sha256()

    def hash_pieces() -> Iterator[bytes]:
        for piece in pieces:
            digest.update(piece)
            yield piece

    hashed_pieces = hash_pieces()
    head = b""
    for piece in hashed_pieces:
        head += piece
        if len(head) > LARGEST_IN_MEMORY:
            file = _written(chain([head], hashed_pieces))
            break
    else:
        file = io.BytesIO(head)
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
    while piece := read(_READ_BYTES):
        if not isinstance(piece, bytes):
            raise RedBrickInputError("it returns text instead of bytes; open it with mode 'rb'")
        size += len(piece)
        if size > LARGEST_FILE:
            raise RedBrickInputError(f"it is larger than {LARGEST_FILE >> 20} MiB")
        yield piece


def _can_seek(file: Any) -> bool:
    try:
        return bool(file.seekable())
    except AttributeError:
        return callable(getattr(file, "seek", None)) and callable(getattr(file, "tell", None))
