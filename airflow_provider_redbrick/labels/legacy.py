"""Convert labels of RedBrick's first SDK generation to the `series` format.

Each function accepts the labels of the SDK class with the same name. It returns ``{"series": [...]}`` or
``{"classification": {...}}``, which a labeler may return, or a list of labeled tasks may contain beside ``taskId``.

1. A task of that generation was one image or one video, so there is one series.
2. Categories were paths from the root of the taxonomy. The root is removed: a path of one remaining name becomes that
   name, a longer path becomes the list of its names.
3. Labels are validated before conversion. The first error is raised with the label's index and field.

Remote-labeling stages use the format of RedBrick's first API generation: typed objects, each with its full category
path. :func:`label_inputs` converts stored labels to it.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import field_validator

from airflow_provider_redbrick.exceptions import RedBrickInputError
from airflow_provider_redbrick.labels.fields import (
    Count,
    Flag,
    InputModel,
    Number,
    Text,
    accepts,
    dotted,
    find_violations,
    is_list,
    is_number,
    refuse,
    shown,
)
from airflow_provider_redbrick.labels.series_format import without_root
from airflow_provider_redbrick.labels.taxonomy import suggestion

if TYPE_CHECKING:
    from airflow_provider_redbrick.client.operations.remote_labeling import RemoteOutput


Labels = Sequence[Mapping[str, Any]]

MAX_FRAMES = 1_000_000
"""Maximum number of classified frames in a video: about nine hours."""


def image_bounding_boxes(labels: Labels) -> dict[str, Any]:
    """Convert the labels of an ``ImageBoundingBox``.

    :param labels: objects with ``category`` ([[root, ..., leaf]]) and ``bbox2d`` (``xnorm``, ``ynorm``, ``wnorm``,
        ``hnorm``, fractions of the image's width and height); optionally ``attributes`` ([{name, value}]), ``labelid``.
    :raises RedBrickInputError: if a label is invalid; the message names the label and the field.
    """
    return _series("boundingBoxes", [_box(label) for label in _checked(labels, _ImageBox)])


def video_bounding_boxes(labels: Labels) -> dict[str, Any]:
    """Convert the labels of a ``VideoBoundingBox``.

    :param labels: as for images, each with ``frameindex``; optionally ``trackid`` (default: a track of its own),
        ``keyframe`` and ``end`` (default: true).
    """
    boxes = [{**_box(label), "video": _video(label)} for label in _checked(labels, _VideoBox)]
    return _series("boundingBoxes", boxes)


def image_classification(labels: Labels, *, attribute: str) -> dict[str, Any]:
    """Convert the label of an ``ImageClassify``.

    :param labels: a list of one object with ``category``.
    :param attribute: the taxonomy attribute that receives the category: classifications no longer have a category.
    :raises RedBrickInputError: if the label is invalid.
    """
    checked = _checked(labels, _ImageClass)
    if len(checked) != 1:
        raise RedBrickInputError(
            f"labels must be a list of exactly 1 label, since an image has one class, not {len(checked)}"
        )
    return {"classification": {**_identity(checked[0]), "attributes": _values(checked, 0, attribute)}}


def video_classification(labels: Labels, *, attribute: str) -> dict[str, Any]:
    """Convert the labels of a ``VideoClassify`` to one classification per frame.

    A label that does not end its track also applies to the frames up to the track's next key frame. Frames that are not
    key frames are ignored.

    :param labels: objects with ``category`` and ``frameindex``; optionally ``trackid`` (default: one for all labels),
        ``keyframe`` and ``end`` (default: true).
    :param attribute: the taxonomy attribute that receives the category.
    :raises RedBrickInputError: if a label is invalid.
    """
    checked = _checked(labels, _VideoClass)
    frames: dict[int, dict[str, Any]] = {}
    for index, first, after in _spans(checked):
        if len(frames) + after - first > MAX_FRAMES:
            raise RedBrickInputError(f"labels[{index}] exceeds the limit of {MAX_FRAMES} classified frames")
        values = _values(checked, index, attribute)
        for frame in range(first, after):
            if frame in frames:
                raise RedBrickInputError(f"labels[{index}].frameindex: frame {frame} is already classified")
            # A label id must be unique, so only the first frame gets it.
            identity = _identity(checked[index]) if frame == first else {}
            frames[frame] = {**identity, "fileIndex": frame, "values": values}
    return _series("instanceClassifications", [frames[frame] for frame in sorted(frames)])


def _series(key: str, labels: list[dict[str, Any]]) -> dict[str, Any]:
    return {"series": [{key: labels}]}


# ------------------------------------------------------------------ validation


def _is_category_path(value: Any) -> bool:
    """Return whether a value is a list of one path with a name below its root."""
    if not is_list(value) or len(value) != 1 or not is_list(value[0]):
        return False
    return len(value[0]) > 1 and all(isinstance(name, str) and name for name in value[0])


def _is_attribute_value(value: Any) -> bool:
    is_text_list = is_list(value) and all(isinstance(element, str) for element in value)
    return is_text_list or isinstance(value, (str, bool)) or is_number(value)


_CategoryPath = Annotated[
    Any, accepts("one path from the root, such as [['object', 'car']]", _is_category_path, {"type": "array"})
]
_AttributeValue = Annotated[
    Any, accepts("text, a finite number, true or false, or a list of text values", _is_attribute_value, {})
]


class _Attribute(InputModel):
    name: Text
    value: _AttributeValue


class _Label(InputModel):
    category: _CategoryPath
    attributes: list[_Attribute] | None = None
    labelid: Text | None = None

    @field_validator("attributes")
    @classmethod
    def _check_repeated(cls, attributes: list[_Attribute] | None) -> list[_Attribute] | None:
        counts = Counter(attribute.name for attribute in attributes or ())
        repeated = next((name for name, occurrences in counts.items() if occurrences > 1), None)
        if repeated is not None:
            refuse(((), f"repeats the attribute {shown(repeated)}"))
        return attributes


class _Box(InputModel):
    xnorm: Number
    ynorm: Number
    wnorm: Number
    hnorm: Number


class _ImageBox(_Label):
    bbox2d: _Box


class _ImageClass(_Label):
    frameclassify: Flag | None = None


class _OnFrame(InputModel):
    frameindex: Count
    trackid: Text | None = None
    keyframe: Flag | None = None
    end: Flag | None = None


class _VideoBox(_ImageBox, _OnFrame):
    pass


class _VideoClass(_ImageClass, _OnFrame):
    pass


def _checked(labels: object, model: type[_Label]) -> list[dict[str, Any]]:
    """Validate labels; return them as plain values without nulls."""
    if not is_list(labels):
        raise RedBrickInputError(f"labels must be a list of objects, not {type(labels).__name__}")
    checked = []
    for index, label in enumerate(labels):
        try:
            plain = _plain(label)
        except RecursionError:
            raise RedBrickInputError(f"labels[{index}] is nested too deeply") from None
        if isinstance(plain, dict):
            # The older API returns absent fields as null.
            plain = {key: value for key, value in plain.items() if value is not None}
        for loc, message in find_violations(model, plain):
            separator = ": " if message.startswith("unknown") else " "
            raise RedBrickInputError(f"{dotted(('labels', index, *loc))}{separator}{message}")
        checked.append(plain)
    return checked


def _plain(value: Any) -> Any:
    """Convert numbers of array libraries within a value to built-in types."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if is_list(value):
        return [_plain(inner) for inner in value]
    return value.tolist() if hasattr(value, "tolist") else value


# ------------------------------------------------------------------ conversion


def _box(label: Mapping[str, Any]) -> dict[str, Any]:
    box = label["bbox2d"]
    attributes = _attributes(label)
    return {
        **_identity(label),
        "pointTopLeft": {"xNorm": box["xnorm"], "yNorm": box["ynorm"]},
        "wNorm": box["wnorm"],
        "hNorm": box["hnorm"],
        "category": without_root(label["category"]),
        **({"attributes": attributes} if attributes else {}),
    }


def _video(label: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "frameIndex": label["frameindex"],
        "trackId": label.get("trackid") or str(uuid.uuid4()),
        "keyFrame": label.get("keyframe", True),
        "endTrack": label.get("end", True),
    }


def _identity(label: Mapping[str, Any]) -> dict[str, Any]:
    return {"id": label["labelid"]} if label.get("labelid") else {}


def _attributes(label: Mapping[str, Any]) -> dict[str, Any]:
    return {pair["name"]: pair["value"] for pair in label.get("attributes", ())}


def _values(labels: Labels, index: int, attribute: str) -> dict[str, Any]:
    """Return the attributes of a classification, with its category as one of them."""
    if not isinstance(attribute, str) or not attribute.strip():
        raise RedBrickInputError(
            f"attribute must be the name of the attribute that receives the category, not {attribute!r}"
        )
    attributes = _attributes(labels[index])
    if attribute in attributes:
        raise RedBrickInputError(f"labels[{index}].attributes already has {attribute!r}, which receives the category")
    return {attribute: without_root(labels[index]["category"]), **attributes}


def _spans(labels: Labels) -> Iterator[tuple[int, int, int]]:
    """Yield each label's index, its first frame, and the frame after its last."""
    tracks: dict[Any, list[int]] = {}
    for index, label in enumerate(labels):
        if label.get("keyframe", True):
            tracks.setdefault(label.get("trackid"), []).append(index)
    for track in tracks.values():
        track.sort(key=lambda index: labels[index]["frameindex"])
        for index, following in zip(track, [*track[1:], None], strict=True):
            frame = labels[index]["frameindex"]
            if labels[index].get("end", True):
                yield index, frame, frame + 1
            elif following is None:
                raise RedBrickInputError(f"labels[{index}].end is false, but no later label ends its track")
            else:
                yield index, frame, max(frame + 1, labels[following]["frameindex"])


_SHAPES = ("bbox2d", "point", "polyline", "polygon", "ellipse", "pixel")
_CLASSIFICATIONS = ("frameclassify", "taskclassify", "tasklevelclassify", "multiclassify", "ocrvalue")
_FRAME_FIELDS = ("frameindex", "trackid", "keyframe", "end")


def label_inputs(stored: Sequence[Mapping[str, Any]], output: RemoteOutput) -> list[dict[str, Any]]:
    """Convert stored ("flat") labels to the format of a remote-labeling stage.

    :param stored: the flat list of stored labels.
    :param output: the label type and categories of the stage.
    :raises RedBrickInputError: if a label has no equivalent; the message names it.
    """
    return [_checked_input(label, f"labels[{index}]", output) for index, label in enumerate(stored)]


def _checked_input(label: Mapping[str, Any], place: str, output: RemoteOutput) -> dict[str, Any]:
    try:
        return _label_input(label, place, output)
    except (KeyError, IndexError, TypeError, AttributeError):
        raise RedBrickInputError(f"{place} is not a valid stored label") from None


def _label_input(label: Mapping[str, Any], place: str, output: RemoteOutput) -> dict[str, Any]:
    content = {key: label[key] for key in (*_SHAPES, *_CLASSIFICATIONS) if label.get(key)}
    if not content:
        types = ", ".join((*_SHAPES, *_CLASSIFICATIONS))
        raise RedBrickInputError(f"{place} has no type that a remote-labeling stage accepts. The types are {types}")
    if output.kind.endswith("_BBOX") and content.keys() != {"bbox2d"}:
        raise RedBrickInputError(
            f"{place} has {' and '.join(content)}, but the stage accepts only boxes ({output.kind})"
        )
    if output.kind.startswith("VIDEO_") and label.get("frameindex") is None:
        raise RedBrickInputError(f"{place} has no frameindex, but the stage labels videos ({output.kind})")
    return {
        "category": [list(_path(label.get("category"), place, output))],
        "attributes": list(_attribute_inputs(label.get("attributes"))),
        "labelid": label.get("labelid") or str(uuid.uuid4()),
        **content,
        **_frame(label),
    }


def _frame(label: Mapping[str, Any]) -> dict[str, Any]:
    """Return a label's video fields; without a track, it gets one of its own."""
    if label.get("frameindex") is None:
        return {}
    defaults = {"trackid": str(uuid.uuid4()), "keyframe": True, "end": True}
    return {**defaults, **{key: label[key] for key in _FRAME_FIELDS if label.get(key) is not None}}


def _path(category: Any, place: str, output: RemoteOutput) -> tuple[str, ...]:
    """Return the full path of a category given as a path, its end, or its leaf."""
    category_path = category[0] if is_list(category) and category and is_list(category[0]) else category
    names = tuple(category_path) if is_list(category_path) else (category_path,)
    matches = sorted(path for path in output.paths if path[len(path) - len(names) :] == names) if all(names) else []
    if len(matches) == 1 or names in matches:
        return names if names in matches else matches[0]
    if matches:
        raise RedBrickInputError(
            f"{place}.category: {shown(names[-1])} is ambiguous. The taxonomy has the paths {matches}"
        )
    leaves = sorted({path[-1] for path in output.paths})
    formatted = "/".join(map(str, names)) if all(names) else ""
    hint = suggestion(formatted.rsplit("/", 1)[-1], leaves, "categories")
    raise RedBrickInputError(f"{place}.category: unknown category {shown(formatted)}; {hint}")


def _attribute_inputs(stored: Any) -> Iterator[dict[str, Any]]:
    for attribute in stored or ():
        yield {"name": attribute["name"], "value": attribute.get("value")}
