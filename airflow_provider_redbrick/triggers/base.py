"""The loop that all triggers poll in."""

from __future__ import annotations

import asyncio
import time
import zlib
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_redbrick.batch.waiting import Condition, Patience
from airflow_provider_redbrick.exceptions import RedBrickError
from airflow_provider_redbrick.triggers.shared import shared_project

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class RedBrickPollTrigger(BaseTrigger):
    """Look again and again until a condition is met, a deadline has passed, or looking makes no sense any more.

    :param redbrick_conn_id: the connection; the key itself never enters a trigger.
    :param org_id: the organisation; the connection's when None.
    :param project_id: the project; the connection's when None.
    :param poke_interval: seconds between polls.
    :param deadline: when to give up, in epoch seconds.
    :param deadline_name: which of the sensor's limits that is: ``timeout`` or ``execution_timeout``.
    """

    def __init__(
        self,
        *,
        redbrick_conn_id: str,
        org_id: str | None,
        project_id: str | None,
        poke_interval: float,
        deadline: float,
        deadline_name: str = "timeout",
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.redbrick_conn_id = redbrick_conn_id
        self.org_id = org_id
        self.project_id = project_id
        self.poke_interval = poke_interval
        self.deadline = deadline
        self.deadline_name = deadline_name

    def condition(self) -> Condition:
        """Return what is waited for."""
        raise NotImplementedError

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments to build this trigger again."""
        kind = type(self)
        common = {
            "redbrick_conn_id": self.redbrick_conn_id,
            "org_id": self.org_id,
            "project_id": self.project_id,
            "poke_interval": self.poke_interval,
            "deadline": self.deadline,
            "deadline_name": self.deadline_name,
        }
        return f"{kind.__module__}.{kind.__qualname__}", {**common, **self.waits_for()}

    def waits_for(self) -> dict[str, Any]:
        """Return the arguments that say what is waited for."""
        raise NotImplementedError

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll, and yield exactly one event."""
        patience = Patience(deadline=self.deadline, deadline_name=self.deadline_name)
        condition = self.condition()
        async with shared_project(self.redbrick_conn_id, self.org_id, self.project_id) as project:
            while True:
                try:
                    poll = await project.look(condition)
                except RedBrickError as error:
                    self.log.warning("A poll failed: %s", error)
                    event = patience.after_error(error, now=time.time())
                else:
                    self.log.debug("Seen: %s", poll.seen)
                    event = patience.after(poll, now=time.time())
                if event is not None:
                    yield TriggerEvent(event)  # type: ignore[no-untyped-call]
                    return
                now = time.time()
                # Never past the deadline: a long interval must not stretch a short timeout.
                await asyncio.sleep(max(0.0, min(self._until_next(now), self.deadline - now)))

    def _until_next(self, now: float) -> float:
        """Return how many seconds there are to the next poll.

        Those who wait for the same project poll at the same moments, so that one request will do for all; other
        projects have other moments.
        """
        if not self.poke_interval:
            return 0.0
        own = zlib.crc32(f"{self.redbrick_conn_id} {self.org_id} {self.project_id}".encode())
        return self.poke_interval - (now - own) % self.poke_interval
