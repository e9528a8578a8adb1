"""Reading many tasks, a few at a time, right before they are worked on."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from airflow_provider_redbrick.exceptions import RedBrickAPIError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from airflow_provider_redbrick.api.models import Task
    from airflow_provider_redbrick.api.project import RedBrickProject

# Tasks worked on at a time: the fewest that keep requests full, so that a crash leaves few of them claimed.
CHUNK = 25


def read_in_chunks(
    project: RedBrickProject, task_ids: Iterable[str], *, full: bool = False
) -> Iterator[dict[str, Task | RedBrickAPIError]]:
    """Yield tasks in chunks: for each id its task, or why it could not be read.

    A request that fails is the failure of its chunk's tasks, not of those that follow.
    """
    ids = iter(task_ids)
    while chunk := list(islice(ids, CHUNK)):
        try:
            found = project.read_tasks(chunk, full=full)
        except RedBrickAPIError as error:
            found = dict.fromkeys(chunk, error)
        yield found
