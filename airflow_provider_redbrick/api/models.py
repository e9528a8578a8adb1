"""What RedBrick's answers mean: frozen value objects, read leniently (everything but an id may be missing)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.api.answers import elements, identifier, index, number, text, text_as_it_is
from airflow_provider_redbrick.api.moments import moment
from airflow_provider_redbrick.api.stage_names import GROUND_TRUTH, public_stage_name
from airflow_provider_redbrick.api.values import too_many, values_in

if TYPE_CHECKING:
    import pendulum

STAYED = "stayed"
"""Key of what is written beside labels that replace others where a task is: how the trail shows that is not known."""


SAVED = frozenset({"STAGED", "IN_PROGRESS"})
"""States of a task with labels that somebody has saved and not submitted."""


@dataclass(frozen=True)
class User:
    """Somebody who can hold a task: a person, or an API key (which has no e-mail)."""

    user_id: str
    email: str | None = None

    @property
    def is_api_key(self) -> bool:
        """Whether this is an API key rather than a person."""
        return self.user_id.startswith("API:")

    def __str__(self) -> str:
        return self.email or ("an API key" if self.is_api_key else self.user_id)

    def is_same(self, other: User | None) -> bool:
        """Whether both are one person, by id, or by e-mail in whatever case."""
        if other is None:
            return False
        by_email = bool(self.email and other.email) and str(self.email).lower() == str(other.email).lower()
        return self.user_id == other.user_id or by_email

    @classmethod
    def from_wire(cls, data: Any) -> User | None:
        """Read a user; None for nobody."""
        if not isinstance(data, Mapping) or not data.get("userId"):
            return None
        return cls(text(data["userId"]), text(data.get("email")) or None)


@dataclass(frozen=True)
class Member:
    """A person in a project, and the stages they may work in."""

    user: User
    role: str
    active: bool
    stage_access: Mapping[str, bool]

    def may_work_in(self, stage_name: str) -> bool:
        """Whether tasks of a stage can be given to this member; managers and admins work everywhere."""
        return self.active and (self.role != "LABELER" or self.stage_access.get(stage_name, False))

    @classmethod
    def from_wire(cls, data: Mapping[str, Any]) -> Member | None:
        """Read a member; None when there is no user behind it."""
        member = data.get("member") or {}
        user = User.from_wire(member.get("user"))
        if user is None:
            return None
        access = {text(a["stageName"]): bool(a.get("access")) for a in data.get("stageAccess") or ()}
        return cls(user, text(data.get("role")), member.get("active") is not False, access)


@dataclass(frozen=True)
class OutputEvent:
    """A task left a stage, or its labels were changed where it is.

    :param accepted: a review's verdict, None for anything else.
    :param extra: what whoever did it has written beside it; empty for nothing.
    """

    stage_name: str
    by: str | None
    at: pendulum.DateTime | None
    next_stage: str | None = None
    accepted: bool | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_edit(self) -> bool:
        """Whether the task stayed where it is, and only its labels were changed."""
        if self.extra.get(STAYED) is True:
            return True
        return self.next_stage == self.stage_name or (self.stage_name == GROUND_TRUTH and self.next_stage is None)

    def leaves(self, stage_name: str) -> bool:
        """Whether the task was taken out of a stage."""
        return self.stage_name == stage_name and not self.is_edit


@dataclass(frozen=True)
class Task:
    """A RedBrick task, as far as it was read.

    :param dp_id: the data it is about.
    :param stage_name: where it is; ``"Ground Truth"`` when it is finished.
    :param state: ``UNASSIGNED``, ``ASSIGNED``, ``IN_PROGRESS``, ``STAGED`` (a draft), ``SKIPPED``, ``PROBLEM`` or
        ``COMPLETED`` (on its way to the next stage); None in ground truth.
    :param item_urls: presigned URLs of the images, in the order of ``items``; short-lived, and secrets until then.
    :param labels: the stored ("flat") labels, None when they were not read.
    :param series: the same labels in the ``series`` format, one element a series, as handed to callables.
    :param labels_id: the version of the labels; changes with every save.
    :param labels_by: who saved that version.
    """

    task_id: str
    name: str = ""
    dp_id: str = ""
    stage_name: str = ""
    state: str | None = None
    assignee: User | None = None
    assigned_at: pendulum.DateTime | None = None
    priority: float | None = None
    created_at: pendulum.DateTime | None = None
    updated_at: pendulum.DateTime | None = None
    saved_at: pendulum.DateTime | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    items: tuple[str, ...] = ()
    item_urls: tuple[str, ...] = field(default=(), repr=False)
    series_info: tuple[Mapping[str, Any], ...] = ()
    labels: tuple[Mapping[str, Any], ...] | None = field(default=None, repr=False)
    labels_map: tuple[Mapping[str, Any] | None, ...] = field(default=(), repr=False)
    labels_url: str | None = field(default=None, repr=False)
    labels_id: str | None = None
    labels_by: User | None = None
    labels_at: pendulum.DateTime | None = None
    series: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)
    classification: Mapping[str, Any] | None = field(default=None, repr=False)

    def is_queued_in(self, stage_name: str) -> bool:
        """Whether the task waits in this stage and is not already on its way out of it."""
        return self.stage_name == public_stage_name(stage_name) and not self.is_leaving

    @property
    def is_leaving(self) -> bool:
        """Whether the task is done in its stage, and on its way to the next."""
        return self.state == "COMPLETED" and self.stage_name != GROUND_TRUTH

    @property
    def has_labels(self) -> bool:
        """Whether any label was stored; for a task whose labels were read."""
        return bool(self.labels) or self.labels_url is not None or self.has_masks

    @property
    def has_masks(self) -> bool:
        """Whether segmentation masks are stored; for a task whose labels were read."""
        return bool(self.masks)

    @property
    def masks(self) -> dict[int, str]:
        """The paths of the stored segmentation masks, by series."""
        found: dict[int, str] = {}
        for position, entry in enumerate(self.labels_map):
            if entry and entry.get("labelName"):
                series = entry.get("seriesIndex")
                found[position if series is None else series] = entry["labelName"]
        return found

    @property
    def mask_paths(self) -> frozenset[str]:
        """All paths that the server gives for masks: of two for one series, :attr:`masks` has but the last."""
        return frozenset(entry["labelName"] for entry in self.labels_map if entry and entry.get("labelName"))

    def held_by(self, user_id: str) -> bool:
        """Whether this user holds the task."""
        return self.assignee is not None and self.assignee.user_id == user_id

    def saved_by(self, user_id: str) -> bool:
        """Whether this user saved the labels the task has."""
        return self.labels_by is not None and self.labels_by.user_id == user_id

    def relabelled_by(self, user_id: str, since: Task) -> bool:
        """Whether this user has saved the labels the task has, and had not when it was read before."""
        return self.labels_id != since.labels_id and self.saved_by(user_id)

    @property
    def where(self) -> str:
        """Where the task is and who holds it, for messages."""
        if self.is_leaving:
            return f"on its way out of {self.stage_name}"
        held = f", assigned to {self.assignee}" if self.assignee else ""
        return f"in {self.stage_name or 'no stage'}{held}"

    @classmethod
    def from_wire(cls, data: Mapping[str, Any]) -> Task:
        """Read any of the API's task selections."""
        datapoint = data.get("datapoint") or {}
        sub_task = data.get("currentStageSubTask") or {}
        saved = data.get("latestTaskData") or {}
        return cls(
            task_id=identifier(data["taskId"]),
            name=text(datapoint.get("name")),
            dp_id=text(datapoint.get("dpId")),
            stage_name=public_stage_name(text(data.get("currentStageName"))),
            state=text(sub_task.get("state")) or None,
            assignee=User.from_wire(sub_task.get("assignedTo")),
            assigned_at=moment(sub_task.get("assignedAt")),
            priority=number(data.get("priority")),
            created_at=moment(data.get("createdAt")),
            updated_at=moment(data.get("updatedAt")),
            saved_at=moment(sub_task.get("progressSavedAt")),
            metadata=_json_object(datapoint.get("metaData")),
            items=elements(datapoint.get("items"), str),
            item_urls=elements(datapoint.get("itemsPresigned"), str),
            series_info=tuple(map(_series, elements(datapoint.get("seriesInfo"), dict))),
            labels=_labels(saved) if "labelsData" in saved or not saved else None,
            labels_map=tuple(map(_mask, elements(saved.get("labelsMap"), dict))),
            labels_url=text_as_it_is(saved.get("labelsDataPath")),
            labels_id=text_as_it_is(saved.get("tdId")),
            labels_by=User.from_wire(saved.get("createdByEntity")),
            labels_at=moment(saved.get("createdAt")),
        )


