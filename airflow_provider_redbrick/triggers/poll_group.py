"""Share one client and its requests among the triggers of a project.

A triggerer runs for weeks, and connections and projects may be edited while triggers wait. Design note on poll sharing,
within one event loop:

1. Triggers share a client if their connections *resolve to* the same address, credential, limits, organization and
   project. Two connections with the same settings share one. After an edit, a connection has another client.
2. The connection is read when a trigger joins, and every ``STALE_AFTER_S`` seconds while triggers wait. All triggers of
   that connection use the new settings from their next poll on.
3. Neither a client nor its cached project data is ever older than that.
4. A permanent error (key refused, project or stage not found) counts only if it comes from data read during the same
   poll. Otherwise the connection and the project are read again, and the poll is repeated once.
5. While the connection cannot be read, waiting triggers continue with the settings that they have.
6. A sensor's trigger keeps the organization and project of its first poll (``pinned``); its key, host and limits follow
   the connection. A watcher follows the connection entirely.
7. Triggers of one project poll at the same moments. Reads that start within ``GATHER_S`` seconds share one request. An
   invalid key fails alone: a refused request is bisected until the failing key is isolated.
8. The last trigger to leave a project closes its client. No settings are kept of a connection without triggers.
"""

from __future__ import annotations

import asyncio
import logging
import time
import zlib
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING, Generic, TypeVar
from weakref import WeakKeyDictionary

from airflow_provider_redbrick._utils import in_thread, read_once
from airflow_provider_redbrick.client.models.task import Detail
from airflow_provider_redbrick.engine.polling import STALE_AFTER_S, TasksCondition
from airflow_provider_redbrick.exceptions import (
    PERMANENT_ERRORS,
    RedBrickConnectionLookupError,
    RedBrickError,
    RedBrickNotFoundError,
    RedBrickRefusedError,
)
from airflow_provider_redbrick.hooks.redbrick import RedBrickHook

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence

    from airflow_provider_redbrick.client.models.task import Task
    from airflow_provider_redbrick.client.models.workflow import Stage
    from airflow_provider_redbrick.client.operations.account import RedBrickClient
    from airflow_provider_redbrick.client.operations.project import RedBrickProject
    from airflow_provider_redbrick.engine.polling import Condition, Poll, QueueCondition
    from airflow_provider_redbrick.hooks.connection import Settings


log = logging.getLogger(__name__)

# Seconds that a request is delayed, so that triggers that poll at the same moment can join it.
GATHER_S = 0.05

Key = TypeVar("Key")
Value = TypeVar("Value")


class RequestCoalescer(Generic[Key, Value]):
    """Combine the keys requested within ``GATHER_S`` seconds into one request.

    :param fetch: reads some keys, in a thread, and returns each key's value or the error that prevented it.
    """

    def __init__(self, fetch: Callable[[Sequence[Key]], dict[Key, Value | RedBrickError]]) -> None:
        self._fetch = fetch
        self._pending: dict[Key, None] = {}
        self._request_task: asyncio.Task[dict[Key, Value | RedBrickError]] | None = None

    async def request(self, keys: Collection[Key]) -> dict[Key, Value | RedBrickError]:
        """Return each key's value, or the error that prevented it."""
        if self._request_task is None:
            self._request_task = asyncio.create_task(self._send_pending())
        self._pending.update(dict.fromkeys(keys))
        # A canceled caller must not cancel the request of the others.
        results = await asyncio.shield(self._request_task)
        return {key: results[key] for key in keys}

    async def request_one(self, key: Key) -> Value:
        """Return the value of one key.

        :raises RedBrickError: if it cannot be read.
        """
        result = (await self.request([key]))[key]
        if isinstance(result, RedBrickError):
            raise result.with_traceback(None)
        return result

    async def _send_pending(self) -> dict[Key, Value | RedBrickError]:
        await asyncio.sleep(GATHER_S)
        keys, self._pending, self._request_task = list(self._pending), {}, None
        try:
            return await in_thread(self._fetch, keys)
        except RedBrickError as error:
            return dict.fromkeys(keys, error)


def bisect_on_error(
    fetch: Callable[[Sequence[str]], dict[str, Value | RedBrickError]], keys: Sequence[str]
) -> dict[str, Value | RedBrickError]:
    """Request all keys together, and bisect when the server refuses.

    One invalid key fails alone instead of failing the others.

    :param fetch: reads some keys and returns each key's value or error.
    :param keys: the keys.
    :return: each key's value, or the error that prevented it.
    """
    try:
        return fetch(keys) if keys else {}
    except (RedBrickRefusedError, RedBrickNotFoundError) as error:
        if len(keys) == 1:
            return {keys[0]: error}
    half = len(keys) // 2
    return bisect_on_error(fetch, keys[:half]) | bisect_on_error(fetch, keys[half:])


