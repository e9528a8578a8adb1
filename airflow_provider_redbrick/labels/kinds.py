"""Required and optional fields of each label type in the `series` format.

Units: image coordinates are fractions of the image's width and height; voxel coordinates are columns, rows and slices;
world coordinates and lengths are millimeters.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from numbers import Real
from typing import Any

from airflow_provider_redbrick.labels.rules import (
    TOLERANCE,
    Rule,
    Violations,
    anything,
    comment,
    count,
    each,
    finite,
    flag,
    is_number,
    is_whole,
    mapping,
    number,
    paths,
    paths_or_none,
    record,
    share,
    size,
    text,
)

LARGEST_INSTANCE = 65535
_MASK_VALUE = re.compile(r"[0-9]{1,20}(?:\.0{1,20})?")


def mask_value(key: object) -> int | None:
    """Return the voxel value that a key of a segment map denotes.

    :param key: a whole number of any type, or its text: ``1``, ``1.0``, numpy's 1, ``"1"``, ``"1.0"``.
        Booleans are refused.
    :return: a value from 1 to 65535; None if the key denotes none.
    """
    if isinstance(key, bool):
        return None
    number: Any = 0
    if isinstance(key, str):
        number = key.partition(".")[0] if _MASK_VALUE.fullmatch(key) else 0
    elif isinstance(key, (Real, Decimal)):
        number = key if is_whole(key) else 0
    value = int(number)
    return value if 1 <= value <= LARGEST_INSTANCE else None


@dataclass(frozen=True)
class Kind:
    """One label type.

    :param label_type: the type's name in the taxonomy; empty for classifications, which have no category.
    :param required: the rules of required fields.
    :param optional: the rules of optional fields.
    :param together: checks fields that depend on each other.
    :param said_in: the key that holds the attributes.
    """

    label_type: str
    required: Mapping[str, Rule]
    optional: Mapping[str, Rule]
    together: Callable[[Mapping[str, Any]], Violations] = anything
    said_in: str = "attributes"
    rule: Rule = field(init=False)

    def __post_init__(self) -> None:
        # Category and attributes depend on the taxonomy and are validated separately.
        common: dict[str, Rule] = {"id": text, "group": text, "readOnly": flag, "comment": comment}
        if self.said_in == "attributes":
            common |= {"category": anything, "attributes": anything}
        object.__setattr__(self, "rule", record(self.required, {**self.optional, **common}))


_IMAGE_POINT = record({"xNorm": share, "yNorm": share})
_VOXEL = record({"i": number, "j": number, "k": number})
_WORLD = record({"x": number, "y": number, "z": number})
_NORMAL = each(number, exactly=3, what="numbers")

_VIDEO: dict[str, Rule] = {
    "video": record(
        {},
        {
            "frameIndex": count,
            "trackId": text,
            "keyFrame": flag,
            "endTrack": flag,
            "seriesItemIndex": count,
            "seriesFrameIndex": count,
        },
    )
}
_STATS: dict[str, Rule] = {
    "stats": record(
        {},
        {
            "average": number,
            "minimum": number,
            "maximum": number,
            "area": number,
            "volume": number,
            "intensityunit": text,
        },
    )
}


def _inside(label: Mapping[str, Any]) -> Violations:
    """Check that a box lies within the image."""
    corner = label.get("pointTopLeft")
    for side, axis in (("wNorm", "xNorm"), ("hNorm", "yNorm")):
        start, length = corner.get(axis) if isinstance(corner, Mapping) else None, label.get(side)
        if is_number(start) and is_number(length) and 0 <= start <= 1 and length >= 0:
            end = start + length
            if end > 1 + TOLERANCE:
                yield side, f"the box leaves the image: {axis} plus {side} must be at most 1, not {end:.9g}"


def _one_of_pairs(*pairs: tuple[str, ...]) -> Callable[[Mapping[str, Any]], Violations]:
    """Return a check that at least one set of fields is complete."""

    def located(label: Mapping[str, Any]) -> Violations:
        if not any(all(label.get(name) is not None for name in pair) for pair in pairs):
            yield "", f"needs {', or '.join(' and '.join(pair) for pair in pairs)}"

    return located


def _finite_objects(value: Any) -> Violations:
    yield from _OBJECTS(value)
    yield from finite(value)


_OBJECTS = each(mapping)
LANDMARK = Kind("POINT", {"point": _IMAGE_POINT}, _VIDEO)
LANDMARK_3D = Kind(
    "POINT", {}, {"point": _VOXEL, "absolutePoint": _WORLD}, _one_of_pairs(("point",), ("absolutePoint",))
)
LENGTH = Kind(
    "LENGTH",
    {"type": text, "point1": _VOXEL, "point2": _VOXEL, "normal": _NORMAL},
    {"absolutePoint1": _WORLD, "absolutePoint2": _WORLD, "length": size},
)
ANGLE = Kind(
    "ANGLE",
    {"type": text, "point1": _VOXEL, "vertex": _VOXEL, "point2": _VOXEL, "normal": _NORMAL},
    {"absolutePoint1": _WORLD, "absoluteVertex": _WORLD, "absolutePoint2": _WORLD, "angle": number},
)
BOUNDING_BOX = Kind("BBOX", {"pointTopLeft": _IMAGE_POINT, "wNorm": size, "hNorm": size}, {**_VIDEO, **_STATS}, _inside)
ELLIPSE = Kind(
    "ELLIPSE",
    {"pointCenter": _IMAGE_POINT, "xRadiusNorm": size, "yRadiusNorm": size, "rotationRad": number},
    {**_VIDEO, **_STATS},
)
POLYGON = Kind("POLYGON", {"points": each(_IMAGE_POINT, least=3, what="points")}, {**_VIDEO, **_STATS})
POLYLINE = Kind("POLYLINE", {"points": each(_IMAGE_POINT, least=2, what="points")}, _VIDEO)
CUBOID = Kind(
    "CUBOID",
    {},
    {"point1": _VOXEL, "point2": _VOXEL, "absolutePoint1": _WORLD, "absolutePoint2": _WORLD, **_STATS},
    _one_of_pairs(("point1", "point2"), ("absolutePoint1", "absolutePoint2")),
)
SEGMENT = Kind("SEGMENTATION", {}, {"mask": paths, "overlappingGroups": each(count)})
CLASSIFICATION = Kind("", {}, _VIDEO)
INSTANCE_CLASSIFICATION = Kind("", {"fileIndex": count, "values": anything}, {"fileName": text}, said_in="values")

MEASUREMENTS = {"length": LENGTH, "angle": ANGLE}
LISTED: dict[str, Kind | Mapping[str, Kind]] = {
    "landmarks": LANDMARK,
    "landmarks3d": LANDMARK_3D,
    "measurements": MEASUREMENTS,
    "boundingBoxes": BOUNDING_BOX,
    "ellipses": ELLIPSE,
    "polygons": POLYGON,
    "polylines": POLYLINE,
    "cuboids": CUBOID,
    "classifications": CLASSIFICATION,
    "instanceClassifications": INSTANCE_CLASSIFICATION,
}
"""Label types by the list that holds them; measurements also by their type."""

OF_SERIES: dict[str, Rule] = {
    "segmentations": paths_or_none,
    "binaryMask": flag,
    "semanticMask": flag,
    "pngMask": flag,
    "heatMaps": _finite_objects,
    "transforms": _finite_objects,
    "centerline": _finite_objects,
}
"""Fields of a series besides its labels."""

NOT_SENT = frozenset({"name", "items", "metaData", "imageHeaders"})
"""Fields that describe the series itself; the task's own values apply, so they are not sent."""
