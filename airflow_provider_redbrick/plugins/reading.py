"""Reading a project for the page: once, quickly or not at all, for somebody sits before it."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from airflow_provider_redbrick.api.threads import at_once
from airflow_provider_redbrick.exceptions import RedBrickInputError
from airflow_provider_redbrick.hooks.quick import RedBrickQuickHook
from airflow_provider_redbrick.links.addresses import project_address
from airflow_provider_redbrick.plugins.board import Facts, Held

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Connection

    from airflow_provider_redbrick.api.project import RedBrickProject
    from airflow_provider_redbrick.api.workflow import Stage

LISTED = 1_000
"""So many tasks of a stage are looked at for who holds them."""


class PageHook(RedBrickQuickHook):
    """A hook for connections that somebody names in an address."""

    @classmethod
    def get_connection(cls, conn_id: str) -> Connection:
        """Return a RedBrick connection; another one's password is not for RedBrick."""
        connection = super().get_connection(conn_id)
        if connection.conn_type == cls.conn_type:
            return connection
        # Error trackers store the local variables of each frame of an error.
        del connection
        raise RedBrickInputError(f"The connection {conn_id!r} is of another type than {cls.conn_type!r}.")


def read_project(connection_id: str, project_id: str | None) -> Facts:
    """Read a project's stages, queues, and who holds what: a request or two, and one for each page of a queue.

    :param project_id: the connection's when not given.
    :raises RedBrickError: when it cannot be read.
    """
    hook = PageHook(connection_id)
    with closing(hook):
        project = hook.project(project_id)
        info = project.info
        stages = info.workflow.stages
        counts = project.counts(stages)
        busy = [stage for stage in stages if (stage.is_label or stage.is_review) and counts[stage.name]]
        held = at_once(*(partial(_held, project, stage) for stage in busy)) if busy else []
        return Facts(
            project.org_id,
            project.project_id,
            info.name,
            info.url or project_address(hook.settings, project.org_id, project.project_id),
            stages,
            counts,
            {stage.name: who for stage, who in zip(busy, held, strict=True)},
        )


def _held(project: RedBrickProject, stage: Stage) -> Held:
    holders = Counter(task.assignee for task in islice(project.list_tasks(stage), LISTED))
    names: Counter[str] = Counter()
    for user, count in holders.items():
        if user is not None:
            names[str(user)] += count
    return Held(dict(names), holders[None], holders.total())
