"""Read and write NIfTI masks with nibabel and numpy.

1. Size, shape and type in the header are checked before voxels are read, so a false header cannot exhaust memory.
2. Compressed files are read to their end, which verifies their checksum.
3. Values become unsigned 16-bit integers, in blocks.
"""

from __future__ import annotations

import gzip
import io
import math
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from airflow_provider_redbrick.exceptions import RedBrickInputError, truncate_message
from airflow_provider_redbrick.labels.compression import GZIP, damage
from airflow_provider_redbrick.labels.schema import LARGEST_INSTANCE

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from airflow_provider_redbrick.labels.segmentation import Voxels

MISSING = "masks need nibabel and numpy, which are not installed: pip install 'airflow-provider-redbrick[segmentation]'"
# Voxels looked at in one go: counting needs several times the memory that the voxels themselves take.
_STRIDE = 1 << 18
# A header is read before its voxels: what it claims must not cost the memory of the machine.
_LARGEST = 1 << 31
MOST_BYTES = 4 << 30
"""Bytes of voxels that are read, decompressed; whole numbers are made of them, which take two bytes a voxel more."""

_LARGEST_HEADER = 4 << 20
# Nothing gets smaller than this by gzip.
_MOST_PACKED = 1032
# How far from a whole number a value may be, with room for the rounding of the comparison itself.
_NEAR = 0.01 + 1e-6
_FAST = 3  # masks are mostly zeros: a higher level takes longer and gains little


@dataclass(frozen=True)
class Volume:
    """A mask volume.

    :param name: the mask's name in messages.
    :param voxels: three axes, unsigned 16-bit.
    :param values: the distinct voxel values, without 0.
    :param is_plain: whether the file holds exactly these voxels and can be stored unchanged.
    :param is_rounded: whether some values were whole numbers only after rounding.
    :param image: the nibabel image, for the rest of its header.
    """

    name: str
    voxels: Voxels
    values: frozenset[int]
    is_plain: bool
    is_rounded: bool
    image: Any

    def check_alike(self, other: Volume) -> None:
        """Check that another mask has the same shape and affine.

        :raises RedBrickInputError: if it has not.
        """
        import numpy as np

        if self.voxels.shape != other.voxels.shape:
            sizes = [" x ".join(map(str, each.voxels.shape)) for each in (self, other)]
            raise RedBrickInputError(
                f"masks {self.name!r} ({sizes[0]}) and {other.name!r} ({sizes[1]}) are not of one size"
            )
        if not np.allclose(self.image.affine, other.image.affine, atol=1e-3):
            raise RedBrickInputError(f"masks {self.name!r} and {other.name!r} are not in the same place in the world")


def read_volume(file: BinaryIO, name: str) -> Volume:
    """Read a mask.

    :param file: a seekable NIfTI-1 or NIfTI-2 file, optionally compressed with gzip; it is left open.
    :param name: the mask's name in messages.
    :raises RedBrickInputError: if the file is no valid mask.
    """
    with _readable(name):
        image = _open(file)
        shape = _without_trailing_ones(image.shape)
    if len(shape) != 3:
        sizes = " x ".join(map(str, image.shape))
        raise RedBrickInputError(f"mask {name!r} must have 3 axes, not {len(shape)} ({sizes})")
    if math.prod(shape) > _LARGEST:
        raise RedBrickInputError(f"mask {name!r} says that it has {math.prod(shape)} voxels; {_LARGEST} are the most")
    with _readable(name):
        dtype = image.get_data_dtype()
    if dtype.kind not in "iuf":
        raise RedBrickInputError(f"mask {name!r} must have whole numbers as voxels, not {dtype.name}")
    size = math.prod(shape) * dtype.itemsize
    if size > MOST_BYTES:
        raise RedBrickInputError(f"mask {name!r} says that its voxels are {size} bytes; {MOST_BYTES} are the most")
    with _readable(name):
        stored = _stored(file, image.dataobj, size).reshape(shape, order="F")
        scaled = _Scaled(stored, image.dataobj.slope, image.dataobj.inter)
    voxels, values, is_rounded = _whole_numbers(scaled, name)
    is_plain = scaled.is_plain and image.shape == shape
    return Volume(name, voxels, values, is_plain=is_plain, is_rounded=is_rounded, image=image)


