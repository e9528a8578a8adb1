"""Compare label counts before and after the server's conversion.

The server converts labels before they are sent. A label that the conversion drops or changes would be missing from a
task that is reported as done, so the counts for each series and type are compared:

1. Each label of a list, each entry of a ``segmentMap`` and the task's classification become one stored label.
2. A stored label without ``volumeindex`` is in the first series.
3. A result without the key ``labels`` has no labels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from airflow_provider_redbrick.labels.schema import LISTED, NOT_SENT, OF_SERIES, is_list
from airflow_provider_redbrick.labels.shapes import SHAPES

Key = tuple["int | None", str]
"""A series (None for the whole task) and a label type."""

LAYOUT = ("heatMaps", "transforms", "centerline")
"""Image fields of new tasks, which the conversion lists for all series together."""

_CLASSIFICATION = "classification"
_UNKNOWN = "labels of an unknown type"
_MAX_NAMED = 5
_FLAGS = {
    "studyclassify": _CLASSIFICATION,
    "tasklevelclassify": _CLASSIFICATION,
    "seriesclassify": "classifications",
    "multiclassify": "classifications",
    "instanceclassify": "instanceClassifications",
}
_MEASUREMENTS = {"length3d": "length", "angle3d": "angle"}


def difference(task: Mapping[str, Any], stored: Mapping[str, Any], *, layout: bool = False) -> str | None:
    """Return how a task's labels differ from the converted ones; None if equal.

    :param task: the task in the import format.
    :param stored: the server's conversion of it.
    :param layout: also compare the other image fields of a new task.
    """
    converted = stored.get("labels") or ()
    before = Counter(_task_keys(task) if "labels" not in task else map(_key, task["labels"]))
    after = Counter(map(_key, converted))
    differences = list(_count_differences(before, after))
    if layout:
        differences += _count_differences(Counter(_task_layout(task)), Counter(_stored_layout(stored)))
    if not differences:
        return None
    more = [f"and {len(differences) - _MAX_NAMED} more"] if len(differences) > _MAX_NAMED else []
    return "; ".join([*differences[:_MAX_NAMED], *more])


def _count_differences(expected: Mapping[Key, int], actual: Mapping[Key, int]) -> Iterator[str]:
    for key in {**expected, **actual}:
        before, after = expected.get(key, 0), actual.get(key, 0)
        if before != after:
            series, kind = key
            place = kind if series is None else f"series {series}, {kind}"
            yield f"{place}: {before} given, {after} converted"


# ------------------------------------------------------------------ labels before the conversion


def _task_keys(task: Mapping[str, Any]) -> Iterator[Key]:
    if task.get("classification") is not None:
        yield None, _CLASSIFICATION
    for index, series in enumerate(task.get("series") or ()):
        for key, labels in series.items():
            for kind in _kinds(key, labels):
                yield index, kind


def _kinds(key: str, labels: Any) -> Iterable[str]:
    """Return the kind of each label in one field of a series."""
    if key == "segmentMap":
        return [f"segmentMap[{instance}]" for instance in labels] if isinstance(labels, Mapping) else ()
    if not is_list(labels) or (key not in LISTED and (key in OF_SERIES or key in NOT_SENT)):
        return ()
    return [_listed(key, label.get("type") if isinstance(label, Mapping) else None) for label in labels]


def _listed(key: str, kind: object) -> str:
    return f"{key} of type {kind}" if key == "measurements" else key


def _task_layout(task: Mapping[str, Any]) -> Iterator[Key]:
    for index, series in enumerate(task.get("series") or ()):
        for key in LAYOUT:
            for _ in series.get(key) or ():
                yield index, key


# ------------------------------------------------------------------ labels after the conversion


def _stored_layout(stored: Mapping[str, Any]) -> Iterator[Key]:
    for key in LAYOUT:
        for entry in stored.get(key) or ():
            yield entry.get("seriesIndex") or 0, key


def _key(label: Any) -> Key:
    kind = _kind(label) if isinstance(label, Mapping) else _UNKNOWN
    if kind == _CLASSIFICATION or not isinstance(label, Mapping):
        return None, kind
    return label.get("volumeindex") or 0, kind


def _kind(label: Mapping[str, Any]) -> str:
    """Return the kind of a stored label."""
    for flag, kind in _FLAGS.items():
        if label.get(flag):
            return kind
    dicom = label.get("dicom")
    if isinstance(dicom, Mapping) and dicom.get("instanceid"):
        return f"segmentMap[{dicom['instanceid']}]"
    shape = next((shape for shape in SHAPES if label.get(shape.stored)), None)
    return _UNKNOWN if shape is None else _listed(shape.listed, _MEASUREMENTS.get(shape.stored))
