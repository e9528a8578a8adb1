"""From hints to events of assets: RedBrick is asked what is true, and that alone wakes anything.

A message may come before RedBrick itself shows the task in its stage. So:

1. An event counts as done only when RedBrick has confirmed it and the assets were woken.
2. One that is not confirmed, or whose look failed, is given back at once: the same message, sent again, is looked at.
3. It is also looked at again without being sent again, after each of a few delays. Then it is given up.
4. An error that stays (a wrong key, no such stage) is not looked at again by itself.
5. What waits to be looked at again is bounded; beyond that rule 2 alone holds.
"""

from __future__ import annotations

import heapq
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from itertools import count
from threading import Lock, Timer
from typing import TYPE_CHECKING, Any

from airflow.utils.session import create_session

from airflow_provider_redbrick.api.chunks import in_chunks
from airflow_provider_redbrick.api.detail import Detail
from airflow_provider_redbrick.api.forks import abandon, renew_after_fork
from airflow_provider_redbrick.api.models import Task
from airflow_provider_redbrick.api.project import MAX_IDS
from airflow_provider_redbrick.assets import waking as assets
from airflow_provider_redbrick.exceptions import HOPELESS, one_line, readable
from airflow_provider_redbrick.plugins.reading import PageHook

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_redbrick.plugins.hints import Hint, Seen

log = logging.getLogger(__name__)

SCHEMA_VERSION = 1
LOOK_AGAIN_AFTER_S = (2.0, 8.0, 30.0, 60.0)
"""Delays before the further looks at what was not confirmed; reads of RedBrick may lag by half a minute."""


