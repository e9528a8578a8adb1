"""Label kinds: the one table that reading, counting and validating labels follow.

A label has two forms. In the `series` format it is an element of a list of its series, with the fields of its model. As
stored, it is an element of one flat list for the whole task, and one of its keys determines its kind.

Stored keys are lower-case and points in space are lists of three. The `series` format uses camel case and named axes.
Coordinates are unchanged, see :mod:`~airflow_provider_redbrick.labels.models`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.labels import models

if TYPE_CHECKING:
    from pydantic import BaseModel

    from airflow_provider_redbrick.labels.taxonomy import Attribute, Taxonomy

Fields = dict[str, Any]


class UnsupportedLabelError(ValueError):
    """A stored label has no equivalent in the `series` format."""


# ------------------------------------------------------------------ stored shapes


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


# ------------------------------------------------------------------ the table


@dataclass(frozen=True)
class Kind:
    """One kind of label.

    :param field: the field of a series, or of the task, that holds its labels.
    :param model: the fields of a label.
    :param stored: the keys of a stored label, each of which determines the kind.
    :param label_type: the name in the taxonomy; empty for classifications, which have no category.
    :param allowed: the attributes of a classification in the taxonomy.
    :param read: converts the stored shape to fields; raises UnsupportedLabelError. None if the label has no shape.
    """

    field: str
    model: type[BaseModel]
    stored: tuple[str, ...]
    label_type: str = ""
    allowed: Callable[[Taxonomy], Sequence[Attribute]] = lambda _taxonomy: ()
    read: Callable[[Any], Fields] | None = None

    @property
    def name(self) -> str:
        """Its name in messages."""
        return f"{self.field} of type {self.type}" if self.type else self.field

    @property
    def type(self) -> str:
        """The value of the field ``type``, where labels of several kinds are in one list."""
        field = self.model.model_fields.get("type")
        return "" if field is None else str(field.default)

    def has(self, field: str) -> bool:
        """Return whether its labels may have a field."""
        return field in self.model.model_fields


# A stored label is of the first kind of which it has a key.
KINDS = (
    Kind(
        "classification",
        models.Classification,
        ("studyclassify", "tasklevelclassify"),
        allowed=lambda taxonomy: taxonomy.task_attributes,
    ),
    Kind(
        "classifications",
        models.Classification,
        ("seriesclassify", "multiclassify"),
        allowed=lambda taxonomy: taxonomy.series_attributes,
    ),
    Kind(
        "instanceClassifications",
        models.InstanceClassification,
        ("instanceclassify",),
        allowed=lambda taxonomy: taxonomy.instance_attributes,
    ),
    Kind("segmentMap", models.Segment, ("dicom",), "SEGMENTATION"),
    Kind("measurements", models.Length, ("length3d",), "LENGTH", read=_length),
    Kind("measurements", models.Angle, ("angle3d",), "ANGLE", read=_angle),
    Kind("landmarks", models.Landmark, ("point",), "POINT", read=_landmark),
    Kind("landmarks3d", models.Landmark3D, ("point3d",), "POINT", read=_landmark3d),
    Kind("polylines", models.Polyline, ("polyline",), "POLYLINE", read=_line),
    Kind("ellipses", models.Ellipse, ("ellipse",), "ELLIPSE", read=_ellipse),
    Kind("boundingBoxes", models.BoundingBox, ("bbox2d",), "BBOX", read=_bounding_box),
    Kind("cuboids", models.Cuboid, ("cuboid",), "CUBOID", read=_cuboid),
    Kind("polygons", models.Polygon, ("polygon",), "POLYGON", read=_line),
)
CLASSIFICATION, SEGMENT = KINDS[0], KINDS[3]
LISTED: dict[str, tuple[Kind, ...]] = {
    field: tuple(kind for kind in KINDS if kind.field == field)
    for field in models.Series.model_fields
    if field != SEGMENT.field and any(kind.field == field for kind in KINDS)
}
"""Kinds by the list of the series that holds their labels."""

_BY_STORED_KEY = tuple((key, kind) for kind in KINDS for key in kind.stored)


def kind_of(stored: Mapping[str, Any]) -> Kind | None:
    """Return the kind of a stored label; None if it is unknown."""
    for key, kind in _BY_STORED_KEY:
        value = stored.get(key)
        if value and (kind is not SEGMENT or (isinstance(value, Mapping) and value.get("instanceid"))):
            return kind
    return None


def kind_in(field: str, label: Mapping[str, Any]) -> Kind | None:
    """Return the kind of a label in a list of its series; None if its type is unknown.

    :param field: the list, e.g. ``measurements``.
    :param label: the label.
    """
    kinds = LISTED[field]
    return kinds[0] if len(kinds) == 1 else next((kind for kind in kinds if kind.type == label.get("type")), None)
