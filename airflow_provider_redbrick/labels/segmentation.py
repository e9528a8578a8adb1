"""Determine the masks of a series, and merge several masks into one.

A stored mask is one volume per series. Each voxel holds an instance number, or 0 for none. Where instances overlap, it
holds a group number, which each of the instances lists in `overlappingGroups`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.exceptions import RedBrickInputError, has_line_break
from airflow_provider_redbrick.labels.fields import LARGEST_INSTANCE, is_list, mask_value, name_of

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Voxels = npt.NDArray[np.uint16]


@dataclass(frozen=True)
class Segmentation:
    """The masks of one series, as its labels describe them.

    :param paths: the distinct mask files, in the order in which they are merged.
    :param instance_of: the instance of each file that holds one instance; empty where voxel values are the instances.
    :param segments: the instances of the segment map, each with the group numbers of its overlaps.
    """

    paths: tuple[str, ...]
    instance_of: Mapping[str, int]
    segments: Mapping[int, frozenset[int]]

    @property
    def is_one_file(self) -> bool:
        """Whether there is one file whose voxel values are the instances already."""
        return len(self.paths) == 1 and not self.instance_of


def segmentation_of(series: Mapping[str, Any]) -> Segmentation | None:
    """Return the masks of a series; None if it has none.

    :raises RedBrickInputError: if files and segment map are inconsistent.
    """
    paths = _paths(series.get("segmentations"))
    segment_map = series.get("segmentMap") or {}
    if not isinstance(segment_map, Mapping):
        raise RedBrickInputError("segmentMap must be an object")
    if series.get("pngMask"):
        raise RedBrickInputError("PNG masks cannot be sent; convert them to NIfTI masks")
    segments = {instance: _groups(segment_map[key]) for instance, key in instance_keys(segment_map).items()}
    conflicts = sorted(segments.keys() & frozenset().union(*segments.values()))
    if conflicts:
        raise RedBrickInputError(
            f"segmentMap uses {conflicts[0]} both as a segment and as a group number of an overlap"
        )
    if not series.get("binaryMask"):
        if segments and not paths:
            raise RedBrickInputError("segmentMap requires a mask, but segmentations is missing")
        return Segmentation(paths, {}, segments) if paths else None
    if not segments and not paths:
        return None
    return Segmentation(*_binary(paths, segment_map), segments)


def _binary(paths: Sequence[str], segment_map: Mapping[Any, Any]) -> tuple[tuple[str, ...], dict[str, int]]:
    """Return the files that hold one instance each, and the instance of each file."""
    instance_of: dict[str, int] = {}
    for key, segment in segment_map.items():
        masks = _paths(segment.get("mask")) if isinstance(segment, Mapping) else ()
        if not masks:
            raise RedBrickInputError(f"segmentMap[{key}] requires its own mask, since binaryMask is true")
        for mask in masks:
            if mask in instance_of:
                raise RedBrickInputError(
                    f"{mask!r} is the mask of two segments, but with binaryMask each segment requires its own"
                )
            instance_of[mask] = _instance(key)
    unassigned = [path for path in paths if path not in instance_of]
    if unassigned:
        raise RedBrickInputError(f"segmentations contains {unassigned[0]!r}, which is not the mask of any segment")
    return tuple(instance_of), instance_of


def _paths(value: Any) -> tuple[str, ...]:
    values = [value] if isinstance(value, str) else value or ()
    if not isinstance(values, (list, tuple)) or not all(isinstance(path, str) for path in values):
        raise RedBrickInputError("masks must be a path or a list of paths")
    broken = next(filter(has_line_break, values), None)
    if broken is not None:
        raise RedBrickInputError(f"masks must be paths without line breaks, not {broken!r}")
    return tuple(dict.fromkeys(values))


def instance_keys(segment_map: Mapping[Any, Any]) -> dict[int, Any]:
    """Return the keys of a segment map by the voxel value they denote.

    :raises RedBrickInputError: if a key denotes no value, or two keys the same value.
    """
    keys: dict[int, Any] = {}
    for key in segment_map:
        instance = _instance(key)
        if instance in keys:
            raise RedBrickInputError(
                f"segmentMap has the keys {keys[instance]!r} and {key!r}, which both denote the value {instance}"
            )
        keys[instance] = key
    return keys


def _instance(key: Any) -> int:
    instance = mask_value(key)
    if instance is None:
        raise RedBrickInputError(
            f"segmentMap[{name_of(key)}]: a key must be a whole number from 1 to {LARGEST_INSTANCE}"
        )
    return instance


def _groups(segment: Any) -> frozenset[int]:
    groups = segment.get("overlappingGroups") if isinstance(segment, Mapping) else None
    groups = () if groups is None else groups
    values = [mask_value(group) for group in groups] if is_list(groups) else [None]
    if None in values:
        raise RedBrickInputError(f"overlappingGroups must be a list of whole numbers from 1 to {LARGEST_INSTANCE}")
    return frozenset(value for value in values if value is not None)


def without_entry(values: Iterable[int], segments: Mapping[int, frozenset[int]]) -> list[int]:
    """Return the voxel values that the segment map does not explain.

    :param values: the values in the mask.
    :param segments: the instances, each with the group numbers of its overlaps.
    """
    known = set(segments).union(*segments.values())
    return sorted(set(values) - known)


@dataclass
class Layers:
    """Merge masks, one at a time.

    :param shape: the shape of the volume.
    :param segments: see :class:`Segmentation`; group numbers of new overlaps are added.
    :param taken: the values in any of the masks, which no new group number may repeat.
    """

    shape: tuple[int, ...]
    segments: dict[int, frozenset[int]]
    taken: set[int]
    voxels: Voxels = field(init=False)

    def __post_init__(self) -> None:
        import numpy as np

        # NIfTI order: the first axis varies fastest.
        self.voxels = np.zeros(self.shape, np.uint16, order="F")
        self._members: dict[int, frozenset[int]] = {}
        for instance, groups in self.segments.items():
            for group in groups:
                self._members[group] = self._members.get(group, frozenset()) | {instance}
        self._group_of = {members: group for group, members in self._members.items()}
        self._next = 1

    def lay(self, places: npt.NDArray[np.intp], values: Voxels) -> None:
        """Merge one mask into the volume.

        :param places: the voxels that the mask covers, as flat indices; the first axis varies fastest.
        :param values: the value of each of these voxels; none is 0.
        """
        import numpy as np

        flat = self.voxels.reshape(-1, order="F")
        current = flat[places]
        is_free = (current == 0) | (current == values)
        flat[places[is_free]] = values[is_free]
        overlapping, old_values, new_values = places[~is_free], current[~is_free], values[~is_free]
        # Voxels with the same pair of values get the same result.
        pairs, pair_index = np.unique(old_values.astype(np.uint32) << 16 | new_values, return_inverse=True)
        for i, pair in enumerate(pairs.tolist()):
            flat[overlapping[pair_index == i]] = self._overlap_value(pair >> 16, pair & 0xFFFF)

    def _overlap_value(self, first: int, second: int) -> int:
        """Return the value for voxels where two values overlap."""
        first_members = self._members.get(first, frozenset({first}))
        members = first_members | self._members.get(second, frozenset({second}))
        if members == first_members:
            return first
        if members not in self._group_of:
            self._assign_group(members)
        return self._group_of[members]

    def _assign_group(self, members: frozenset[int]) -> None:
        """Assign an unused group number to an overlap, and add it to its instances."""
        while self._next in self.taken or self._next in self.segments or self._next in self._members:
            self._next += 1
        if self._next > LARGEST_INSTANCE:
            raise RedBrickInputError(f"masks overlap in more ways than there are group numbers ({LARGEST_INSTANCE})")
        self._members[self._next], self._group_of[members] = members, self._next
        for instance in members:
            self.segments[instance] = self.segments.get(instance, frozenset()) | {self._next}
