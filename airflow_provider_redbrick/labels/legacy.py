"""Convert labels of RedBrick's first SDK generation to the `series` format.

Each function accepts the labels of the SDK class with the same name. It returns what a labeler may return, which may
also stand beside ``taskId`` in a list of labeled tasks: ``{"series": [...]}`` or ``{"classification": {...}}``. A task
of that generation was one image or one video, so there is one series.

Categories were paths from the root of the taxonomy. The root is removed: a path of one remaining name becomes that
name, a longer path becomes the list of its names.

Remote-labeling stages take labels as RedBrick's first API generation did: typed objects, each with its whole path
through the taxonomy.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.exceptions import RedBrickInputError
from airflow_provider_redbrick.labels.schema import (
    Rule,
    Violations,
    count,
    each,
    flag,
    is_list,
    join,
    must_be,
    number,
    record,
    shown,
    text,
)
from airflow_provider_redbrick.labels.series_format import without_root
from airflow_provider_redbrick.labels.taxonomy import suggestion

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_redbrick.client.operations.remote_labeling import RemoteOutput


Labels = Sequence[Mapping[str, Any]]

MOST_FRAMES = 1_000_000
"""Frames of one video that get a class each: nine hours of it."""


def image_bounding_boxes(labels: Labels) -> dict[str, Any]:
    """Convert the labels of an ``ImageBoundingBox``.

    :param labels: objects with ``category`` ([[root, ..., leaf]]) and ``bbox2d`` (``xnorm``, ``ynorm``, ``wnorm``,
        ``hnorm``, fractions of the image's width and height); optionally ``attributes`` ([{name, value}]), ``labelid``.
    :raises RedBrickInputError: if a label is invalid; the message names the label and the field.
    """
    return _series("boundingBoxes", [_box(label) for label in _checked(labels, _BOX)])


def video_bounding_boxes(labels: Labels) -> dict[str, Any]:
    """Convert the labels of a ``VideoBoundingBox``.

    :param labels: as for images, each with ``frameindex``; optionally ``trackid`` (default: a track of its own),
        ``keyframe`` and ``end`` (default: true).
    """
    boxes = [{**_box(label), "video": _video(label)} for label in _checked(labels, {**_BOX, **_FRAME}, _TRACK)]
    return _series("boundingBoxes", boxes)


def image_classification(labels: Labels, *, attribute: str) -> dict[str, Any]:
    """Convert the label of an ``ImageClassify``.

    :param labels: a list of one object with ``category``.
    :param attribute: the taxonomy attribute that receives the category: classifications no longer have a category.
    :raises RedBrickInputError: if the label is invalid.
    """
    checked = _checked(labels, {}, _CLASSIFIED)
    if len(checked) != 1:
        raise RedBrickInputError(f"labels must be a list of one label, not of {len(checked)}: an image has one class")
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
    checked = _checked(labels, _FRAME, {**_TRACK, **_CLASSIFIED})
    frames: dict[int, dict[str, Any]] = {}
    for index, first, after in _spans(checked):
        if len(frames) + after - first > MOST_FRAMES:
            raise RedBrickInputError(f"labels[{index}] holds for more frames than {MOST_FRAMES}, which are the most")
        values = _values(checked, index, attribute)
        for frame in range(first, after):
            if frame in frames:
                raise RedBrickInputError(f"labels[{index}].frameindex: frame {frame} has a class already")
            # The id is one label's.
            identity = _identity(checked[index]) if frame == first else {}
            frames[frame] = {**identity, "fileIndex": frame, "values": values}
    return _series("instanceClassifications", [frames[frame] for frame in sorted(frames)])


def _series(key: str, labels: list[dict[str, Any]]) -> dict[str, Any]:
    return {"series": [{key: labels}]}


# ------------------------------------------------------------------ what labels must look like


def _is_path(value: Any) -> bool:
    """Whether a value is a list of one path, of a root and at least one name below it."""
    if not is_list(value) or len(value) != 1 or not is_list(value[0]):
        return False
    return len(value[0]) > 1 and all(isinstance(name, str) and name for name in value[0])


def _attribute_value(value: Any) -> Violations:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        yield from number(value)
    elif not isinstance(value, (str, bool)) and not (is_list(value) and all(isinstance(one, str) for one in value)):
        yield "", f"must be text, a number, true or false, or a list of texts, not {shown(value)}"


_PAIRS = each(record({"name": text, "value": _attribute_value}))


def _attribute_list(value: Any) -> Violations:
    wrong = list(_PAIRS(value))
    yield from wrong
    times = Counter(() if wrong else (pair["name"] for pair in value))
    yield from (("", f"has {name!r} twice") for name, number in times.items() if number > 1)


_BOX: dict[str, Rule] = {"bbox2d": record({"xnorm": number, "ynorm": number, "wnorm": number, "hnorm": number})}
_FRAME: dict[str, Rule] = {"frameindex": count}
_TRACK: dict[str, Rule] = {"trackid": text, "keyframe": flag, "end": flag}
_CLASSIFIED: dict[str, Rule] = {"frameclassify": flag}
_EVERY: dict[str, Rule] = {"category": must_be("one path from the root, such as [['object', 'car']]", _is_path)}
_ANY: dict[str, Rule] = {"attributes": _attribute_list, "labelid": text}


def _checked(
    labels: object, required: Mapping[str, Rule], optional: Mapping[str, Rule] | None = None
) -> list[dict[str, Any]]:
    """Return labels that follow the rules, as plain values and without what is null."""
    if not is_list(labels):
        raise RedBrickInputError(f"labels must be a list of objects, not {type(labels).__name__}")
    rule = record({**_EVERY, **required}, {**_ANY, **(optional or {})})
    checked = []
    for index, label in enumerate(labels):
        try:
            plain = _plain(label)
        except RecursionError:
            raise RedBrickInputError(f"labels[{index}] is nested deeper than any label") from None
        if isinstance(plain, dict):
            # What the older API's own answers lack is null in them.
            plain = {key: value for key, value in plain.items() if value is not None}
        for place, words in rule(plain):
            link = ": " if words.startswith("unknown") else " "
            raise RedBrickInputError(f"{join(f'labels[{index}]', place)}{link}{words}")
        checked.append(plain)
    return checked


def _plain(value: Any) -> Any:
    """Return a value with an array library's numbers in it as plain ones."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if is_list(value):
        return [_plain(inner) for inner in value]
    return value.tolist() if hasattr(value, "tolist") else value


# ------------------------------------------------------------------ from the old to the new


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
    """Return what a classification says, its category as an attribute."""
    if not isinstance(attribute, str) or not attribute.strip():
        raise RedBrickInputError(f"attribute must be the name of the attribute that takes the class, not {attribute!r}")
    attributes = _attributes(labels[index])
    if attribute in attributes:
        raise RedBrickInputError(f"labels[{index}].attributes has {attribute!r} already, which is to take the class")
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
                raise RedBrickInputError(f"labels[{index}].end is false, but no later label of its track ends it")
            else:
                yield index, frame, max(frame + 1, labels[following]["frameindex"])


_SHAPES = ("bbox2d", "point", "polyline", "polygon", "ellipse", "pixel")
_SAYINGS = ("frameclassify", "taskclassify", "tasklevelclassify", "multiclassify", "ocrvalue")
_OF_FRAMES = ("frameindex", "trackid", "keyframe", "end")


def label_inputs(stored: Sequence[Mapping[str, Any]], output: RemoteOutput) -> list[dict[str, Any]]:
    """Convert stored ("flat") labels to the format of a remote-labeling stage.

    :param stored: the flat list of stored labels.
    :param output: the label type and categories of the stage.
    :raises RedBrickInputError: if a label has no equivalent; the message names it.
    """
    return [_read(label, f"labels[{index}]", output) for index, label in enumerate(stored)]


def _read(label: Mapping[str, Any], where: str, output: RemoteOutput) -> dict[str, Any]:
    try:
        return _label_input(label, where, output)
    except (KeyError, IndexError, TypeError, AttributeError):
        raise RedBrickInputError(f"{where} is not what the server makes of a label") from None


def _label_input(label: Mapping[str, Any], where: str, output: RemoteOutput) -> dict[str, Any]:
    said = {key: label[key] for key in (*_SHAPES, *_SAYINGS) if label.get(key)}
    if not said:
        known = ", ".join((*_SHAPES, *_SAYINGS))
        raise RedBrickInputError(f"{where} is none of the kinds that a remote-labeling stage takes: {known}")
    if output.kind.endswith("_BBOX") and said.keys() != {"bbox2d"}:
        raise RedBrickInputError(f"{where} has {' and '.join(said)}, but the stage makes boxes ({output.kind})")
    if output.kind.startswith("VIDEO_") and label.get("frameindex") is None:
        raise RedBrickInputError(f"{where} names no frame, but the stage labels videos ({output.kind})")
    return {
        "category": [list(_path(label.get("category"), where, output))],
        "attributes": list(_attribute_inputs(label.get("attributes"))),
        "labelid": label.get("labelid") or str(uuid.uuid4()),
        **said,
        **_frame(label),
    }


def _frame(label: Mapping[str, Any]) -> dict[str, Any]:
    """Return a label's video fields; without a track, it is a track of one frame."""
    if label.get("frameindex") is None:
        return {}
    defaults = {"trackid": str(uuid.uuid4()), "keyframe": True, "end": True}
    return {**defaults, **{key: label[key] for key in _OF_FRAMES if label.get(key) is not None}}


def _path(category: Any, where: str, output: RemoteOutput) -> tuple[str, ...]:
    """Return the full path of a category given as the path, its end, or the leaf."""
    named = category[0] if is_list(category) and category and is_list(category[0]) else category
    names = tuple(named) if is_list(named) else (named,)
    found = sorted(path for path in output.paths if path[len(path) - len(names) :] == names) if all(names) else []
    if len(found) == 1 or names in found:
        return names if names in found else found[0]
    if found:
        raise RedBrickInputError(f"{where}.category: {shown(names[-1])} is in several places of the taxonomy: {found}")
    leaves = sorted({path[-1] for path in output.paths})
    written = "/".join(map(str, names)) if all(names) else ""
    instead = suggestion(written.rsplit("/", 1)[-1], leaves, "categories")
    raise RedBrickInputError(f"{where}.category: unknown category {shown(written)}; {instead}")


def _attribute_inputs(stored: Any) -> Iterator[dict[str, Any]]:
    for attribute in stored or ():
        yield {"name": attribute["name"], "value": attribute.get("value")}
