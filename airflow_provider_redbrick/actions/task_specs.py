"""Read and validate users' descriptions of new tasks, without requests.

1. A description follows the layout of an export, so exported rows can be uploaded again. Fields that only describe the
   exported task are accepted and ignored.
2. An error message names up to five errors, each with its place.
3. If a file repeats a name, the first description counts, even if it is invalid.
4. Labels and their items are validated later, against the project's taxonomy.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import ConfigDict, Field, PlainValidator, model_validator

from airflow_provider_redbrick.annotations.conversion import check_json, list_of_objects, series_labels
from airflow_provider_redbrick.client.models.parsing import check_uuid, is_uuid
from airflow_provider_redbrick.engine.outcomes import Outcome, failed
from airflow_provider_redbrick.exceptions import RedBrickInputError
from airflow_provider_redbrick.labels.fields import (
    Flag,
    InputModel,
    ItemPath,
    ItemPaths,
    Text,
    accepts,
    dotted,
    find_violations,
    is_list,
    number,
    refuse,
    shown,
)
from airflow_provider_redbrick.labels.schema import LISTED, SEGMENT
from airflow_provider_redbrick.labels.strict_json import check_storable
from airflow_provider_redbrick.labels.validation import item_references

if TYPE_CHECKING:
    from typing_extensions import Self

    from airflow_provider_redbrick.annotations.snapshot import MaskCopy, MaskKey
    from airflow_provider_redbrick.labels.file_reader import Entry

_MAX_NAMED = 5
_LABEL_FIELDS = frozenset({*LISTED, "segmentations", SEGMENT.field})


@dataclass(frozen=True, repr=False)
class NewTask:
    """The description of a task to create; the repr omits its content.

    :param name: the task's name, unique in the project.
    :param series: the series: ``items``, and optionally ``name``, ``metaData`` and labels.
    :param classification: the classification of the whole task.
    :param is_ground_truth: None if not specified.
    :param has_labels: whether the exported task had labels, possibly an empty list.
    :param storage_id: the external storage that holds its items; None if not specified.
    :param metadata: the task's metadata.
    :param pre_assign: by stage, one email or several to assign the task to.
    :param priority: from 0 to 1.
    :param place: the position in a file, for messages; empty for list input, where the name suffices.
    :param copies: copies of masks given as objects instead of paths.
    """

    name: str
    series: Sequence[Mapping[str, Any]]
    classification: Mapping[str, Any] | None = None
    is_ground_truth: bool | None = None
    has_labels: bool = False
    storage_id: str | None = None
    metadata: Mapping[str, str] | None = None
    pre_assign: Mapping[str, str | Sequence[str]] | None = None
    priority: float | None = None
    place: str = ""
    copies: Mapping[MaskKey, MaskCopy] = field(default_factory=dict)

    @property
    def misplaced(self) -> str | None:
        """The first label on an item that does not exist; None if all fit."""
        for reference in item_references(self.series):
            items = listed(self.series[reference.series]["items"])
            problem = reference.beyond(len(items), names=items)
            if problem is not None:
                return problem
        return None

    @property
    def files(self) -> list[str]:
        """The distinct paths of all its items."""
        paths: dict[str, None] = {}
        for series in self.series:
            paths.update(dict.fromkeys(listed(series["items"])))
            paths.update(dict.fromkeys(entry["item"] for entry in series.get("heatMaps") or ()))
        return list(paths)

    @property
    def specifies_labels(self) -> bool:
        """Whether labels are specified, possibly as an empty list."""
        fields = (key for series in self.series for key, value in series.items() if value is not None)
        return self.has_labels or self.classification is not None or not _LABEL_FIELDS.isdisjoint(fields)

    @property
    def body(self) -> Mapping[str, Any]:
        """Its labels in the ``series`` format."""
        body = {"series": self.series, "classification": self.classification}
        return {key: value for key, value in body.items() if value is not None}

    def to_import(self, body: Mapping[str, Any], item_names: Mapping[str, str]) -> dict[str, Any]:
        """Return the task in the server's import format.

        :param body: its labels without their masks.
        :param item_names: the name of each item in the conversion.
        :raises RedBrickInputError: if it has labels that cannot be sent.
        """
        all_series = enumerate(list_of_objects(body["series"], "series"))
        task = {**body, "name": self.name, "series": [_imported(series, i, item_names) for i, series in all_series]}
        check_json(task)
        return task

    def failure(self, reason: object) -> Outcome:
        """Return the outcome of a task that was not created."""
        message = f"{self.place}: {reason}" if self.place else reason
        return failed("", message, name=self.name)


def read_new_task(value: object, *, place: str = "") -> NewTask:
    """Read the description of a task.

    :param value: the description.
    :param place: the position in a file, for messages.
    :raises RedBrickInputError: if it is invalid; the message names up to five errors.
    """
    if not isinstance(value, Mapping):
        raise RedBrickInputError(f"it must be an object, not {shown(value)}")
    messages = [
        f"{dotted(loc)}: {message}" if loc else f"it {message}"
        for loc, message in islice(find_violations(TaskSpec, value), _MAX_NAMED)
    ]
    if messages:
        raise RedBrickInputError("; ".join(messages))
    check_storable(value)
    return NewTask(
        name=value["name"],
        series=value.get("series") or [{"items": value["items"]}],
        classification=value.get("classification"),
        is_ground_truth=value.get("isGroundTruth"),
        has_labels=value.get("labelsId") is not None,
        storage_id=value.get("storageId") and check_uuid("storageId", value["storageId"]),
        metadata=value.get("metaData"),
        pre_assign=value.get("preAssign"),
        priority=value.get("priority"),
        place=place,
    )


def read_new_tasks(entries: Iterable[Entry]) -> Iterator[NewTask | Outcome]:
    """Read the descriptions in a file.

    An invalid description, or a repeated name, yields a failed outcome.
    """
    places: dict[str, str] = {}
    for entry in entries:
        value = entry.value.get("name") if entry.value is not None else None
        name = value if isinstance(value, str) else ""
        # If a name is repeated, the first description counts, even if it fails.
        first = places.setdefault(name, entry.place) if name else entry.place
        yield _read(entry, name, first)


def _read(entry: Entry, name: str, first: str) -> NewTask | Outcome:
    problem = entry.problem
    if first != entry.place:
        problem = f"{first} already has this name, and only the first is used"
    elif entry.value is not None:
        try:
            return read_new_task(entry.value, place=entry.place)
        except RedBrickInputError as error:
            problem = str(error)
    return failed("", f"{entry.place}: {problem}", name=name)


# ------------------------------------------------------------------ models


def _check_assignees(emails: Any) -> Any:
    """Check an email or several; a blank one is an unrendered template."""
    for email in emails if is_list(emails) and emails else [emails]:
        if not isinstance(email, str) or not email.strip():
            refuse(((), f"must be an email or a list of emails, not {shown(email)}"))
    return emails


TextValues = dict[str, Text]
Assignees = dict[
    str, Annotated[str | list[str], PlainValidator(_check_assignees, json_schema_input_type=str | list[str])]
]


class HeatMap(InputModel):
    """A heat map of a series; the server validates the rest."""

    model_config = ConfigDict(extra="allow")

    item: ItemPath


class SeriesSpec(InputModel):
    """A series of a new task; its labels are validated later, with the taxonomy."""

    model_config = ConfigDict(extra="allow")

    items: ItemPaths
    name: Text | None = None
    metaData: TextValues | None = None
    imageHeaders: dict[str, Any] | None = None
    heatMaps: list[HeatMap] | None = None


class TaskSpec(InputModel):
    """A new task, as in a list or file of tasks to upload. It has either ``items`` or ``series``."""

    name: Annotated[
        str,
        accepts(
            "text that is not blank",
            lambda value: isinstance(value, str) and bool(value.strip()),
            {"type": "string", "pattern": r"\S"},
        ),
    ]
    items: ItemPaths | None = None
    series: Annotated[list[SeriesSpec] | None, Field(min_length=1)] = None
    classification: dict[str, Any] | None = None
    isGroundTruth: Flag | None = None
    metaData: TextValues | None = None
    preAssign: Assignees | None = None
    priority: Annotated[float, number("a number from 0 to 1", 0, 1)] | None = None
    storageId: Annotated[str, accepts("a UUID", is_uuid, {"type": "string", "format": "uuid"})] | None = None

    # Fields of an exported row that describe the exported task, not the one to create.
    taskId: Any = None
    currentStageName: Any = None
    labelsId: Any = None
    updatedBy: Any = None
    updatedAt: Any = None
    # Only in exports of RedBrick's SDK.
    createdBy: Any = None
    createdAt: Any = None
    updatedByUserId: Any = None
    status: Any = None

    @model_validator(mode="after")
    def _check_items(self) -> Self:
        if self.items is not None and self.series is not None:
            refuse((("items",), "cannot be combined with 'series', which have their own items"))
        if self.items is None and self.series is None:
            refuse((("items",), "is missing; specify 'items' or 'series'"))
        return self


# ------------------------------------------------------------------ series


def _imported(series: Mapping[str, Any], index: int, item_names: Mapping[str, str]) -> dict[str, Any]:
    items = series["items"]
    fields = {key: series[key] for key in ("name", "metaData", "imageHeaders") if series.get(key) is not None}
    fields["items"] = item_names[items] if isinstance(items, str) else [item_names[item] for item in items]
    if series.get("heatMaps"):
        fields["heatMaps"] = [{**entry, "item": item_names[entry["item"]]} for entry in series["heatMaps"]]
    return {**series_labels(series, index), **fields}


def listed(items: Any) -> list[str]:
    """Return the items of a series, which may be one path or a list of paths."""
    return [items] if isinstance(items, str) else list(items)
