"""Which item of its series a label names, and whether the series has such an item.

``video.seriesItemIndex`` counts the items of the label's series. ``fileIndex`` counts its files; where a series is one
file, that may be a video or a volume, whose frames or slices are counted instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airflow_provider_redbrick.labels.rules import is_list

_ITEM = "video.seriesItemIndex"
_FILE = "fileIndex"
_OF_ONE_FRAME = (".png", ".jpg", ".jpeg", ".bmp")


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
        may_have_frames = items == 1 and not (names and names[0].lower().endswith(_OF_ONE_FRAME))
        if self.index < items or not items or (self.field == _FILE and may_have_frames):
            return None
        has = "1 item" if items == 1 else f"{items} items"
        return (
            f"series {self.series}, {self.label}, {self.field}: {self.index} is beyond the series, which has {has}, "
            f"counted from 0"
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
                for field, number in _named(label):
                    yield ItemReference(index, f"{key}[{place}]", field, number)


def _named(label: Any) -> Iterator[tuple[str, int]]:
    if not isinstance(label, Mapping):
        return
    video = label.get("video")
    item = video.get("seriesItemIndex") if isinstance(video, Mapping) else None
    for field, number in ((_ITEM, item), (_FILE, label.get("fileIndex"))):
        if isinstance(number, int) and not isinstance(number, bool):
            yield field, number
