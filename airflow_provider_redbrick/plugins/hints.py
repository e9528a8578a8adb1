"""Parse webhook payloads as untrusted input."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.api.forks import renew_after_fork
from airflow_provider_redbrick.api.ids import check_uuid
from airflow_provider_redbrick.api.stage_names import public_stage_name
from airflow_provider_redbrick.exceptions import RedBrickInputError, single_line

if TYPE_CHECKING:
    from collections.abc import Iterable

_MAX_NAME_LENGTH = 200
_MAX_EVENTS = 500


@dataclass(frozen=True)
class Hint:
    """A webhook event that says a task may have entered a stage."""

    event_id: str
    org_id: str
    project_id: str
    stage_name: str
    task_id: str

    @property
    def stage(self) -> tuple[str, str, str]:
        """The organization's id, the project's id and the stage's name."""
        return self.org_id, self.project_id, self.stage_name


def read_hints(body: bytes) -> list[Hint]:
    """Parse the events of tasks that entered a stage.

    Other events and invalid ones are skipped.

    :raises RedBrickInputError: if the body is not a RedBrick message.
    """
    try:
        message: Any = json.loads(body)
    except (ValueError, RecursionError):
        raise RedBrickInputError("The message is not JSON.") from None
    events = message.get("payload") if isinstance(message, Mapping) else None
    if not isinstance(events, list):
        raise RedBrickInputError("The message has no payload.")
    if len(events) > _MAX_EVENTS:
        raise RedBrickInputError("The message has too many events.")
    return [hint for event in events if (hint := _hint(event)) is not None]


def _hint(event: object) -> Hint | None:
    if not isinstance(event, Mapping) or event.get("event") != "TASK_ENTERED_STAGE":
        return None
    data = event.get("data")
    try:
        fields: Mapping[str, Any] = data if isinstance(data, Mapping) else {}
        return Hint(
            _name(event.get("id")),
            check_uuid("orgId", fields.get("orgId")),
            check_uuid("projectId", fields.get("projectId")),
            public_stage_name(_name(fields.get("stageName"))),
            check_uuid("taskId", fields.get("taskId")),
        )
    except RedBrickInputError:
        return None


def _name(value: object) -> str:
    if not isinstance(value, str) or not value.strip() or len(value) > _MAX_NAME_LENGTH or single_line(value) != value:
        raise RedBrickInputError("The value is not a name.")
    return value


class Seen:
    """Ids of the last ``most`` events that are done or in progress.

    All methods are thread-safe. An event is added when its verification begins. It stays when it is confirmed.
    :meth:`forget` removes an event that was not confirmed, so that it counts again when it is resent.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = Lock()
        renew_after_fork(self, Seen._renew)
        self._ids: OrderedDict[str, None] = OrderedDict()

    def new(self, hints: Iterable[Hint]) -> list[Hint]:
        """Add the hints whose events are unknown, and return them."""
        new = []
        with self._lock:
            for hint in hints:
                if hint.event_id not in self._ids:
                    self._ids[hint.event_id] = None
                    new.append(hint)
            while len(self._ids) > self._most:
                self._ids.popitem(last=False)
        return new

    def _renew(self) -> None:
        self._lock = Lock()

    def forget(self, hints: Iterable[Hint]) -> None:
        """Remove events that were not confirmed."""
        with self._lock:
            for hint in hints:
                self._ids.pop(hint.event_id, None)
