"""Convert labels from the import formats to the stored format.

Tasks arrive in the `series` format or in the older `labels` format. The server stores a list of flat labels, the paths
of the items, and the segmentation files by series. Invariants:

1. One invalid task makes the whole list invalid. Nothing is converted then.
2. All problems are collected, each with its location. At most 20 are reported.
3. A key that no format defines is a problem, except the keys that an export adds to a task (`_EXPORT_ONLY`).
4. The `conversion` behavior only removes data from the response. It never adds problems.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from redbrick_sandbox.label_conversion import (
    KINDS,
    Flat,
    Look,
    Problems,
    Series,
    is_list,
    is_number,
    is_object,
    is_paths,
    is_text,
    segment_labels,
    series_labels,
    study_label,
)

MAX_REPORTED_PROBLEMS = 20
# Label kinds that a server with conversion=drop-unknown ignores, besides unknown keys of a series.
_NEW_LABEL_KINDS = frozenset({"cuboids", "instanceClassifications"})
_OTHER_SERIES_KEYS = frozenset(
    {
        "segmentMap",
        "segmentations",
        "heatMaps",
        "transforms",
        "centerline",
        "name",
        "items",
        "metaData",
        "imageHeaders",
        "binaryMask",
        "semanticMask",
        "pngMask",
    }
)

# Keys that an export adds to a task. An exported task can be imported again unchanged.
_EXPORT_ONLY = (
    "labelsId",
    "currentStageName",
    "createdBy",
    "createdAt",
    "storageId",
    "labelStorageId",
    "updatedBy",
    "updatedByUserId",
    "updatedAt",
    "datapointClassification",
    "consensus",
    "consensusScore",
    "consensusTasks",
    "scores",
    "superTruth",
)
_FLAT_KEYS = frozenset(
    [
        "category",
        "classid",
        "attributes",
        "labelid",
        "linkid",
        "readonly",
        "volumeindex",
        "frameindex",
        "trackid",
        "keyframe",
        "end",
        "globalitemsindex",
        "seriesframeindex",
        "bbox2d",
        "point",
        "polyline",
        "polygon",
        "ellipse",
        "point3d",
        "length3d",
        "angle3d",
        "cuboid",
        "dicom",
        "studyclassify",
        "tasklevelclassify",
        "seriesclassify",
        "multiclassify",
        "instanceclassify",
        "frameclassify",
        "taskclassify",
        "stats",
        "pixel",
        "ocrvalue",
        "confidence",
        "bbox3d",
        "dummy",
        "subname",
        "hidden",
    ]
)


@dataclass(frozen=True)
class Conversion:
    """Result of a conversion.

    `converted` has one task for each input task, in order, or is None. `error` lists the problems, or is None.
    """

    converted: list[dict[str, Any]] | None
    error: str | None


def convert(original: str, behavior: str = "complete") -> Conversion:
    """Validate and convert a list of tasks.

    :param original: JSON text of a list of tasks.
    :param behavior: `complete` returns all labels. `omit-empty` leaves out an empty `labels` key, and `omit` always
        leaves it out. `drop-unknown` ignores the label kinds that an older server does not know.
    """
    problems = Problems()
    try:
        # Python's parser accepts NaN and Infinity, which are not JSON.
        tasks = json.loads(original, parse_constant=_refuse_constant)
    except ValueError as error:
        return Conversion(None, f"not JSON: {error}")
    if not isinstance(tasks, list):
        return Conversion(None, "a list of tasks is needed")
    converted = []
    for index, task in enumerate(tasks):
        known = _without_unknown_kinds(task) if behavior == "drop-unknown" else task
        look = Look(known, f"tasks[{index}]", problems)
        if look.value:
            converted.append(_without_omitted_labels(_task(look), behavior))
    if problems:
        reported = problems[:MAX_REPORTED_PROBLEMS]
        more = len(problems) - len(reported)
        return Conversion(None, "\n".join([*reported, *([f"and {more} more"] if more else [])]))
    return Conversion(converted, None)


def _without_unknown_kinds(task: Any) -> Any:
    """Remove label kinds unknown to an older server from the series of a task."""
    if not isinstance(task, dict) or not isinstance(task.get("series"), list):
        return task
    known_keys = _OTHER_SERIES_KEYS | (KINDS - _NEW_LABEL_KINDS)
    series = [
        {key: value for key, value in one.items() if key in known_keys} if isinstance(one, dict) else one
        for one in task["series"]
    ]
    return {**task, "series": series}


def _without_omitted_labels(task: dict[str, Any], behavior: str) -> dict[str, Any]:
    """Remove `labels` from a converted task if the behavior omits it."""
    omit_labels = behavior == "omit" or (behavior == "omit-empty" and not task["labels"])
    return {key: value for key, value in task.items() if not (omit_labels and key == "labels")}


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")


def _task(look: Look) -> dict[str, Any]:
    task = {
        "taskId": look.text("taskId"),
        "name": look.text("name", required=True),
        "priority": look.of("priority", lambda value: is_number(value) and 0 <= value <= 1, "a number from 0 to 1"),
        "metaData": look.of("metaData", is_object, "an object"),
        "preAssign": look.of("preAssign", is_object, "an object"),
        "attributes": look.of("attributes", is_list, "a list"),
    }
    task = {key: value for key, value in task.items() if value is not None}
    if look.value.get("series") is not None or look.value.get("classification") is not None:
        task |= _from_series(look)
    else:
        task |= _from_labels(look)
    look.leftovers()
    return task


def _from_series(look: Look) -> dict[str, Any]:
    look.skip(*_EXPORT_ONLY)
    labels: list[Flat] = []
    items: list[str] = []
    infos: list[dict[str, Any]] = []
    maps: list[dict[str, Any] | None] = []
    extras: dict[str, list[Any]] = {"heatMaps": [], "transforms": [], "centerline": []}
    study = look.inside("classification")
    if study is not None:
        labels.append(study_label(study))
    found = look.each("series")
    if not found:
        look.problems.note(f"{look.at}.series", "at least one series is needed")
    for index, one in enumerate(found):
        paths = one.of("items", is_paths, "a path or a list of paths", required=True) or []
        paths = [paths] if isinstance(paths, str) else paths
        series = Series(index, range(len(items), len(items) + len(paths)))
        items.extend(paths)
        labels += series_labels(one, series)
        segments, masks = segment_labels(one, series)
        labels += segments
        name = one.of("segmentations", is_paths, "a path or a list of paths")
        maps.append({"labelName": name, "seriesIndex": index} if name else None)
        infos.append(_series_info(one, series, masks))
        _extras(one, index, extras)
        one.leftovers()
    return {
        "items": items,
        "labels": labels,
        "labelsMap": maps if any(maps) else [],
        "seriesInfo": infos,
        **{key: values for key, values in extras.items() if values},
    }


def _series_info(one: Look, series: Series, masks: dict[str, Any]) -> dict[str, Any]:
    info = {
        "name": one.of("name", lambda value: isinstance(value, str), "text"),
        "itemsIndices": list(series.items),
        "metaData": one.of("metaData", is_object, "an object"),
        "imageHeaders": one.of("imageHeaders", is_object, "an object"),
        "binaryMask": one.flag("binaryMask"),
        "semanticMask": one.flag("semanticMask"),
        "pngMask": one.flag("pngMask"),
        "masks": masks or None,
    }
    if info["pngMask"] and not info["binaryMask"]:
        one.problems.note(f"{one.at}.pngMask", "needs binaryMask too")
    return {key: value for key, value in info.items() if value is not None}


def _extras(one: Look, index: int, extras: dict[str, list[Any]]) -> None:
    extras["heatMaps"] += [{"seriesIndex": index, **each.value} for each in one.each("heatMaps")]
    for each in one.each("transforms"):
        matrix = each.raw("transform")
        rows = matrix if isinstance(matrix, list) else []
        flat = [number for row in rows if isinstance(row, list) for number in row]
        if len(flat) != 16 or not all(map(is_number, flat)):
            each.problems.note(f"{each.at}.transform", "a matrix of 4 x 4 numbers is needed")
        extras["transforms"].append({"seriesIndex": index, "transform": flat})
    extras["centerline"] += [{"seriesIndex": index, **each.value} for each in one.each("centerline")]


def _from_labels(look: Look) -> dict[str, Any]:
    """Validate a task of the older format, whose labels are stored unchanged."""
    items = look.of("items", is_paths, "a list of paths", required=True) or []
    labels = look.each("labels")
    for label in labels:
        for key in label.value:
            if key not in _FLAT_KEYS:
                label.problems.note(label.at, f"unknown key {key!r}")
        _flat_attributes(label)
    kept = {
        "labelsMap": look.of("labelsMap", is_list, "a list"),
        "segmentations": look.raw("segmentations"),
        "segmentMap": look.raw("segmentMap"),
        "labelsPath": look.of("labelsPath", is_text, "a path"),
        "seriesInfo": look.of("seriesInfo", is_list, "a list"),
    }
    look.skip(*_EXPORT_ONLY, "tdId", "itemsPresigned")
    return {
        "items": [items] if isinstance(items, str) else items,
        "labels": [label.value for label in labels],
        **{key: value for key, value in kept.items() if value is not None},
    }


def _flat_attributes(label: Look) -> None:
    for attribute in label.each("attributes"):
        attribute.text("name", required=True)
