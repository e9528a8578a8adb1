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
from airflow_provider_redbrick.labels.fields import LARGEST_INSTANCE

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from airflow_provider_redbrick.labels.segmentation import Voxels

MISSING = "masks need nibabel and numpy, which are not installed: pip install 'airflow-provider-redbrick[segmentation]'"
# Voxels per block: rounding and counting need several times the memory of the voxels themselves.
_BLOCK_VOXELS = 1 << 18
# Maximum voxels, by the header: a false header must not exhaust memory.
_MAX_VOXELS = 1 << 31
MOST_BYTES = 4 << 30
"""Maximum uncompressed bytes of voxels. The conversion to 16 bits needs two more bytes per voxel."""

_MAX_HEADER_BYTES = 4 << 20
# The maximum compression ratio of gzip.
_MAX_GZIP_RATIO = 1032
# Maximum distance from a whole number, with a margin for rounding in the comparison.
_ROUNDING_TOLERANCE = 0.01 + 1e-6
_GZIP_LEVEL = 3  # masks are mostly zeros: a higher level takes longer and gains little


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

        :param other: the mask to compare with.
        :raises RedBrickInputError: if shape or affine differ.
        """
        import numpy as np

        if self.voxels.shape != other.voxels.shape:
            sizes = [" x ".join(map(str, volume.voxels.shape)) for volume in (self, other)]
            raise RedBrickInputError(f"masks {self.name!r} ({sizes[0]}) and {other.name!r} ({sizes[1]}) differ in size")
        if not np.allclose(self.image.affine, other.image.affine, atol=1e-3):
            raise RedBrickInputError(f"masks {self.name!r} and {other.name!r} differ in their affine")


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
    if math.prod(shape) > _MAX_VOXELS:
        raise RedBrickInputError(
            f"mask {name!r} has {math.prod(shape)} voxels according to its header, more than the limit of {_MAX_VOXELS}"
        )
    with _readable(name):
        dtype = image.get_data_dtype()
    if dtype.kind not in "iuf":
        raise RedBrickInputError(f"mask {name!r} must have whole numbers as voxels, not {dtype.name}")
    size = math.prod(shape) * dtype.itemsize
    if size > MOST_BYTES:
        raise RedBrickInputError(
            f"mask {name!r} has {size} bytes of voxels according to its header, more than the limit of {MOST_BYTES}"
        )
    with _readable(name):
        stored = _stored(file, image.dataobj, size).reshape(shape, order="F")
        scaled = _Scaled(stored, image.dataobj.slope, image.dataobj.inter)
    voxels, values, is_rounded = _whole_numbers(scaled, name)
    is_plain = scaled.is_plain and image.shape == shape
    return Volume(name, voxels, values, is_plain=is_plain, is_rounded=is_rounded, image=image)


def _without_trailing_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Remove axes of length 1 after the third, such as a single time point."""
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
    # mtime=0: equal masks give equal files.
    with gzip.GzipFile(fileobj=file, mode="wb", compresslevel=_GZIP_LEVEL, mtime=0) as packed:
        image.to_stream(packed)
    return file


@contextmanager
def _readable(name: str) -> Iterator[None]:
    try:
        yield
    except ImportError:
        raise RedBrickInputError(MISSING) from None
    except Exception as error:  # noqa: BLE001 - nibabel raises any exception for an invalid header
        reason = truncate_message(damage(error))
        raise RedBrickInputError(f"mask {name!r} is not a readable NIfTI file ({reason})") from None


def _open(file: BinaryIO) -> Any:
    """Open a file as a nibabel image without reading its voxels."""
    from nibabel.nifti1 import Nifti1Header, Nifti1Image
    from nibabel.nifti2 import Nifti2Header, Nifti2Image

    is_gzip = _is_gzip(file)
    file.seek(0)
    stream: Any = gzip.GzipFile(fileobj=file) if is_gzip else file
    head = stream.read(Nifti2Header.template_dtype.itemsize)
    formats: Any = ((Nifti1Header, Nifti1Image), (Nifti2Header, Nifti2Image))
    for header_kind, image_kind in formats:
        if header_kind.may_contain_header(head):
            header = _header(header_kind, stream, head)
            voxels = image_kind.ImageArrayProxy(stream, header.copy())
            return image_kind(voxels, header.get_best_affine(), header)
    raise ValueError("it has no NIfTI header")


