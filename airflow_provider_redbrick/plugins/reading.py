"""Read a project for the page, with short timeouts and no retries."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from airflow_provider_redbrick.api.threads import run_concurrently
from airflow_provider_redbrick.exceptions import RedBrickInputError
from airflow_provider_redbrick.hooks.quick import RedBrickQuickHook
from airflow_provider_redbrick.links.addresses import project_address
from airflow_provider_redbrick.plugins.board import AssigneeCounts, ProjectData

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Connection

    from airflow_provider_redbrick.api.project import RedBrickProject
    from airflow_provider_redbrick.api.workflow import Stage

LISTED = 1_000
"""Maximum number of tasks of a stage that are listed to count assignees."""


class PageHook(RedBrickQuickHook):
    """Hook for connection ids that come from a URL."""

    @classmethod
    def get_connection(cls, conn_id: str) -> Connection:
        """Return a connection, which must be of RedBrick's type.

        The password of another type must not be sent to RedBrick.
        """
        connection = super().get_connection(conn_id)
        if connection.conn_type == cls.conn_type:
            return connection
        # Error trackers store the local variables of each frame, so remove the connection from them.
        del connection
        raise RedBrickInputError(f"The connection {conn_id!r} must be of type {cls.conn_type!r}.")


def read_project(connection_id: str, project_id: str | None) -> ProjectData:
    """Read a project's stages, queue lengths and assignees.

    Takes one or two requests, and one for each page of a queue.

    :param connection_id: the connection id.
    :param project_id: the project's UUID; None for the connection's.
    :raises RedBrickError: if the project cannot be read.
    """
    hook = PageHook(connection_id)
    with closing(hook):
        project = hook.project(project_id)
        info = project.info
        stages = info.workflow.stages
        counts = project.counts(stages)
        busy = [stage for stage in stages if (stage.is_label or stage.is_review) and counts[stage.name]]
        held = run_concurrently(*(partial(_held, project, stage) for stage in busy)) if busy else []
        return ProjectData(
            project.org_id,
            project.project_id,
            info.name,
            info.url or project_address(hook.settings, project.org_id, project.project_id),
            stages,
            counts,
            {stage.name: assignees for stage, assignees in zip(busy, held, strict=True)},
        )


def _held(project: RedBrickProject, stage: Stage) -> AssigneeCounts:
    holders = Counter(task.assignee for task in islice(project.list_tasks(stage), LISTED))
    names: Counter[str] = Counter()
    for user, count in holders.items():
        if user is not None:
            names[str(user)] += count
    return AssigneeCounts(dict(names), holders[None], holders.total())
