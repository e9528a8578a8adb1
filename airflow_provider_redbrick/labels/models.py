"""Labels as models: what a labeler may return, and what is validated before labels are sent.

Fields have RedBrick's own names (``pointTopLeft``, ``wNorm``): the names of exports, of the public SDK's types, of JSON
Schema and of error messages. A model and a mapping with the same content are the same labels.

Units: image coordinates are fractions of the image's width and height; voxel coordinates are columns, rows and slices;
world coordinates and lengths are millimeters; angles are degrees, but rotations radians.

Categories, attributes and options depend on the project's taxonomy, and are validated when labels are sent. Import this
module where labels are made, such as in the labeler's own module: a DAG file that imports it takes longer to parse.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import CoreSchema, core_schema

from airflow_provider_redbrick.labels.fields import (
    TOLERANCE,
    Category,
    Comment,
    Count,
    Flag,
    ImageFraction,
    InputModel,
    Instance,
    Masks,
    Number,
    SegmentMasks,
    Size,
    Text,
    Violation,
    infinite_places,
    mask_value,
    refuse,
    shown,
)

if TYPE_CHECKING:
    from typing_extensions import Self

# ------------------------------------------------------------------ parts of labels


class ImagePoint(InputModel):
    """A point of an image."""

    xNorm: ImageFraction
    yNorm: ImageFraction


class VoxelPoint(InputModel):
    """A voxel: column, row and slice."""

    i: Number
    j: Number
    k: Number


class WorldPoint(InputModel):
    """A point in space, in millimeters."""

    x: Number
    y: Number
    z: Number


class Video(InputModel):
    """The frame or slice of a label, and the track that connects it with labels on other frames."""

    frameIndex: Count | None = None
    trackId: Text | None = None
    keyFrame: Flag | None = None
    endTrack: Flag | None = None
    seriesItemIndex: Count | None = None
    seriesFrameIndex: Count | None = None


class Stats(InputModel):
    """Statistics of the image values within a label."""

    average: Number | None = None
    minimum: Number | None = None
    maximum: Number | None = None
    area: Number | None = None
    volume: Number | None = None
    intensityunit: Text | None = None


class _Label(InputModel):
    """The fields of all labels."""

    id: Text | None = None
    group: Text | None = None
    readOnly: Flag | None = None
    comment: Comment | None = None


class _CategoryLabel(_Label):
    """The fields of labels of one category of the taxonomy."""

    category: Category
    attributes: dict[str, Any] | None = None


class _WithVideo(InputModel):
    video: Video | None = None


class _WithStats(InputModel):
    stats: Stats | None = None


class _LocatedLabel(_CategoryLabel):
    """A label with its place in voxels, in millimeters, or both."""

    _locations: ClassVar[tuple[tuple[str, ...], ...]]

    @model_validator(mode="after")
    def _check_location(self) -> Self:
        if not any(all(getattr(self, name) is not None for name in names) for names in self._locations):
            needed = ", or ".join(" and ".join(names) for names in self._locations)
            refuse(((), f"needs {needed}"))
        return self


# ------------------------------------------------------------------ labels of a series


class Landmark(_CategoryLabel, _WithVideo):
    """A point of an image."""

    point: ImagePoint


class Landmark3D(_LocatedLabel):
    """A point of a volume."""

    _locations: ClassVar = (("point",), ("absolutePoint",))

    point: VoxelPoint | None = None
    absolutePoint: WorldPoint | None = None


def _require_type(schema: dict[str, Any]) -> None:
    """State in JSON Schema that the type is required: it has a default value in Python only."""
    schema["required"] = [*schema["required"], "type"]


class _Measurement(_CategoryLabel):
    model_config = ConfigDict(json_schema_extra=_require_type)

    normal: Annotated[list[Number], Field(min_length=3, max_length=3)]


class Length(_Measurement):
    """A measured length, in millimeters."""

    type: Literal["length"] = "length"
    point1: VoxelPoint
    point2: VoxelPoint
    absolutePoint1: WorldPoint | None = None
    absolutePoint2: WorldPoint | None = None
    length: Size | None = None


class Angle(_Measurement):
    """A measured angle, in degrees."""

    type: Literal["angle"] = "angle"
    point1: VoxelPoint
    vertex: VoxelPoint
    point2: VoxelPoint
    absolutePoint1: WorldPoint | None = None
    absoluteVertex: WorldPoint | None = None
    absolutePoint2: WorldPoint | None = None
    angle: Number | None = None


class BoundingBox(_CategoryLabel, _WithVideo, _WithStats):
    """A box in an image."""

    pointTopLeft: ImagePoint
    wNorm: Size
    hNorm: Size

    @field_validator("wNorm", "hNorm")
    @classmethod
    def _check_within_image(cls, length: float, info: ValidationInfo) -> float:
        corner: ImagePoint | None = info.data.get("pointTopLeft")
        if corner is not None:
            axis, start = ("xNorm", corner.xNorm) if info.field_name == "wNorm" else ("yNorm", corner.yNorm)
            end = start + length
            if end > 1 + TOLERANCE:
                message = f"the box leaves the image: {axis} plus {info.field_name} must be at most 1, not {end:.9g}"
                refuse(((), message))
        return length


class Ellipse(_CategoryLabel, _WithVideo, _WithStats):
    """An ellipse in an image, rotated clockwise by radians."""

    pointCenter: ImagePoint
    xRadiusNorm: Size
    yRadiusNorm: Size
    rotationRad: Number


class Polygon(_CategoryLabel, _WithVideo, _WithStats):
    """A closed outline in an image."""

    points: Annotated[list[ImagePoint], Field(min_length=3)]


class Polyline(_CategoryLabel, _WithVideo):
    """An open line in an image."""

    points: Annotated[list[ImagePoint], Field(min_length=2)]


class Cuboid(_LocatedLabel, _WithStats):
    """A box in a volume, between two corners."""

    _locations: ClassVar = (("point1", "point2"), ("absolutePoint1", "absolutePoint2"))

    point1: VoxelPoint | None = None
    point2: VoxelPoint | None = None
    absolutePoint1: WorldPoint | None = None
    absolutePoint2: WorldPoint | None = None


class Classification(_Label, _WithVideo):
    """The attributes of a task or series. A category is accepted for older projects, and not validated."""

    category: Any = None
    attributes: dict[str, Any] | None = None


class InstanceClassification(_Label):
    """The attributes of one file, frame or slice of a series."""

    fileIndex: Count
    values: dict[str, Any]
    fileName: Text | None = None


class Segment(_CategoryLabel):
    """One instance of a segmentation mask."""

    mask: SegmentMasks | None = None
    overlappingGroups: list[Count] | None = None


class _OrCategory:
    """A segment, or its category alone."""

    def __repr__(self) -> str:
        return "or its category"

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(
            lambda value: value if isinstance(value, (Mapping, Segment)) else {"category": value}, handler(source)
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        segment = handler(schema)
        category = handler.resolve_ref_schema(segment)["properties"]["category"]
        return {"anyOf": [segment, *category["anyOf"]]}


def _check_finite(value: dict[str, Any]) -> dict[str, Any]:
    places = list(infinite_places(value))
    if places:
        refuse(*((loc, f"must be finite, not {shown(number)}") for loc, number in places))
    return value


SegmentMap = Annotated[
    dict[Instance, Annotated[Segment, _OrCategory()]], Field(json_schema_extra={"additionalProperties": False})
]
ImageFields = list[Annotated[dict[str, Any], AfterValidator(_check_finite)]]


class Series(InputModel):
    """The labels of one series of a task."""

    landmarks: list[Landmark] | None = None
    landmarks3d: list[Landmark3D] | None = None
    measurements: list[Annotated[Length | Angle, Field(discriminator="type")]] | None = None
    boundingBoxes: list[BoundingBox] | None = None
    ellipses: list[Ellipse] | None = None
    polygons: list[Polygon] | None = None
    polylines: list[Polyline] | None = None
    cuboids: list[Cuboid] | None = None
    classifications: list[Classification] | None = None
    instanceClassifications: list[InstanceClassification] | None = None

    binaryMask: Flag | None = None
    semanticMask: Flag | None = None
    pngMask: Flag | None = None
    segmentations: Masks | None = None
    segmentMap: SegmentMap | None = None

    heatMaps: ImageFields | None = None
    transforms: ImageFields | None = None
    centerline: ImageFields | None = None

    # These describe the series itself. The task's own values apply, so they are not sent.
    name: Any = None
    items: Any = None
    metaData: Any = None
    imageHeaders: Any = None

    @field_validator("pngMask")
    @classmethod
    def _check_png(cls, is_png: bool | None, info: ValidationInfo) -> bool | None:
        if is_png and info.data.get("binaryMask", True) is not True:
            refuse(((), "requires binaryMask to be true"))
        return is_png

    @field_validator("segmentMap")
    @classmethod
    def _check_segments(cls, segments: SegmentMap | None, info: ValidationInfo) -> SegmentMap | None:
        violations: list[Violation] = []
        has_own_masks = info.data.get("binaryMask") is True
        masks = info.data.get("segmentations", "invalid")
        if segments and not has_own_masks and (masks is None or masks == []):
            violations.append(((), "requires a mask, but segmentations is missing"))
        keys: dict[int | None, object] = {}
        for key, segment in (segments or {}).items():
            first = keys.setdefault(mask_value(key), key)
            if first is not key:
                violations.append(((key,), f"has two entries, {shown(first)} and {shown(key)}"))
            if has_own_masks and segment.mask is None:
                violations.append(((key, "mask"), "is missing; with binaryMask each segment requires its own mask"))
        if violations:
            refuse(*violations)
        return segments


class TaskLabels(InputModel):
    """The labels of one task, as a labeler returns them.

    The task may be named by its id or its name, as in a list or file of labeled tasks. Other fields of a file's entry,
    such as those of an export, are ignored.
    """

    model_config = ConfigDict(json_schema_extra={"additionalProperties": True})

    taskId: Text | None = None
    name: Text | None = None
    series: list[Series] | None = None
    classification: Classification | None = None