def _header(header_type: Any, stream: Any, head: bytes) -> Any:
    """Return a header with its extensions.

    Extensions state their own length, which nibabel trusts: it gets only the bytes before the voxels.
    """
    offset = float(header_type(head[: header_type.template_dtype.itemsize], check=False)["vox_offset"])
    if not 0 <= offset <= _MAX_HEADER_BYTES:
        raise ValueError(f"its voxel data begin at byte {offset:.0f}, beyond the limit of {_MAX_HEADER_BYTES}")
    stream.seek(0)
    return header_type.from_fileobj(io.BytesIO(stream.read(max(int(offset), len(head)))))


def _is_gzip(file: BinaryIO) -> bool:
    file.seek(0)
    return file.read(2) == GZIP


def _stored(file: BinaryIO, voxels: Any, size: int) -> np.ndarray:
    """Read all voxels and verify that the file's length matches its header.

    :param voxels: nibabel's array proxy.
    :param size: the size in bytes that the header states; memory is allocated before they are read.
    """
    is_gzip, length = _length(file)
    if size > length * (_MAX_GZIP_RATIO if is_gzip else 1):
        raise ValueError(f"its header states {size} bytes of voxels, but the file is shorter")
    end = voxels.offset + size
    if not is_gzip and length != end:
        raise ValueError(f"its header states {end} bytes, but it has {length}")
    stored: np.ndarray = voxels.get_unscaled()
    if is_gzip:
        stream = voxels.file_like
        stream.seek(end)
        # Reading past the end makes gzip verify checksum and length.
        if stream.read(1):
            raise ValueError(f"its header states {end} bytes, but it has more")
    return stored


def _length(file: BinaryIO) -> tuple[bool, int]:
    """Return whether a file is compressed, and its size; its position is kept."""
    position = file.tell()
    is_gzip = _is_gzip(file)
    length = file.seek(0, io.SEEK_END)
    file.seek(position)
    return is_gzip, length


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

        flat = self.stored.ravel(order="K")
        for start in range(0, flat.size, _BLOCK_VOXELS):
            block = slice(start, start + _BLOCK_VOXELS)
            yield block, apply_read_scaling(flat[block], self.slope, self.inter)


def _whole_numbers(scaled: _Scaled, name: str) -> tuple[Voxels, frozenset[int], bool]:
    """Return 16-bit voxels, their distinct values without 0, and if any was rounded."""
    import numpy as np

    voxels = np.empty_like(scaled.stored, dtype=np.uint16)
    flat = voxels.ravel(order="K")
    is_present = np.zeros(LARGEST_INSTANCE + 1, bool)
    is_rounded = False
    for block, part in scaled.parts():
        rounded = _rounded(part, name)
        is_rounded = is_rounded or bool((rounded != part).any())
        flat[block] = rounded
        is_present[flat[block]] = True
    return voxels, frozenset(np.flatnonzero(is_present).tolist()) - {0}, is_rounded


def _rounded(part: np.ndarray, name: str) -> np.ndarray:
    """Round values to whole numbers in the range of a mask's values.

    Scale factors are stored with 32 bits, and turn 1 into 1.00001526 or 0.99607849.

    :raises RedBrickInputError: if a value is not nearly a whole number in range.
    """
    import numpy as np

    if part.dtype.kind == "u" and part.dtype.itemsize <= 2:
        return part
    with np.errstate(invalid="ignore"):  # of infinity and NaN, which are refused
        rounded = np.rint(part) if part.dtype.kind == "f" else part
        invalid = part[
            ~((rounded >= 0) & (rounded <= LARGEST_INSTANCE) & (np.abs(part - rounded) <= _ROUNDING_TOLERANCE))
        ]
    if invalid.size:
        raise RedBrickInputError(
            f"mask {name!r} has the voxel value {invalid[0]!s}. Values must be whole numbers from 0 to "
            f"{LARGEST_INSTANCE}"
        )
    return rounded
