"""Loop shared by event triggers, which run as long as an asset has watchers.

Design note on event watermarks:

1. Delivery is at least once. The state (watermark) is saved ``STORED_AFTER`` seconds after its events are yielded, when
   the triggerer has written them to Airflow's database. A triggerer killed in between sends them again.
2. The state is saved only after all events of a poll. A poll that fails leaves the state as it was.
3. The state is stored in the asset's state store (Airflow 3.3.2 or later), otherwise in this process only.
4. A state belongs to one project. When a watcher follows its connection to another project, it starts without state.
   Releases that did not record the project wrote states without ``project_id``; these are accepted as they are.
5. Failed polls are retried with growing pauses, up to 15 minutes. Permanent errors are logged as errors and retried
   every 15 minutes: a watcher that ended would go unnoticed.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseEventTrigger, TriggerEvent

from airflow_provider_redbrick.api.ids import check_uuid
from airflow_provider_redbrick.batch.watching import SCHEMA_VERSION, Backoff, WatchResult
from airflow_provider_redbrick.exceptions import (
    PERMANENT_ERRORS,
    RedBrickConnectionLookupError,
    RedBrickInputError,
    short_repr,
)
from airflow_provider_redbrick.hooks import check
from airflow_provider_redbrick.hooks.redbrick import RedBrickHook
from airflow_provider_redbrick.triggers.memory import EventState
from airflow_provider_redbrick.triggers.shared import SharedProject, shared_project

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

# Seconds until a yielded event is certainly in Airflow's database.
STORED_AFTER = 5.0


class RedBrickWatchTrigger(BaseEventTrigger):
    """Poll a project and yield an event for each change, until canceled.

    Sent events are recorded in the asset's state store where Airflow has one (3.3.2), otherwise in this process only.
    The record is written a few seconds after an event was sent. A triggerer that is killed in between sends the event
    again, so no event is lost.

    A failed poll is retried with growing pauses, up to 15 minutes. A wrong key or stage is logged as an error and
    retried every 15 minutes.

    :param redbrick_conn_id: the connection id. The API key itself never enters a trigger.
    :param org_id: the organization; None for the connection's.
    :param project_id: the project; None for the connection's. After the connection is edited, that can be another one.
    :param poke_interval: seconds between polls. Triggers of the same project poll at the same moments.
    :raises RedBrickInputError: if an argument is invalid.
    """

    def __init__(
        self,
        *,
        redbrick_conn_id: str = RedBrickHook.default_conn_name,
        org_id: str | None = None,
        project_id: str | None = None,
        poke_interval: float = 60.0,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        check.plain_text("redbrick_conn_id", redbrick_conn_id)
        for name, value in (("org_id", org_id), ("project_id", project_id)):
            if value is not None:
                check_uuid(name, value)
        if isinstance(poke_interval, bool) or not isinstance(poke_interval, (int, float)) or not poke_interval > 0:
            raise RedBrickInputError(f"poke_interval must be a number of seconds, not {short_repr(poke_interval)}.")
        self.redbrick_conn_id = redbrick_conn_id
        self.org_id = org_id
        self.project_id = project_id
        self.poke_interval = poke_interval

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments that identify and recreate this trigger."""
        cls = type(self)
        common = {
            "redbrick_conn_id": self.redbrick_conn_id,
            "org_id": self.org_id,
            "project_id": self.project_id,
            "poke_interval": self.poke_interval,
        }
        return f"{cls.__module__}.{cls.__qualname__}", {**common, **self.watches()}

    def watches(self) -> dict[str, Any]:
        """Return the arguments that describe what is watched."""
        raise NotImplementedError

    async def look(self, project: SharedProject, state: Mapping[str, Any] | None) -> WatchResult:
        """Poll once, and decide which events to send.

        :param project: the shared project to read.
        :param state: the state after the previous poll; None at the first one.
        :return: the events to send and the new state.
        :raises RedBrickError: if the poll fails.
        """
        raise NotImplementedError

    def stage(self) -> str:
        """Return the public name of the watched stage."""
        raise NotImplementedError

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll, and yield an event for each change."""
        memory = EventState(
            getattr(self, "asset_state_store", None),
            [type(self).__name__, self.org_id, self.project_id, self.watches()],
        )
        backoff = Backoff(self.poke_interval)
        async with shared_project(self.redbrick_conn_id, self.org_id, self.project_id) as lease:
            while True:
                try:
                    result = await lease.ask(lambda project: self._look(project, memory))
                    if failed := backoff.after_success():
                        self.log.info("Polling works again. Failed polls before: %d.", failed)
                    for event in result.events:
                        yield TriggerEvent(event)  # type: ignore[no-untyped-call]
                    if result.events:
                        await asyncio.sleep(STORED_AFTER)
                    await memory.keep(result.state)
                    pause = lease.until_next_look(self.poke_interval, now=time.time())
                except Exception as error:  # noqa: BLE001 - a watcher that ended would go unnoticed
                    pause = backoff.after_error(error)
                    is_permanent = isinstance(error, (*PERMANENT_ERRORS, RedBrickConnectionLookupError))
                    log = self.log.error if is_permanent else self.log.warning
                    log("A poll failed. The next one is in %.0f s. %s: %s", pause, type(error).__name__, error)
                await asyncio.sleep(pause)

    async def _look(self, project: SharedProject, memory: EventState) -> WatchResult:
        """Poll once with the saved state of the current project."""
        common = {
            "schema_version": SCHEMA_VERSION,
            "org_id": project.org_id,
            "project_id": project.project_id,
            "stage_name": self.stage(),
        }
        state = await memory.recall()
        if state and state.get("project_id", project.project_id) != project.project_id:
            state = None
        result = await self.look(project, state)
        # Only a watcher that follows its connection needs the project in its state.
        remembered = result.state if self.project_id else {**result.state, "project_id": project.project_id}
        return WatchResult([{**common, **event} for event in result.events], remembered)