class SharedProject:
    """One project, read through one client by several triggers.

    Blocking calls run in threads. They never read a connection: the hook comes with its settings loaded.

    :param hook: a hook whose settings are loaded.
    :param org_id: the organization.
    :param project_id: the project.
    :param read_at: when the settings were read, by the monotonic clock. No cached data is older.
    """

    def __init__(self, hook: RedBrickHook, org_id: str, project_id: str, *, read_at: float) -> None:
        self.read_at = read_at
        self.users = 0
        self.org_id = org_id
        self.project_id = project_id
        self._hook = hook
        self._stages: dict[str, Stage] = {}
        self._counts = RequestCoalescer(self._count_all)
        self._tasks = RequestCoalescer(self._read_all)
        self._listings: dict[tuple[str, bool], RequestCoalescer[int, int]] = {}

    @property
    def client(self) -> RedBrickClient:
        """The client of all these triggers."""
        return self._hook.client

    async def poll(self, condition: Condition) -> Poll:
        """Evaluate a condition.

        :raises RedBrickError: if the project cannot be read.
        """
        if isinstance(condition, TasksCondition):
            await self.read(condition.check)
            tasks = await self._tasks.request(condition.task_ids)
            return await self.read(lambda project: condition.evaluate(project, tasks))
        count = await (
            self._list(condition) if condition.requires_listing else self._counts.request_one(condition.stage_name)
        )
        condition.check_stage(self._stages[condition.stage_name])
        return condition.evaluate(count)

    async def read(self, function: Callable[[RedBrickProject], Value]) -> Value:
        """Call a function with the project in a thread, and return its result.

        :raises RedBrickError: if the project cannot be read.
        """
        return await in_thread(lambda: function(self._project))

    def close(self) -> None:
        """Close the client's HTTP connections."""
        self._hook.close()

    @read_once
    def _project(self) -> RedBrickProject:
        # Read the workflow here, once: concurrent threads would each request it.
        project = self._hook.project(self.project_id, org_id=self.org_id)
        _ = project.info
        return project

    async def _list(self, condition: QueueCondition) -> int:
        """Count tasks with one listing for all triggers that count them alike."""
        key = (condition.stage_name, condition.unassigned)
        if key not in self._listings:
            self._listings[key] = RequestCoalescer(partial(self._list_for_all, *key))
        return await self._listings[key].request_one(condition.listing_limit)

    def _stage(self, name: str) -> Stage:
        stage = self._stages[name] = self._project.stage(name)
        return stage

    def _count_all(self, names: Sequence[str]) -> dict[str, int | RedBrickError]:
        """Return each stage's count, or the error that prevented it."""
        results: dict[str, int | RedBrickError] = {}
        stages: dict[str, Stage] = {}
        for name in names:
            try:
                stages[name] = self._stage(name)
            except RedBrickError as error:
                results[name] = error
        by_name = {stage.name: stage for stage in stages.values()}

        def count_stages(part: Sequence[str]) -> dict[str, int | RedBrickError]:
            return dict(self._project.counts([by_name[name] for name in part]))

        counts = bisect_on_error(count_stages, list(by_name))
        return results | {name: counts[stage.name] for name, stage in stages.items()}

    def _list_for_all(self, stage_name: str, unassigned: bool, limits: Sequence[int]) -> dict[int, int | RedBrickError]:
        """Count one stage's tasks up to each of the given limits, with one listing.

        :return: for each limit, the count that a listing with this limit alone would return.
        """
        stage = self._stage(stage_name)
        count = self._project.count_by_listing(stage, unassigned=unassigned, stop_at=max(limits))
        return {limit: min(limit, count) for limit in limits}

    def _read_all(self, task_ids: Sequence[str]) -> dict[str, Task | RedBrickError]:
        """Return each task's position in the workflow, or the error that prevented it."""
        return bisect_on_error(lambda part: dict(self._project.read_tasks(part, detail=Detail.PLACE)), task_ids)


class _Registry:
    """Connections and projects in use by the triggers of one event loop."""

    def __init__(self) -> None:
        self.triggers: Counter[str] = Counter()
        self._reading = RequestCoalescer(_read_connections)
        self._settings: dict[str, tuple[Settings, float]] = {}
        self._projects: dict[Settings, SharedProject] = {}

    async def settings(self, conn_id: str, *, newer_than: float, needed: bool) -> tuple[Settings, float]:
        """Return a connection's settings and when they were read.

        :param conn_id: the connection id.
        :param newer_than: read the connection again if its settings are not newer than this, by the monotonic clock.
        :param needed: raise instead of returning older settings when the connection cannot be read.
        :raises RedBrickError: if the connection cannot be read, or is invalid.
        """
        known = self._settings.get(conn_id)
        if known is not None and known[1] > newer_than:
            return known
        try:
            latest = await self._reading.request_one(conn_id)
        except RedBrickConnectionLookupError as error:
            if known is None or needed:
                raise
            log.warning("Connection %r cannot be read. Its previous settings stay in use: %s", conn_id, error)
            return known
        # A read that began later may have finished first.
        self._settings[conn_id] = max(latest, self._settings.get(conn_id, latest), key=itemgetter(1))
        return self._settings[conn_id]

    def project(self, hook: RedBrickHook, *, read_at: float, newer_than: float) -> SharedProject:
        """Return the project shared by all triggers with the same settings.

        :param hook: with settings that name the trigger's organization and project.
        :param read_at: when these settings were read.
        :param newer_than: open the project again if it is not newer than this and the settings are.
        """
        settings = hook.settings
        shared = self._projects.get(settings)
        if shared is None or shared.read_at <= newer_than < read_at:
            shared = SharedProject(hook, str(settings.org_id), str(settings.project_id), read_at=read_at)
            self._projects[settings] = shared
        return shared

    def leave(self, shared: SharedProject) -> None:
        """Remove one trigger from a project. The last one closes the client."""
        shared.users -= 1
        if not shared.users:
            for settings in [key for key, project in self._projects.items() if project is shared]:
                del self._projects[settings]
            shared.close()

    def forget(self, conn_id: str) -> None:
        """Remove one trigger from a connection. The last one drops its settings."""
        self.triggers[conn_id] -= 1
        if not self.triggers[conn_id]:
            del self.triggers[conn_id]
            self._settings.pop(conn_id, None)


