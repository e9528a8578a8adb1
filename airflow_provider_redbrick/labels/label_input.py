"""Convert stored labels to the format of remote-labeling stages.

Remote-labeling stages take labels as RedBrick's first API generation did: typed objects, each with its whole path
through the taxonomy.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.exceptions import RedBrickInputError
from airflow_provider_redbrick.labels.rules import is_list, shown
from airflow_provider_redbrick.labels.taxonomy import suggestion

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from airflow_provider_redbrick.api.remote import RemoteOutput

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
        "attributes": list(_attributes(label.get("attributes"))),
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


def _attributes(stored: Any) -> Iterator[dict[str, Any]]:
    for attribute in stored or ():
        yield {"name": attribute["name"], "value": attribute.get("value")}
