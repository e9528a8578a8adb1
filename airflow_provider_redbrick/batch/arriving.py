"""Read when tasks became ground truth.

The API has no list of arrivals. Tasks of Ground Truth that changed since the watermark are listed, and the events of
each say when it arrived.

Invariants:

1. The events of a task are read once per version (task id, `updatedAt`): a look in which nothing changed costs the
   listing only.
2. A task without usable events (uploaded as ground truth, or its events cannot be read) counts as having arrived when
   it was last updated.
3. The watermark of a look is taken before its listing, so that nothing falls between two looks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pendulum

from airflow_provider_redbrick.api import documents
from airflow_provider_redbrick.api.exports import BulkRead
from airflow_provider_redbrick.api.stage_names import GROUND_TRUTH
from airflow_provider_redbrick.batch.watching import Arrival
from airflow_provider_redbrick.exceptions import RedBrickAPIError, RedBrickNotFoundError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_redbrick.api.models import OutputEvent, Task
    from airflow_provider_redbrick.api.project import RedBrickProject


class Arrivals:
    """Reads arrivals in Ground Truth and caches the events of unchanged tasks.

    :ivar read_at: a time shortly before the latest look, by this clock or the server's, whichever is behind.
    """

    def __init__(self) -> None:
        self.read_at: pendulum.DateTime = pendulum.now("UTC")
        self._cache: dict[tuple[str, pendulum.DateTime | None], Arrival] = {}

    def look(self, project: RedBrickProject, updated_after: pendulum.DateTime | None) -> list[Arrival]:
        """Return the arrivals of ground truth that changed since a watermark.

        :param project: the project to read.
        :param updated_after: the watermark; None to establish one without reading older tasks.
        :return: arrivals in any order; some may be older than the watermark.
        :raises RedBrickAPIError: if a read failed.
        """
        changed = BulkRead(
            project,
            project.stage(GROUND_TRUTH),
            updated_after=updated_after or pendulum.now("UTC"),
            document=documents.TASKS_CHANGED,
            largest_page=project.client.page_size,
        )
        tasks = [stored.task for stored in changed]
        not_cached = [task for task in tasks if (task.task_id, task.updated_at) not in self._cache]
        known = {**self._cache, **self._read(project, not_cached)}
        listed = [(task.task_id, task.updated_at) for task in tasks]
        self._cache = {version: known[version] for version in listed if version in known}
        self.read_at = changed.watermark
        return list(self._cache.values())

    def _read(
        self, project: RedBrickProject, tasks: Sequence[Task]
    ) -> dict[tuple[str, pendulum.DateTime | None], Arrival]:
        events = project.output_events([task.task_id for task in tasks])
        arrivals = {}
        for task in tasks:
            arrived_at = _arrived_at(task, events[task.task_id])
            if arrived_at is not None:
                arrivals[task.task_id, task.updated_at] = Arrival(task.task_id, arrived_at)
        return arrivals


def _arrived_at(task: Task, events: Sequence[OutputEvent] | RedBrickAPIError) -> pendulum.DateTime | None:
    """Return when a task became ground truth; None if it no longer exists."""
    if isinstance(events, RedBrickNotFoundError):
        return None
    if not isinstance(events, RedBrickAPIError):
        moved_at = [event.at for event in events if event.at is not None and not event.is_edit]
        if moved_at:
            return max(moved_at)
    # Uploaded as ground truth, or its events are not readable.
    return task.updated_at or task.created_at