def _read_connections(conn_ids: Sequence[str]) -> dict[str, tuple[Settings, float] | RedBrickError]:
    """Return each connection's settings and when they were read, or the error."""
    results: dict[str, tuple[Settings, float] | RedBrickError] = {}
    for conn_id in conn_ids:
        read_at = time.monotonic()
        try:
            results[conn_id] = (RedBrickHook(conn_id).load_settings(), read_at)
        except RedBrickError as error:
            results[conn_id] = error
    return results


class ProjectLease:
    """One trigger's access to the project that its connection currently refers to.

    :param registry: the event loop's registry.
    :param conn_id: the connection id.
    :param org_id: the organization; None for the connection's.
    :param project_id: the project; None for the connection's.
    :param pinned: keep the organization and project of the first poll, even if the connection changes.
    """

    def __init__(
        self, registry: _Registry, conn_id: str, org_id: str | None, project_id: str | None, *, pinned: bool
    ) -> None:
        self._registry = registry
        self._conn_id = conn_id
        self._ids = (org_id, project_id)
        self._pinned = pinned
        self._shared: SharedProject | None = None
        self._joined = False
        registry.triggers[conn_id] += 1

    async def call(self, function: Callable[[SharedProject], Awaitable[Value]]) -> Value:
        """Call a coroutine function with the current project, and return its result.

        :param function: the read. Called a second time if a permanent error may come from cached data (rule 4).
        :raises RedBrickError: if the read fails.
        """
        began = time.monotonic()
        oldest = began - STALE_AFTER_S
        shared = await self._current(settings_from=oldest if self._joined else began, project_from=oldest)
        self._joined = True
        try:
            return await function(shared)
        except PERMANENT_ERRORS:
            if shared.read_at > began:
                raise
        return await function(await self._current(settings_from=began, project_from=began, needed=True))

    def until_next_poll(self, interval: float, *, now: float) -> float:
        """Return the seconds until the next poll.

        Triggers of the same project poll at the same moments, so that one request serves all. The offset depends on the
        project, which spreads the projects over the interval.

        :param interval: the poll interval in seconds.
        :param now: the current time in epoch seconds.
        """
        if not interval:
            return 0.0
        shared = self._shared
        name = self._conn_id if shared is None else f"{shared.org_id} {shared.project_id}"
        return interval - (now - zlib.crc32(name.encode())) % interval

    def release(self) -> None:
        """Leave the project. The last trigger closes its client."""
        self._follow(None)
        self._registry.forget(self._conn_id)

    async def _current(self, *, settings_from: float, project_from: float, needed: bool = False) -> SharedProject:
        settings, read_at = await self._registry.settings(self._conn_id, newer_than=settings_from, needed=needed)
        hook = RedBrickHook(self._conn_id)
        hook.settings = settings
        org_id, project_id = hook.resolve_ids(self._ids[1], org_id=self._ids[0])
        if self._pinned:
            self._ids = (org_id, project_id)
        hook.settings = replace(settings, org_id=org_id, project_id=project_id)
        shared = self._registry.project(hook, read_at=read_at, newer_than=project_from)
        self._follow(shared)
        return shared

    def _follow(self, shared: SharedProject | None) -> None:
        if shared is self._shared:
            return
        before, self._shared = self._shared, shared
        if shared is not None:
            shared.users += 1
        if before is not None:
            self._registry.leave(before)


_registries: WeakKeyDictionary[AbstractEventLoop, _Registry] = WeakKeyDictionary()


@asynccontextmanager
async def shared_project(
    redbrick_conn_id: str, org_id: str | None, project_id: str | None, *, pinned: bool = False
) -> AsyncIterator[ProjectLease]:
    """Join the triggers that wait for a project, as a context manager.

    :param redbrick_conn_id: the connection id.
    :param org_id: the organization; None for the connection's.
    :param project_id: the project; None for the connection's.
    :param pinned: keep the organization and project of the first poll, even if the connection changes.
    :return: the lease. It is released on exit.
    """
    registry = _registries.setdefault(asyncio.get_running_loop(), _Registry())
    lease = ProjectLease(registry, redbrick_conn_id, org_id, project_id, pinned=pinned)
    try:
        yield lease
    finally:
        lease.release()
