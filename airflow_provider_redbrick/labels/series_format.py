"""Convert RedBrick's stored ("flat") labels to the documented `series` format.

Stored labels are one flat list in which each label states its series and type. In the `series` format, each series
lists its boxes, polygons, measurements and so on. The result equals the vendor's export before masks are processed: a
segmentation is the path of one file whose voxel values are the keys of `segmentMap`.

1. No stored value makes the conversion raise, and its arguments are not changed.
2. No label is dropped. A label without an equivalent (unknown type, damaged, empty classification, or replaced by a
   later label for the same task or voxels) is kept as stored in the list `"unknown"` of its series, or of the first
   series if its own index is invalid.
3. RedBrick does not accept the key `"unknown"`: callers that send series back must remove it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from airflow_provider_redbrick.client.models.parsing import json_object
from airflow_provider_redbrick.labels.schema import (
    CLASSIFICATION,
    SEGMENT,
    Fields,
    Kind,
    UnsupportedLabelError,
    kind_of,
)
from airflow_provider_redbrick.labels.taxonomy import Attribute, Taxonomy

UNKNOWN = "unknown"

# A higher index of a series that the task does not have is damaged, and must not create that many empty series.
MAX_SERIES = 1000


@dataclass(frozen=True)
class SeriesLabels:
    """A task's labels.

    :param series: one dict per series, in the task's order.
    :param classification: the classification of the whole task, if any.
    """

    series: list[dict[str, Any]]
    classification: dict[str, Any] | None


def to_series(
    flat: Sequence[Mapping[str, Any]],
    *,
    series_info: Sequence[Mapping[str, Any]] = (),
    labels_map: Sequence[Mapping[str, Any] | None] = (),
    items: Sequence[str] = (),
    taxonomy: Callable[[], Taxonomy] | None = None,
) -> SeriesLabels:
    """Convert a task's stored labels to the `series` format.

    No stored value makes it raise, and its arguments are not changed.

    :param flat: the decoded `labelsData`, with category and attribute names filled in.
    :param series_info: the task's `seriesInfo` (`name`, `metaData`, `imageHeaders`, `itemsIndices`).
    :param labels_map: the task's `labelsMap`.
    :param items: the task's item paths; without them instance classifications have no `fileName`.
    :param taxonomy: reads the project's taxonomy; called only if a value is the word "true" or "false" in any case. For
        attributes of type TEXT or SELECT that is text, for others a boolean. Without a checkable taxonomy it is a
        boolean, as in the vendor's export: older projects store booleans as words.
    :return: at least one series, and as many as `flat`, `series_info` or `labels_map` refer to.
    """
    infos = [info if isinstance(info, Mapping) else {} for info in series_info or ({},)]
    conversion = _Conversion(infos, items or (), taxonomy or Taxonomy)
    for position, entry in enumerate(labels_map or ()):
        conversion.add_mask(position, entry)
    indexed_labels = [(label, conversion.series_of(label)) for label in flat]
    for _, index in indexed_labels:
        conversion.grow_to(index or 0)
    for label, index in indexed_labels:
        conversion.add_label(label, index)
    return SeriesLabels(conversion.series, conversion.classification)


class _Conversion:
    """The result under construction; a series index of None means an invalid index."""

    def __init__(
        self, infos: Sequence[Mapping[str, Any]], items: Sequence[str], taxonomy: Callable[[], Taxonomy]
    ) -> None:
        self._taxonomy = taxonomy
        self.series: list[Fields] = [_series_fields(info) for info in infos]
        self.classification: Fields | None = None
        self._max_series = max(MAX_SERIES, len(infos))
        self._files = _Files(infos, items)
        # The stored form of the labels in the result, to keep them if a later label replaces them.
        self._classification_source: tuple[Any, int] | None = None
        self._segment_sources: dict[tuple[int, str], Any] = {}

    def grow_to(self, index: int) -> Fields:
        while len(self.series) <= index:
            self.series.append({})
        return self.series[index]

    def series_of(self, label: Any) -> int | None:
        """Return the series index of a label; 0 if it states none."""
        if not isinstance(label, Mapping):
            return None
        index = label.get("volumeindex")
        return 0 if index is None else self._valid_index(index)

    def _valid_index(self, index: Any) -> int | None:
        return index if _is_count(index) and index < self._max_series else None

    def _keep_unknown(self, stored: Any, index: int | None) -> None:
        self.grow_to(index or 0).setdefault(UNKNOWN, []).append(stored)

    def add_mask(self, position: int, entry: Any) -> None:
        """Record the mask file of a series; an entry may be null."""
        index = self._series_of_mask(position, entry)
        path = entry.get("labelName") if isinstance(entry, Mapping) else entry
        if path and (index is None or not isinstance(entry, Mapping) or not isinstance(path, str)):
            self._keep_unknown(entry, index)
        elif index is not None:
            series = self.grow_to(index)
            if path:
                _with_mask_fields(series)
                paths = _as_list(series.get("segmentations"))
                if path not in paths:
                    series["segmentations"] = [*paths, path] if paths else path

    def _series_of_mask(self, position: int, entry: Any) -> int | None:
        if isinstance(entry, Mapping):
            if entry.get("seriesIndex") is not None:
                return self._valid_index(entry["seriesIndex"])
            index = self._files.series_with(entry.get("imageIndex"))
            if index is not None:
                return index
        return self._valid_index(position)

    def add_label(self, stored: Any, index: int | None) -> None:
        if index is None:
            self._keep_unknown(stored, None)
            return
        try:
            label = {key: value for key, value in stored.items() if value is not None}
            self._add_supported(label, stored, index)
        except UnsupportedLabelError:
            self._keep_unknown(stored, index)

    def _add_supported(self, label: Fields, stored: Any, index: int) -> None:
        kind = kind_of(label)
        if kind is None:
            raise UnsupportedLabelError("unknown type")
        label = self._with_booleans(label, kind)
        if kind is CLASSIFICATION:
            self._classify_task(_not_empty(_common(label)), stored, index)
        elif kind is SEGMENT:
            self._segment(label, stored, index)
        elif kind.field == "instanceClassifications":
            self._append(index, kind, self._instance_classification(label, index))
        else:
            self._append(index, kind, self._listed(label, kind, index))

    def _with_booleans(self, label: Fields, kind: Kind) -> Fields:
        """Return a label with the words "true" and "false" as booleans."""
        stored = _as_list(label.get("attributes"))
        if not any(map(_is_boolean_word, stored)):
            return label
        text_attributes = _text_attributes(label, kind, self._taxonomy())
        attributes = [
            {**attribute, "value": _BOOLEAN_WORDS[attribute["value"].lower()]}
            if _is_boolean_word(attribute) and attribute.get("name") not in text_attributes
            else attribute
            for attribute in stored
        ]
        return {**label, "attributes": attributes}

    def _append(self, index: int, kind: Kind, fields: Fields) -> None:
        self.series[index].setdefault(kind.field, []).append(fields)

    def _classify_task(self, fields: Fields, stored: Any, index: int) -> None:
        if self._classification_source:
            self._keep_unknown(*self._classification_source)
        self.classification, self._classification_source = fields, (stored, index)

    def _instance_classification(self, label: Fields, index: int) -> Fields:
        frame = label.get("frameindex")
        if not _is_count(frame):
            raise UnsupportedLabelError("no frame")
        fields = {"fileIndex": frame, "values": _common(label).get("attributes", {})}
        name = self._files.name(index, frame)
        return fields if name is None else {**fields, "fileName": name}

    def _segment(self, label: Fields, stored: Any, index: int) -> None:
        instance = label["dicom"]["instanceid"]
        if isinstance(instance, bool) or not isinstance(instance, int | str):
            raise UnsupportedLabelError("no instance number")
        fields = _common(label)
        if label["dicom"].get("groupids"):
            fields["overlappingGroups"] = label["dicom"]["groupids"]
        # A segment without a series index is in the masks of all series.
        for series_index in (index,) if "volumeindex" in label else range(len(self.series)):
            key = (series_index, str(instance))
            if key in self._segment_sources:
                self._keep_unknown(self._segment_sources[key], series_index)
            self._segment_sources[key] = stored
            series = _with_mask_fields(self.series[series_index])
            path = series.get("segmentations")
            mask = {"mask": path} if isinstance(path, str) else {}
            series["segmentMap"][str(instance)] = {**fields, **mask}

    def _listed(self, label: Fields, kind: Kind, index: int) -> Fields:
        fields = {**(kind.read(label[kind.stored[0]]) if kind.read else {}), **_common(label)}
        if kind.has("video"):
            fields.update(self._video(label, index))
        if kind.has("stats") and isinstance(label.get("stats"), Mapping):
            fields["stats"] = {key: value for key, value in label["stats"].items() if value is not None}
        return fields if kind.read else _not_empty(fields)

    def _video(self, label: Fields, index: int) -> Fields:
        """Return {"video": ...} for a label on one frame or slice, else {}."""
        item, frame = label.get("globalitemsindex"), label.get("frameindex")
        if not (_is_count(item) or _is_count(frame)):
            return {}
        fields = {
            "seriesItemIndex": self._files.rank(index, item) if _is_count(item) else None,
            "seriesFrameIndex": label.get("seriesframeindex"),
            "frameIndex": frame,
        }
        return {
            "video": {
                "trackId": label.get("trackid", ""),
                "keyFrame": label.get("keyframe", True),
                "endTrack": label.get("end", True),
                **{key: value for key, value in fields.items() if value is not None},
            }
        }


class _Files:
    """The items of each series, identified by their index among the task's items."""

    def __init__(self, infos: Sequence[Mapping[str, Any]], items: Sequence[str]) -> None:
        self._items = items
        self._views: list[Sequence[int]] = [_counts(info.get("itemsIndices")) for info in infos]
        if not all(self._views):
            # Without a complete division everything is in the first series.
            everything = range(len(items) if items else sys.maxsize)
            self._views = [everything, *(() for _ in infos[1:])]
        self._ranks: dict[int, Mapping[int, int]] = {}

    def series_with(self, item: Any) -> int | None:
        return next((index for index, view in enumerate(self._views) if _is_count(item) and item in view), None)

    def name(self, series: int, position: int) -> str | None:
        """Return the item at a position in the viewing order of the series.

        :return: "" if there is no such item; None if the items are unknown.
        """
        if not self._items:
            return None
        view = self._view(series)
        return self._items[view[position]] if position < len(view) and view[position] < len(self._items) else ""

    def rank(self, series: int, item: int) -> int | None:
        """Return an item's index in its series, which keeps the task's item order."""
        view = self._view(series)
        if isinstance(view, range):
            return item if item in view else None
        if series not in self._ranks:
            self._ranks[series] = {item: rank for rank, item in enumerate(sorted(view))}
        return self._ranks[series].get(item)

    def _view(self, series: int) -> Sequence[int]:
        return self._views[series] if series < len(self._views) else ()


