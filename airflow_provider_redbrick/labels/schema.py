"""Define and validate label fields with composable rules.

A rule takes a value and yields one pair for each violation: the place within the value (``points[1].xNorm``, or an
empty string for the value itself) and what must change. A rule yields nothing for a valid value and never raises.

Units: image coordinates are fractions of the image's width and height; voxel coordinates are columns, rows and slices;
world coordinates and lengths are millimeters.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from numbers import Real
from typing import Any, TypeGuard

from airflow_provider_redbrick.exceptions import has_line_break
from airflow_provider_redbrick.labels.taxonomy import suggestion

Violations = Iterator[tuple[str, str]]
Rule = Callable[[Any], Violations]

TOLERANCE = 1e-6
"""How far a coordinate may lie outside of the image, to allow for rounding."""

_MAX_SHOWN_CHARACTERS = 60
_KINDS: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (bool, "true or false"),
    (str, "text"),
    ((int, float), "a number"),
    (Mapping, "an object"),
    ((list, tuple), "a list"),
    (type(None), "null"),
)


def shown(value: object) -> str:
    """Format a value for messages: short scalars as JSON, others by their type."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, (str, float)):
        text = repr(value)
        return text if len(text) <= _MAX_SHOWN_CHARACTERS else f"{text[:_MAX_SHOWN_CHARACTERS]}..."
    if isinstance(value, int):
        return str(value) if abs(value) < 10**20 else "a huge number"
    return next((description for kind, description in _KINDS if isinstance(value, kind)), type(value).__name__)


def name_of(key: object) -> str:
    """Format an object key for messages."""
    return key[:_MAX_SHOWN_CHARACTERS] if isinstance(key, str) else shown(key)


def is_number(value: object) -> TypeGuard[int | float]:
    """Return whether a value is a finite number; booleans are not numbers."""
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool) and not _is_infinite(value)


def is_whole(number: Any) -> bool:
    """Return whether a number of any type has no fraction; False for infinity and NaN."""
    try:
        return bool(number == int(number))
    except (ValueError, OverflowError):
        return False


def is_list(value: object) -> TypeGuard[Sequence[Any]]:
    """Return whether a value becomes a list in JSON."""
    return isinstance(value, (list, tuple))


def join(place: str, inner: str) -> str:
    """Join a place and a place within it.

    :param place: the outer place, e.g. ``points[1]``.
    :param inner: the inner place, e.g. ``xNorm`` or ``[0]``.
    """
    return f"{place}.{inner}" if place and inner and not inner.startswith("[") else f"{place}{inner}"


# ------------------------------------------------------------------ single values


def must_be(expected: str, accepts: Callable[[Any], bool]) -> Rule:
    """Return a rule for values that satisfy a predicate.

    :param expected: the expected value, for messages.
    :param accepts: the predicate.
    """

    def rule(value: Any) -> Violations:
        if not accepts(value):
            yield "", f"must be {expected}, not {shown(value)}"

    return rule


def number(value: Any) -> Violations:
    """Check that a value is a finite number."""
    if _is_infinite(value):
        yield "", f"must be finite, not {shown(value)}"
    elif not is_number(value):
        yield "", f"must be a number, not {shown(value)}"


def image_fraction(value: Any) -> Violations:
    """Check a coordinate: a fraction of the image's width or height."""
    if not is_number(value):
        yield from number(value)
    elif not -TOLERANCE <= value <= 1 + TOLERANCE:
        yield "", f"must be a fraction of the image from 0 to 1, not {shown(value)}"


