"""Convert stored shapes and measurements to the fields of the `series` format.

Stored keys are lower-case and points in space are lists of three. The `series` format uses camel case and named axes.
Coordinates are unchanged: image coordinates are fractions of width and height (0..1), voxel coordinates are columns,
rows and slices, world coordinates and lengths are millimeters, and angles are degrees (an ellipse's rotation: radians,
clockwise).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Fields = dict[str, Any]


class UnsupportedLabelError(ValueError):
    """A stored label has no equivalent in the `series` format."""


@dataclass(frozen=True)
class Shape:
    """One label type.

    :param stored: the stored key that holds the label.
    :param listed: the list of the series that it belongs to.
    :param read: converts the stored value to fields; raises UnsupportedLabelError.
    :param label_type: the type's name in the taxonomy.
    :param video: whether the label has video fields.
    :param stats: whether the label has statistics.
    """

    stored: str
    listed: str
    read: Callable[[Any], Fields]
    label_type: str
    video: bool = False
    stats: bool = False


def _length(stored: Any) -> Fields:
    return {
        "type": "length",
        **_required(stored, _voxel, point1="point1", point2="point2"),
        "normal": _field(stored, "normal"),
        **_optional(stored, _world, absolutePoint1="computedpoint1world", absolutePoint2="computedpoint2world"),
        **_optional(stored, _number, length="computedlength"),
    }


def _angle(stored: Any) -> Fields:
    # The points are stored in the order in which they were drawn, so the second one is the vertex.
    return {
        "type": "angle",
        **_required(stored, _voxel, point1="point1", vertex="point2", point2="point3"),
        "normal": _field(stored, "normal"),
        **_optional(
            stored,
            _world,
            absolutePoint1="computedpoint1world",
            absoluteVertex="computedpoint2world",
            absolutePoint2="computedpoint3world",
        ),
        **_optional(stored, _number, angle="computedangledeg"),
    }


def _landmark(stored: Any) -> Fields:
    return {"point": _image_point(stored)}


def _landmark3d(stored: Any) -> Fields:
    voxel = [_field(stored, f"point{axis}") for axis in "xyz"]
    fields = _optional(stored, _world, absolutePoint="computedpointworld")
    # An incomplete voxel is no point, but the world coordinates may still locate it.
    if all(coordinate is not None for coordinate in voxel):
        fields["point"] = _voxel(voxel)
    return _require_location(fields)


def _line(stored: Any) -> Fields:
    return {"points": [_image_point(point) for point in _sequence(stored)]}


def _ellipse(stored: Any) -> Fields:
    return {
        "pointCenter": _required(stored, _number, xNorm="xcenternorm", yNorm="ycenternorm"),
        **_required(stored, _number, xRadiusNorm="xnorm", yRadiusNorm="ynorm", rotationRad="rot"),
    }


def _bounding_box(stored: Any) -> Fields:
    return {"pointTopLeft": _image_point(stored), **_required(stored, _number, wNorm="wnorm", hNorm="hnorm")}


def _cuboid(stored: Any) -> Fields:
    return _require_location(
        {
            **_optional(stored, _voxel, point1="point1", point2="point2"),
            **_optional(stored, _world, absolutePoint1="computedpoint1world", absolutePoint2="computedpoint2world"),
        }
    )


# The first of these keys that a label has determines its type.
SHAPES = (
    Shape("length3d", "measurements", _length, "LENGTH"),
    Shape("angle3d", "measurements", _angle, "ANGLE"),
    Shape("point", "landmarks", _landmark, "POINT", video=True),
    Shape("point3d", "landmarks3d", _landmark3d, "POINT"),
    Shape("polyline", "polylines", _line, "POLYLINE", video=True),
    Shape("ellipse", "ellipses", _ellipse, "ELLIPSE", video=True, stats=True),
    Shape("bbox2d", "boundingBoxes", _bounding_box, "BBOX", video=True, stats=True),
    Shape("cuboid", "cuboids", _cuboid, "CUBOID", stats=True),
    Shape("polygon", "polygons", _line, "POLYGON", video=True, stats=True),
)


def _required(stored: Any, read: Callable[[Any], Any], **names: str) -> Fields:
    """Read required fields; `names` maps each field to its stored key."""
    return {field: read(_field(stored, key)) for field, key in names.items()}


def _optional(stored: Any, read: Callable[[Any], Any], **names: str) -> Fields:
    """Read optional fields, which are null or empty until the editor computes them."""
    values = {field: _field(stored, key) for field, key in names.items()}
    return {field: read(value) for field, value in values.items() if value is not None and value != []}


def _require_location(fields: Fields) -> Fields:
    if not fields:
        raise UnsupportedLabelError("no location")
    return fields


def _field(stored: Any, key: str) -> Any:
    if not isinstance(stored, Mapping):
        raise UnsupportedLabelError("not an object")
    return stored.get(key)


def _number(value: Any) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UnsupportedLabelError("not a number")
    return value


def _image_point(stored: Any) -> Fields:
    return _required(stored, _number, xNorm="xnorm", yNorm="ynorm")


def _voxel(stored: Any) -> Fields:
    return _axes(stored, "ijk")


def _world(stored: Any) -> Fields:
    return _axes(stored, "xyz")


def _axes(stored: Any, axes: str) -> Fields:
    values = _sequence(stored)
    if len(values) != len(axes):
        raise UnsupportedLabelError("not three coordinates")
    return {axis: _number(value) for axis, value in zip(axes, values, strict=True)}


def _sequence(stored: Any) -> Sequence[Any]:
    if not isinstance(stored, list | tuple):
        raise UnsupportedLabelError("not a list")
    return stored
