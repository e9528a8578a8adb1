"""From hints to events of assets: RedBrick is asked what is true, and that alone wakes anything."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from threading import Lock
from typing import TYPE_CHECKING, Any

from airflow.utils.session import create_session

from airflow_provider_redbrick.api.detail import Detail
from airflow_provider_redbrick.api.forks import abandon, renew_after_fork
from airflow_provider_redbrick.api.models import Task
from airflow_provider_redbrick.api.project import MAX_IDS
from airflow_provider_redbrick.assets import waking as assets
from airflow_provider_redbrick.exceptions import one_line, readable
from airflow_provider_redbrick.plugins.reading import PageHook

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_redbrick.plugins.hints import Hint, Seen

log = logging.getLogger(__name__)

SCHEMA_VERSION = 1


class Waking:
    """Works on hints in a thread of its own, one message after the other; whoever brings them need not wait.

    :param connection_id: how RedBrick is asked.
    :param most: how many hints may wait.
    """

    def __init__(self, connection_id: str, seen: Seen, *, most: int) -> None:
        self._connection_id = connection_id
        self._seen = seen
        self._most = most
        self._waiting = 0
        self._lock = Lock()
        self._pool: ThreadPoolExecutor | None = None
        renew_after_fork(self, Waking._renew)

    def _renew(self) -> None:
        # The parent works on what it has taken.
        abandon(self._pool)
        self._waiting, self._lock, self._pool = 0, Lock(), None

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

    def _work(self, hints: Sequence[Hint]) -> None:
        stages: dict[tuple[str, str, str], list[Hint]] = {}
        for hint in hints:
            stages.setdefault(hint.stage, []).append(hint)
        try:
            for together in stages.values():
                self._wake(together)
        finally:
            with self._lock:
                self._waiting -= len(hints)

    def _wake(self, hints: Sequence[Hint]) -> None:
        """Wake a stage's assets if any of the tasks is there."""
        org_id, project_id, named = hints[0].stage
        try:
            facts = look(self._connection_id, hints)
            if facts is None:
                log.info("None of the tasks that the webhook named is in %s of project %s.", named, project_id)
                return
            stage_name = facts["stage_name"]
            with create_session() as session:
                woken = assets.wake(
                    org_id=org_id, project_id=project_id, stage_name=stage_name, extra=facts, session=session
                )
        except Exception as error:  # noqa: BLE001 - the next message may fare better, and triggers look by themselves
            # RedBrick may send them again.
            self._seen.forget(hints)
            log.warning("A message of the webhook came to nothing: %s: %s", type(error).__name__, readable(str(error)))
        else:
            log.info("The webhook has woken %d assets of %s in project %s.", woken, one_line(stage_name), project_id)


def look(connection_id: str, hints: Sequence[Hint]) -> dict[str, Any] | None:
    """Return what RedBrick says of a stage and the tasks that may have entered it; None when none is there.

    :return: ``count``, how many tasks are in the stage, and ``task_ids``, which of those that were named.
    :raises RedBrickError: when it cannot be asked.
    """
    org_id, project_id, stage_name = hints[0].stage
    with closing(PageHook(connection_id)) as hook:
        project = hook.project(project_id, org_id=org_id)
        stage = project.stage(stage_name)
        named = list(dict.fromkeys(hint.task_id for hint in hints))[:MAX_IDS]
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
