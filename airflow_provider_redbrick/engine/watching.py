"""Decide which events a watcher sends, from its state and the current reads.

The functions are pure, except for :class:`Arrivals`, which reads. The triggers provide the state.

Design notes on the state:

1. A state is plain JSON. What is stored has a bounded size (:func:`storable`), by Airflow from 3.3.2 on.
2. A state is stored after its events were sent. An arrival is therefore announced at least once, and twice only if a
   triggerer is killed in between, or restarts within a minute of more than `MOST_REMEMBERED` arrivals.
3. What existed before the first look is not announced.
4. Reads may lag by ``settle_seconds``. The watermark `since` stays that and `OVERLAP` behind the latest look, so that
   arrivals that become visible late are still found. Arrivals within the overlap are deduplicated by task id and time
   (see ``engine/overlap.py``).
5. The watermark moves when something was announced, and otherwise at most every `LAG`, so that an idle watcher seldom
   writes.
6. If more than `MOST_REMEMBERED` arrivals fall into the overlap, it shrinks, but not below what a read may lag.
7. A queue that has crossed its threshold does not count as back within ``settle_seconds``: that read may be stale, and
   the crossing would be announced twice.

Design notes on arrivals. The API has no list of them. Tasks of Ground Truth that changed since the watermark are
listed, and the events of each say when it arrived.

1. The events of a task are read once per version (task id, `updatedAt`): a look in which nothing changed costs the
   listing only. Events may lag behind the listing, so they are read again until they reach up to that version, or no
   read can lag so far.
2. A task without usable events (uploaded as ground truth, or its events cannot be read) counts as having arrived when
   it was last updated. Without `updatedAt`, its events are read at each look.
3. The time of a look is taken before its listing, by the server's clock, so that nothing falls between two looks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pendulum

from airflow_provider_redbrick._utils import in_chunks
from airflow_provider_redbrick.client.models.parsing import moment
from airflow_provider_redbrick.client.models.workflow import GROUND_TRUTH
from airflow_provider_redbrick.client.operations import queries
from airflow_provider_redbrick.client.operations.task_reads import MARGIN, BulkRead
from airflow_provider_redbrick.engine.outcomes import MAX_TASK_IDS
from airflow_provider_redbrick.engine.overlap import Overlap
from airflow_provider_redbrick.exceptions import PERMANENT_ERRORS, RedBrickAPIError, RedBrickNotFoundError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_provider_redbrick.client.models.task import OutputEvent, Task
    from airflow_provider_redbrick.client.operations.project import RedBrickProject

    State = dict[str, Any]

SCHEMA_VERSION = 1
"""Version of the events' payload."""

OVERLAP = pendulum.duration(minutes=10)
"""How far the watermark stays behind the latest look, beyond what a read may lag."""

LAG = pendulum.duration(minutes=10)
"""How much further the watermark may fall behind while nothing is announced."""

MOST_REMEMBERED = 500
"""Arrivals that a stored state holds: about 40 kB. Airflow's default limit is 64 kB."""

# How far the events of a task may be apart from its `updatedAt` and still explain it.
_SAME_CHANGE = pendulum.duration(seconds=1)

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


def evaluate_threshold(
    state: Mapping[str, Any] | None, count: int, *, at_least: int, read_at: pendulum.DateTime, settle_seconds: float
) -> WatchResult:
    """Return an event if a queue has risen to a threshold.

    It is sent once, and again only after the queue was below the threshold. Without a state the queue counts as having
    been below, so that a new watcher announces work that is already waiting.

    :param state: the stored state; None for a new watcher.
    :param count: the length of the queue.
    :param at_least: the threshold, inclusive.
    :param read_at: when the queue was read, by the server's clock.
    :param settle_seconds: how long after a crossing a read may still show the queue before it.
    """
    is_above = count >= at_least
    if not state and not is_above:
        return WatchResult([], {"above": False})
    if state:
        crossed_at = moment(state.get("since"))
        may_be_stale = crossed_at is not None and read_at < crossed_at.add(seconds=settle_seconds)
        if may_be_stale or is_above == state["above"]:
            return WatchResult([], dict(state))
    events = [{"count": count, "at_least": at_least}] if is_above else []
    return WatchResult(events, {"above": is_above, "since": read_at.isoformat()})


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
    return moment(state["since"]) if state else None


