"""Real medical images: those that pydicom and nibabel ship in their packages, and small pictures of any."""

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

# Chosen for what is in them: bone, a vessel, kidneys, the brain. All decode with numpy alone.
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
    """One file of a study, as bytes."""

    filename: str
    content: bytes = field(repr=False)


@dataclass(frozen=True)
class Study:
    """A named study: its files, ``dicom`` or ``nifti``, and what is known of it."""

    name: str
    files: tuple[StudyFile, ...]
    data_type: str
    metadata: dict[str, str]


def demo_studies(number: int) -> list[Study]:
    """Return so many studies of real images, each with a name of its own; the same ones every time."""
    return list(islice(_endless_studies(), number))


def thumbnail(content: bytes, filename: str, size: int = 160) -> bytes:
    """Return a PNG of at most ``size`` pixels a side, contrast stretched; a grey one for what is not an image."""
    try:
        picture = Image.fromarray(_stretched(pixels(content, filename)))
    except Exception:  # noqa: BLE001 - the decoders raise anything for a broken file, and a board must go on
        picture = Image.new("L", (size, size), 64)
    # Enlarged too: a label drawn on 64 pixels is not readable.
    scale = size / max(picture.size)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    out = io.BytesIO()
    picture.resize((width, height), Image.Resampling.BILINEAR).save(out, "PNG")
    return out.getvalue()


def pixels(content: bytes, filename: str) -> Floats:
    """Return the picture that stands for a file: rows from top to bottom, columns from left to right.

    Colours become brightness; of several frames the first is taken, of a NIfTI volume the slice with the most
    signal, its first axis running to the right.

    :raises Exception: whatever the decoder raises for a file it cannot read.
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
    # Brains and the rest in turn, so that a few tasks show a bit of everything.
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
    """Read a file that is inside the pydicom package; nothing is downloaded."""
    return (Path(pydicom.data.__file__).parent / "test_files" / filename).read_bytes()


@lru_cache
def _brain_slice(index: int) -> bytes:
    """Cut one slice out of the volume that nibabel ships, as a NIfTI file of its own.

    The file is found beside the package: `nibabel.testing`, which has its path, needs pytest.
    """
    volume: Any = nibabel.load(Path(nibabel.__file__).parent / "tests" / "data" / _BRAIN)
    data = np.asarray(volume.dataobj)[:, :, index : index + 1, 0]
    return bytes(nibabel.Nifti1Image(data, volume.affine).to_bytes())  # type: ignore[no-untyped-call]
