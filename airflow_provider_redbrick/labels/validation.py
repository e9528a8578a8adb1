"""Validate labels in the `series` format: structure and taxonomy.

RedBrick's own label check receives neither the task nor the project, so it cannot apply the project's taxonomy. Labels
are therefore validated before they are sent:

1. Structure: labels follow the models in :mod:`~airflow_provider_redbrick.labels.models`.
2. Taxonomy: categories, attributes and options exist, belong to the label type and are not archived.
3. Items: a label refers only to items that its series has. ``video.seriesItemIndex`` is an index into the items of the
   series. ``fileIndex`` is an index into its files; if the series is a single file, which may be a video or a volume,
   it is an index into the frames or slices of that file.

Validation never raises, and yields every error, but for fields that depend on each other: these are compared once each
of them is valid. A taxonomy that is not checkable disables validation of structure and taxonomy.

The server then converts the labels. A label that the conversion drops or changes would be missing from a task that is
reported as done, so the counts for each series and type are compared:

1. Each label of a list, each entry of a ``segmentMap`` and the task's classification become one stored label.
2. A stored label without ``volumeindex`` is in the first series.
3. A result without the key ``labels`` has no labels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airflow_provider_redbrick.labels.fields import (
    dotted,
    find_violations,
    is_list,
    is_number,
    join,
    mask_value,
    name_of,
    shown,
)
from airflow_provider_redbrick.labels.models import Series
from airflow_provider_redbrick.labels.schema import CLASSIFICATION, LISTED, SEGMENT, Kind, kind_in, kind_of
from airflow_provider_redbrick.labels.series_format import UNKNOWN, to_series
from airflow_provider_redbrick.labels.taxonomy import Attribute, ObjectType, Taxonomy, suggestion


@dataclass(frozen=True)
class Problem:
    """One validation error in the labels of a task.

    :param series: the series, counted from 0; None for an error that concerns the whole task.
    :param key: the list or field of the series, e.g. ``boundingBoxes``.
    :param index: the label in the list; in ``segmentMap`` the voxel value.
    :param field: the field within the label, e.g. ``points[2].xNorm``.
    :param message: what must change.
    """

    series: int | None
    key: str
    index: int | None
    field: str
    message: str

    def __str__(self) -> str:
        label = self.key if self.index is None else f"{self.key}[{self.index}]"
        series = "" if self.series is None else f"series {self.series}"
        where = ", ".join(part for part in (series, label, self.field) if part)
        return f"{where}: {self.message}" if where else self.message


def check_labels(body: Mapping[str, Any], taxonomy: Taxonomy) -> list[Problem]:
    """Validate labels in the `series` format.

    :param body: has ``series``, ``classification`` or both; other keys are ignored.
    :param taxonomy: the project's taxonomy.
    :return: the validation errors; empty if the taxonomy is not checkable.
    """
    return list(_task(body, taxonomy)) if taxonomy.checkable else []


def check_stored(labels: Sequence[Any], taxonomy: Taxonomy) -> list[Problem]:
    """Validate labels in the older format, which is the stored format.

    Labels without an equivalent in the ``series`` format (types that only old projects have) are not validated.

    :param labels: the flat list of stored labels.
    :param taxonomy: the project's taxonomy.
    :return: the validation errors; empty if the taxonomy is not checkable.
    """
    return list(_stored(labels, taxonomy)) if taxonomy.checkable else []


def _stored(labels: Sequence[Any], taxonomy: Taxonomy) -> Iterator[Problem]:
    for index, label in enumerate(labels):
        converted = to_series([label], taxonomy=lambda: taxonomy)
        body = {"series": converted.series, "classification": converted.classification}
        for problem in _task(body, taxonomy):
            if problem.key != UNKNOWN:
                yield Problem(None, "labels", index, problem.field, problem.message)


def _task(body: object, taxonomy: Taxonomy) -> Iterator[Problem]:
    if not isinstance(body, Mapping):
        yield Problem(None, "", None, "", f"must be an object, not {shown(body)}")
        return
    classification, series = body.get(CLASSIFICATION.field), body.get("series")
    if classification is not None:
        for field, message in _label(CLASSIFICATION, classification, taxonomy):
            yield Problem(None, CLASSIFICATION.field, None, field, message)
    if series is not None and not is_list(series):
        yield Problem(None, "series", None, "", f"must be a list of objects, not {shown(series)}")
        return
    for index, element in enumerate(series or ()):
        for key, label_index, field, message in _series(element, taxonomy):
            yield Problem(index, key, label_index, field, message)


_InSeries = Iterator[tuple[str, int | None, str, str]]


def _series(series: object, taxonomy: Taxonomy) -> _InSeries:
    """Yield key, index, field and message of each validation error in one series."""
    if not isinstance(series, Mapping):
        yield "", None, "", f"must be an object, not {shown(series)}"
        return
    if series.get(UNKNOWN) not in (None, []):
        yield UNKNOWN, None, "", "labels of an unknown type cannot be sent and would be lost"
    # Labels are validated one by one, so that the models of all need no memory. Fields without a value are not sent.
    labels = {*LISTED, UNKNOWN}
    rest = {key: value for key, value in series.items() if value is not None and key not in labels}
    for loc, message in find_violations(Series, rest):
        key, inner = name_of(loc[0]), loc[1:]
        if key != SEGMENT.field or not inner:
            yield key, None, dotted(inner), message
        elif (instance := mask_value(inner[0])) is None:
            yield key, None, name_of(inner[0]), message
        else:
            yield key, instance, dotted(inner[1:]), message
    yield from _listed_labels(series, taxonomy)
    yield from _segments(series.get(SEGMENT.field), taxonomy)


def _listed_labels(series: Mapping[str, Any], taxonomy: Taxonomy) -> _InSeries:
    for key, kinds in LISTED.items():
        labels = series.get(key)
        if labels is not None and not is_list(labels):
            yield key, None, "", f"must be a list of objects, not {shown(labels)}"
            continue
        for index, label in enumerate(labels or ()):
            kind = kind_in(key, label) if isinstance(label, Mapping) else kinds[0]
            violations = _label(kind, label, taxonomy) if kind else [("type", _type_problem(kinds, label))]
            for field, message in violations:
                yield key, index, field, message


def _type_problem(kinds: Sequence[Kind], label: Mapping[str, Any]) -> str:
    """Return the error message for a label of an unknown type."""
    choices = f"must be one of {', '.join(repr(kind.type) for kind in kinds)}"
    label_type = label.get("type")
    return f"is missing; it {choices}" if label_type is None else f"{choices}, not {shown(label_type)}"


def _segments(segments: object, taxonomy: Taxonomy) -> _InSeries:
    for key, segment in segments.items() if isinstance(segments, Mapping) else ():
        instance = mask_value(key)
        if instance is not None:
            # A segment may be given as its category alone.
            label = segment if isinstance(segment, Mapping) else {"category": segment}
            for field, message in _meaning(SEGMENT, label, taxonomy):
                yield SEGMENT.field, instance, field, message


# ------------------------------------------------------------------ one label


def _label(kind: Kind, label: object, taxonomy: Taxonomy) -> Iterator[tuple[str, str]]:
    """Yield field and message of each validation error in one label."""
    for loc, message in find_violations(kind.model, label):
        yield dotted(loc), message
    if isinstance(label, Mapping):
        yield from _meaning(kind, label, taxonomy)


def _meaning(kind: Kind, label: Mapping[str, Any], taxonomy: Taxonomy) -> Iterator[tuple[str, str]]:
    """Validate what depends on the taxonomy, as far as the structure is valid."""
    allowed = kind.allowed(taxonomy)
    if kind.label_type:
        object_type, message = _category(label.get("category"), kind.label_type, taxonomy)
        if message:
            yield "category", message
        # Without a category, the allowed attributes are unknown.
        if object_type is None:
            return
        allowed = object_type.attributes
    key = "attributes" if kind.has("attributes") else "values"
    yield from _attributes(key, label.get(key), allowed)


def _category(category: object, label_type: str, taxonomy: Taxonomy) -> tuple[ObjectType | None, str]:
    """Return the object type of a category, or the validation error; neither for a value that is no category."""
    path: Sequence[Any] = category if is_list(category) else [category]
    names = path and all(isinstance(name, str) for name in path)
    if not names and (isinstance(category, bool) or not isinstance(category, int)):
        return None, ""
    matches = taxonomy.find(path if names else category)  # type: ignore[arg-type]
    of_label_type = [object_type for object_type in matches if object_type.label_type == label_type]
    allowed = next((object_type for object_type in of_label_type if not object_type.archived), None)
    if allowed is not None:
        return allowed, ""
    formatted = shown("/".join(path)) if names else shown(category)
    if of_label_type:
        message = f"category {formatted} is archived"
    elif matches:
        label_types = " and ".join(dict.fromkeys(object_type.label_type for object_type in matches))
        message = f"category {formatted} is for {label_types}, not for {label_type}"
    else:
        message = f"unknown category {formatted}"
    hint = suggestion(path[-1] if names else formatted, taxonomy.categories(label_type), f"{label_type} categories")
    return None, f"{message}; {hint}"


# ------------------------------------------------------------------ attributes


def _attributes(key: str, attributes: object, known: Sequence[Attribute]) -> Iterator[tuple[str, str]]:
    """Validate the attributes of a label by name."""
    for name, value in attributes.items() if isinstance(attributes, Mapping) else ():
        message = _attribute_problem(name, value, known)
        if message:
            yield join(key, name_of(name)), message


def _attribute_problem(name: object, value: object, known: Sequence[Attribute]) -> str | None:
    for attribute in known:
        if attribute.name == name:
            if attribute.archived:
                return f"attribute {shown(name)} is archived"
            return _VALUES[attribute.kind](attribute, value) if attribute.kind in _VALUES else None
    names = (attribute.name for attribute in known if not attribute.archived)
    return f"unknown attribute {shown(name)}; {suggestion(name_of(name), names, 'attributes')}"


def _bool(_attribute: Attribute, value: object) -> str | None:
    return None if isinstance(value, bool) else f"must be true or false, not {shown(value)}"


def _text(_attribute: Attribute, value: object) -> str | None:
    return None if isinstance(value, str) else f"must be text, not {shown(value)}"


def _number(attribute: Attribute, value: object) -> str | None:
    if not is_number(value):
        return f"must be a finite number, not {shown(value)}"
    if attribute.minimum is not None and value < attribute.minimum:
        return f"must be at least {attribute.minimum:.15g}, not {shown(value)}"
    if attribute.maximum is not None and value > attribute.maximum:
        return f"must be at most {attribute.maximum:.15g}, not {shown(value)}"
    return None


def _select(attribute: Attribute, value: object) -> str | None:
    if isinstance(value, bool):
        # RedBrick's export converts the option names "true" and "false" to booleans.
        same_spelling = (option for option in attribute.options if option.casefold() == str(value).casefold())
        value = next(same_spelling, value)
    if not isinstance(value, str):
        return f"must be an option name, not {shown(value)}"
    return _option(attribute, value)


def _multiselect(attribute: Attribute, value: object) -> str | None:
    if not is_list(value) or not all(isinstance(option, str) for option in value):
        return f"must be a list of option names, not {shown(value)}"
    return next((message for option in value if (message := _option(attribute, option))), None)


def _option(attribute: Attribute, name: str) -> str | None:
    if name in attribute.options:
        return None
    if name in attribute.archived_options:
        return f"option {shown(name)} is archived; {suggestion(name, attribute.options, 'options')}"
    return f"unknown option {shown(name)}; {suggestion(name, attribute.options, 'options')}"


_VALUES: Mapping[str, Callable[[Attribute, Any], str | None]] = {
    "BOOL": _bool,
    "TEXT": _text,
    "NUMBER": _number,
    "SELECT": _select,
    "MULTISELECT": _multiselect,
}


_ITEM = "video.seriesItemIndex"
_FILE = "fileIndex"
_SINGLE_FRAME_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")


@dataclass(frozen=True)
class ItemReference:
    """A label that refers to an item of its series by number.

    :param series: the series, counted from 0.
    :param label: the label, e.g. ``boundingBoxes[2]``.
    :param field: the field that holds the number.
    :param index: the item's number, counted from 0.
    """

    series: int
    label: str
    field: str
    index: int

    def beyond(self, items: int, *, names: Sequence[str] = ()) -> str | None:
        """Return an error message if the item does not exist in its series.

        :param items: the number of items in the series; 0 if unknown.
        :param names: the names of the items, as far as known.
        """
        may_have_frames = items == 1 and not (names and names[0].lower().endswith(_SINGLE_FRAME_SUFFIXES))
        if self.index < items or not items or (self.field == _FILE and may_have_frames):
            return None
        item_count = "1 item" if items == 1 else f"{items} items"
        return (
            f"series {self.series}, {self.label}, {self.field}: {self.index} is out of range, since the series has "
            f"{item_count}, counted from 0"
        )


def item_references(all_series: Any) -> tuple[ItemReference, ...]:
    """Return the highest item reference of each series and field."""
    highest: dict[tuple[int, str], ItemReference] = {}
    for reference in _references(all_series):
        key = (reference.series, reference.field)
        if key not in highest or highest[key].index < reference.index:
            highest[key] = reference
    return tuple(highest.values())


def series_items(series_info: Sequence[Mapping[str, Any]], items: Sequence[str]) -> list[list[int]]:
    """Return the task's items in each series, in order; empty if unknown.

    :param series_info: the task's ``seriesInfo``; without a complete division all items are in the first series.
    :param items: the task's items, as far as they were read.
    """
    views = [sorted(info.get("itemsIndices") or ()) for info in series_info]
    if views and all(views):
        return views
    return [list(range(len(items)))] if items else []


def misplaced(references: Iterable[ItemReference], views: Sequence[Sequence[int]], items: Sequence[str]) -> str | None:
    """Return an error message for the first label on an item that does not exist.

    :param references: the labels that refer to items.
    :param views: the items of each series, see :func:`series_items`.
    :param items: the names of the task's items, as far as they were read.
    """
    for reference in references:
        view = views[reference.series] if reference.series < len(views) else ()
        names = [items[place] for place in view if place < len(items)]
        problem = reference.beyond(len(view), names=names)
        if problem is not None:
            return problem
    return None


def _references(all_series: Any) -> Iterator[ItemReference]:
    for index, series in enumerate(all_series if is_list(all_series) else ()):
        for key, labels in series.items() if isinstance(series, Mapping) else ():
            for place, label in enumerate(labels if is_list(labels) else ()):
                for field, position in _item_fields(label):
                    yield ItemReference(index, f"{key}[{place}]", field, position)


def _item_fields(label: Any) -> Iterator[tuple[str, int]]:
    if not isinstance(label, Mapping):
        return
    video = label.get("video")
    item = video.get("seriesItemIndex") if isinstance(video, Mapping) else None
    for field, position in ((_ITEM, item), (_FILE, label.get("fileIndex"))):
        if isinstance(position, int) and not isinstance(position, bool):
            yield field, position


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
