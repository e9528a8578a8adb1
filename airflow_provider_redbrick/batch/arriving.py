"""When tasks became ground truth, read from what was changed lately."""

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
    """Looks for tasks that have become ground truth; what it read of a task it reads again when the task has changed.

    :ivar mark: a moment before the last look.
    """

    def __init__(self) -> None:
        self.mark: pendulum.DateTime = pendulum.now("UTC")
        self._known: dict[tuple[str, pendulum.DateTime | None], Arrival] = {}

    def look(self, project: RedBrickProject, since: pendulum.DateTime | None) -> list[Arrival]:
        """Return the arrivals of what is ground truth and was changed since then, some of them longer ago.

        :param since: None to find nothing but the moment.
        :raises RedBrickAPIError: when it could not be read.
        """
        changed = BulkRead(
            project,
            project.stage(GROUND_TRUTH),
            updated_after=since or pendulum.now("UTC"),
            document=documents.TASKS_CHANGED,
            largest_page=project.client.page_size,
        )
        tasks = [stored.task for stored in changed]
        unknown = [task for task in tasks if (task.task_id, task.updated_at) not in self._known]
        known = {**self._known, **self._read(project, unknown)}
        listed = [(task.task_id, task.updated_at) for task in tasks]
        self._known = {key: known[key] for key in listed if key in known}
        self.mark = changed.mark
        return list(self._known.values())

    def _read(
        self, project: RedBrickProject, tasks: Sequence[Task]
    ) -> dict[tuple[str, pendulum.DateTime | None], Arrival]:
        events = project.output_events([task.task_id for task in tasks])
        found = {}
        for task in tasks:
            moment = _arrived(task, events[task.task_id])
            if moment is not None:
                found[task.task_id, task.updated_at] = Arrival(task.task_id, moment)
        return found


def _arrived(task: Task, events: Sequence[OutputEvent] | RedBrickAPIError) -> pendulum.DateTime | None:
    """Return when a task that is ground truth became so; None when it does not exist any more."""
    if isinstance(events, RedBrickNotFoundError):
        return None
    if not isinstance(events, RedBrickAPIError):
        moves = [event.at for event in events if event.at is not None and not event.is_edit]
        if moves:
            return max(moves)
    # It came with its labels, and never was in another stage; or nothing is told of it.
    return task.updated_at or task.created_at
