"""Decide which events a watcher sends, from its state and the current reads.

The functions are pure, except for :class:`Arrivals`, which reads. The triggers provide the state.

Design notes on the state:

1. A state is plain JSON of bounded size (`MOST_REMEMBERED` ids), stored by Airflow from 3.3.2 on.
2. A state is stored after its events were sent. An arrival is therefore announced at least once, and twice only if a
   triggerer is killed in between.
3. What existed before the first look is not announced.
4. The watermark `since` stays `OVERLAP` behind the latest look, so that arrivals that become visible late, or were
   written by a clock that is behind, are still found. Arrivals within the overlap are deduplicated by task id and time.
5. The watermark moves when something was announced, and otherwise at most every `LAG`, so that an idle watcher seldom
   writes.
6. If more than `MOST_REMEMBERED` arrivals fall into the overlap, the overlap shrinks: an arrival is never announced
   twice because there was no room to remember it.

Design notes on arrivals. The API has no list of them. Tasks of Ground Truth that changed since the watermark are
listed, and the events of each say when it arrived.

1. The events of a task are read once per version (task id, `updatedAt`): a look in which nothing changed costs the
   listing only.
2. A task without usable events (uploaded as ground truth, or its events cannot be read) counts as having arrived when
   it was last updated.
3. The watermark of a look is taken before its listing, so that nothing falls between two looks.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pendulum

from airflow_provider_redbrick._utils import in_chunks
from airflow_provider_redbrick.client.models.workflow import GROUND_TRUTH
from airflow_provider_redbrick.client.operations import queries
from airflow_provider_redbrick.client.operations.task_reads import BulkRead
from airflow_provider_redbrick.engine.outcomes import MAX_TASK_IDS
from airflow_provider_redbrick.exceptions import PERMANENT_ERRORS, RedBrickAPIError, RedBrickNotFoundError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_provider_redbrick.client.models.task import OutputEvent, Task
    from airflow_provider_redbrick.client.operations.project import RedBrickProject

    State = dict[str, Any]

SCHEMA_VERSION = 1
"""Version of the events' payload."""

OVERLAP = pendulum.duration(minutes=10)
"""How far the watermark stays behind the latest look."""

LAG = pendulum.duration(minutes=10)
"""How much further the watermark may fall behind while nothing is announced."""

MOST_REMEMBERED = 500
"""Arrivals that a state holds: about 40 kB, which fits into each of Airflow's databases."""

_SHORTEST_PAUSE, _LONGEST_PAUSE = 1.0, 900.0  # seconds
_MAX_DOUBLINGS = 16


@dataclass(frozen=True)
class WatchResult:
    """Result of one look.

    :param events: payloads to send, in order.
    :param state: the state to store once they are sent.
    """

    events: Sequence[Mapping[str, Any]]
    state: State


def evaluate_threshold(state: Mapping[str, Any] | None, count: int, *, at_least: int) -> WatchResult:
    """Return an event if a queue has risen to a threshold.

    It is sent once, and again only after the queue was below the threshold. Without a state the queue counts as having
    been below, so that a new watcher announces work that is already waiting.

    :param state: the stored state; None for a new watcher.
    :param count: the length of the queue.
    :param at_least: the threshold, inclusive.
    """
    is_above = count >= at_least
    was_above = bool(state and state.get("above"))
    events = [{"count": count, "at_least": at_least}] if is_above and not was_above else []
    return WatchResult(events, {"above": is_above})


@dataclass(frozen=True)
class Arrival:
    """A task became ground truth.

    :param task_id: the task.
    :param at: when it did, by the server's clock.
    """

    task_id: str
    at: pendulum.DateTime


def watermark_of(state: Mapping[str, Any] | None) -> pendulum.DateTime | None:
    """Return the watermark of a state; None before the first look."""
    return pendulum.instance(datetime.fromisoformat(state["since"])) if state else None


def announce_arrivals(
    state: Mapping[str, Any] | None, found: Sequence[Arrival], *, read_at: pendulum.DateTime
) -> WatchResult:
    """Return events for the tasks that became ground truth and were not announced.

    A task that was reopened and finished again is announced again. A change of its labels alone is not an arrival.
    There are as many events as the limit of `MAX_TASK_IDS` ids per event requires.

    :param state: the stored state; None for a new watcher, which announces nothing.
    :param found: arrivals at or after the watermark, in any order; earlier ones are ignored.
    :param read_at: a time shortly before they were read.
    """
    watched_since = watermark_of(state)
    if watched_since is None:
        return WatchResult([], {"since": read_at.isoformat(), "told": {}})
    announced: dict[str, str] = dict((state or {}).get("told") or {})
    new = sorted(
        (
            arrival
            for arrival in found
            if arrival.at >= watched_since and announced.get(arrival.task_id) != arrival.at.isoformat()
        ),
        key=lambda arrival: (arrival.at, arrival.task_id),
    )
    announced.update((arrival.task_id, arrival.at.isoformat()) for arrival in new)
    ids = list(dict.fromkeys(arrival.task_id for arrival in new))
    events = [{"count": len(chunk), "task_ids": chunk} for chunk in in_chunks(ids, MAX_TASK_IDS)]
    candidate = read_at - OVERLAP
    moves = candidate > watched_since and (bool(new) or candidate - watched_since > LAG)
    return WatchResult(events, _next_state(announced, candidate if moves else watched_since))


