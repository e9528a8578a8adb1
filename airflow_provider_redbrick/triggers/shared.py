"""What the triggers of one event loop that wait for the same project share: a client, and what they ask.

A triggerer lives for weeks, and a connection or a project may be edited while triggers wait. The rules:

1. Sharing goes by what the connection *resolves to*: address, credential, limits, organization and project. Two
   connections with the same settings share; one connection that was edited does not share with what it was before.
2. The connection is read when a trigger joins, and every ``STALE_AFTER_S`` seconds by those that wait. What one of them
   reads, all triggers of that connection follow at their next look.
3. A client, and what it keeps of the project, is as old as that at most.
4. An error that only a person can mend (key refused, project or stage not there) counts only when it comes from what
   was read during the same look. Otherwise the connection and the project are read again, and the look is repeated.
5. While the connection cannot be read, those that wait go on with the settings that they have.
6. A sensor's trigger keeps the organization and the project of its first look (``pinned``); its key, host and limits
   follow the connection. A watcher follows the connection altogether.
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
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakKeyDictionary

from airflow_provider_redbrick.api.detail import Detail
from airflow_provider_redbrick.api.threads import read_once
from airflow_provider_redbrick.batch.waiting import STALE_AFTER_S, TasksCondition
from airflow_provider_redbrick.exceptions import HOPELESS, RedBrickConnectionLookupError, RedBrickError
from airflow_provider_redbrick.hooks.redbrick import RedBrickHook
from airflow_provider_redbrick.triggers.threads import in_thread
from airflow_provider_redbrick.triggers.together import Together, apart_if_need_be

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from airflow_provider_redbrick.api.models import Task
    from airflow_provider_redbrick.api.project import RedBrickProject
    from airflow_provider_redbrick.api.workflow import Stage
    from airflow_provider_redbrick.batch.waiting import Condition, Poll, QueueCondition
    from airflow_provider_redbrick.hooks.settings import Settings

    Seen = TypeVar("Seen")

log = logging.getLogger(__name__)


class SharedProject:
    """One project by one client, looked at by several triggers.

    What blocks is done in threads. None of them reads a connection: the hook comes with its settings.

    :param hook: a hook whose settings were read.
    :param org_id: the organization.
    :param project_id: the project.
    :param read_at: when the settings were read, by the monotonic clock: nothing that is kept here is older.
    """

    def __init__(self, hook: RedBrickHook, org_id: str, project_id: str, *, read_at: float) -> None:
        self.read_at = read_at
        self.users = 0
        self.org_id = org_id
        self.project_id = project_id
        self._hook = hook
        self._stages: dict[str, Stage] = {}
        self._counts = Together(self._count_all)
        self._tasks = Together(self._read_all)
        self._listings: dict[tuple[str, bool], Together[int, int]] = {}

    async def look(self, condition: Condition) -> Poll:
        """Look whether a condition is met.

        :raises RedBrickError: when it could not be seen.
        """
        if isinstance(condition, TasksCondition):
            await self.read(condition.check)
            tasks = await self._tasks.ask(condition.task_ids)
            return await self.read(lambda project: condition.judge(project, tasks))
        count = await (self._list(condition) if condition.lists else self._counts.ask_one(condition.stage_name))
        condition.check_stage(self._stages[condition.stage_name])
        return condition.judge(count)

    async def read(self, what: Callable[[RedBrickProject], Seen]) -> Seen:
        """Return what is read of the project, in a thread.

        :raises RedBrickError: when it could not be read.
        """
        return await in_thread(lambda: what(self._project))

    def close(self) -> None:
        """Close the connections."""
        self._hook.close()

    @read_once
    def _project(self) -> RedBrickProject:
        # Threads that come together would each ask for the workflow.
        project = self._hook.project(self.project_id, org_id=self.org_id)
        _ = project.info
        return project

    async def _list(self, condition: QueueCondition) -> int:
        """Return how many tasks there are, by one listing for all who count them alike."""
        alike = (condition.stage_name, condition.unassigned)
        if alike not in self._listings:
            self._listings[alike] = Together(partial(self._list_for_all, *alike))
        return await self._listings[alike].ask_one(condition.enough)

    def _stage(self, name: str) -> Stage:
        stage = self._stages[name] = self._project.stage(name)
        return stage

    def _count_all(self, names: Sequence[str]) -> dict[str, int | RedBrickError]:
        """Return for each name the stage's count, or why there is none."""
        answers: dict[str, int | RedBrickError] = {}
        stages: dict[str, Stage] = {}
        for name in names:
            try:
                stages[name] = self._stage(name)
            except RedBrickError as error:
                answers[name] = error
        by_name = {stage.name: stage for stage in stages.values()}

        def counted(some: Sequence[str]) -> dict[str, int | RedBrickError]:
            return dict(self._project.counts([by_name[name] for name in some]))

        counts = apart_if_need_be(counted, list(by_name))
        return answers | {name: counts[stage.name] for name, stage in stages.items()}

    def _list_for_all(self, stage_name: str, unassigned: bool, enough: Sequence[int]) -> dict[int, int | RedBrickError]:
        """Return for each number the count as far as that, as if it had been listed for it alone."""
        stage = self._stage(stage_name)
        count = self._project.count_by_listing(stage, unassigned=unassigned, stop_at=max(enough))
        return {each: min(each, count) for each in enough}

    def _read_all(self, task_ids: Sequence[str]) -> dict[str, Task | RedBrickError]:
        """Return for each id where its task is, or why that is not known."""
        return apart_if_need_be(lambda some: dict(self._project.read_tasks(some, detail=Detail.PLACE)), task_ids)


