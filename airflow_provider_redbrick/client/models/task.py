"""Frozen value objects for API answers. Any value but an id may be missing.

Design notes on tasks:

1. A :class:`Task` knows which of its fields were read (``unread``). Using one that was not read raises
   :class:`RedBrickNotReadError`: "not read" must not be taken for "empty".
2. A field that was requested and is missing in the answer counts as empty. One that was not requested counts as not
   read.
3. Optional values are parsed leniently; values of another type are an error (see ``answers``).
4. Stored labels that are not a list, or too large, are an error and never "no labels".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.client.models.parsing import (
    elements,
    flat_labels,
    identifier,
    index,
    json_object,
    moment,
    number,
    raw_text,
    text,
)
from airflow_provider_redbrick.client.models.workflow import GROUND_TRUTH, public_stage_name
from airflow_provider_redbrick.exceptions import RedBrickNotReadError

if TYPE_CHECKING:
    import pendulum


STAYED = "stayed"
"""Key of ``extraData`` that marks labels replaced in place.

The audit trail does not tell such an edit from a task that left its stage.
"""


SAVED = frozenset({"STAGED", "IN_PROGRESS"})
"""States of a task whose labels were saved and not submitted."""


@dataclass(frozen=True)
class User:
    """A user who can hold a task: a person, or an API key (which has no email).

    :param user_id: ``API:<uuid>`` for an API key.
    :param email: the person's email, if known.
    """

    user_id: str
    email: str | None = None

    @property
    def is_api_key(self) -> bool:
        """Whether this is an API key rather than a person."""
        return self.user_id.startswith("API:")

    def __str__(self) -> str:
        return self.email or ("an API key" if self.is_api_key else self.user_id)

    def is_same(self, other: User | None) -> bool:
        """Return whether both are one user, by id or by email (case-insensitive)."""
        if other is None:
            return False
        by_email = bool(self.email and other.email) and str(self.email).lower() == str(other.email).lower()
        return self.user_id == other.user_id or by_email

    @classmethod
    def from_wire(cls, data: Any) -> User | None:
        """Parse a user; ``None`` if there is none."""
        if not isinstance(data, Mapping) or not data.get("userId"):
            return None
        return cls(text(data["userId"]), text(data.get("email")) or None)


@dataclass(frozen=True)
class Member:
    """A person in a project, with the stages they may work in.

    :param user: the person.
    :param role: the project role, e.g. ``LABELER``.
    :param active: whether the membership is active.
    :param stage_access: by stage name, whether a labeler may work there.
    """

    user: User
    role: str
    active: bool
    stage_access: Mapping[str, bool]

    def may_work_in(self, stage_name: str) -> bool:
        """Return whether tasks of a stage can be assigned to this member.

        Managers and admins may work in every stage.
        """
        return self.active and (self.role != "LABELER" or self.stage_access.get(stage_name, False))

    @classmethod
    def from_wire(cls, data: Mapping[str, Any]) -> Member | None:
        """Parse a member; ``None`` if it has no user."""
        member = data.get("member") or {}
        user = User.from_wire(member.get("user"))
        if user is None:
            return None
        access = {text(a["stageName"]): bool(a.get("access")) for a in data.get("stageAccess") or ()}
        return cls(user, text(data.get("role")), member.get("active") is not False, access)


@dataclass(frozen=True)
class OutputEvent:
    """A task left a stage, or its labels were changed in place.

    :param stage_name: the stage.
    :param by: the user id of the actor.
    :param at: when it happened.
    :param next_stage: where the task went; ``None`` if unknown.
    :param accepted: a review's decision; ``None`` for anything else.
    :param extra: the ``extraData`` that the actor stored with the event; empty if there is none.
    """

    stage_name: str
    by: str | None
    at: pendulum.DateTime | None
    next_stage: str | None = None
    accepted: bool | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_edit(self) -> bool:
        """Whether the task stayed in its stage and only its labels were changed."""
        if self.extra.get(STAYED) is True:
            return True
        return self.next_stage == self.stage_name or (self.stage_name == GROUND_TRUTH and self.next_stage is None)

    def leaves(self, stage_name: str) -> bool:
        """Return whether the task left the given stage."""
        return self.stage_name == stage_name and not self.is_edit


@dataclass(frozen=True)
class Task:
    """A RedBrick task, as far as it was read.

    A field that was not read is ``None``, and named in ``unread``. Using such a field (``has_labels``, ``saved_by``)
    raises :class:`~airflow_provider_redbrick.exceptions.RedBrickNotReadError`. Listings read no labels and no items;
    callables are given tasks that were read in full.

    :param task_id: the id, in lower case.
    :param name: the task's name.
    :param dp_id: the id of its data.
    :param stage_name: its stage; ``"Ground Truth"`` if it is finished.
    :param state: ``UNASSIGNED``, ``ASSIGNED``, ``IN_PROGRESS``, ``STAGED`` (a draft), ``SKIPPED``, ``PROBLEM`` or
        ``COMPLETED`` (moving to the next stage); ``None`` in ground truth.
    :param assignee: who holds it.
    :param assigned_at: when it was assigned.
    :param priority: from 0 to 1.
    :param created_at: when it was created.
    :param updated_at: when it was changed last.
    :param saved_at: when a draft was saved last.
    :param metadata: the task's own ``metaData``.
    :param items: paths of the images in the storage.
    :param item_urls: presigned URLs of the images, in the order of ``items``; short-lived, and secret until they
        expire.
    :param series_info: by series, its ``itemsIndices`` and, if read, name and ``metaData``.
    :param labels: the labels in the stored ("flat") format.
    :param labels_map: by series, where the stored masks are.
    :param labels_url: where the labels are, if they do not fit inline.
    :param labels_id: the version of the labels; changes with every save.
    :param labels_by: who saved that version.
    :param labels_at: when it was saved.
    :param series: the same labels in the ``series`` format, one element per series, as callables are given them.
    :param classification: the label of the whole task, as callables are given it; ``None`` also if there is none.
    :param unread: the names of the fields that were not read.
    """

    task_id: str
    name: str = ""
    dp_id: str | None = ""
    stage_name: str = ""
    state: str | None = None
    assignee: User | None = None
    assigned_at: pendulum.DateTime | None = None
    priority: float | None = None
    created_at: pendulum.DateTime | None = None
    updated_at: pendulum.DateTime | None = None
    saved_at: pendulum.DateTime | None = None
    metadata: Mapping[str, Any] | None = field(default_factory=dict)
    items: tuple[str, ...] | None = ()
    item_urls: tuple[str, ...] | None = field(default=(), repr=False)
    series_info: tuple[Mapping[str, Any], ...] | None = ()
    labels: tuple[Mapping[str, Any], ...] | None = field(default=(), repr=False)
    labels_map: tuple[Mapping[str, Any] | None, ...] | None = field(default=(), repr=False)
    labels_url: str | None = field(default=None, repr=False)
    labels_id: str | None = None
    labels_by: User | None = None
    labels_at: pendulum.DateTime | None = None
    series: tuple[Mapping[str, Any], ...] | None = field(default=(), repr=False)
    classification: Mapping[str, Any] | None = field(default=None, repr=False)
    unread: frozenset[str] = field(default=frozenset(), repr=False, compare=False)

    def require(self, *fields: str) -> None:
        """Check that fields were read.

        :param fields: the names of the fields.
        :raises RedBrickNotReadError: if one was not read.
        """
        missing = [name for name in fields if name in self.unread and getattr(self, name) is None]
        if missing:
            raise RedBrickNotReadError(
                f"Task {self.task_id}: {' and '.join(missing)} {'was' if len(missing) == 1 else 'were'} not read. "
                f"Listings read no labels and no items. Read tasks in full with "
                f"RedBrickHook().stage(...).read(task_ids)."
            )

    def is_queued_in(self, stage_name: str) -> bool:
        """Return whether the task is in this stage and not already leaving it."""
        return self.stage_name == public_stage_name(stage_name) and not self.is_leaving

    @property
    def is_leaving(self) -> bool:
        """Whether the task is finished in its stage and moving to the next."""
        self.require("state")
        return self.state == "COMPLETED" and self.stage_name != GROUND_TRUTH

    @property
    def has_labels(self) -> bool:
        """Whether the task has stored labels.

        :raises RedBrickNotReadError: if the labels were not read.
        """
        if self.labels or self.labels_url is not None:
            return True
        found = any(_mask_names(self.labels_map or ()))
        if not found:
            self.require("labels", "labels_map", "labels_url")
        return found

    @property
    def has_masks(self) -> bool:
        """Whether the task has stored segmentation masks.

        :raises RedBrickNotReadError: if the masks' paths were not read.
        """
        return bool(self.mask_paths)

    @property
    def masks(self) -> dict[int, str]:
        """The paths of the stored segmentation masks by series index.

        :raises RedBrickNotReadError: if they were not read.
        """
        self.require("labels_map")
        found: dict[int, str] = {}
        for position, entry in enumerate(self.labels_map or ()):
            if entry and entry.get("labelName"):
                series = entry.get("seriesIndex")
                found[position if series is None else series] = entry["labelName"]
        return found

    @property
    def mask_paths(self) -> frozenset[str]:
        """All paths of stored masks.

        If a series has two, :attr:`masks` has only the last.

        :raises RedBrickNotReadError: if they were not read.
        """
        self.require("labels_map")
        return frozenset(_mask_names(self.labels_map or ()))

    def held_by(self, user_id: str) -> bool:
        """Return whether a user holds the task."""
        self.require("assignee")
        return self.assignee is not None and self.assignee.user_id == user_id

    def saved_by(self, user_id: str) -> bool:
        """Return whether a user saved the task's current labels.

        :raises RedBrickNotReadError: if it was not read who saved them.
        """
        self.require("labels_by")
        return self.labels_by is not None and self.labels_by.user_id == user_id

    def relabeled_by(self, user_id: str, since: Task) -> bool:
        """Return whether a user saved the current labels after an earlier read.

        :param user_id: the user.
        :param since: the task as read earlier.
        :raises RedBrickNotReadError: if the labels' version or author was not read.
        """
        self.require("labels_id")
        since.require("labels_id")
        return self.labels_id != since.labels_id and self.saved_by(user_id)

    @property
    def where(self) -> str:
        """Where the task is and who holds it, for messages."""
        if self.state == "COMPLETED" and self.stage_name != GROUND_TRUTH:
            return f"on its way out of {self.stage_name}"
        held = f", assigned to {self.assignee}" if self.assignee else ""
        return f"in {self.stage_name or 'no stage'}{held}"

    @classmethod
    def from_wire(cls, data: Mapping[str, Any], *, asked: frozenset[str] = frozenset()) -> Task:
        """Parse the API's object of a task; fields that it lacks count as not read.

        :param data: the object, of any selection.
        :param asked: the fields that were requested: if the answer lacks one, it counts as empty.
        """
        parts = {name: data.get(name) or {} for name in _PARTS}
        # An object that is null counts as having none of its fields.
        unread = _unread(tuple(data), tuple((name, tuple(parts[name])) for name in _PARTS), asked)
        datapoint, sub_task, saved = parts.values()

        def read(name: str, value: Any) -> Any:
            return None if name in unread else value

        return cls(
            task_id=identifier(data["taskId"]),
            name=text(datapoint.get("name")),
            dp_id=read("dp_id", text(datapoint.get("dpId"))),
            stage_name=public_stage_name(text(data.get("currentStageName"))),
            state=text(sub_task.get("state")) or None,
            assignee=User.from_wire(sub_task.get("assignedTo")),
            assigned_at=moment(sub_task.get("assignedAt")),
            priority=number(data.get("priority")),
            created_at=moment(data.get("createdAt")),
            updated_at=moment(data.get("updatedAt")),
            saved_at=moment(sub_task.get("progressSavedAt")),
            metadata=read("metadata", json_object(datapoint.get("metaData"))),
            items=read("items", elements(datapoint.get("items"), str)),
            item_urls=read("item_urls", elements(datapoint.get("itemsPresigned"), str)),
            series_info=read("series_info", tuple(map(_series, elements(datapoint.get("seriesInfo"), dict)))),
            labels=read("labels", _labels(saved)),
            labels_map=read("labels_map", tuple(map(_mask, elements(saved.get("labelsMap"), dict)))),
            labels_url=raw_text(saved.get("labelsDataPath")),
            labels_id=raw_text(saved.get("tdId")),
            labels_by=User.from_wire(saved.get("createdByEntity")),
            labels_at=moment(saved.get("createdAt")),
            series=None,
            unread=unread,
        )


_PARTS = ("datapoint", "currentStageSubTask", "latestTaskData")

# By field, the part of the API's object that has it, and its name there.
_WIRE_FIELDS = {
    "dp_id": ("datapoint", "dpId"),
    "metadata": ("datapoint", "metaData"),
    "items": ("datapoint", "items"),
    "item_urls": ("datapoint", "itemsPresigned"),
    "series_info": ("datapoint", "seriesInfo"),
    "priority": (None, "priority"),
    "created_at": (None, "createdAt"),
    "updated_at": (None, "updatedAt"),
    "state": ("currentStageSubTask", "state"),
    "assignee": ("currentStageSubTask", "assignedTo"),
    "assigned_at": ("currentStageSubTask", "assignedAt"),
    "saved_at": ("currentStageSubTask", "progressSavedAt"),
    "labels": ("latestTaskData", "labelsData"),
    "labels_map": ("latestTaskData", "labelsMap"),
    "labels_url": ("latestTaskData", "labelsDataPath"),
    "labels_id": ("latestTaskData", "tdId"),
    "labels_by": ("latestTaskData", "createdByEntity"),
    "labels_at": ("latestTaskData", "createdAt"),
}
_DERIVED_FIELDS = frozenset({"series", "classification"})


# Selections are few, but a server may leave out any field.
@lru_cache(maxsize=256)
def _unread(
    keys: tuple[str, ...], parts: tuple[tuple[str, tuple[str, ...]], ...], asked: frozenset[str]
) -> frozenset[str]:
    """Return the names of fields that an answer lacks and that were not requested."""
    inner = dict(parts)

    def is_there(part: str | None, key: str) -> bool:
        if part is None:
            return key in keys
        return part in keys and (not inner[part] or key in inner[part])

    return (_DERIVED_FIELDS | {name for name, place in _WIRE_FIELDS.items() if not is_there(*place)}) - asked


def _mask_names(labels_map: Iterable[Mapping[str, Any] | None]) -> list[str]:
    return [entry["labelName"] for entry in labels_map if entry and entry.get("labelName")]


def output_events(data: Mapping[str, Any]) -> tuple[OutputEvent, ...]:
    """Parse a task's ``genericEvents`` into the stages it left, oldest first."""
    events = []
    for entry in data.get("genericEvents") or ():
        output = (entry or {}).get("outputEvent")
        if output:
            stage = public_stage_name(text(output.get("currentStageName")))
            by, at = text(entry.get("updatedBy")) or None, moment(entry.get("createdAt"))
            following, extra = text(output.get("nextStageName")) or None, json_object(output.get("extraData"))
            accepted = output["outputBool"] if isinstance(output.get("outputBool"), bool) else None
            events.append(OutputEvent(stage, by, at, following, accepted, extra))
    return tuple(sorted(events, key=lambda event: event.at.timestamp() if event.at else 0.0))