def _next_state(announced: Mapping[str, str], kept_since: pendulum.DateTime) -> State:
    """Return the state without older arrivals; a full one moves its watermark."""
    arrived_at = {task_id: datetime.fromisoformat(at) for task_id, at in announced.items()}
    if len(arrived_at) > MOST_REMEMBERED:
        kept_since = max(kept_since, pendulum.instance(sorted(arrived_at.values())[-MOST_REMEMBERED]))
    kept = {task_id: announced[task_id] for task_id, at in arrived_at.items() if at >= kept_since}
    return {"since": kept_since.isoformat(), "told": kept}


class Backoff:
    """Pauses after failed looks: doubled up to a limit, without a last attempt.

    :param interval: seconds between two successful looks.
    """

    def __init__(self, interval: float) -> None:
        self._interval = max(_SHORTEST_PAUSE, interval)
        self.failed_in_a_row = 0

    def after_success(self) -> int:
        """Reset, and return the number of failed looks before this one."""
        failed, self.failed_in_a_row = self.failed_in_a_row, 0
        return failed

    def after_error(self, error: Exception) -> float:
        """Return the pause in seconds; the longest one after a permanent error."""
        self.failed_in_a_row += 1
        longest = max(_LONGEST_PAUSE, self._interval)
        if isinstance(error, PERMANENT_ERRORS):
            return longest
        return min(longest, self._interval * 2.0 ** min(self.failed_in_a_row - 1, _MAX_DOUBLINGS))


class Arrivals:
    """Reads arrivals in Ground Truth and caches the events of unchanged tasks.

    :ivar read_at: a time shortly before the latest look, by this clock or the server's, whichever is behind.
    """

    def __init__(self) -> None:
        self.read_at: pendulum.DateTime = pendulum.now("UTC")
        self._cache: dict[tuple[str, pendulum.DateTime | None], Arrival] = {}

    def look(self, project: RedBrickProject, updated_after: pendulum.DateTime | None) -> list[Arrival]:
        """Return the arrivals of ground truth that changed since a watermark.

        :param project: the project to read.
        :param updated_after: the watermark; None to establish one without reading older tasks.
        :return: arrivals in any order; some may be older than the watermark.
        :raises RedBrickAPIError: if a read failed.
        """
        changed = BulkRead(
            project,
            project.stage(GROUND_TRUTH),
            updated_after=updated_after or pendulum.now("UTC"),
            document=queries.TASKS_CHANGED,
            largest_page=project.client.page_size,
        )
        tasks = [stored.task for stored in changed]
        not_cached = [task for task in tasks if (task.task_id, task.updated_at) not in self._cache]
        known = {**self._cache, **self._read(project, not_cached)}
        listed = [(task.task_id, task.updated_at) for task in tasks]
        self._cache = {version: known[version] for version in listed if version in known}
        self.read_at = changed.read_at
        return list(self._cache.values())

    def _read(
        self, project: RedBrickProject, tasks: Sequence[Task]
    ) -> dict[tuple[str, pendulum.DateTime | None], Arrival]:
        events = project.output_events([task.task_id for task in tasks])
        arrivals = {}
        for task in tasks:
            arrived_at = _arrived_at(task, events[task.task_id])
            if arrived_at is not None:
                arrivals[task.task_id, task.updated_at] = Arrival(task.task_id, arrived_at)
        return arrivals


def _arrived_at(task: Task, events: Sequence[OutputEvent] | RedBrickAPIError) -> pendulum.DateTime | None:
    """Return when a task became ground truth; None if it no longer exists."""
    if isinstance(events, RedBrickNotFoundError):
        return None
    if not isinstance(events, RedBrickAPIError):
        moved_at = [event.at for event in events if event.at is not None and not event.is_edit]
        if moved_at:
            return max(moved_at)
    # Uploaded as ground truth, or its events are not readable.
    return task.updated_at or task.created_at
