"""Verify webhook events with RedBrick, then send asset events.

The payload itself sends nothing, and RedBrick may send it before it shows the task in its stage. Design note:

1. An event is done only when RedBrick has confirmed it and the asset events were registered.
2. An event that is not confirmed, or whose verification failed, is released at once: if resent, it is verified again.
3. It is also verified again without being resent, after each of a few delays. Then it is dropped.
4. A permanent error (a wrong key, no such stage) is not retried.
5. The number of waiting retries is limited. Beyond it, only rule 2 applies.
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
from airflow_provider_redbrick.exceptions import PERMANENT_ERRORS, single_line, truncate_message
from airflow_provider_redbrick.plugins.reading import PageHook

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_redbrick.plugins.hints import Hint, Seen

log = logging.getLogger(__name__)

SCHEMA_VERSION = 1
RETRY_AFTER_S = (2.0, 8.0, 30.0, 60.0)
"""Delays before further verifications. Reads of RedBrick may lag by half a minute."""


class Waking:
    """Verify hints in a thread, one message after the other. The sender does not wait.

    :param connection_id: the connection to verify with.
    :param seen: the events that are done or in progress.
    :param most: the maximum number of hints that wait for their first verification, and of those that wait for a retry.
    :param retry_after_s: seconds before each retry.
    """

    def __init__(
        self, connection_id: str, seen: Seen, *, most: int, retry_after_s: Sequence[float] = RETRY_AFTER_S
    ) -> None:
        self._connection_id = connection_id
        self._seen = seen
        self._most = most
        self._delays = tuple(retry_after_s)
        self._waiting = 0
        self._lock = Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._later: list[tuple[float, int, list[Hint], int]] = []
        self._scheduled: set[str] = set()
        self._numbers = count()
        self._timer: Timer | None = None
        renew_after_fork(self, Waking._renew)

    def _renew(self) -> None:
        # The parent process handles the hints that it has accepted.
        abandon(self._pool)
        self._waiting, self._lock, self._pool = 0, Lock(), None
        self._later, self._scheduled, self._timer = [], set(), None

    def take(self, hints: Sequence[Hint]) -> bool:
        """Enqueue hints: all of them, or none if too many are waiting."""
        with self._lock:
            if self._waiting + len(hints) > self._most:
                return False
            self._waiting += len(hints)
            if self._pool is None:
                # Created late, because most servers fork before the first message.
                self._pool = ThreadPoolExecutor(1, thread_name_prefix="redbrick-webhook")
        self._pool.submit(self._work, hints)
        return True

    def stop(self) -> None:
        """Cancel all retries. Verifications in progress are finished."""
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
        """Verify hints stage by stage. Release and retry those not confirmed."""
        stages: dict[tuple[str, str, str], list[Hint]] = {}
        for hint in hints:
            stages.setdefault(hint.stage, []).append(hint)
        for of_stage in stages.values():
            for chunk in in_chunks(of_stage, MAX_IDS):
                unconfirmed = self._wake(chunk)
                self._seen.forget(unconfirmed)
                self._look_again(unconfirmed, looks)

    def _wake(self, hints: Sequence[Hint]) -> list[Hint]:
        """Send a stage's asset events if any of the tasks is there.

        :return: the hints to retry.
        """
        org_id, project_id, named = hints[0].stage
        try:
            facts = look(self._connection_id, hints)
            if facts is None:
                log.info("No task of the webhook message is in stage %s of project %s.", named, project_id)
                return list(hints)
            stage_name = facts["stage_name"]
            with create_session() as session:
                woken = assets.wake(
                    org_id=org_id, project_id=project_id, stage_name=stage_name, extra=facts, session=session
                )
        except Exception as error:  # noqa: BLE001 - a retry may succeed, and triggers poll anyway
            log.warning(
                "Webhook events could not be verified. %s: %s", type(error).__name__, truncate_message(str(error))
            )
            if isinstance(error, PERMANENT_ERRORS):
                self._seen.forget(hints)
                return []
            return list(hints)
        log.info("The webhook has woken %d assets of %s in project %s.", woken, single_line(stage_name), project_id)
        return [hint for hint in hints if hint.task_id not in facts["task_ids"]]

    def _look_again(self, hints: Sequence[Hint], looks: int) -> None:
        """Schedule a retry after the next delay, if there is one."""
        if hints and looks >= len(self._delays):
            log.info("%d events of the webhook were not confirmed; they count when they are sent again.", len(hints))
        with self._lock:
            if not hints or looks >= len(self._delays):
                return
            # An event that was resent meanwhile is already scheduled.
            fresh = [hint for hint in hints if hint.event_id not in self._scheduled]
            fresh = fresh[: self._most - len(self._scheduled)]
            if not fresh:
                return
            self._scheduled.update(hint.event_id for hint in fresh)
            due = time.monotonic() + self._delays[looks]
            heapq.heappush(self._later, (due, next(self._numbers), fresh, looks + 1))
            self._set_timer()

    def _set_timer(self) -> None:
        """Set the timer to when the next hints are due. The caller holds the lock."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = Timer(max(0.0, self._later[0][0] - time.monotonic()), self._ring)
        self._timer.daemon = True
        self._timer.start()

    def _ring(self) -> None:
        """Submit the hints that are due."""
        with self._lock:
            while self._later and self._later[0][0] <= time.monotonic():
                _, _, hints, looks = heapq.heappop(self._later)
                self._scheduled.difference_update(hint.event_id for hint in hints)
                if self._pool is not None:
                    with suppress(RuntimeError):  # the server shuts down
                        self._pool.submit(self._look_once_more, hints, looks)
            if self._later:
                self._set_timer()

    def _look_once_more(self, hints: Sequence[Hint], looks: int) -> None:
        """Verify the hints that were not resent and processed meanwhile."""
        self._look_at(self._seen.new(hints), looks)


def look(connection_id: str, hints: Sequence[Hint]) -> dict[str, Any] | None:
    """Return a stage's count and the hinted tasks in it; None if there are none.

    :param connection_id: the connection to verify with.
    :param hints: hints of one stage, at most ``MAX_IDS``.
    :return: ``count``, the number of tasks in the stage, and ``task_ids``, the hinted tasks that are in it.
    :raises RedBrickError: if RedBrick cannot be read.
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
