"""What RedBrick's webhook says: read without trusting a word of it."""

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
from airflow_provider_redbrick.exceptions import RedBrickInputError, one_line

if TYPE_CHECKING:
    from collections.abc import Iterable

_LONGEST_NAME = 200
_MOST_EVENTS = 500


@dataclass(frozen=True)
class Hint:
    """A task may have entered a stage."""

    event_id: str
    org_id: str
    project_id: str
    stage_name: str
    task_id: str

    @property
    def stage(self) -> tuple[str, str, str]:
        """The stage, its project and its organisation."""
        return self.org_id, self.project_id, self.stage_name


def read_hints(body: bytes) -> list[Hint]:
    """Read the events of tasks that entered a stage; others, and what is amiss among them, are left out.

    :raises RedBrickInputError: when it is no message of RedBrick's.
    """
    try:
        message: Any = json.loads(body)
    except (ValueError, RecursionError):
        raise RedBrickInputError("The message is not JSON.") from None
    events = message.get("payload") if isinstance(message, Mapping) else None
    if not isinstance(events, list):
        raise RedBrickInputError("The message has no payload.")
    if len(events) > _MOST_EVENTS:
        raise RedBrickInputError("The message has too many events.")
    return [hint for event in events if (hint := _hint(event)) is not None]


def _hint(event: object) -> Hint | None:
    if not isinstance(event, Mapping) or event.get("event") != "TASK_ENTERED_STAGE":
        return None
    data = event.get("data")
    try:
        found: Mapping[str, Any] = data if isinstance(data, Mapping) else {}
        return Hint(
            _name(event.get("id")),
            check_uuid("orgId", found.get("orgId")),
            check_uuid("projectId", found.get("projectId")),
            public_stage_name(_name(found.get("stageName"))),
            check_uuid("taskId", found.get("taskId")),
        )
    except RedBrickInputError:
        return None


def _name(value: object) -> str:
    if not isinstance(value, str) or not value.strip() or len(value) > _LONGEST_NAME or one_line(value) != value:
        raise RedBrickInputError("This is no name.")
    return value


class Seen:
    """Events that were acted upon, and those that are being looked at: the last ``most``. Safe to use from any thread.

    An event is taken when a look at it begins. It stays when the look led to something; :meth:`forget` gives back
    one that led to nothing, so that the same event counts again when it is sent again.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = Lock()
        renew_after_fork(self, Seen._renew)
        self._ids: OrderedDict[str, None] = OrderedDict()

    def new(self, hints: Iterable[Hint]) -> list[Hint]:
        """Take the hints whose events are neither done nor being looked at, and return them."""
        found = []
        with self._lock:
            for hint in hints:
                if hint.event_id not in self._ids:
                    self._ids[hint.event_id] = None
                    found.append(hint)
            while len(self._ids) > self._most:
                self._ids.popitem(last=False)
        return found

    def _renew(self) -> None:
        self._lock = Lock()

    def forget(self, hints: Iterable[Hint]) -> None:
        """Give events back that nothing came of."""
        with self._lock:
            for hint in hints:
                self._ids.pop(hint.event_id, None)
