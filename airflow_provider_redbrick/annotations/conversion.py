"""Convert user labels to the format that the server stores.

The server stores labels as a flat list, and converts the ``series`` format to it on request. A conversion has no side
effect. Labels pass these steps before they are saved:

1. User values are copied and validated, and their masks are extracted, before any request.
2. The server converts up to 50 tasks per request. A refused request is bisected until the invalid tasks are isolated,
   so an invalid task never fails the others.
3. The conversion does not receive a task's items. Labels are converted with placeholder items, and their item numbers
   are mapped to the task's own items afterwards.
4. A conversion that drops or changes labels, or answers for another task, is refused: the counts per series and label
   type must match.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from threading import Lock
from typing import TYPE_CHECKING, Any, BinaryIO

from airflow_provider_redbrick._utils import in_chunks, read_once
from airflow_provider_redbrick.annotations.masks import MASK_FIELDS, Mask, Masked, OpenFile, take_masks
from airflow_provider_redbrick.annotations.snapshot import NOT_LABELS, content_hash, copied_files, open_mask, plain_body
from airflow_provider_redbrick.exceptions import (
    NoSuchFileError,
    RedBrickAPIError,
    RedBrickInputError,
    RedBrickPayloadTooLargeError,
    RedBrickRefusedError,
    short_repr,
    single_line,
    truncate_message,
)
from airflow_provider_redbrick.labels.plain import check_finite, fields_of, to_plain
from airflow_provider_redbrick.labels.strict_json import check_storable
from airflow_provider_redbrick.labels.taxonomy import Taxonomy
from airflow_provider_redbrick.labels.validation import (
    ItemReference,
    check_labels,
    check_stored,
    difference,
    item_references,
    series_items,
)

if TYPE_CHECKING:
    from airflow_provider_redbrick.annotations.snapshot import MaskCopy, MaskKey
    from airflow_provider_redbrick.client.operations.account import RedBrickClient
    from airflow_provider_redbrick.client.operations.project import RedBrickProject


log = logging.getLogger(__name__)

# A placeholder: the import format requires names and items, but labels do not depend on them.
_PLACEHOLDER_ITEM = "https://test"
# Fields displayed with a series, and set when its task is created.
_IMAGE_FIELDS = frozenset({"heatMaps", "transforms", "centerline"})
_MASK_REFERENCES = ("segmentations", "segmentMap")
_MAX_ITEMS = 100_000
CONVERSIONS_A_REQUEST = 50


@dataclass(frozen=True, repr=False)
class Labels:
    """User labels for one task; the repr shows none of them.

    :param task_id: the task.
    :param body: ``series``, ``classification`` or both, or the older ``labels``; None submits the existing labels.
    :param stored: the paths of masks that the task already has.
    :param copies: copies of masks taken when the labels were returned; None if none were taken yet.
    """

    task_id: str
    body: Mapping[str, Any] | None
    stored: frozenset[str] = frozenset()
    copies: Mapping[MaskKey, MaskCopy] | None = None

    @property
    def names_masks(self) -> bool:
        """Whether the labels may refer to masks."""
        series = (self.body or {}).get("series")
        if not isinstance(series, Sequence):
            return False
        values = (element.get(key) for element in series if isinstance(element, Mapping) for key in _MASK_REFERENCES)
        # Arrays have no truth value.
        return any(bool(value) if isinstance(value, Sequence | Mapping) else value is not None for value in values)

    def plain(self) -> Labels:
        """Return a copy as plain JSON values, and copies of mask objects.

        :raises RedBrickInputError: if JSON cannot represent a value.
        """
        if self.copies is not None:
            return self
        body, copies = plain_body(self.body)
        return replace(self, body=body, copies=copies)

    def copied(self, open_file: Callable[[str], BinaryIO | None]) -> Labels:
        """Return a snapshot of the values and of the mask files that they name.

        :param open_file: raises if there is no such file, or returns None to skip the copy.
        :raises RedBrickInputError: if JSON cannot represent a value, or a mask file cannot be read.
        """
        plain = self.plain()
        copies = dict(plain.copies or {})
        if plain.names_masks:
            copies.update(copied_files(plain.body, self.stored, open_file, known=copies.keys()))
        return replace(plain, copies=copies)

    def copied_if_there(self, open_file: OpenFile) -> Labels:
        """Return a snapshot that skips missing files, as the task may have those masks.

        :raises RedBrickInputError: if JSON cannot represent a value, or a mask file cannot be read.
        """

        def open_if_exists(path: str) -> BinaryIO | None:
            try:
                return open_mask(path, open_file)
            except NoSuchFileError:
                return None

        return self.copied(open_if_exists)

    def with_stored(self, paths: frozenset[str]) -> Labels:
        """Return the labels with the task's masks, which are not read from files."""
        copies = None
        if self.copies is not None:
            copies = {key: copy for key, copy in self.copies.items() if key[1] not in paths}
        return replace(self, stored=paths, copies=copies)

    def to_import(self) -> dict[str, Any]:
        """Return the task in the server's import format.

        :raises RedBrickInputError: if the labels cannot be sent in their present form.
        """
        body = self.body or {}
        task: dict[str, Any] = {"taskId": self.task_id, "name": self.task_id}
        if "labels" in body:
            if "series" in body or "classification" in body:
                raise RedBrickInputError("the older 'labels' cannot be combined with 'series' or 'classification'")
            task.update(items=[_PLACEHOLDER_ITEM], labels=list_of_objects(body["labels"], "labels"))
        else:
            all_series = body.get("series")
            # A task has at least one series, so no series and one empty series are equivalent.
            series = list_of_objects([] if all_series is None else all_series, "series") or [{}]
            task["series"] = [_with_placeholder_items(series_labels(element, i), i) for i, element in enumerate(series)]
            if body.get("classification") is not None:
                task["classification"] = body["classification"]
        check_json(task)
        return task