def _without_trailing_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Remove axes of length 1 after the third; tools write one time point so."""
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def write_volume(voxels: Voxels, like: Volume) -> BinaryIO:
    """Write a compressed mask with the header of another one.

    :param voxels: the voxel values; stored with 8 bits if all are below 256.
    :param like: the volume whose header and affine are used.
    :return: an unnamed temporary file, deleted when closed.
    """
    import numpy as np

    small = int(voxels.max(initial=0)) < 256
    with _readable(like.name):
        header = like.image.header.copy()
        header.set_data_dtype(np.uint8 if small else np.uint16)
        header.set_slope_inter(1, 0)
        image = type(like.image)(voxels.astype(np.uint8) if small else voxels, like.image.affine, header)
    file = cast("BinaryIO", tempfile.TemporaryFile())  # noqa: SIM115 - the caller closes it
    # No time in it: the same mask is the same file.
    with gzip.GzipFile(fileobj=file, mode="wb", compresslevel=_FAST, mtime=0) as packed:
        image.to_stream(packed)
    return file


@contextmanager
def _readable(name: str) -> Iterator[None]:
    try:
        yield
    except ImportError:
        raise RedBrickInputError(MISSING) from None
    except Exception as error:  # noqa: BLE001 - nibabel raises what it likes about headers that make no sense
        words = truncate_message(damage(error))
        raise RedBrickInputError(f"mask {name!r} is no NIfTI file that can be read ({words})") from None


def _open(file: BinaryIO) -> Any:
    """Return nibabel's image, whose voxels are not read yet."""
    from nibabel.nifti1 import Nifti1Header, Nifti1Image
    from nibabel.nifti2 import Nifti2Header, Nifti2Image

    packed = _is_packed(file)
    file.seek(0)
    stream: Any = gzip.GzipFile(fileobj=file) if packed else file
    beginning = stream.read(Nifti2Header.template_dtype.itemsize)
    kinds: Any = ((Nifti1Header, Nifti1Image), (Nifti2Header, Nifti2Image))
    for header_kind, image_kind in kinds:
        if header_kind.may_contain_header(beginning):
            header = _header(header_kind, stream, beginning)
            voxels = image_kind.ImageArrayProxy(stream, header.copy())
            return image_kind(voxels, header.get_best_affine(), header)
    raise ValueError("it does not begin like one")


def _header(kind: Any, stream: Any, beginning: bytes) -> Any:
    """Return a header with its extensions.

    Extensions state their own length, which nibabel trusts: it gets only the bytes before the voxels.
    """
    offset = float(kind(beginning[: kind.template_dtype.itemsize], check=False)["vox_offset"])
    if not 0 <= offset <= _LARGEST_HEADER:
        raise ValueError(f"its voxels begin at byte {offset:.0f}; {_LARGEST_HEADER} is the last that they may begin at")
    stream.seek(0)
    return kind.from_fileobj(io.BytesIO(stream.read(max(int(offset), len(beginning)))))


def _is_packed(file: BinaryIO) -> bool:
    file.seek(0)
    return file.read(2) == GZIP


def _stored(file: BinaryIO, voxels: Any, size: int) -> np.ndarray:
    """Read all voxels and verify that the file's length matches its header.

    :param voxels: nibabel's array proxy.
    :param size: the size in bytes that the header states; memory is allocated before they are read.
    """
    packed, length = _length(file)
    if size > length * (_MOST_PACKED if packed else 1):
        raise ValueError(f"its header claims {size} bytes of voxels, which it does not have")
    end = voxels.offset + size
    if not packed and length != end:
        raise ValueError(f"by its header it has {end} bytes, but it has {length}")
    stored: np.ndarray = voxels.get_unscaled()
    if packed:
        stream = voxels.file_like
        stream.seek(end)
        # At the end of the data their checksum and their length are looked at.
        if stream.read(1):
            raise ValueError(f"by its header it has {end} bytes, but it has more")
    return stored


def _length(file: BinaryIO) -> tuple[bool, int]:
    """Return whether a file is compressed, and its size; its position is kept."""
    at = file.tell()
    packed = _is_packed(file)
    length = file.seek(0, io.SEEK_END)
    file.seek(at)
    return packed, length


@dataclass(frozen=True)
class _Scaled:
    """Stored voxels with their scale factors.

    Scaled values need eight times the memory, so they are produced in blocks.
    """

    stored: np.ndarray
    slope: float
    inter: float

    @property
    def is_plain(self) -> bool:
        unscaled = (self.slope, self.inter) == (1, 0)
        return unscaled and self.stored.dtype.kind == "u" and self.stored.dtype.itemsize <= 2

    def parts(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield blocks of scaled values in memory order."""
        from nibabel.volumeutils import apply_read_scaling

        given = self.stored.ravel(order="K")
        for start in range(0, given.size, _STRIDE):
            place = slice(start, start + _STRIDE)
            yield place, apply_read_scaling(given[place], self.slope, self.inter)


def _whole_numbers(scaled: _Scaled, name: str) -> tuple[Voxels, frozenset[int], bool]:
    """Return 16-bit voxels, their distinct values without 0, and if any was rounded."""
    import numpy as np

    voxels = np.empty_like(scaled.stored, dtype=np.uint16)
    kept = voxels.ravel(order="K")
    seen = np.zeros(LARGEST_INSTANCE + 1, bool)
    is_rounded = False
    for place, part in scaled.parts():
        whole = _rounded(part, name)
        is_rounded = is_rounded or bool((whole != part).any())
        kept[place] = whole
        seen[kept[place]] = True
    return voxels, frozenset(np.flatnonzero(seen).tolist()) - {0}, is_rounded


def _rounded(part: np.ndarray, name: str) -> np.ndarray:
    """Round values to whole numbers in the range of a mask's values.

    Scale factors are stored with 32 bits, and turn 1 into 1.00001526 or 0.99607849.

    :raises RedBrickInputError: if a value is not nearly a whole number in range.
    """
    import numpy as np

    if part.dtype.kind == "u" and part.dtype.itemsize <= 2:
        return part
    with np.errstate(invalid="ignore"):  # of infinity and NaN, which are refused
        whole = np.rint(part) if part.dtype.kind == "f" else part
        wrong = part[~((whole >= 0) & (whole <= LARGEST_INSTANCE) & (np.abs(part - whole) <= _NEAR))]
    if wrong.size:
        raise RedBrickInputError(
            f"mask {name!r} has a voxel of {wrong[0]!s}: values are whole numbers from 0 to {LARGEST_INSTANCE}"
        )
    return whole
