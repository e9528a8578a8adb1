"""Labels on their way: from what users hand in to what the server stores."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.api.chunks import in_chunks
from airflow_provider_redbrick.batch.masks import Mask, Masked, OpenFile, take_masks
from airflow_provider_redbrick.exceptions import (
    RedBrickAPIError,
    RedBrickInputError,
    RedBrickPayloadTooLargeError,
    RedBrickRefusedError,
)
from airflow_provider_redbrick.labels.depth import BeyondError, check_depth

if TYPE_CHECKING:
    from airflow_provider_redbrick.api.client import RedBrickClient
    from airflow_provider_redbrick.batch.checking import LabelCheck

# The import format insists on names and items; labels do not depend on them.
_ITEM = "https://test"
_NOT_LABELS = frozenset({"name", "items", "imageHeaders", "metaData"})
# What is shown with a series, and set when its task is created.
_LAYERS = frozenset({"heatMaps", "transforms", "centerline"})
_NAME_MASKS = ("segmentations", "segmentMap")
_MOST_ITEMS = 100_000
CONVERSIONS_A_REQUEST = 50


@dataclass(frozen=True, repr=False)
class Labels:
    """Labels for one task, as handed in; the repr shows none of them.

    :param body: ``series`` and/or ``classification``, or the older ``labels``; None submits what the task has.
    :param stored: the paths of masks that the task has already.
    """

    task_id: str
    body: Mapping[str, Any] | None
    stored: frozenset[str] = frozenset()

    @property
    def names_masks(self) -> bool:
        """Whether there may be masks in it."""
        series = (self.body or {}).get("series")
        if not isinstance(series, Sequence):
            return False
        named = (each.get(key) for each in series if isinstance(each, Mapping) for key in _NAME_MASKS)
        # Somebody's array, which is no path, is neither true nor false.
        return any(bool(value) if isinstance(value, Sequence | Mapping) else value is not None for value in named)

    def plain(self) -> Labels:
        """Return the same labels as plain JSON values: models hand out numbers of their own kinds.

        :raises RedBrickInputError: when there is something that JSON has no word for.
        """
        try:
            text = json.dumps(self.body, default=_plain_value)
            check_depth(text.encode())
            return replace(self, body=json.loads(text))
        except (TypeError, ValueError, RecursionError, BeyondError) as error:
            raise RedBrickInputError(f"it cannot be written as JSON: {error}") from None

    def to_import(self) -> dict[str, Any]:
        """Return the task in the server's import format.

        :raises RedBrickInputError: when the labels have no shape that can be sent.
        """
        body = self.body or {}
        task: dict[str, Any] = {"taskId": self.task_id, "name": self.task_id}
        if "labels" in body:
            if "series" in body or "classification" in body:
                raise RedBrickInputError("it has both the older 'labels' and 'series' or 'classification'")
            task.update(items=[_ITEM], labels=list_of_objects(body["labels"], "labels"))
        else:
            given = body.get("series")
            # No series and none that hold anything are the same: a task has at least one.
            series = list_of_objects([] if given is None else given, "series") or [{}]
            task["series"] = [_with_place(series_labels(each, i), i) for i, each in enumerate(series)]
            if body.get("classification") is not None:
                task["classification"] = body["classification"]
        check_json(task)
        return task


@dataclass(frozen=True, repr=False)
class Converted:
    """Labels of one task as the server stores them, and the masks that go with them.

    :param labels: the flat list, None where nothing is said of labels.
    :param starts: for each series, the number that its first item was counted with.
    :param unmasked: the series that are to have no mask any more.
    """

    labels: list[dict[str, Any]] | None
    masks: tuple[Mask, ...] = ()
    unmasked: frozenset[int] = frozenset()
    starts: tuple[int, ...] = ()

    def on_items_of(self, series_info: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]] | None:
        """Return the labels with each on the item it means: the conversion did not know the task's own items.

        :param series_info: the task's ``seriesInfo``; without a complete division all items are in the first series.
        """
        views = [sorted(info.get("itemsIndices") or ()) for info in series_info]
        if self.labels is None or not all(views):
            views = []
        return None if self.labels is None else [self._placed(label, views) for label in self.labels]

    def _placed(self, label: dict[str, Any], views: Sequence[Sequence[int]]) -> dict[str, Any]:
        item, series = label.get("globalitemsindex"), label.get("volumeindex") or 0
        if not isinstance(item, int) or not series < len(self.starts):
            return label
        rank = item - self.starts[series] if item >= self.starts[series] else item
        view = views[series] if series < len(views) else ()
        return {**label, "globalitemsindex": view[rank] if rank < len(view) else rank}


@dataclass(frozen=True)
class Converter:
    """Makes labels ready to be sent: checks them, takes their masks, and has the server convert the rest.

    :param check: looks at labels first; None looks at nothing.
    :param open_file: finds mask files.
    """

    client: RedBrickClient
    open_file: OpenFile
    check: LabelCheck | None = None

    def convert(self, batch: Iterable[Labels]) -> dict[str, Converted | str]:
        """Return for each task id its labels as they are to be sent, or why they cannot be."""
        result: dict[str, Converted | str] = {}
        ready: dict[str, tuple[Masked, dict[str, Any]]] = {}
        for given in batch:
            try:
                labels = given.plain()
                masked = self.take_masks(labels.task_id, labels.body or {}, labels.stored)
                ready[labels.task_id] = masked, Labels(labels.task_id, masked.body).to_import()
            except RedBrickInputError as error:
                result[given.task_id] = f"cannot be sent: {error}"
            except RedBrickAPIError as error:
                result[given.task_id] = f"could not be checked: {error}"
        converted = convert_all(self.client, [(key, task) for key, (_, task) in ready.items()])
        for key, stored in converted.items():
            masked, task = ready[key]
            result[key] = stored if isinstance(stored, str) else _converted(stored, masked, task)
        return result

    def take_masks(self, key: str, body: Mapping[str, Any], stored: frozenset[str] = frozenset()) -> Masked:
        """Check labels, and take their masks out of them.

        :param key: what the task is called, for messages.
        :param stored: the paths of masks that the task has already.
        :raises RedBrickInputError: when they have problems and must not be sent.
        """
        if self.check is not None:
            self.check(key, body)
        masked = take_masks(body, self.open_file, stored)
        if self.check is not None:
            self.check.judge(key, masked.doubts)
        return masked


def _converted(stored: Mapping[str, Any], masked: Masked, task: Mapping[str, Any]) -> Converted:
    series = task.get("series") or ()
    counts = (len(each["items"]) if isinstance(each["items"], list) else 1 for each in series)
    starts = tuple(accumulate(counts, initial=0))
    return Converted(stored.get("labels"), masked.masks, masked.unmasked, starts[:-1])


def convert_all(
    client: RedBrickClient, tasks: Sequence[tuple[str, dict[str, Any]]]
) -> dict[str, Mapping[str, Any] | str]:
    """Have tasks in the import format converted, some a request; for each key the result, or why there is none."""
    result: dict[str, Mapping[str, Any] | str] = {}
    for chunk in in_chunks(tasks, CONVERSIONS_A_REQUEST):
        result.update(_convert_chunk(client, chunk))
    return result


def _convert_chunk(
    client: RedBrickClient, chunk: Sequence[tuple[str, dict[str, Any]]]
) -> dict[str, Mapping[str, Any] | str]:
    """Convert several tasks at once; halve a list that is refused until the invalid ones stand alone."""
    try:
        converted = client.convert_labels([task for _, task in chunk])
    except (RedBrickInputError, RedBrickRefusedError, RedBrickPayloadTooLargeError) as error:
        if len(chunk) == 1:
            return {chunk[0][0]: f"cannot be sent: {error}"}
    except RedBrickAPIError as error:
        return {key: f"could not be checked: {error}" for key, _ in chunk}
    else:
        return {key: stored for (key, _), stored in zip(chunk, converted, strict=True)}
    middle = len(chunk) // 2
    return {**_convert_chunk(client, chunk[:middle]), **_convert_chunk(client, chunk[middle:])}


def read_body(value: object) -> Mapping[str, Any]:
    """Read what a labeler returned: an object in the ``series`` format, or just the list of series.

    :raises RedBrickInputError: when it is neither.
    """
    if isinstance(value, Mapping):
        body = {key: value[key] for key in ("series", "classification", "labels") if value.get(key) is not None}
        if body:
            return body
    elif isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        if value:
            return {"series": list(value)}
        raise RedBrickInputError(
            "an empty list of series says nothing: give {'series': []} for no labels, or None to leave the task alone"
        )
    raise RedBrickInputError(
        "labels must be an object with 'series', 'classification' or the older 'labels', or a list of series, "
        f"not {type(value).__name__}" + (f" with {sorted(map(str, value))}" if isinstance(value, Mapping) else "")
    )


def series_labels(element: Mapping[str, Any], index: int) -> dict[str, Any]:
    """Return what of a series is labels.

    :raises RedBrickInputError: when there are labels that cannot be sent.
    """
    if element.get("unknown"):
        raise RedBrickInputError(f"series {index} has labels of an unknown kind, which would be lost")
    return {
        key: value
        for key, value in element.items()
        if key not in _NOT_LABELS and key != "unknown" and value is not None
    }


def list_of_objects(value: object, what: str) -> list[Mapping[str, Any]]:
    """Return a list of objects.

    :raises RedBrickInputError: when it is anything else.
    """
    if not isinstance(value, (list, tuple)) or not all(isinstance(element, Mapping) for element in value):
        raise RedBrickInputError(f"its {what!r} must be a list of objects")
    return list(value)


def check_json(task: Mapping[str, Any]) -> None:
    """Check that a task can be sent.

    :raises RedBrickInputError: when it has what JSON cannot hold.
    """
    try:
        json.dumps(task, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise RedBrickInputError(f"its labels cannot be written as JSON: {error}") from None


def _with_place(series: dict[str, Any], index: int) -> dict[str, Any]:
    """Name a series, and give it as many items as its labels count: the conversion looks up which one each is on."""
    series = {key: value for key, value in series.items() if key not in _LAYERS}
    last = max(_items_named(series), default=0)
    if last >= _MOST_ITEMS:
        raise RedBrickInputError(f"series {index} has a label on item {last}; {_MOST_ITEMS} items are the most")
    return {**series, "name": f"{index}", "items": [_ITEM] * (last + 1) if last else _ITEM}


def _items_named(series: Mapping[str, Any]) -> Iterator[int]:
    for labels in series.values():
        for label in labels if isinstance(labels, list) else ():
            video = label.get("video") if isinstance(label, Mapping) else None
            item = video.get("seriesItemIndex") if isinstance(video, Mapping) else None
            if isinstance(item, int) and item > 0:
                yield item


def _plain_value(value: Any) -> Any:
    """Turn an array library's number or array into a plain one, and a path into its text."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if not hasattr(value, "tolist"):
        raise TypeError(f"{type(value).__name__} is not JSON")
    return value.tolist()
