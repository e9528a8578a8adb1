"""Find, validate, merge and store the masks of labels.

1. Each series gets at most one mask file; several masks are merged.
2. A path that the task already has as a mask is never opened locally: the server must not be able to choose a local
   file that is then uploaded.
3. Files are unnamed temporary copies, deleted when closed; a mask copied when it was returned is not opened again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, BinaryIO

from airflow_provider_redbrick.annotations.file_kinds import stand_in
from airflow_provider_redbrick.annotations.snapshot import MaskCopy, MaskKey, copied, open_mask, sha256_of
from airflow_provider_redbrick.exceptions import NoSuchFileError, RedBrickInputError
from airflow_provider_redbrick.labels.nifti import Volume, read_volume, write_volume
from airflow_provider_redbrick.labels.segmentation import (
    Layers,
    Segmentation,
    instance_keys,
    segmentation_of,
    without_entry,
)

if TYPE_CHECKING:
    from airflow_provider_redbrick.client.operations.uploads import ProjectFiles

OpenFile = Callable[[str], "BinaryIO | None"]
"""Opens a file by local path or URI. A missing file gives None or raises `NoSuchFileError`; other exceptions state why
the file cannot be read."""


@dataclass(frozen=True)
class Mask:
    """The mask of one series, ready to be stored.

    :param series: the series, counted from 0.
    :param file: the file to store, deleted once it is no longer referenced; None if the mask is stored already.
    :param stored: instead of a file, a path in the label storage that the task must already have.
    """

    series: int
    file: BinaryIO | None
    stored: str | None = None


@dataclass(frozen=True)
class Masked:
    """Labels after mask extraction.

    :param body: the labels for the conversion: one mask per series, with a placeholder name.
    :param masks: the extracted masks.
    :param unmasked: series that explicitly have no mask.
    :param doubts: inconsistencies between masks and labels that do not prevent storing.
    :param digests: the SHA-256 of each mask that was read.
    :param rounded: masks with values that were whole numbers only after rounding.
    """

    body: Mapping[str, Any]
    masks: tuple[Mask, ...] = ()
    unmasked: frozenset[int] = frozenset()
    doubts: tuple[str, ...] = ()
    digests: Mapping[MaskKey, str] = field(default_factory=dict)
    rounded: tuple[str, ...] = ()


def take_masks(
    body: Mapping[str, Any],
    open_file: OpenFile,
    stored: Collection[str] = (),
    copies: Mapping[MaskKey, MaskCopy] | None = None,
) -> Masked:
    """Extract the masks of labels in the ``series`` format.

    :param body: the labels as plain values.
    :param open_file: opens mask files.
    :param stored: the paths of masks that the task already has. They come from the server and are never opened locally.
    :param copies: copies of masks taken when they were returned; their files are not opened again.
    :raises RedBrickInputError: if a mask cannot be read, or contradicts its labels.
    """
    all_series = body.get("series")
    if not isinstance(all_series, Sequence) or isinstance(all_series, str):
        return Masked(body)

    source = _Source(open_file, stored, copies or {})
    converted_series, masks, doubts = [], [], []
    rounded: list[str] = []
    for index, series in enumerate(all_series):
        segmentation = _segmentation(series, index)
        if segmentation is None:
            converted_series.append(_without_masks(series))
            continue
        try:
            file, segments, inconsistencies = _single_mask(segmentation, partial(source.open, index), rounded)
        except RedBrickInputError as error:
            raise RedBrickInputError(f"series {index}: {error}") from None
        masks.append(Mask(index, file, None if file else segmentation.paths[0]))
        doubts += [f"series {index}, {message}" for message in inconsistencies]
        converted_series.append(_with_one_mask(series, index, segments))
    unmasked = frozenset(i for i, series in enumerate(all_series) if _is_explicitly_unmasked(series))
    return Masked(
        {**body, "series": converted_series}, tuple(masks), unmasked, tuple(doubts), source.digests, tuple(rounded)
    )


def labels_map(masks: Sequence[Mask], files: ProjectFiles, task_id: str) -> list[dict[str, Any] | None]:
    """Store masks and return the task's ``labelsMap``.

    :param masks: the masks to store.
    :param files: the project's label storage.
    :param task_id: the task that they belong to.
    :return: one entry per series up to the last with a mask; None for a series without one.
    """
    entries: dict[int, dict[str, Any]] = {}
    for mask in masks:
        path = mask.stored if mask.file is None else files.store_mask(mask.file, task_id, series=mask.series)
        entries[mask.series] = {"labelName": path, "seriesIndex": mask.series}
    return [entries.get(index) for index in range(max(entries, default=-1) + 1)]


def _segmentation(series: Any, index: int) -> Segmentation | None:
    try:
        return segmentation_of(series) if isinstance(series, Mapping) else None
    except RedBrickInputError as error:
        raise RedBrickInputError(f"series {index}: {error}") from None


def _single_mask(
    segmentation: Segmentation, open_file: OpenFile, rounded: list[str]
) -> tuple[BinaryIO | None, Mapping[int, frozenset[int]], list[str]]:
    """Return the mask file, its instances and inconsistencies.

    The file is None if the mask is already stored.

    :param segmentation: the masks of the series.
    :param open_file: opens mask files.
    :param rounded: receives the names of masks whose values are rounded.
    """
    with ExitStack() as stack:
        files = [open_file(path) for path in segmentation.paths]
        for file in files:
            if file is not None:
                stack.enter_context(closing(file))
        if segmentation.is_one_file and files[0] is None:
            return None, segmentation.segments, []
        opened = [file for file in files if file is not None]
        if len(opened) < len(files):
            missing = next(path for path, file in zip(segmentation.paths, files, strict=True) if file is None)
            raise RedBrickInputError(f"there is no mask file {missing!r}")
        if not segmentation.is_one_file:
            return _merged(segmentation, opened, rounded)
        volume = _read(opened[0], segmentation.paths[0], rounded)
        inconsistencies = _inconsistencies(volume.values, segmentation.segments)
        if not volume.is_plain:
            return write_volume(volume.voxels, volume), segmentation.segments, inconsistencies
        stack.pop_all()
        return opened[0], segmentation.segments, inconsistencies


def _merged(
    segmentation: Segmentation, files: Sequence[BinaryIO], rounded: list[str]
) -> tuple[BinaryIO, Mapping[int, frozenset[int]], list[str]]:
    import numpy as np

    opened = zip(files, segmentation.paths, strict=True)
    volumes: Iterable[Volume] = (_read(file, path, rounded) for file, path in opened)
    taken = set(segmentation.instance_of.values())
    if not taken:
        # All masks are read first to collect their values. Masks of one instance each are read one by one.
        volumes = list(volumes)
        taken = set().union(*(volume.values for volume in volumes))
    remaining = iter(volumes)
    first = next(remaining)
    layers = Layers(first.voxels.shape, dict(segmentation.segments), taken)
    for volume in chain([first], remaining):
        volume.check_alike(first)
        flat = volume.voxels.ravel(order="F")
        places = np.flatnonzero(flat)
        instance = segmentation.instance_of.get(volume.name)
        layers.lay(places, flat[places] if instance is None else np.full(places.shape, instance, np.uint16))
    return write_volume(layers.voxels, first), layers.segments, _inconsistencies(taken, segmentation.segments)


def _read(file: BinaryIO, path: str, rounded: list[str]) -> Volume:
    volume = read_volume(file, path)
    if volume.is_rounded:
        rounded.append(path)
    return volume


def _inconsistencies(values: Any, segments: Mapping[int, frozenset[int]]) -> list[str]:
    unexplained = without_entry(values, segments)
    if not unexplained:
        return []
    listed = ", ".join(map(str, unexplained[:5])) + (", ..." if len(unexplained) > 5 else "")
    return [f"segmentMap: has no entry for {listed}, but the mask has such voxels"]


@dataclass(frozen=True)
class _Source:
    """Open masks: copies, stored masks and files.

    :param digests: the SHA-256 of each mask that was opened.
    """

    open_file: OpenFile
    stored: Collection[str]
    copies: Mapping[MaskKey, MaskCopy]
    digests: dict[MaskKey, str] = field(default_factory=dict)

    def open(self, series: int, path: str) -> BinaryIO | None:
        """Return a mask as a seekable file; None if the task must already have it."""
        key = (series, path)
        copy = self.copies.get(key)
        if copy is not None:
            self.digests[key] = copy.sha256
            return copy.file
        if path in self.stored:
            return None
        try:
            file = _open_local(path, self.open_file)
            if file is not None:
                self.digests[key] = sha256_of(file)
        except Exception as error:  # noqa: BLE001 - object store clients raise exceptions of any type
            reason = str(error) or type(error).__name__
            raise RedBrickInputError(f"mask {path!r} cannot be read: {reason}") from None
        return file


def _open_local(path: str, open_file: OpenFile) -> BinaryIO | None:
    """Return a seekable file; a remote one is copied to an unnamed temporary file."""
    try:
        file = open_mask(path, open_file)
    except NoSuchFileError:
        return None
    if file is None:
        return None
    if not _has_descriptor(file):
        with closing(file):
            file = copied(file)
    file_type = stand_in(file)
    if file_type is not None:
        file.close()
        raise RedBrickInputError(f"it looks like {file_type}")
    return file


def _has_descriptor(file: BinaryIO) -> bool:
    try:
        file.fileno()
    except (OSError, AttributeError):
        return False
    return True


def _with_one_mask(series: Mapping[str, Any], index: int, segments: Mapping[int, frozenset[int]]) -> dict[str, Any]:
    return {
        **_without_masks(series),
        "segmentations": f"{index}.nii.gz",
        "segmentMap": dict(_segment_map(series.get("segmentMap") or {}, segments)),
    }


def _segment_map(
    segment_map: Mapping[Any, Any], segments: Mapping[int, frozenset[int]]
) -> Iterator[tuple[str, dict[str, Any]]]:
    for instance, key in instance_keys(segment_map).items():
        segment = segment_map[key]
        label = dict(segment) if isinstance(segment, Mapping) else {"category": segment}
        label.pop("mask", None)
        groups = segments[instance]
        if groups:
            label["overlappingGroups"] = sorted(groups)
        yield str(instance), label


MASK_FIELDS = frozenset({"segmentations", "segmentMap", "binaryMask", "semanticMask", "pngMask"})


def _without_masks(series: Any) -> Any:
    return (
        {key: value for key, value in series.items() if key not in MASK_FIELDS}
        if isinstance(series, Mapping)
        else series
    )


def _is_explicitly_unmasked(series: Any) -> bool:
    return isinstance(series, Mapping) and series.get("segmentations") == []
