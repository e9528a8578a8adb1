"""Real medical images from pydicom and nibabel, and thumbnails of any image."""

from __future__ import annotations

import gzip
import io
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import nibabel
import numpy as np
import pydicom
import pydicom.data
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Chosen for their content: bone, a vessel, kidneys, the brain. All decode with numpy alone.
_DICOM_FILES = {
    "ct-spine": ("CT_small.dcm", "spine"),
    "mr-vessel": ("MR_small.dcm", "heart"),
    "mr-abdomen": ("examples_overlay.dcm", "abdomen"),
}
_BRAIN = "example4d.nii.gz"
_BRAIN_SLICES = (7, 9, 11, 13, 15, 17)


Floats: TypeAlias = "np.ndarray[Any, np.dtype[np.float64]]"


@dataclass(frozen=True)
class StudyFile:
    """One file of a study."""

    filename: str
    content: bytes = field(repr=False)


@dataclass(frozen=True)
class Study:
    """A named study: its files, its type (``dicom`` or ``nifti``) and its metadata."""

    name: str
    files: tuple[StudyFile, ...]
    data_type: str
    metadata: dict[str, str]


def demo_studies(number: int) -> list[Study]:
    """Return `number` studies of real images.

    Their names are distinct, and the same on each call.
    """
    return list(islice(_endless_studies(), number))


def thumbnail(content: bytes, filename: str, size: int = 160) -> bytes:
    """Return a PNG with stretched contrast.

    A file that is not an image becomes a gray square.

    :param content: the file.
    :param filename: its name. The suffixes .nii and .nii.gz select the NIfTI reader; all other files are read as DICOM.
    :param size: length of the longer side in pixels. Smaller images are enlarged.
    """
    try:
        picture = Image.fromarray(_stretched(pixels(content, filename)))
    except Exception:  # noqa: BLE001 - the decoders raise various types for a broken file
        picture = Image.new("L", (size, size), 64)
    # Small images are enlarged: a label drawn on 64 pixels is not readable.
    scale = size / max(picture.size)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    out = io.BytesIO()
    picture.resize((width, height), Image.Resampling.BILINEAR).save(out, "PNG")
    return out.getvalue()


def pixels(content: bytes, filename: str) -> Floats:
    """Return a representative image of a file.

    Rows run from top to bottom, columns from left to right. Colors become brightness. Of several frames the first is
    taken. Of a NIfTI volume the slice with the strongest signal is taken, with the first axis running to the right.

    :param content: the file.
    :param filename: its name. The suffixes .nii and .nii.gz select the NIfTI reader; all other files are read as DICOM.
    :raises Exception: if the decoder cannot read the file. The type depends on the decoder.
    """
    if filename.endswith((".nii", ".nii.gz")):
        return _nifti_slice(content)
    dataset = pydicom.dcmread(io.BytesIO(content), force=True)
    array: Floats = np.asarray(dataset.pixel_array, dtype=np.float64)
    if dataset.get("SamplesPerPixel", 1) > 1:
        array = array.mean(axis=-1)
    return array if array.ndim == 2 else array[0]


def _nifti_slice(content: bytes) -> Floats:
    plain = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    volume: Floats = np.asarray(nibabel.Nifti1Image.from_bytes(plain).dataobj, dtype=np.float64)
    while volume.ndim > 3:
        volume = volume[..., 0]
    volume = np.nan_to_num(volume)
    picture: Floats = volume[:, :, int(volume.sum(axis=(0, 1)).argmax())].T
    return picture


def _stretched(array: Floats) -> np.ndarray[Any, np.dtype[np.uint8]]:
    low, high = np.percentile(array, [1, 99])
    spread = max(high - low, 1e-9)
    stretched: np.ndarray[Any, np.dtype[np.uint8]] = (np.clip((array - low) / spread, 0, 1) * 255).astype(np.uint8)
    return stretched


def _endless_studies() -> Iterator[Study]:
    kinds: list[Callable[[int], Study]] = [_dicom_study(kind) for kind in _DICOM_FILES]
    # Alternate brains with the others, so that even a few tasks show each kind.
    for number in count():
        turn, place = divmod(number, 2)
        yield _brain_study(turn) if place else kinds[turn % len(kinds)](turn // len(kinds))


def _dicom_study(kind: str) -> Callable[[int], Study]:
    filename, part = _DICOM_FILES[kind]

    def study(number: int) -> Study:
        content = _shipped_dicom(filename)
        dataset = pydicom.dcmread(io.BytesIO(content), stop_before_pixels=True)
        metadata = {
            "modality": str(dataset.get("Modality", "")),
            "body_part": part,
            "rows": str(dataset.Rows),
            "columns": str(dataset.Columns),
            "source": filename,
        }
        return Study(f"{kind}-{number + 1:04d}", (StudyFile(filename, content),), "dicom", metadata)

    return study


def _brain_study(turn: int) -> Study:
    index = _BRAIN_SLICES[turn % len(_BRAIN_SLICES)]
    content = _brain_slice(index)
    metadata = {"modality": "MR", "body_part": "brain", "slice": str(index), "source": _BRAIN}
    name = f"mr-brain-s{index:02d}-{turn // len(_BRAIN_SLICES) + 1:04d}"
    return Study(name, (StudyFile(f"brain-slice-{index:02d}.nii", content),), "nifti", metadata)


@lru_cache
def _shipped_dicom(filename: str) -> bytes:
    """Read a file of the pydicom package. Nothing is downloaded."""
    return (Path(pydicom.data.__file__).parent / "test_files" / filename).read_bytes()


@lru_cache
def _brain_slice(index: int) -> bytes:
    """Extract one slice of the volume in the nibabel package as a NIfTI file.

    The path is built by hand, because `nibabel.testing`, which provides it, needs pytest.
    """
    volume: Any = nibabel.load(Path(nibabel.__file__).parent / "tests" / "data" / _BRAIN)
    data = np.asarray(volume.dataobj)[:, :, index : index + 1, 0]
    return bytes(nibabel.Nifti1Image(data, volume.affine).to_bytes())  # type: ignore[no-untyped-call]