class _Registry:
    """The connections and the projects that the triggers of one event loop use."""

    def __init__(self) -> None:
        self.triggers: Counter[str] = Counter()
        self._reading = Together(_read_connections)
        self._settings: dict[str, tuple[Settings, float]] = {}
        self._projects: dict[Settings, SharedProject] = {}

    async def settings(self, conn_id: str, *, newer_than: float, needed: bool) -> tuple[Settings, float]:
        """Return a connection's settings and when they were read: again, if they are too old.

        :param needed: whether older ones will not do when the connection cannot be read.
        :raises RedBrickError: if it cannot be read, or what it says makes no sense.
        """
        known = self._settings.get(conn_id)
        if known is not None and known[1] > newer_than:
            return known
        try:
            found = await self._reading.ask_one(conn_id)
        except RedBrickConnectionLookupError as error:
            if known is None or needed:
                raise
            log.warning("Going on with the settings that connection %r had before: %s", conn_id, error)
            return known
        # Another reading that began later may have come first.
        self._settings[conn_id] = max(found, self._settings.get(conn_id, found), key=itemgetter(1))
        return self._settings[conn_id]

    def project(self, hook: RedBrickHook, *, read_at: float, newer_than: float) -> SharedProject:
        """Return what is shared by all whose connections resolve to the same, opened anew when it is too old.

        :param hook: with settings that name the organization and the project of the trigger.
        :param read_at: when these settings were read.
        """
        settings = hook.settings
        shared = self._projects.get(settings)
        if shared is None or shared.read_at <= newer_than < read_at:
            shared = SharedProject(hook, str(settings.org_id), str(settings.project_id), read_at=read_at)
            self._projects[settings] = shared
        return shared

    def leave(self, shared: SharedProject) -> None:
        """Let a trigger go; the last one closes the connections."""
        shared.users -= 1
        if not shared.users:
            for settings in [each for each, found in self._projects.items() if found is shared]:
                del self._projects[settings]
            shared.close()

    def forget(self, conn_id: str) -> None:
        """Keep no credential of a connection that no trigger uses."""
        self.triggers[conn_id] -= 1
        if not self.triggers[conn_id]:
            del self.triggers[conn_id]
            self._settings.pop(conn_id, None)


def _read_connections(conn_ids: Sequence[str]) -> dict[str, tuple[Settings, float] | RedBrickError]:
    """Return for each connection its settings and when they were read, or why they could not be."""
    answers: dict[str, tuple[Settings, float] | RedBrickError] = {}
    for conn_id in conn_ids:
        read_at = time.monotonic()
        try:
            answers[conn_id] = (RedBrickHook(conn_id).load_settings(), read_at)
        except RedBrickError as error:
            answers[conn_id] = error
    return answers


class ProjectLease:
    """What one trigger asks, of the project that its connection means at the moment.

    :param pinned: keep the organization and the project of the first look, whatever the connection says later.
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

    async def ask(self, question: Callable[[SharedProject], Awaitable[Seen]]) -> Seen:
        """Return what a project answers to a question; see the rules above for what is read again before.

        :param question: is asked twice when it first meets an error that may come from what was kept.
        :raises RedBrickError: when it could not be answered.
        """
        began = time.monotonic()
        oldest = began - STALE_AFTER_S
        shared = await self._current(settings_from=oldest if self._joined else began, project_from=oldest)
        self._joined = True
        try:
            return await question(shared)
        except HOPELESS:
            if shared.read_at > began:
                raise
        return await question(await self._current(settings_from=began, project_from=began, needed=True))

    def until_next_look(self, interval: float, *, now: float) -> float:
        """Return how many seconds there are to the next look.

        Those who look at the same project look at the same moments, so that one request will do for all; other projects
        have other moments.
        """
        if not interval:
            return 0.0
        shared = self._shared
        name = self._conn_id if shared is None else f"{shared.org_id} {shared.project_id}"
        return interval - (now - zlib.crc32(name.encode())) % interval

    def release(self) -> None:
        """Give up the share; the last one closes the connections."""
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
    """Let one more trigger wait for a project; the last to leave closes its connections.

    :param pinned: see :class:`ProjectLease`.
    """
    registry = _registries.setdefault(asyncio.get_running_loop(), _Registry())
    lease = ProjectLease(registry, redbrick_conn_id, org_id, project_id, pinned=pinned)
    try:
        yield lease
    finally:
        lease.release()
