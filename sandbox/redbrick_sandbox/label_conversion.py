"""Convert each label kind of the `series` format to a flat label.

A flat label refers to its series by `volumeindex` and to an item by its index in the whole task.

Each read of a value validates it. An invalid value is noted with its location and read as None, so that one pass finds
all problems.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


Flat = dict[str, Any]

_PIXEL = ("xNorm", "yNorm")
_VOXEL = ("i", "j", "k")
_WORLD = ("x", "y", "z")
_STATS = ("average", "minimum", "maximum", "area", "volume", "intensityunit")
ROOT = "object"  # the name of the root in category paths of the old taxonomies
LARGEST_INSTANCE = 65535


@dataclass(frozen=True)
class Series:
    """Position of a series in its task.

    `index` is the series' own index; `items` are the indices of its items in the whole task.
    """

    index: int
    items: Sequence[int]


def series_labels(look: Look, series: Series) -> list[Flat]:
    """Convert the labels of one series, except its segmentations, to flat labels.

    :param look: the series.
    :param series: its position in the task.
    """
    flats: list[Flat] = []
    for key, kind in _KINDS.items():
        for label in look.each(key):
            flat: Flat = {"volumeindex": series.index}
            flat |= _common(label, category=key not in _CLASSIFICATIONS)
            flat |= kind(label)
            if key in _WITH_VIDEO:
                flat |= _video(label, series)
            if key in _WITH_STATS:
                flat |= _stats(label)
            label.leftovers()
            flats.append(_without_none(flat))
    return flats


def study_label(look: Look) -> Flat:
    """Convert the classification of a task to a flat label."""
    flat = {**_common(look, category=False), "studyclassify": True}
    look.leftovers()
    return _without_none(flat)


def segment_labels(look: Look, series: Series) -> tuple[list[Flat], dict[str, Any]]:
    """Convert a `segmentMap` to flat labels.

    :param look: the series.
    :param series: its position in the task.
    :return: one flat label per instance, and the mask files by instance id.
    """
    flats: list[Flat] = []
    masks: dict[str, Any] = {}
    segments = look.inside("segmentMap")
    for key, value in (segments.value if segments else {}).items():
        at = f"{look.at}.segmentMap[{key!r}]"
        if not key.isdecimal() or not 1 <= int(key) <= LARGEST_INSTANCE:
            look.problems.note(at, f"a mask's values are whole numbers from 1 to {LARGEST_INSTANCE}")
            continue
        segment = Look(value if isinstance(value, dict) else {"category": value}, at, look.problems)
        groups = segment.of("overlappingGroups", is_list, "a list of numbers")
        mask = segment.of("mask", is_paths, "a path or a list of paths")
        if mask is not None:
            masks[key] = mask
        flat = {"volumeindex": series.index, **_common(segment, category=True)}
        flat["dicom"] = {"instanceid": int(key), "groupids": groups}
        segment.leftovers()
        flats.append(_without_none(flat))
    return flats, masks


def _common(look: Look, *, category: bool) -> Flat:
    flat: Flat = {}
    found = look.raw("category")
    if found is None and category:
        look.problems.note(f"{look.at}.category", "missing; a name, a path of names or a class id is needed")
    elif found is not None:
        flat |= _category(look, found)
    flat["attributes"] = attributes(look, "attributes")
    flat["labelid"] = look.text("id")
    flat["linkid"] = look.text("group")
    flat["readonly"] = look.flag("readOnly")
    look.skip("comment")
    return flat


def _category(look: Look, found: Any) -> Flat:
    if is_text(found):
        return {"category": found}
    if isinstance(found, int) and not isinstance(found, bool):
        return {"classid": found}
    if isinstance(found, list) and found and all(map(is_text, found)):
        return {"category": found[0] if len(found) == 1 else [[ROOT, *found]]}
    look.problems.note(f"{look.at}.category", "a name, a path of names or a class id is needed")
    return {}


def attributes(look: Look, key: str) -> list[Flat]:
    """Convert an object of attributes to the stored list of names and values.

    :param look: the label that has the attributes.
    :param key: the key of the attributes in the label.
    """
    inner = look.inside(key)
    pairs: list[Flat] = []
    for name, value in (inner.value if inner else {}).items():
        fits = isinstance(value, (bool, str)) or is_number(value)
        if not fits and not (isinstance(value, list) and all(isinstance(each, str) for each in value)):
            look.problems.note(f"{look.at}.{key}[{name!r}]", "text, a number, true/false or a list of texts")
            continue
        pairs.append({"name": name, "value": value})
    return pairs


def _video(look: Look, series: Series) -> Flat:
    video = look.inside("video")
    if video is None:
        return {}
    item = video.integer("seriesItemIndex")
    if item is not None and item < len(series.items):
        item = series.items[item]
    flat = {
        "frameindex": video.integer("frameIndex"),
        "trackid": video.of("trackId", lambda value: isinstance(value, str), "text"),
        "keyframe": video.flag("keyFrame"),
        "end": video.flag("endTrack"),
        "globalitemsindex": item,
        "seriesframeindex": video.integer("seriesFrameIndex"),
    }
    video.leftovers()
    return flat


def _stats(look: Look) -> Flat:
    stats = look.inside("stats")
    if stats is None:
        return {}
    stats.skip(*_STATS)
    stats.leftovers()
    return {"stats": stats.value}


def _point(look: Look) -> Flat:
    found = look.coordinates("point", _PIXEL, required=True) or [None, None]
    return {"point": {"xnorm": found[0], "ynorm": found[1]}}


def _point3d(look: Look) -> Flat:
    voxel = look.coordinates("point", _VOXEL)
    world = look.coordinates("absolutePoint", _WORLD)
    if voxel is None and world is None:
        look.problems.note(look.at, "point or absolutePoint is needed")
    point = dict(zip(("pointx", "pointy", "pointz"), voxel or [None] * 3, strict=True))
    return {"point3d": {**point, "computedpointworld": world}}


def _measurement(look: Look) -> Flat:
    kind = look.of("type", lambda value: value in ("length", "angle"), "'length' or 'angle'", required=True)
    if kind is None:
        look.skip(*look.value)
        return {}
    point1 = look.coordinates("point1", _VOXEL, required=True)
    point2 = look.coordinates("point2", _VOXEL, required=True)
    world1 = look.coordinates("absolutePoint1", _WORLD)
    world2 = look.coordinates("absolutePoint2", _WORLD)
    normal = look.numbers("normal", 3, required=True)
    if kind == "length":
        return {
            "length3d": {
                "point1": point1,
                "point2": point2,
                "normal": normal,
                "computedpoint1world": world1,
                "computedpoint2world": world2,
                "computedlength": look.number("length"),
            }
        }
    # The points are stored in drawing order: the vertex is the second of three.
    return {
        "angle3d": {
            "point1": point1,
            "point2": look.coordinates("vertex", _VOXEL, required=True),
            "point3": point2,
            "normal": normal,
            "computedpoint1world": world1,
            "computedpoint2world": look.coordinates("absoluteVertex", _WORLD),
            "computedpoint3world": world2,
            "computedangledeg": look.number("angle"),
        }
    }


def _ellipse(look: Look) -> Flat:
    center = look.coordinates("pointCenter", _PIXEL, required=True) or [None, None]
    return {
        "ellipse": {
            "xcenternorm": center[0],
            "ycenternorm": center[1],
            "xnorm": look.number("xRadiusNorm", required=True),
            "ynorm": look.number("yRadiusNorm", required=True),
            "rot": look.number("rotationRad", required=True),
        }
    }


def _box(look: Look) -> Flat:
    corner = look.coordinates("pointTopLeft", _PIXEL, required=True) or [None, None]
    return {
        "bbox2d": {
            "xnorm": corner[0],
            "ynorm": corner[1],
            "wnorm": look.number("wNorm", required=True),
            "hnorm": look.number("hNorm", required=True),
        }
    }


def _cuboid(look: Look) -> Flat:
    voxels = [look.coordinates(key, _VOXEL) for key in ("point1", "point2")]
    worlds = [look.coordinates(key, _WORLD) for key in ("absolutePoint1", "absolutePoint2")]
    if None in voxels and None in worlds:
        look.problems.note(look.at, "point1 and point2, or absolutePoint1 and absolutePoint2, are needed")
    return {
        "cuboid": {
            "point1": voxels[0],
            "point2": voxels[1],
            "computedpoint1world": worlds[0],
            "computedpoint2world": worlds[1],
        }
    }


def _points(key: str, least: int) -> Callable[[Look], Flat]:
    def convert(look: Look) -> Flat:
        points = look.each("points")
        if len(points) < least:
            look.problems.note(f"{look.at}.points", f"at least {least} points are needed")
        flat = []
        for point in points:
            flat.append({name.lower(): point.number(name, required=True) for name in _PIXEL})
            point.leftovers()
        return {key: flat}

    return convert


def _series_class(_look: Look) -> Flat:
    return {"seriesclassify": True}


def _instance_class(look: Look) -> Flat:
    look.skip("fileName")
    return {
        "instanceclassify": True,
        "frameindex": look.integer("fileIndex", required=True),
        "attributes": attributes(look, "values"),
    }


_KINDS: dict[str, Callable[[Look], Flat]] = {
    "landmarks": _point,
    "landmarks3d": _point3d,
    "measurements": _measurement,
    "ellipses": _ellipse,
    "boundingBoxes": _box,
    "cuboids": _cuboid,
    "polygons": _points("polygon", 3),
    "polylines": _points("polyline", 2),
    "classifications": _series_class,
    "instanceClassifications": _instance_class,
}
KINDS = frozenset(_KINDS)
_CLASSIFICATIONS = frozenset({"classifications", "instanceClassifications"})
_WITH_VIDEO = frozenset({"landmarks", "ellipses", "boundingBoxes", "polygons", "polylines", "classifications"})
_WITH_STATS = frozenset({"ellipses", "boundingBoxes", "cuboids", "polygons"})


def _without_none(flat: Flat) -> Flat:
    return {
        key: _without_none(value) if isinstance(value, dict) else value
        for key, value in flat.items()
        if value is not None
    }


class Problems(list[str]):
    """Problems of a document, each with its location."""

    def note(self, at: str, problem: str) -> None:
        """Add a problem.

        :param at: location of the problem.
        :param problem: description of the problem.
        """
        self.append(f"{at}: {problem}")


class Look:
    """A JSON object at a location in a document.

    :param value: the object. Another type is noted as a problem.
    :param at: its location, for messages.
    :param problems: list to which problems are added.
    """

    def __init__(self, value: Any, at: str, problems: Problems) -> None:
        self.at = at
        self.problems = problems
        self._read_keys: set[str] = set()
        self.value: dict[str, Any] = value if isinstance(value, dict) else {}
        if not isinstance(value, dict):
            problems.note(at, f"an object is needed, not {describe(value)}")

    def raw(self, key: str) -> Any:
        """Return a value without validation; None if it is absent or null."""
        # Fast path: most keys are absent.
        if key not in self.value:
            return None
        self._read_keys.add(key)
        return self.value[key]

    def skip(self, *keys: str) -> None:
        """Accept keys without reading them."""
        self._read_keys.update(keys)

    def leftovers(self) -> None:
        """Note each key that was neither read nor skipped as unknown."""
        for key in self.value:
            if key not in self._read_keys:
                self.problems.note(self.at, f"unknown key {key!r}")

    def of(self, key: str, fits: Callable[[Any], bool], wanted: str, *, required: bool = False) -> Any:
        """Return a value that passes a check; None if it is absent or invalid.

        :param key: key of the value.
        :param fits: the check.
        :param wanted: description of valid values, for messages.
        :param required: whether an absent value is a problem.
        """
        value = self.raw(key)
        if value is None:
            if required:
                self.problems.note(f"{self.at}.{key}", f"missing; {wanted} is needed")
            return None
        if not fits(value):
            self.problems.note(f"{self.at}.{key}", f"{wanted} is needed, not {describe(value)}")
            return None
        return value

    def number(self, key: str, *, required: bool = False) -> Any:
        """Return a finite number.

        :param key: key of the value.
        :param required: whether an absent value is a problem.
        """
        return self.of(key, is_number, "a number", required=required)

    def integer(self, key: str, *, required: bool = False) -> Any:
        """Return a non-negative integer.

        :param key: key of the value.
        :param required: whether an absent value is a problem.
        """
        return self.of(key, is_index, "a whole number from 0", required=required)

    def text(self, key: str, *, required: bool = False) -> Any:
        """Return non-empty text.

        :param key: key of the value.
        :param required: whether an absent value is a problem.
        """
        return self.of(key, is_text, "text", required=required)

    def flag(self, key: str) -> Any:
        """Return a boolean."""
        return self.of(key, is_flag, "true or false")

    def inside(self, key: str, *, required: bool = False) -> Look | None:
        """Return a nested object; None if it is absent.

        :param key: key of the object.
        :param required: whether an absent object is a problem.
        """
        value = self.raw(key)
        if value is None:
            if required:
                self.problems.note(f"{self.at}.{key}", "missing; an object is needed")
            return None
        return Look(value, f"{self.at}.{key}", self.problems)

    def each(self, key: str) -> list[Look]:
        """Return the objects of a list; none if it is absent."""
        found = self.of(key, is_list, "a list")
        if not found:
            return []
        return [Look(value, f"{self.at}.{key}[{index}]", self.problems) for index, value in enumerate(found)]

    def coordinates(self, key: str, names: tuple[str, ...], *, required: bool = False) -> list[Any] | None:
        """Return the coordinates of a point; None if it is absent.

        :param key: key of the point.
        :param names: names of its coordinates. The result has their order.
        :param required: whether an absent point is a problem.
        """
        inner = self.inside(key, required=required)
        if inner is None:
            return None
        values = [inner.number(name, required=True) for name in names]
        inner.leftovers()
        return values

    def numbers(self, key: str, count: int, *, required: bool = False) -> Any:
        """Return a list of numbers.

        :param key: key of the list.
        :param count: required length.
        :param required: whether an absent list is a problem.
        """
        return self.of(
            key,
            lambda value: isinstance(value, list) and len(value) == count and all(map(is_number, value)),
            f"a list of {count} numbers",
            required=required,
        )


def is_number(value: Any) -> bool:
    """Return whether a value is a finite number. Booleans are not numbers."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def is_index(value: Any) -> bool:
    """Return whether a value is a non-negative integer."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def is_text(value: Any) -> bool:
    """Return whether a value is non-empty text."""
    return isinstance(value, str) and bool(value)


def is_flag(value: Any) -> bool:
    """Return whether a value is a boolean."""
    return isinstance(value, bool)


def is_list(value: Any) -> bool:
    """Return whether a value is a list."""
    return isinstance(value, list)


def is_object(value: Any) -> bool:
    """Return whether a value is an object."""
    return isinstance(value, dict)


def is_paths(value: Any) -> bool:
    """Return whether a value is a path or a non-empty list of paths."""
    return is_text(value) or (isinstance(value, list) and bool(value) and all(map(is_text, value)))


def describe(value: Any) -> str:
    """Describe a value for a message, in at most 40 characters."""
    if value is None:
        return "null"
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else "a list"
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
