"""What event triggers tell, given what they told before and see now: decided here, without a clock or a server.

A state is plain JSON, for it is kept between two looks, and where Airflow has a place for it, between two triggerers.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pendulum

from airflow_provider_redbrick.api.chunks import in_chunks
from airflow_provider_redbrick.batch.outcome import MAX_TASK_IDS
from airflow_provider_redbrick.exceptions import HOPELESS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    State = dict[str, Any]

SCHEMA_VERSION = 1

OVERLAP = pendulum.duration(minutes=10)
"""How far back each look goes: what shows up late, or was written by a clock that is behind, is still found."""

LAG = pendulum.duration(minutes=10)
"""How far a cursor may stay behind while nothing happens, so that it is not written at every look."""

MOST_REMEMBERED = 500
"""Ids that a state holds: 40 kB, which any of Airflow's databases takes."""

_SHORTEST_PAUSE, _LONGEST_PAUSE = 1.0, 900.0
_MOST_DOUBLED = 16


@dataclass(frozen=True)
class WatchResult:
    """What a look led to: events to send, and what to remember once they are sent."""

    events: Sequence[Mapping[str, Any]]
    state: State


def crossing(state: Mapping[str, Any] | None, count: int, *, at_least: int) -> WatchResult:
    """Tell when a queue rises through a threshold: once, and again only after it was below it.

    Without a state it was below: work that waits already when a watcher is new must not wait for more.
    """
    above = count >= at_least
    was_above = bool(state and state.get("above"))
    events = [{"count": count, "at_least": at_least}] if above and not was_above else []
    return WatchResult(events, {"above": above})


@dataclass(frozen=True)
class Arrival:
    """A task became ground truth."""

    task_id: str
    at: pendulum.DateTime


def since(state: Mapping[str, Any] | None) -> pendulum.DateTime | None:
    """Return from when on arrivals matter; None before the first look."""
    return pendulum.instance(datetime.fromisoformat(state["since"])) if state else None


def arrivals(state: Mapping[str, Any] | None, seen: Sequence[Arrival], *, mark: pendulum.DateTime) -> WatchResult:
    """Tell which tasks have become ground truth and were not told yet; as many events as their ids need.

    A task that was reopened and is finished again is told again. One whose labels were changed where it is, is not.

    :param seen: arrivals since :func:`since`, in any order; others among them do no harm.
    :param mark: a moment before they were looked for.
    """
    begun = since(state)
    if begun is None:
        # Whatever was there before the watcher is no news.
        return WatchResult([], {"since": mark.isoformat(), "told": {}})
    told: dict[str, str] = dict((state or {}).get("told") or {})
    new = sorted(
        (each for each in seen if each.at >= begun and told.get(each.task_id) != each.at.isoformat()),
        key=lambda each: (each.at, each.task_id),
    )
    told.update((each.task_id, each.at.isoformat()) for each in new)
    ids = list(dict.fromkeys(each.task_id for each in new))
    events = [{"count": len(chunk), "task_ids": chunk} for chunk in in_chunks(ids, MAX_TASK_IDS)]
    following = mark - OVERLAP
    moves = following > begun and (bool(new) or following - begun > LAG)
    return WatchResult(events, _remembered(told, following if moves else begun))


def _remembered(told: Mapping[str, str], begin: pendulum.DateTime) -> State:
    """Forget what a look from ``begin`` on will not find, and begin later when there is no room for all."""
    moments = {task_id: datetime.fromisoformat(at) for task_id, at in told.items()}
    if len(moments) > MOST_REMEMBERED:
        begin = max(begin, pendulum.instance(sorted(moments.values())[-MOST_REMEMBERED]))
    return {"since": begin.isoformat(), "told": {each: told[each] for each, at in moments.items() if at >= begin}}


class Backoff:
    """How long to wait after looks that failed: longer and longer, and never for good.

    :param interval: seconds between two looks when all is well.
    """

    def __init__(self, interval: float) -> None:
        self._interval = max(_SHORTEST_PAUSE, interval)
        self.failed_in_a_row = 0

    def after_success(self) -> int:
        """Return how many looks had failed before this one."""
        failed, self.failed_in_a_row = self.failed_in_a_row, 0
        return failed

    def after_error(self, error: Exception) -> float:
        """Return how many seconds to wait; what only a person can put right is tried rarely from the start."""
        self.failed_in_a_row += 1
        longest = max(_LONGEST_PAUSE, self._interval)
        if isinstance(error, HOPELESS):
            return longest
        return min(longest, self._interval * 2.0 ** min(self.failed_in_a_row - 1, _MOST_DOUBLED))
