"""The loop that all triggers poll in."""

from __future__ import annotations

import asyncio
import time
from operator import methodcaller
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_redbrick.batch.waiting import Condition, Limits, Patience
from airflow_provider_redbrick.exceptions import RedBrickError
from airflow_provider_redbrick.triggers.shared import shared_project

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import datetime


_MOST_DOUBLINGS = 30


class RedBrickPollTrigger(BaseTrigger):
    """Look again and again until a condition is met, a deadline has passed, or looking makes no sense any more.

    A worker that defers says when the wait is over (``deadline``). Where Airflow begins the wait in the triggerer, by
    ``start_from_trigger``, that is not known when the DAG is parsed: then ``timeout`` says how long it may be.

    :param redbrick_conn_id: the connection; the key itself never enters a trigger.
    :param org_id: the organisation; that of the connection at the first look when None.
    :param project_id: the project; likewise.
    :param poke_interval: seconds between polls.
    :param deadline: when to give up, in epoch seconds.
    :param deadline_name: which of the sensor's limits that is: ``timeout`` or ``execution_timeout``.
    :param timeout: without a deadline: the sensor's timeout, in seconds.
    :param execution_timeout: without a deadline: the sensor's execution_timeout, in seconds.
    :param exponential_backoff: double the pause after each poll.
    :param max_wait: with ``exponential_backoff``: the longest pause, in seconds; None for no limit.
    :param silent_fail: go on after failed polls, of any kind and number.
    """

    timeout_after: datetime | None = None
    """When Airflow gives the trigger up; the triggerer sets it."""

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
        """Return what is waited for, checked.

        :raises RedBrickInputError: when it makes no sense.
        """
        raise NotImplementedError

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments to build this trigger again."""
        kind = type(self)
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
            # What is not set is left out, so that a triggerer of an earlier release can load it.
            common |= {name: getattr(self, name)} if getattr(self, name) else {}
        return f"{kind.__module__}.{kind.__qualname__}", {**common, **self.waits_for()}

    def waits_for(self) -> dict[str, Any]:
        """Return the arguments that say what is waited for."""
        raise NotImplementedError

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll, and yield exactly one event."""
        patience, polls = self._patience(), 0
        ids = (self.redbrick_conn_id, self.org_id, self.project_id)
        async with shared_project(*ids, pinned=True) as lease:
            while True:
                try:
                    poll = await lease.ask(methodcaller("look", self.condition()))
                except Exception as problem:
                    error = problem if isinstance(problem, RedBrickError) else RedBrickError(type(problem).__name__)
                    if error is not problem and not self.silent_fail:
                        raise
                    self.log.warning("A poll failed: %s", error)
                    event = patience.after_error(error, now=time.time())
                else:
                    self.log.debug("Seen: %s", poll.seen)
                    event = patience.after(poll, now=time.time())
                if event is not None:
                    yield TriggerEvent(event)  # type: ignore[no-untyped-call]
                    return
                now = time.time()
                pause = lease.until_next_look(self.poke_interval, now=now) + self._longer_by(polls)
                polls += 1
                if self.max_wait and self.exponential_backoff:
                    pause = min(pause, self.max_wait)
                # Never past the deadline: a long interval must not stretch a short timeout.
                await asyncio.sleep(max(0.0, min(pause, patience.deadline - now)))

    def _patience(self) -> Patience:
        if self.deadline is not None:
            return Patience(deadline=self.deadline, deadline_name=self.deadline_name, tolerates_errors=self.silent_fail)
        given_up_at = self.timeout_after.timestamp() if self.timeout_after else None
        deadline = self.limits.deadline(given_up_at=given_up_at, now=time.time())
        return Patience(deadline=deadline, deadline_name=self.limits.name, tolerates_errors=self.silent_fail)

    def _longer_by(self, polls: int) -> float:
        """Return how much longer than the poke_interval to wait, after a number of polls: 0, 1, 3, 7 times itself."""
        return self.poke_interval * (2 ** min(polls, _MOST_DOUBLINGS) - 1) if self.exponential_backoff else 0.0