def output_events(data: Mapping[str, Any]) -> tuple[OutputEvent, ...]:
    """Read from a task's ``genericEvents`` when it left which stage, oldest first."""
    events = []
    for entry in data.get("genericEvents") or ():
        output = (entry or {}).get("outputEvent")
        if output:
            stage = public_stage_name(text(output.get("currentStageName")))
            by, at = text(entry.get("updatedBy")) or None, moment(entry.get("createdAt"))
            following, extra = text(output.get("nextStageName")) or None, _json_object(output.get("extraData"))
            accepted = output["outputBool"] if isinstance(output.get("outputBool"), bool) else None
            events.append(OutputEvent(stage, by, at, following, accepted, extra))
    return tuple(sorted(events, key=lambda event: event.at.timestamp() if event.at else 0.0))


def holder_before(user_id: str) -> Callable[[Mapping[str, Any]], User | None]:
    """Return a function that reads from a task's ``genericEvents`` whom it was taken from when a user got it last."""

    def read(data: Mapping[str, Any]) -> User | None:
        taken: list[tuple[float, User | None]] = []
        for entry in data.get("genericEvents") or ():
            after = User.from_wire((entry or {}).get("assignedToAfterEntity"))
            before = User.from_wire((entry or {}).get("assignedToBeforeEntity"))
            if after is not None and after.user_id == user_id and before != after:
                at = moment(entry.get("createdAt"))
                taken.append((at.timestamp() if at else 0.0, before))
        return max(taken, key=lambda one: one[0])[1] if taken else None

    return read


def _series(info: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Check what is told of a series."""
    known = info or {}
    for item in elements(known.get("itemsIndices"), int, nulls=False):
        index(item)
    return known


def _mask(entry: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Check what is told of a mask."""
    if entry is not None:
        text_as_it_is(entry.get("labelName"))
        index(entry.get("seriesIndex"))
    return entry


def _json_object(written: object) -> Mapping[str, Any]:
    """Read JSON text holding an object; anything else is no metadata."""
    try:
        value = json.loads(written) if isinstance(written, str) else None
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def flat_labels(written: str | bytes) -> tuple[Mapping[str, Any], ...]:
    """Read stored labels from JSON text.

    :raises ValueError: when it is not a list, or too long a one: no labels would be the wrong conclusion.
    """
    problem = too_many(values_in(written))
    if problem is not None:
        raise ValueError(problem)
    value = json.loads(written)
    if value is not None and not isinstance(value, list):
        raise ValueError(f"the stored labels are not a list but {type(value).__name__}")
    return tuple(label for label in value or () if isinstance(label, dict))


def _labels(saved: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """Read the flat labels that came inline."""
    written = text_as_it_is(saved.get("labelsData"))
    return flat_labels(written) if written else ()