@dataclass(frozen=True, repr=False)
class Converted:
    """The labels of one task as the server stores them, with their masks.

    :param labels: the flat list; an empty one removes the task's labels.
    :param masks: the masks to store.
    :param unmasked: the series whose masks are removed.
    :param starts: for each series, the number given to its first item in the conversion.
    :param references: the labels that refer to an item of their series.
    :param sha256: the hash of the user's values and masks.
    """

    labels: list[dict[str, Any]]
    masks: tuple[Mask, ...] = ()
    unmasked: frozenset[int] = frozenset()
    starts: tuple[int, ...] = ()
    references: tuple[ItemReference, ...] = ()
    sha256: str = ""

    @property
    def detail(self) -> dict[str, str]:
        """The report fields of these labels."""
        return {"labels_sha256": self.sha256} if self.sha256 else {}

    def on_items_of(self, series_info: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return the labels with the task's own item numbers.

        :param series_info: the task's ``seriesInfo``; without a complete division all items are in the first series.
        """
        views = series_items(series_info, ())
        return [self._placed(label, views) for label in self.labels]

    def _placed(self, label: dict[str, Any], views: Sequence[Sequence[int]]) -> dict[str, Any]:
        item, series = label.get("globalitemsindex"), label.get("volumeindex") or 0
        if not isinstance(item, int) or not series < len(self.starts):
            return label
        rank = item - self.starts[series] if item >= self.starts[series] else item
        view = views[series] if series < len(views) else ()
        return {**label, "globalitemsindex": view[rank] if rank < len(view) else rank}


@dataclass(frozen=True)
class Converter:
    """Validate labels, extract their masks, and have the server convert them.

    :param client: the client that requests conversions.
    :param open_file: opens mask files.
    :param check: validates labels first; None skips validation.
    :param rounding_warning_lock: acquired by the first warning about rounded masks, so that it is logged once.
    """

    client: RedBrickClient
    open_file: OpenFile
    check: LabelCheck | None = None
    rounding_warning_lock: Lock = field(default_factory=Lock, repr=False, compare=False)

    @classmethod
    def for_project(cls, project: RedBrickProject, open_file: OpenFile, *, validate: str) -> Converter:
        """Return the converter that prepares labels for a project.

        :param project: the project, whose taxonomy labels are validated against.
        :param open_file: opens mask files.
        :param validate: ``strict``, ``warn`` or ``off``.
        """
        check = None if validate == "off" else LabelCheck(project, strict=validate == "strict")
        return cls(project.client, open_file, check)

    def convert(self, batch: Iterable[Labels]) -> dict[str, Converted | str]:
        """Return for each task ID its converted labels, or an error message."""
        result: dict[str, Converted | str] = {}
        ready: dict[str, tuple[Labels, Masked, dict[str, Any]]] = {}
        for user_labels in batch:
            try:
                labels = user_labels.plain()
                masked = self.take_masks(labels.task_id, labels.body or {}, labels.stored, labels.copies)
                ready[labels.task_id] = labels, masked, Labels(labels.task_id, masked.body).to_import()
            except RedBrickInputError as error:
                result[user_labels.task_id] = f"cannot be sent: {error}"
            except RedBrickAPIError as error:
                result[user_labels.task_id] = f"could not be checked: {error}"
        converted = convert_all(self.client, [(key, task) for key, (_, _, task) in ready.items()])
        for key, stored in converted.items():
            result[key] = stored if isinstance(stored, str) else _converted(stored, *ready[key])
        return result

    def take_masks(
        self,
        key: str,
        body: Mapping[str, Any],
        stored: frozenset[str] = frozenset(),
        copies: Mapping[MaskKey, MaskCopy] | None = None,
    ) -> Masked:
        """Validate labels, and extract their masks.

        :param key: the task's name in messages.
        :param body: the labels as plain values.
        :param stored: the paths of masks that the task already has.
        :param copies: copies of masks taken when the labels were returned.
        :raises RedBrickInputError: if the labels are invalid and must not be sent.
        """
        check_storable(body)
        if self.check is not None:
            self.check(key, body)
        masked = take_masks(body, self.open_file, stored, copies) if _has_mask_fields(body) else Masked(body)
        if self.check is not None:
            self.check.judge(key, masked.doubts)
        if masked.rounded and self.rounding_warning_lock.acquire(blocking=False):
            log.warning(
                "Mask %s has values that are whole numbers only after rounding, such as 0.99999. They are rounded. "
                "Further masks of this kind are not logged.",
                single_line(masked.rounded[0]),
            )
        return masked


def _converted(stored: Mapping[str, Any], labels: Labels, masked: Masked, task: Mapping[str, Any]) -> Converted:
    series = task.get("series") or ()
    counts = (len(element["items"]) if isinstance(element["items"], list) else 1 for element in series)
    starts = tuple(accumulate(counts, initial=0))
    return Converted(
        list(stored.get("labels") or ()),
        masked.masks,
        masked.unmasked,
        starts[:-1],
        item_references(series),
        content_hash(labels.body or {}, masked.digests),
    )


def _has_mask_fields(body: Mapping[str, Any]) -> bool:
    """Return whether a series has a field about masks."""
    series = body.get("series")
    return isinstance(series, Sequence) and any(
        isinstance(element, Mapping) and not MASK_FIELDS.isdisjoint(element) for element in series
    )


def convert_all(
    client: RedBrickClient, tasks: Sequence[tuple[str, dict[str, Any]]], *, layout: bool = False
) -> dict[str, Mapping[str, Any] | str]:
    """Convert tasks in the import format, several per request.

    Each conversion is compared with its task, so a result is complete.

    :param client: the client that requests conversions.
    :param tasks: pairs of a key and a task.
    :param layout: also compare the other image fields of new tasks.
    :return: for each key the conversion, or an error message.
    """
    result: dict[str, Mapping[str, Any] | str] = {}
    for chunk in in_chunks(tasks, CONVERSIONS_A_REQUEST):
        converted = _convert_chunk(client, chunk)
        for key, task in chunk:
            stored = converted[key]
            result[key] = (
                stored if isinstance(stored, str) else _conversion_problem(task, stored, layout=layout)
            ) or stored
    return result


def _conversion_problem(task: Mapping[str, Any], stored: Mapping[str, Any], *, layout: bool) -> str | None:
    """Return why a conversion cannot be sent; None if it is complete."""
    if any(_differs(stored.get(key), task[key]) for key in ("taskId", "name") if key in task):
        return "cannot be sent: RedBrick's conversion is for another task"
    problem = difference(task, stored, layout=layout)
    return None if problem is None else f"cannot be sent: RedBrick's conversion differs from the labels: {problem}"


def _differs(answered: object, expected: object) -> bool:
    """Return whether an answer has another value; an absent value does not differ."""
    return answered is not None and str(answered).strip().lower() != str(expected).strip().lower()


def _convert_chunk(
    client: RedBrickClient, chunk: Sequence[tuple[str, dict[str, Any]]]
) -> dict[str, Mapping[str, Any] | str]:
    """Convert tasks in one request; bisect a refused one to isolate invalid tasks."""
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


def read_body(value: object, task_id: str | None = None) -> Mapping[str, Any]:
    """Read the return value of a labeler.

    :param value: an object or a model in the ``series`` format, or a list of series.
    :param task_id: the expected task; labels that name another one are refused.
    :raises RedBrickInputError: if the value is none of these.
    """
    if not isinstance(value, (Mapping, Sequence)):
        fields = fields_of(value)
        value = value if fields is None else fields
    if isinstance(value, Mapping):
        label_task_id = value.get("taskId")
        if None not in {task_id, label_task_id} and str(label_task_id).lower() != str(task_id).lower():
            raise RedBrickInputError(f"the labels have the taskId of another task: {short_repr(label_task_id)}")
        body = {key: value[key] for key in ("series", "classification", "labels") if value.get(key) is not None}
        if body:
            return body
    elif isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        if value:
            return {"series": list(value)}
        raise RedBrickInputError(
            "an empty list of series is ambiguous; return {'series': []} for no labels, or None to skip the task"
        )
    raise RedBrickInputError(
        "labels must be an object with 'series', 'classification' or the older 'labels', or a list of series, "
        f"not {type(value).__name__}" + (f" with {sorted(map(str, value))}" if isinstance(value, Mapping) else "")
    )


def series_labels(element: Mapping[str, Any], index: int) -> dict[str, Any]:
    """Return the labels of a series, without its other fields.

    :param element: the series.
    :param index: its number in messages.
    :raises RedBrickInputError: if it has labels of an unknown type.
    """
    if element.get("unknown"):
        raise RedBrickInputError(f"series {index} has labels of an unknown type, which would be lost")
    return {
        key: value for key, value in element.items() if key not in NOT_LABELS and key != "unknown" and value is not None
    }


def list_of_objects(value: object, what: str) -> list[Mapping[str, Any]]:
    """Return a value as a list of objects.

    :param value: the value to check.
    :param what: its name in messages.
    :raises RedBrickInputError: if it is not a list of objects.
    """
    if not isinstance(value, (list, tuple)) or not all(isinstance(element, Mapping) for element in value):
        raise RedBrickInputError(f"{what!r} must be a list of objects")
    return list(value)


def check_json(task: Mapping[str, Any]) -> None:
    """Check that JSON can represent a task.

    :raises RedBrickInputError: if it cannot.
    """
    try:
        json.dumps(task, allow_nan=False)
    except (TypeError, ValueError):
        check_finite(to_plain(task))


def _with_placeholder_items(series: dict[str, Any], index: int) -> dict[str, Any]:
    """Name a series, and add as many placeholder items as its labels refer to."""
    series = {key: value for key, value in series.items() if key not in _IMAGE_FIELDS}
    last = max(_item_indices(series), default=0)
    if last >= _MAX_ITEMS:
        raise RedBrickInputError(f"series {index} has a label on item {last}, beyond the limit of {_MAX_ITEMS} items")
    return {**series, "name": f"{index}", "items": [_PLACEHOLDER_ITEM] * (last + 1) if last else _PLACEHOLDER_ITEM}


def _item_indices(series: Mapping[str, Any]) -> Iterator[int]:
    for labels in series.values():
        for label in labels if isinstance(labels, list) else ():
            video = label.get("video") if isinstance(label, Mapping) else None
            item = video.get("seriesItemIndex") if isinstance(video, Mapping) else None
            if isinstance(item, int) and item > 0:
                yield item


MODES = ("strict", "warn", "off")
_MAX_NAMED = 5


@dataclass(frozen=True)
class LabelCheck:
    """Validate labels against a project's taxonomy, which is read on first use.

    :param project: the project.
    :param strict: refuse invalid labels; otherwise only log a warning.
    """

    project: RedBrickProject
    strict: bool = True

    def __call__(self, task_id: str, body: Mapping[str, Any]) -> None:
        """Validate the labels of one task.

        :param task_id: the task's name in messages.
        :param body: the labels as plain values.
        :raises RedBrickInputError: if they are invalid and ``strict`` is set.
        """
        if "labels" in body:
            labels = body["labels"]
            self.judge(task_id, check_stored(labels, self._taxonomy) if isinstance(labels, list) else ())
        else:
            self.judge(task_id, check_labels(body, self._taxonomy))

    def judge(self, task_id: str, problems: Sequence[object]) -> None:
        """Refuse labels with problems, or log a warning.

        :param task_id: the task's name in messages.
        :param problems: the validation errors of its labels.
        :raises RedBrickInputError: if there are problems and ``strict`` is set.
        """
        if not problems:
            return
        messages = [str(problem) for problem in problems[:_MAX_NAMED]]
        more = [f"and {len(problems) - _MAX_NAMED} more"] if len(problems) > _MAX_NAMED else []
        message = truncate_message("; ".join([*messages, *more]))
        if self.strict:
            raise RedBrickInputError(message)
        log.warning(
            "Task %s: labels are sent despite validation errors: %s",
            task_id,
            truncate_message(message),
        )

    @read_once
    def _taxonomy(self) -> Taxonomy:
        taxonomy = Taxonomy.from_wire(self.project.taxonomy)
        if not taxonomy.checkable:
            log.warning(
                "Labels are not validated: the project has no taxonomy of the current generation. Its taxonomy is %r.",
                taxonomy.name,
            )
        return taxonomy
