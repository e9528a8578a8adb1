"""What the triggers of one event loop that wait for the same project share: a connection, and what they ask."""

from __future__ import annotations

import asyncio
import threading
import zlib
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakKeyDictionary

from airflow.providers.common.compat.sdk import AirflowNotFoundException

from airflow_provider_redbrick.api.detail import Detail
from airflow_provider_redbrick.batch.waiting import TasksCondition
from airflow_provider_redbrick.exceptions import RedBrickAuthError, RedBrickError, RedBrickInputError
from airflow_provider_redbrick.hooks.redbrick import RedBrickHook
from airflow_provider_redbrick.triggers.threads import in_thread
from airflow_provider_redbrick.triggers.together import Together, apart_if_need_be

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
    from typing import Any

    from airflow_provider_redbrick.api.models import Task
    from airflow_provider_redbrick.api.project import RedBrickProject
    from airflow_provider_redbrick.batch.waiting import Condition, Poll, QueueCondition

    Key = tuple[str, str | None, str | None]
    Seen = TypeVar("Seen")

_waiting_in: WeakKeyDictionary[AbstractEventLoop, dict[Key, SharedProject]] = WeakKeyDictionary()


class SharedProject:
    """One project, looked at by several triggers.

    Whatever blocks is done in threads: the event loop has other triggers to serve.
    """

    def __init__(self, redbrick_conn_id: str, org_id: str | None, project_id: str | None) -> None:
        self.users = 0
        self.key_refused = False
        self._hook = RedBrickHook(redbrick_conn_id)
        self._ids = (org_id, project_id)
        self._first_use = threading.Lock()
        self._project: RedBrickProject | None = None
        self._counts = Together(self._count_all)
        self._tasks = Together(self._read_all)
        self._listings: dict[tuple[str, bool], Together[int, int]] = {}

    async def look(self, condition: Condition) -> Poll:
        """Look whether a condition is met.

        :raises RedBrickError: when it could not be seen.
        """
        if isinstance(condition, TasksCondition):
            await self.read(condition.check)
            found = await self._tasks.ask(condition.task_ids)
            return await self.read(lambda project: condition.judge(project, found))
        counted = self._noticing(self._list(condition)) if condition.lists else self.count(condition.stage_name)
        poll = condition.judge(await counted)
        if not poll.met and self._project is not None:
            # What it asks of the project was read for the count: this waits for nothing.
            condition.check(self._project)
        return poll

    async def read(self, what: Callable[[RedBrickProject], Seen]) -> Seen:
        """Return what is read of the project, in a thread.

        :raises RedBrickError: when it could not be read.
        """
        return await self._noticing(in_thread(lambda: what(self._at())))

    async def count(self, stage_name: str) -> int:
        """Return a stage's count, asked for together with those that others want at this moment.

        :raises RedBrickError: when it could not be counted.
        """
        return await self._noticing(self._count(stage_name))

    async def _count(self, stage_name: str) -> int:
        return _sound((await self._counts.ask([stage_name]))[stage_name])

    async def _list(self, condition: QueueCondition) -> int:
        """Return how many tasks there are, by one listing for all who count them alike."""
        alike = (condition.stage_name, condition.unassigned)
        if alike not in self._listings:
            self._listings[alike] = Together(partial(self._list_for_all, *alike))
        return _sound((await self._listings[alike].ask([condition.enough]))[condition.enough])

    async def _noticing(self, answer: Coroutine[Any, Any, Seen]) -> Seen:
        """Take notice of a key that is refused: whoever comes later may find another one in the connection."""
        try:
            return await answer
        except RedBrickAuthError:
            self.key_refused = True
            raise

    def close(self) -> None:
        """Close the connections."""
        self._hook.close()

    def _count_all(self, names: Sequence[str]) -> dict[str, int | RedBrickError]:
        """Return for each name the stage's count, or why there is none."""
        answers: dict[str, int | RedBrickError] = {}
        stages: dict[str, str] = {}
        project = self._at()
        for name in names:
            try:
                stages[name] = project.stage(name).name
            except RedBrickError as error:
                answers[name] = error

        def counted(some: Sequence[str]) -> dict[str, int | RedBrickError]:
            return dict(project.counts([project.stage(name) for name in some]))

        counts = apart_if_need_be(counted, list(dict.fromkeys(stages.values())))
        return answers | {name: counts[stage] for name, stage in stages.items()}

    def _list_for_all(self, stage_name: str, unassigned: bool, enough: Sequence[int]) -> dict[int, int | RedBrickError]:
        """Return for each number the count as far as that, as if it had been listed for it alone."""
        project = self._at()
        count = project.count_by_listing(project.stage(stage_name), unassigned=unassigned, stop_at=max(enough))
        return {each: min(each, count) for each in enough}

    def _read_all(self, task_ids: Sequence[str]) -> dict[str, Task | RedBrickError]:
        """Return for each id where its task is, or why that is not known."""
        project = self._at()
        return apart_if_need_be(lambda some: dict(project.read_tasks(some, detail=Detail.PLACE)), task_ids)

    def _at(self) -> RedBrickProject:
        # Threads that come together would each read the connection, and ask for the workflow.
        with self._first_use:
            if self._project is None:
                org_id, project_id = self._ids
                try:
                    project = self._hook.project(project_id, org_id=org_id)
                except AirflowNotFoundException as error:
                    raise RedBrickInputError(str(error)) from None
                _ = project.info
                self._project = project
            return self._project


def _sound(found: int | RedBrickError) -> int:
    if isinstance(found, RedBrickError):
        raise found.with_traceback(None)
    return found


def until_next_poll(key: Key, interval: float, *, now: float) -> float:
    """Return how many seconds there are to the next poll.

    Those who look at the same project poll at the same moments, so that one request will do for all; other projects
    have other moments.
    """
    if not interval:
        return 0.0
    return interval - (now - zlib.crc32(" ".join(map(str, key)).encode())) % interval


@asynccontextmanager
async def shared_project(
    redbrick_conn_id: str, org_id: str | None, project_id: str | None
) -> AsyncIterator[SharedProject]:
    """Give the project to one more trigger; the last to leave closes its connections."""
    here = _waiting_in.setdefault(asyncio.get_running_loop(), {})
    key = (redbrick_conn_id, org_id, project_id)
    project = here.get(key)
    if project is None or project.key_refused:
        project = here[key] = SharedProject(*key)
    project.users += 1
    try:
        yield project
    finally:
        project.users -= 1
        if not project.users:
            if here.get(key) is project:
                del here[key]
            project.close()
