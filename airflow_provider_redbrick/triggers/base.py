"""Poll loop shared by all triggers of deferrable sensors.

Design note for the two loops (``RedBrickPollTrigger`` for sensors, ``RedBrickWatchTrigger`` for asset watchers):

1. No blocking call runs on the event loop: reads go through a :class:`ProjectLease`, which uses threads.
2. A trigger is serialized with ids and the connection's id. The API key never enters its arguments.
3. Optional arguments that are not set are not serialized, so that a triggerer of an earlier release can load them.
4. A sensor's trigger yields exactly one event and never sleeps past its deadline.
5. A watcher's trigger never ends by itself. It survives any error and backs off.
"""

from __future__ import annotations

import asyncio
import time
from operator import methodcaller
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_redbrick.batch.waiting import Condition, Limits, PollBudget
from airflow_provider_redbrick.exceptions import RedBrickError
from airflow_provider_redbrick.triggers.shared import shared_project

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import datetime


_MAX_DOUBLINGS = 30


class RedBrickPollTrigger(BaseTrigger):
    """Poll until a condition is met, the deadline passes, or a permanent error occurs.

    A worker that defers passes ``deadline``. With ``start_from_trigger`` the wait begins in the triggerer, and the
    deadline is not known when the DAG is parsed. In that case ``timeout`` limits the duration.

    :param redbrick_conn_id: the connection id. The API key itself never enters a trigger.
    :param org_id: the organization; None for the connection's at the first poll.
    :param project_id: the project; None for the connection's at the first poll.
    :param poke_interval: seconds between polls.
    :param deadline: when the wait times out, in epoch seconds.
    :param deadline_name: the sensor limit that sets the deadline: ``timeout`` or ``execution_timeout``.
    :param timeout: the sensor's timeout in seconds. Used without a deadline.
    :param execution_timeout: the sensor's execution_timeout in seconds. Used without a deadline.
    :param exponential_backoff: double the pause after each poll.
    :param max_wait: the longest pause with ``exponential_backoff``, in seconds; None for no limit.
    :param silent_fail: continue after failed polls, whatever their kind and number.
    """

    timeout_after: datetime | None = None
    """When Airflow cancels the trigger. Set by the triggerer."""

    def __init__(
        self,
        *,
        redbrick_conn_id: str,
        org_id: str | None,
        project_id: str | None,
        poke_interval: float,
        deadline: float | None = None,
        deadline_name: str = "timeout",
        timeout: float = 0.0,
        execution_timeout: float | None = None,
        exponential_backoff: bool = False,
        max_wait: float | None = None,
        silent_fail: bool = False,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.redbrick_conn_id = redbrick_conn_id
        self.org_id = org_id
        self.project_id = project_id
        self.poke_interval = poke_interval
        self.deadline = deadline
        self.deadline_name = deadline_name
        self.limits = Limits(timeout, execution_timeout)
        self.exponential_backoff = exponential_backoff
        self.max_wait = max_wait
        self.silent_fail = silent_fail

    def condition(self) -> Condition:
        """Return the validated condition.

        :raises RedBrickInputError: if an argument is invalid.
        """
        raise NotImplementedError

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments that recreate this trigger."""
        cls = type(self)
        common: dict[str, Any] = {
            "redbrick_conn_id": self.redbrick_conn_id,
            "org_id": self.org_id,
            "project_id": self.project_id,
            "poke_interval": self.poke_interval,
        }
        if self.deadline is None:
            common |= {"timeout": self.limits.timeout, "execution_timeout": self.limits.execution_timeout}
        else:
            common |= {"deadline": self.deadline, "deadline_name": self.deadline_name}
        for name in ("exponential_backoff", "max_wait", "silent_fail"):
            # Omit unset options, so that a triggerer of an earlier release can load the trigger.
            common |= {name: getattr(self, name)} if getattr(self, name) else {}
        return f"{cls.__module__}.{cls.__qualname__}", {**common, **self.waits_for()}

    def waits_for(self) -> dict[str, Any]:
        """Return the arguments that describe the condition."""
        raise NotImplementedError

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll, and yield exactly one event."""
        budget, polls = self._poll_budget(), 0
        async with shared_project(self.redbrick_conn_id, self.org_id, self.project_id, pinned=True) as lease:
            while True:
                try:
                    poll = await lease.ask(methodcaller("look", self.condition()))
                except Exception as problem:
                    error = problem if isinstance(problem, RedBrickError) else RedBrickError(type(problem).__name__)
                    if error is not problem and not self.silent_fail:
                        raise
                    self.log.warning("A poll failed: %s", error)
                    event = budget.after_error(error, now=time.time())
                else:
                    self.log.debug("Poll result: %s", poll.observed)
                    event = budget.after(poll, now=time.time())
                if event is not None:
                    yield TriggerEvent(event)  # type: ignore[no-untyped-call]
                    return
                now = time.time()
                pause = lease.until_next_look(self.poke_interval, now=now) + self._backoff_extra(polls)
                polls += 1
                if self.max_wait and self.exponential_backoff:
                    pause = min(pause, self.max_wait)
                # A long interval must not exceed a short timeout.
                await asyncio.sleep(max(0.0, min(pause, budget.deadline - now)))

    def _poll_budget(self) -> PollBudget:
        if self.deadline is not None:
            return PollBudget(
                deadline=self.deadline, deadline_name=self.deadline_name, tolerates_errors=self.silent_fail
            )
        canceled_at = self.timeout_after.timestamp() if self.timeout_after else None
        deadline = self.limits.deadline(cancel_at=canceled_at, now=time.time())
        return PollBudget(deadline=deadline, deadline_name=self.limits.name, tolerates_errors=self.silent_fail)

    def _backoff_extra(self, polls: int) -> float:
        """Return the extra pause of exponential backoff, in seconds.

        :param polls: the number of polls so far. The extra is 0, 1, 3, 7, ... times ``poke_interval``.
        """
        return self.poke_interval * (2 ** min(polls, _MAX_DOUBLINGS) - 1) if self.exponential_backoff else 0.0