def announce_arrivals(
    state: Mapping[str, Any] | None, found: Sequence[Arrival], *, read_at: pendulum.DateTime, settle_seconds: float
) -> WatchResult:
    """Return events for the tasks that became ground truth and were not announced.

    A task that was reopened and finished again is announced again. A change of its labels alone is not an arrival.
    There are as many events as the limit of `MAX_TASK_IDS` ids per event requires.

    :param state: the stored state; None for a new watcher, which announces nothing.
    :param found: arrivals at or after the watermark, in any order; earlier ones are ignored.
    :param read_at: a time shortly before they were read, by the server's clock.
    :param settle_seconds: how far behind the reads may be.
    """
    watched_since = watermark_of(state)
    if watched_since is None:
        # The server's time is an estimate: the second in which the watcher started may have been a little later.
        reported = Overlap({arrival.task_id: arrival.at for arrival in found}).since(read_at)
        return WatchResult([], {"since": read_at.isoformat(), "reported": reported.to_json()})
    announced = Overlap.from_json(_reported(state or {}))
    new = sorted(
        (arrival for arrival in found if arrival.at >= watched_since and announced.is_new(arrival.task_id, arrival.at)),
        key=lambda arrival: (arrival.at, arrival.task_id),
    )
    for arrival in new:
        announced.add(arrival.task_id, arrival.at)
    ids = list(dict.fromkeys(arrival.task_id for arrival in new))
    events = [{"count": len(chunk), "task_ids": chunk} for chunk in in_chunks(ids, MAX_TASK_IDS)]
    latest = read_at.subtract(seconds=settle_seconds) - MARGIN
    candidate = latest - OVERLAP
    moves = candidate > watched_since and (bool(new) or candidate - watched_since > LAG)
    since = candidate if moves else watched_since
    if len(announced) > MOST_REMEMBERED:
        since = max(since, min(latest, announced.newest(MOST_REMEMBERED).oldest()))
    return WatchResult(events, {"since": since.isoformat(), "reported": announced.since(since).to_json()})


def storable(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return a state in a size that can be stored. Older arrivals are left out, and announced again after a restart."""
    if len(state.get("reported", ())) <= MOST_REMEMBERED:
        return dict(state)
    return {**state, "reported": Overlap.from_json(state["reported"]).newest(MOST_REMEMBERED).to_json()}


def _reported(state: Mapping[str, Any]) -> Any:
    """Return the reported arrivals of a state. Release 1.0.0 stored them as `told`."""
    return state["reported"] if "reported" in state else state.get("told")


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

    :ivar read_at: the server's time shortly before the latest look.
    """

    def __init__(self) -> None:
        self.read_at: pendulum.DateTime = pendulum.now("UTC")
        self._cache: dict[tuple[str, pendulum.DateTime | None], Arrival] = {}

    def look(self, project: RedBrickProject, updated_after: pendulum.DateTime | None) -> list[Arrival]:
        """Return the arrivals of ground truth that changed since a watermark.

        :param project: the project to read.
        :param updated_after: the watermark; None to establish one, with only the latest arrivals.
        :return: arrivals in any order; some may be older than the watermark.
        :raises RedBrickAPIError: if a read failed.
        """
        changed = BulkRead(
            project,
            project.stage(GROUND_TRUTH),
            updated_after=updated_after or project.client.clock.now() - MARGIN,
            document=queries.TASKS_CHANGED,
            largest_page=project.client.page_size,
        )
        tasks = {(stored.task.task_id, stored.task.updated_at): stored.task for stored in changed}
        self.read_at = changed.read_at
        self._cache = {version: arrival for version, arrival in self._cache.items() if version in tasks}
        unknown = {version: task for version, task in tasks.items() if version not in self._cache}
        events = project.output_events([task.task_id for task in unknown.values()])
        arrivals = list(self._cache.values())
        for version, task in unknown.items():
            arrived_at = _arrived_at(task, events[task.task_id])
            if arrived_at is not None:
                arrivals.append(Arrival(task.task_id, arrived_at))
                if _is_final(task, events[task.task_id], settled_at=changed.watermark):
                    self._cache[version] = arrivals[-1]
        return arrivals


def _is_final(task: Task, events: Sequence[OutputEvent] | RedBrickAPIError, *, settled_at: pendulum.DateTime) -> bool:
    """Return whether a later read of a task's events cannot say more about this version."""
    if task.updated_at is None:
        return False
    if task.updated_at < settled_at:
        return True
    times = [] if isinstance(events, RedBrickAPIError) else [event.at for event in events if event.at is not None]
    return any(at >= task.updated_at - _SAME_CHANGE for at in times)


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
