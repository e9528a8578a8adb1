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

from airflow_provider_redbrick.labels.fields import is_list
from airflow_provider_redbrick.labels.models import Series
from airflow_provider_redbrick.labels.schema import CLASSIFICATION, LISTED, SEGMENT, kind_in, kind_of

Key = tuple["int | None", str]
"""A series (None for the whole task) and a label type."""

LAYOUT = ("heatMaps", "transforms", "centerline")
"""Image fields of new tasks, which the conversion lists for all series together."""

_UNKNOWN = "labels of an unknown type"
_MAX_NAMED = 5
# A list under another name holds labels too: the conversion must not drop them silently.
_NOT_LABELS = Series.model_fields.keys() - LISTED.keys()


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
        yield None, CLASSIFICATION.field
    for index, series in enumerate(task.get("series") or ()):
        for key, labels in series.items():
            for kind in _kinds(key, labels):
                yield index, kind


def _kinds(key: str, labels: Any) -> Iterable[str]:
    """Return the kind of each label in one field of a series."""
    if key == SEGMENT.field:
        return [f"{key}[{instance}]" for instance in labels] if isinstance(labels, Mapping) else ()
    if not is_list(labels) or key in _NOT_LABELS:
        return ()
    kinds = (kind_in(key, label) if key in LISTED and isinstance(label, Mapping) else None for label in labels)
    return [key if kind is None else kind.name for kind in kinds]


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
    kind = kind_of(label) if isinstance(label, Mapping) else None
    if kind is CLASSIFICATION or not isinstance(label, Mapping):
        return None, _UNKNOWN if kind is None else kind.name
    series = label.get("volumeindex") or 0
    if kind is SEGMENT:
        return series, f"{kind.name}[{label['dicom']['instanceid']}]"
    return series, _UNKNOWN if kind is None else kind.name