def _series_fields(info: Mapping[str, Any]) -> Fields:
    """Return a series' own fields; metadata and headers are stored as JSON text."""
    fields: Fields = {"name": info["name"]} if info.get("name") else {}
    for key in ("metaData", "imageHeaders"):
        if value := json_object(info.get(key)):
            fields[key] = value
    return fields


def _common(label: Fields) -> Fields:
    """Return the fields that every label type may have."""
    fields: Fields = {}
    if label.get("labelid"):
        fields["id"] = label["labelid"]
    if "category" in label:
        fields["category"] = without_root(label["category"])
    attributes = _attributes(label.get("attributes"))
    if attributes:
        fields["attributes"] = attributes
    if "linkid" in label:
        fields["group"] = label["linkid"]
    if label.get("readonly"):
        fields["readOnly"] = label["readonly"]
    return fields


def without_root(stored: Any) -> Any:
    """Return a category without the root of older taxonomies.

    For example, [["object", "tumor"]] becomes "tumor".
    """
    path = stored[0] if isinstance(stored, list) and stored else None
    if not isinstance(path, list) or len(path) < 2:
        return stored
    return path[1] if len(path) == 2 else path[1:]


def _attributes(stored: Any) -> Fields:
    attributes: Fields = {}
    for attribute in _as_list(stored):
        if not isinstance(attribute, Mapping) or not isinstance(attribute.get("name"), str):
            raise UnsupportedLabelError("attribute without a name")
        attributes[attribute["name"]] = attribute.get("value")
    return attributes


