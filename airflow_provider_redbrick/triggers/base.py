"""Base triggers: the poll loop of sensors and the watch loop of watchers.

Design note on polling (``RedBrickPollTrigger`` for sensors, ``RedBrickWatchTrigger`` for asset watchers):

1. No blocking call runs on the event loop: reads go through a :class:`ProjectLease`, which uses threads.
2. A trigger is serialized with ids and the connection's id. The API key never enters its arguments.
3. Optional arguments that are not set are not serialized, so that a triggerer of an earlier release can load them.
4. A sensor's trigger yields exactly one event and never sleeps past its deadline.
5. A watcher's trigger never ends by itself, because that would go unnoticed. Failed polls are retried with growing
   pauses, up to 15 minutes. Permanent errors are logged as errors and retried every 15 minutes.

Design note on the state of a watcher (its watermark):

1. Delivery is at least once. The state is saved ``STORED_AFTER_S`` seconds after its events are yielded, when the
   triggerer has written them to Airflow's database. A triggerer killed in between sends them again.
2. The state is saved only after all events of a poll. A poll that fails leaves the state as it was.
3. The state is stored in the asset's state store (Airflow 3.3.2 or later), otherwise in this process only. The key is a
   checksum of what the trigger watches, so that several triggers of one asset do not overwrite each other.
4. A state that cannot be read raises: starting without it would lose or repeat events. A state that cannot be written
   stays in memory and is written with the next change.
5. Where one trigger watches for several assets, Airflow refuses access. The state is then kept in this process only.
6. A state belongs to one project. When a watcher follows its connection to another project, it starts without state.
   Releases that did not record the project wrote states without ``project_id``. These are accepted as they are.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
import zlib
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseEventTrigger, BaseTrigger, TriggerEvent

from airflow_provider_redbrick.client.models.parsing import check_uuid
from airflow_provider_redbrick.engine.polling import Condition, Limits, Poll, PollBudget, error_event
from airflow_provider_redbrick.engine.watching import SCHEMA_VERSION, Backoff, WatchResult, storable
from airflow_provider_redbrick.exceptions import (
    PERMANENT_ERRORS,
    RedBrickConnectionLookupError,
    RedBrickError,
    RedBrickInputError,
    short_repr,
)
from airflow_provider_redbrick.hooks import validation
from airflow_provider_redbrick.hooks.redbrick import RedBrickHook
from airflow_provider_redbrick.triggers.poll_group import SharedProject, shared_project

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from datetime import datetime


log = logging.getLogger(__name__)

# Seconds after which a yielded event is certainly in Airflow's database.
STORED_AFTER_S = 5.0
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
        try:
            event = await self._wait(self.condition())
        except RedBrickError as error:
            event = error_event(error)
        except Exception as error:
            self.log.exception("The wait ends because of an unexpected error.")
            event = error_event(error)
        yield TriggerEvent(event)  # type: ignore[no-untyped-call]

    async def _wait(self, condition: Condition) -> dict[str, Any]:
        """Poll until the wait ends, and return its event."""
        budget, polls = self._poll_budget(condition), 0
        async with shared_project(self.redbrick_conn_id, self.org_id, self.project_id, pinned=True) as lease:
            while True:
                must_confirm, event = False, None
                try:
                    poll, settle_seconds = await lease.call(lambda project: _look(project, condition))
                except Exception as raised:
                    error = raised if isinstance(raised, RedBrickError) else RedBrickError(type(raised).__name__)
                    if error is not raised and not self.silent_fail:
                        raise
                    self.log.warning("A poll failed: %s", error)
                    event = budget.after_error(error, now=time.time())
                else:
                    self.log.debug("Poll result: %s", poll.observed)
                    must_confirm = budget.must_confirm(poll, now=time.time(), settle_seconds=settle_seconds)
                    if not must_confirm:
                        event = budget.after(poll, now=time.time())
                if event is not None:
                    return event
                now = time.time()
                if must_confirm:
                    pause = budget.pause_to_confirm(self.poke_interval)
                else:
                    pause = lease.until_next_poll(self.poke_interval, now=now) + self._backoff_extra(polls)
                    polls += 1
                if self.max_wait and self.exponential_backoff:
                    pause = min(pause, self.max_wait)
                # A long interval must not exceed a short timeout.
                await asyncio.sleep(max(0.0, min(pause, budget.deadline - now)))

    def _poll_budget(self, condition: Condition) -> PollBudget:
        deadline, name = self.deadline, self.deadline_name
        if deadline is None:
            canceled_at = self.timeout_after.timestamp() if self.timeout_after else None
            deadline, name = self.limits.deadline(cancel_at=canceled_at, now=time.time()), self.limits.name
        return PollBudget(deadline=deadline, deadline_name=name, awaited=condition, tolerates_errors=self.silent_fail)

    def _backoff_extra(self, polls: int) -> float:
        """Return the extra pause of exponential backoff, in seconds.

        :param polls: the number of polls so far. The extra is 0, 1, 3, 7, ... times ``poke_interval``.
        """
        return self.poke_interval * (2 ** min(polls, _MAX_DOUBLINGS) - 1) if self.exponential_backoff else 0.0


async def _look(project: SharedProject, condition: Condition) -> tuple[Poll, float]:
    """Return the result of a poll, and how far behind it may be in seconds."""
    return await project.poll(condition), project.client.settle_seconds


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
        validation.plain_text("redbrick_conn_id", redbrick_conn_id)
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

    async def poll(self, project: SharedProject, state: Mapping[str, Any] | None) -> WatchResult:
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
        event_state = EventState(
            getattr(self, "asset_state_store", None),
            [type(self).__name__, self.org_id, self.project_id, self.watches()],
        )
        backoff = Backoff(self.poke_interval)
        async with shared_project(self.redbrick_conn_id, self.org_id, self.project_id) as lease:
            while True:
                try:
                    result = await lease.call(lambda project: self._poll(project, event_state))
                    if failed := backoff.after_success():
                        self.log.info("Polling works again after %d failed polls.", failed)
                    for event in result.events:
                        yield TriggerEvent(event)  # type: ignore[no-untyped-call]
                    if result.events:
                        await asyncio.sleep(STORED_AFTER_S)
                    await event_state.save(result.state)
                    pause = lease.until_next_poll(self.poke_interval, now=time.time())
                except Exception as error:  # noqa: BLE001 - a watcher that ended would go unnoticed
                    pause = backoff.after_error(error)
                    is_permanent = isinstance(error, (*PERMANENT_ERRORS, RedBrickConnectionLookupError))
                    log = self.log.error if is_permanent else self.log.warning
                    log("A poll failed. The next one is in %.0f s. %s: %s", pause, type(error).__name__, error)
                await asyncio.sleep(pause)

    async def _poll(self, project: SharedProject, event_state: EventState) -> WatchResult:
        """Poll once with the saved state of the current project."""
        common = {
            "schema_version": SCHEMA_VERSION,
            "org_id": project.org_id,
            "project_id": project.project_id,
            "stage_name": self.stage(),
        }
        state = await event_state.load()
        if state and state.get("project_id", project.project_id) != project.project_id:
            state = None
        result = await self.poll(project, state)
        # Only a watcher that follows its connection needs the project in its state.
        new_state = result.state if self.project_id else {**result.state, "project_id": project.project_id}
        return WatchResult([{**common, **event} for event in result.events], new_state)


class EventState:
    """State of one watcher, in the asset's state store or in this process only.

    :param store: the trigger's ``asset_state_store``. Before Airflow 3.3.2 it is None or has no asynchronous methods.
    :param identity: JSON that distinguishes this trigger's state from others of the same asset.
    """

    def __init__(self, store: Any, identity: object) -> None:
        self._store = store if hasattr(store, "aget") else None
        self._key = f"redbrick-{zlib.crc32(json.dumps(identity, sort_keys=True).encode()):08x}"
        self._state: Mapping[str, Any] | None = None
        self._stored: Mapping[str, Any] | None = None
        self._loaded = False

    async def load(self) -> Mapping[str, Any] | None:
        """Return the state, or None before the first one.

        :raises Exception: if the store cannot be read now. Starting without the state would lose events.
        """
        if not self._loaded:
            if self._store is not None:
                try:
                    self._stored = await self._store.aget(self._key)
                except ValueError:
                    # Airflow raises this when the same trigger watches for several assets.
                    log.warning("Several assets use this trigger. Its state is kept in this process only.")
                    self._store = None
            self._state, self._loaded = self._stored, True
        return self._state

    async def save(self, state: Mapping[str, Any]) -> None:
        """Save a state.

        :raises Exception: if the store cannot be written now. The state stays in memory and is written the next time.
        """
        self._state = state
        stored = storable(state)
        if self._store is not None and stored != self._stored:
            await self._store.aset(self._key, stored)
            self._stored = stored
