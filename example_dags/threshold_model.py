"""A small model for the example DAGs: bright image regions, and rules for boxes.

Heavy imports are inside the functions, because Airflow parses this folder every few seconds.
"""

from __future__ import annotations

import gzip
import io
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np

    from airflow_provider_redbrick.client.models.task import Task

CATEGORY = "finding"
SMALLEST_SHARE = 0.005
LARGEST_SHARE = 0.9
TOO_LARGE_SHARE = 0.25


class Box(NamedTuple):
    """A box in fractions of the image's width and height, from the top left."""

    left: float
    top: float
    width: float
    height: float


def predict(task: Task) -> dict[str, Any] | None:
    """Return boxes around the brightest regions of the first image, or None."""
    import requests

    response = requests.get(task.item_urls[0], timeout=30)
    response.raise_for_status()
    boxes = find_regions(read_pixels(response.content, task.items[0]))
    if not boxes:
        return None
    return {"series": [{"boundingBoxes": [_label(box) for box in boxes]}]}


def plausible(task: Task) -> bool:
    """Return whether a task has boxes, all inside the image and of plausible size."""
    boxes = _boxes(task)
    return bool(boxes) and all(_inside(box) and SMALLEST_SHARE <= _share(box) <= LARGEST_SHARE for box in boxes)


def too_large(task: Task) -> bool:
    """Return whether a task has a box that is too large to be one finding."""
    return any(_share(box) > TOO_LARGE_SHARE for box in _boxes(task))


def find_regions(pixels: np.ndarray, max_regions: int = 3) -> list[Box]:
    """Return boxes around the largest connected bright regions of an image.

    Otsu's threshold is applied twice: first to separate the body from the dark background, then to find bright regions
    within the body.

    :param pixels: the image, rows from top to bottom.
    :param max_regions: the highest number of boxes.
    """
    import numpy as np
    from scipy import ndimage

    rows, columns = pixels.shape
    smooth = ndimage.gaussian_filter(pixels, sigma=min(rows, columns) / 100)
    body = smooth[smooth > _otsu_threshold(smooth)]
    regions, _ = ndimage.label(smooth > _otsu_threshold(body))
    sizes = np.bincount(regions.ravel())[1:]
    largest = np.argsort(sizes, kind="stable")[::-1][:max_regions]
    slices = ndimage.find_objects(regions)
    boxes = [
        Box(x.start / columns, y.start / rows, (x.stop - x.start) / columns, (y.stop - y.start) / rows)
        for y, x in (slices[region] for region in largest)
    ]
    return [box for box in boxes if _share(box) >= SMALLEST_SHARE]


def read_pixels(content: bytes, filename: str) -> np.ndarray:
    """Decode a DICOM or NIfTI file to one image.

    :param content: the bytes of the file.
    :param filename: its name; the extension distinguishes NIfTI from DICOM.
    :return: the image; for a volume, the slice with the most signal.
    """
    import numpy as np

    if filename.endswith((".nii", ".nii.gz")):
        import nibabel

        plain = gzip.decompress(content) if filename.endswith(".gz") else content
        volume = np.nan_to_num(np.asarray(nibabel.Nifti1Image.from_bytes(plain).dataobj, dtype=float))
        return volume[:, :, int(volume.sum(axis=(0, 1)).argmax())].T
    import pydicom

    dataset = pydicom.dcmread(io.BytesIO(content))
    pixels = np.asarray(dataset.pixel_array, dtype=float)
    return pixels.mean(axis=-1) if dataset.get("SamplesPerPixel", 1) > 1 else pixels


def _otsu_threshold(pixels: np.ndarray) -> float:
    """Return the brightness that best splits an image into two uniform groups."""
    import numpy as np

    counts, edges = np.histogram(pixels, bins=256)
    middles = (edges[:-1] + edges[1:]) / 2
    below, above = counts.cumsum(), counts[::-1].cumsum()[::-1]
    mean_below = (counts * middles).cumsum() / np.maximum(below, 1)
    mean_above = (counts * middles)[::-1].cumsum()[::-1] / np.maximum(above, 1)
    between = below[:-1] * above[1:] * (mean_below[:-1] - mean_above[1:]) ** 2
    return float(edges[1:][between.argmax()])


def _label(box: Box) -> dict[str, Any]:
    corner = {"xNorm": box.left, "yNorm": box.top}
    return {"pointTopLeft": corner, "wNorm": box.width, "hNorm": box.height, "category": CATEGORY}


def _boxes(task: Task) -> list[Box]:
    labels = [label for series in task.series for label in series.get("boundingBoxes", [])]
    return [
        Box(label["pointTopLeft"]["xNorm"], label["pointTopLeft"]["yNorm"], label["wNorm"], label["hNorm"])
        for label in labels
    ]


def _share(box: Box) -> float:
    return box.width * box.height


def _inside(box: Box) -> bool:
    return min(box) >= 0 and box.left + box.width <= 1 and box.top + box.height <= 1