_BOOLEAN_WORDS = {"true": True, "false": False}


def _is_boolean_word(attribute: object) -> bool:
    value = attribute.get("value") if isinstance(attribute, Mapping) else None
    return isinstance(value, str) and value.lower() in _BOOLEAN_WORDS


def _text_attributes(label: Fields, kind: Kind, taxonomy: Taxonomy) -> set[str]:
    """Return the names of a label's text attributes, according to the taxonomy."""
    if not taxonomy.checkable:
        return set()
    known = _object_attributes(label, kind, taxonomy) if kind.label_type else kind.allowed(taxonomy)
    return {attribute.name for attribute in known if attribute.kind in {"TEXT", "SELECT"}}


def _object_attributes(label: Fields, kind: Kind, taxonomy: Taxonomy) -> Iterator[Attribute]:
    """Yield the attributes of a label's category and type."""
    category = without_root(label.get("category"))
    path = category if isinstance(category, list) else [category]
    if not path or not all(isinstance(name, str) for name in path):
        return
    for object_type in taxonomy.find(path):
        if object_type.label_type == kind.label_type:
            yield from object_type.attributes


def _not_empty(classification: Fields) -> Fields:
    """Refuse a classification that has only an id, which the editor leaves behind."""
    if classification.keys() == {"id"}:
        raise UnsupportedLabelError("empty classification")
    return classification


def _with_mask_fields(series: Fields) -> Fields:
    # A stored mask is one file of instance numbers, so none of the three special forms applies.
    for key in ("binaryMask", "semanticMask", "pngMask"):
        series[key] = False
    series.setdefault("segmentMap", {})
    return series


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _counts(value: Any) -> list[int]:
    return value if isinstance(value, list) and all(map(_is_count, value)) else []


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