@dataclass(frozen=True)
class AssigneeChange:
    """A change of a task's holder, as the audit trail records it.

    :param stage_name: the stage that the task was in; empty if unknown.
    :param by: the user id of the actor; None if unknown.
    :param at: when it happened, in the server's time.
    :param before: the holder before; None if the task was unassigned.
    :param after: the holder after; None if the task was unassigned.
    """

    stage_name: str
    by: str | None
    at: pendulum.DateTime | None
    before: User | None
    after: User | None


def assignee_changes(data: Mapping[str, Any]) -> tuple[AssigneeChange, ...]:
    """Parse the changes of a task's holder from its ``genericEvents``, oldest first."""
    changes = [
        AssigneeChange(
            public_stage_name(text(entry.get("stageName"))),
            text(entry.get("updatedBy")) or None,
            moment(entry.get("createdAt")),
            User.from_wire(entry.get("assignedToBeforeEntity")),
            User.from_wire(entry.get("assignedToAfterEntity")),
        )
        for entry in data.get("genericEvents") or ()
        if entry
    ]
    moves = [change for change in changes if change.before != change.after]
    return tuple(sorted(moves, key=lambda change: change.at.timestamp() if change.at else 0.0))


def holder_before(changes: Iterable[AssigneeChange], user_id: str) -> User | None:
    """Return who held a task before it was last assigned to a user.

    :param changes: the changes of its holder, oldest first.
    :param user_id: the user.
    :return: the previous holder; None if there was none.
    """
    before = None
    for change in changes:
        if change.after is not None and change.after.user_id == user_id:
            before = change.before
    return before


def _series(info: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Validate the description of a series."""
    known = info or {}
    for item in elements(known.get("itemsIndices"), int, nulls=False):
        index(item)
    return known


def _mask(entry: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Validate the description of a mask."""
    if entry is not None:
        raw_text(entry.get("labelName"))
        index(entry.get("seriesIndex"))
    return entry


def _labels(saved: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """Parse the flat labels that came inline."""
    written = raw_text(saved.get("labelsData"))
    return flat_labels(written) if written else ()


class Detail(Enum):
    """Level of detail at which tasks are read. Each includes the one before."""

    PLACE = auto()
    """Stage, state and assignee."""
    STATE = auto()
    """Also who labeled it last, the version of the labels, and the series that labels refer to."""
    FULL = auto()
    """Also its items and labels."""
