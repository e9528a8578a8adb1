"""The loop that event triggers look in: they live as long as an asset has them for watchers, through any outage."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseEventTrigger, TriggerEvent

from airflow_provider_redbrick.api.ids import check_uuid
from airflow_provider_redbrick.batch.watching import SCHEMA_VERSION, Backoff, WatchResult
from airflow_provider_redbrick.exceptions import HOPELESS, RedBrickConnectionLookupError, RedBrickInputError, told
from airflow_provider_redbrick.hooks import check
from airflow_provider_redbrick.hooks.redbrick import RedBrickHook
from airflow_provider_redbrick.triggers.memory import Memory
from airflow_provider_redbrick.triggers.shared import SharedProject, shared_project

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

# Seconds after which an event that was handed to the triggerer is in Airflow's database, with some to spare.
STORED_AFTER = 5.0


class RedBrickWatchTrigger(BaseEventTrigger):
    """Look at a project again and again, and tell what happens there, for ever.

    What was told is remembered in the asset's state store where Airflow has one (3.3.2), else in this process alone.
    It is written down some seconds after an event was sent: a triggerer that is killed in between sends the event
    again, and loses none.

    A look that fails is taken again, later and later, up to a quarter of an hour; a wrong key or stage is logged as an
    error, and looked at again every quarter of an hour.

    :param redbrick_conn_id: the connection; the key itself never enters a trigger.
    :param org_id: the organisation; the connection's when None.
    :param project_id: the project; the connection's when None: after the connection was edited, another one.
    :param poke_interval: seconds between looks. Those who look at the same project look together.
    :raises RedBrickInputError: when an argument makes no sense.
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
            raise RedBrickInputError(f"poke_interval must be a number of seconds, not {told(poke_interval)}.")
        self.redbrick_conn_id = redbrick_conn_id
        self.org_id = org_id
        self.project_id = project_id
        self.poke_interval = poke_interval

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments to build this trigger again; Airflow knows it by them."""
        kind = type(self)
        common = {
            "redbrick_conn_id": self.redbrick_conn_id,
            "org_id": self.org_id,
            "project_id": self.project_id,
            "poke_interval": self.poke_interval,
        }
        return f"{kind.__module__}.{kind.__qualname__}", {**common, **self.watches()}

    def watches(self) -> dict[str, Any]:
        """Return the arguments that say what is watched."""
        raise NotImplementedError

    async def look(self, project: SharedProject, state: Mapping[str, Any] | None) -> WatchResult:
        """Look once, and decide what is to be told."""
        raise NotImplementedError

    def stage(self) -> str:
        """Return the stage that events are about."""
        raise NotImplementedError

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look, and yield an event whenever there is something to tell."""
        memory = Memory(
            getattr(self, "asset_state_store", None),
            [type(self).__name__, self.org_id, self.project_id, self.watches()],
        )
        backoff = Backoff(self.poke_interval)
        async with shared_project(self.redbrick_conn_id, self.org_id, self.project_id) as lease:
            while True:
                try:
                    found = await lease.ask(lambda project: self._look(project, memory))
                    if failed := backoff.after_success():
                        self.log.info("Looking again, after %d failed looks.", failed)
                    for event in found.events:
                        yield TriggerEvent(event)  # type: ignore[no-untyped-call]
                    if found.events:
                        await asyncio.sleep(STORED_AFTER)
                    await memory.keep(found.state)
                    pause = lease.until_next_look(self.poke_interval, now=time.time())
                except Exception as error:  # noqa: BLE001 - a watcher that ends is one that nobody misses in time
                    pause = backoff.after_error(error)
                    lasts = isinstance(error, (*HOPELESS, RedBrickConnectionLookupError))
                    log = self.log.error if lasts else self.log.warning
                    log("A look failed; the next one is in %.0f s. %s: %s", pause, type(error).__name__, error)
                await asyncio.sleep(pause)

    async def _look(self, project: SharedProject, memory: Memory) -> WatchResult:
        """Look once, with what is remembered of this project; a watcher that follows its connection may change it."""
        about = {
            "schema_version": SCHEMA_VERSION,
            "org_id": project.org_id,
            "project_id": project.project_id,
            "stage_name": self.stage(),
        }
        state = await memory.recall()
        if state and state.get("project_id", project.project_id) != project.project_id:
            state = None
        found = await self.look(project, state)
        # An earlier release has not written down which project a state is about.
        remembered = found.state if self.project_id else {**found.state, "project_id": project.project_id}
        return WatchResult([{**about, **event} for event in found.events], remembered)