def size(value: Any) -> Violations:
    """Check that a value is a number of at least 0, as for a width or radius."""
    if not is_number(value):
        yield from number(value)
    elif value < 0:
        yield "", f"must not be negative, but is {shown(value)}"


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_path(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _of_paths(expected: str, accepts: Callable[[Any], bool]) -> Rule:
    """Return a rule for file paths, which must not contain line breaks."""
    check_type = must_be(expected, accepts)

    def rule(value: Any) -> Violations:
        violations = list(check_type(value))
        yield from violations
        for name in () if violations else [value] if isinstance(value, str) else value:
            if has_line_break(name):
                yield "", f"must be {expected} without line breaks, not {shown(name)}"

    return rule


text = must_be("text", lambda value: isinstance(value, str))
flag = must_be("true or false", lambda value: isinstance(value, bool))
count = must_be("a whole number of at least 0", _is_count)
mapping = must_be("an object", lambda value: isinstance(value, Mapping))
path = _of_paths("a path", _is_path)
paths_or_none = _of_paths("a path or a list of paths", lambda v: _is_path(v) or (is_list(v) and all(map(_is_path, v))))
paths = _of_paths(
    "a path or a list of paths", lambda v: _is_path(v) or (is_list(v) and bool(v) and all(map(_is_path, v)))
)
comment = must_be(
    "text or an object with text", lambda v: isinstance(v.get("text") if isinstance(v, Mapping) else v, str)
)


def anything(_value: Any) -> Violations:
    """Accept any value; it is validated elsewhere."""
    return iter(())


def finite(value: Any) -> Violations:
    """Check that all numbers within a value are finite."""
    pending: list[tuple[str, Any]] = [("", value)]
    while pending:
        place, value = pending.pop()
        if isinstance(value, Mapping):
            pending.extend((join(place, name_of(key)), inner) for key, inner in value.items())
        elif is_list(value):
            pending.extend((join(place, f"[{i}]"), inner) for i, inner in enumerate(value))
        elif _is_infinite(value):
            yield place, f"must be finite, not {shown(value)}"


# ------------------------------------------------------------------ values made of values


def each(rule: Rule, *, least: int = 0, exactly: int | None = None, what: str = "entries") -> Rule:
    """Return a rule for lists whose elements follow one rule.

    :param rule: the rule of an element.
    :param least: the minimum length.
    :param exactly: the exact length; None for any.
    :param what: the plural noun for elements in messages.
    """

    def of_list(value: Any) -> Violations:
        if not is_list(value):
            yield "", f"must be a list, not {shown(value)}"
            return
        if exactly is not None and len(value) != exactly:
            yield "", f"must have {exactly} {what}, not {len(value)}"
        elif len(value) < least:
            yield "", f"must have at least {least} {what}, not {len(value)}"
        for i, element in enumerate(value):
            for inner_place, message in rule(element):
                yield join(f"[{i}]", inner_place), message

    return of_list


def record(required: Mapping[str, Rule], optional: Mapping[str, Rule] | None = None) -> Rule:
    """Return a rule for objects with these keys and no others; null means absent.

    :param required: the rules of required keys.
    :param optional: the rules of optional keys.
    """
    rules = {**required, **(optional or {})}

    def of_object(value: Any) -> Violations:
        if not isinstance(value, Mapping):
            yield "", f"must be an object, not {shown(value)}"
            return
        for key in required:
            if value.get(key) is None:
                yield key, "is missing"
        for key, inner in value.items():
            if key not in rules:
                yield unknown_key(key, rules)
            elif inner is not None:
                for inner_place, message in rules[key](inner):
                    yield join(key, inner_place), message

    return of_object


def unknown_key(key: object, known: Mapping[str, Any]) -> tuple[str, str]:
    """Return the place of an unknown key and an error message with a suggestion.

    :param key: the unknown key.
    :param known: the known keys.
    """
    return name_of(key), f"unknown key; {suggestion(name_of(key), known, 'keys')}"


def _is_infinite(value: object) -> bool:
    """Return whether a number is infinite, NaN, or beyond the range of floats."""
    if isinstance(value, int):
        return abs(value) > sys.float_info.max
    return isinstance(value, float) and not math.isfinite(value)


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
    :param check_fields: checks fields that depend on each other.
    :param attributes_key: the key that holds the attributes.
    """

    label_type: str
    required: Mapping[str, Rule]
    optional: Mapping[str, Rule]
    check_fields: Callable[[Mapping[str, Any]], Violations] = anything
    attributes_key: str = "attributes"
    rule: Rule = field(init=False)

    def __post_init__(self) -> None:
        # Category and attributes depend on the taxonomy and are validated separately.
        common: dict[str, Rule] = {"id": text, "group": text, "readOnly": flag, "comment": comment}
        if self.attributes_key == "attributes":
            common |= {"category": anything, "attributes": anything}
        object.__setattr__(self, "rule", record(self.required, {**self.optional, **common}))


_IMAGE_POINT = record({"xNorm": image_fraction, "yNorm": image_fraction})
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


def _box_within_image(label: Mapping[str, Any]) -> Violations:
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

    def has_complete_pair(label: Mapping[str, Any]) -> Violations:
        if not any(all(label.get(name) is not None for name in pair) for pair in pairs):
            yield "", f"needs {', or '.join(' and '.join(pair) for pair in pairs)}"

    return has_complete_pair


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
BOUNDING_BOX = Kind(
    "BBOX", {"pointTopLeft": _IMAGE_POINT, "wNorm": size, "hNorm": size}, {**_VIDEO, **_STATS}, _box_within_image
)
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
INSTANCE_CLASSIFICATION = Kind(
    "", {"fileIndex": count, "values": anything}, {"fileName": text}, attributes_key="values"
)

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