class Waking:
    """Works on hints in a thread of its own, one message after the other; the sender does not wait.

    :param connection_id: how RedBrick is asked.
    :param seen: the events that are done or being looked at.
    :param most: how many hints may wait for their first look, and how many for another one.
    :param look_again_after_s: seconds before each further look.
    """

    def __init__(
        self, connection_id: str, seen: Seen, *, most: int, look_again_after_s: Sequence[float] = LOOK_AGAIN_AFTER_S
    ) -> None:
        self._connection_id = connection_id
        self._seen = seen
        self._most = most
        self._delays = tuple(look_again_after_s)
        self._waiting = 0
        self._lock = Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._later: list[tuple[float, int, list[Hint], int]] = []
        self._scheduled: set[str] = set()
        self._numbers = count()
        self._timer: Timer | None = None
        renew_after_fork(self, Waking._renew)

    def _renew(self) -> None:
        # The parent works on what it has taken.
        abandon(self._pool)
        self._waiting, self._lock, self._pool = 0, Lock(), None
        self._later, self._scheduled, self._timer = [], set(), None

    def take(self, hints: Sequence[Hint]) -> bool:
        """Take hints, all of them or none when too many wait already."""
        with self._lock:
            if self._waiting + len(hints) > self._most:
                return False
            self._waiting += len(hints)
            if self._pool is None:
                # Not earlier: most servers fork before the first message.
                self._pool = ThreadPoolExecutor(1, thread_name_prefix="redbrick-webhook")
        self._pool.submit(self._work, hints)
        return True

    def stop(self) -> None:
        """Look at nothing again; what is being looked at is finished."""
        with self._lock:
            self._delays = ()
            self._later.clear()
            self._scheduled.clear()
            if self._timer is not None:
                self._timer.cancel()

    def _work(self, hints: Sequence[Hint]) -> None:
        try:
            self._look_at(hints, 0)
        finally:
            with self._lock:
                self._waiting -= len(hints)

    def _look_at(self, hints: Sequence[Hint], looks: int) -> None:
        """Look at hints, stage by stage; what is not confirmed is given back, and looked at again later."""
        stages: dict[tuple[str, str, str], list[Hint]] = {}
        for hint in hints:
            stages.setdefault(hint.stage, []).append(hint)
        for of_stage in stages.values():
            for together in in_chunks(of_stage, MAX_IDS):
                left = self._wake(together)
                self._seen.forget(left)
                self._look_again(left, looks)

    def _wake(self, hints: Sequence[Hint]) -> list[Hint]:
        """Wake a stage's assets if any of the tasks is there; return the hints that may be true later."""
        org_id, project_id, named = hints[0].stage
        try:
            facts = look(self._connection_id, hints)
            if facts is None:
                log.info("None of the tasks that the webhook named is in %s of project %s.", named, project_id)
                return list(hints)
            stage_name = facts["stage_name"]
            with create_session() as session:
                woken = assets.wake(
                    org_id=org_id, project_id=project_id, stage_name=stage_name, extra=facts, session=session
                )
        except Exception as error:  # noqa: BLE001 - a later look may fare better, and triggers look by themselves
            log.warning("A message of the webhook came to nothing: %s: %s", type(error).__name__, readable(str(error)))
            if isinstance(error, HOPELESS):
                self._seen.forget(hints)
                return []
            return list(hints)
        log.info("The webhook has woken %d assets of %s in project %s.", woken, one_line(stage_name), project_id)
        return [hint for hint in hints if hint.task_id not in facts["task_ids"]]

    def _look_again(self, hints: Sequence[Hint], looks: int) -> None:
        """Look at hints again after the next delay, if there is one."""
        if hints and looks >= len(self._delays):
            log.info("%d events of the webhook were not confirmed; they count when they are sent again.", len(hints))
        with self._lock:
            if not hints or looks >= len(self._delays):
                return
            # One that was sent again meanwhile waits already.
            fresh = [hint for hint in hints if hint.event_id not in self._scheduled]
            fresh = fresh[: self._most - len(self._scheduled)]
            if not fresh:
                return
            self._scheduled.update(hint.event_id for hint in fresh)
            due = time.monotonic() + self._delays[looks]
            heapq.heappush(self._later, (due, next(self._numbers), fresh, looks + 1))
            self._set_timer()

    def _set_timer(self) -> None:
        """Have the timer ring when the next hints are due; the lock is held."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = Timer(max(0.0, self._later[0][0] - time.monotonic()), self._ring)
        self._timer.daemon = True
        self._timer.start()

    def _ring(self) -> None:
        """Hand over what is due to the thread that looks."""
        with self._lock:
            while self._later and self._later[0][0] <= time.monotonic():
                _, _, hints, looks = heapq.heappop(self._later)
                self._scheduled.difference_update(hint.event_id for hint in hints)
                if self._pool is not None:
                    with suppress(RuntimeError):  # the server ends
                        self._pool.submit(self._look_once_more, hints, looks)
            if self._later:
                self._set_timer()

    def _look_once_more(self, hints: Sequence[Hint], looks: int) -> None:
        """Look at the hints that nothing else has been made of meanwhile."""
        self._look_at(self._seen.new(hints), looks)


def look(connection_id: str, hints: Sequence[Hint]) -> dict[str, Any] | None:
    """Return what RedBrick says of a stage and the tasks that may have entered it; None when none is there.

    :param hints: of one stage, at most ``MAX_IDS``.
    :return: ``count``, how many tasks are in the stage, and ``task_ids``, which of those that were named are there.
    :raises RedBrickError: when it cannot be asked.
    """
    org_id, project_id, stage_name = hints[0].stage
    with closing(PageHook(connection_id)) as hook:
        project = hook.project(project_id, org_id=org_id)
        stage = project.stage(stage_name)
        named = list(dict.fromkeys(hint.task_id for hint in hints))
        tasks = project.read_tasks(named, detail=Detail.PLACE)
        there = [
            task_id
            for task_id, task in tasks.items()
            if isinstance(task, Task) and task.stage_name == stage.public_name
        ]
        if not there:
            return None
        return {
            "schema_version": SCHEMA_VERSION,
            "project_id": project_id,
            "stage_name": stage.public_name,
            "count": project.count(stage),
            "task_ids": there,
        }
