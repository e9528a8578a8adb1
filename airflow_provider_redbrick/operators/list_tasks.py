"""List tasks for other Airflow tasks to work on."""

from __future__ import annotations

from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperator

from airflow_provider_redbrick.exceptions import RedBrickInputError
from airflow_provider_redbrick.hooks import check
from airflow_provider_redbrick.hooks.redbrick import RedBrickHook

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_redbrick.api.models import Task

STATES = ("UNASSIGNED", "ASSIGNED", "IN_PROGRESS", "STAGED", "SKIPPED", "PROBLEM")


class RedBrickListTasksOperator(BaseOperator):
    """Return the ids of tasks, in chunks when ``chunk_size`` is given: what dynamic task mapping expands over.

    ``RedBrickPrelabelOperator.partial(...).expand(task_ids=list_tasks.output)`` works on the chunks in parallel; when
    there are none, Airflow skips it.

    :param redbrick_conn_id: the connection.
    :param org_id: the organisation; the connection's when not given.
    :param project_id: the project; the connection's when not given.
    :param stage_name: the stage whose tasks are listed; ``Ground Truth`` for finished ones; all stages by default.
    :param state: only tasks in this state, e.g. ``UNASSIGNED`` or ``STAGED`` (drafts).
    :param assignee: only tasks of this person (an e-mail or user id), or of the API key itself: ``me``.
    :param name: only tasks whose name begins like this.
    :param limit: how many to list at most. XComs are kept in Airflow's database: 10,000 ids are 400 kB.
    :param chunk_size: return lists of at most so many ids, in a list.
    """

    template_fields: Sequence[str] = (
        "redbrick_conn_id",
        "org_id",
        "project_id",
        "stage_name",
        "state",
        "assignee",
        "name",
        "limit",
        "chunk_size",
    )
    ui_color = "#f6e3e0"

    def __init__(
        self,
        *,
        redbrick_conn_id: str = RedBrickHook.default_conn_name,
        org_id: str | None = None,
        project_id: str | None = None,
        stage_name: str | None = None,
        state: str | None = None,
        assignee: str | None = None,
        name: str | None = None,
        limit: int | None = 10_000,
        chunk_size: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.redbrick_conn_id = redbrick_conn_id
        self.org_id = org_id
        self.project_id = project_id
        self.stage_name = stage_name
        self.state = state
        self.assignee = assignee
        self.name = name
        self.limit = limit
        self.chunk_size = chunk_size

    @cached_property
    def hook(self) -> RedBrickHook:
        """The hook for the connection."""
        return RedBrickHook(self.redbrick_conn_id)

    def execute(self, context: Context) -> list[str] | list[list[str]]:  # noqa: ARG002
        """List and return the ids."""
        limit = check.whole_number("limit", self.limit, low=1)
        chunk_size = check.whole_number("chunk_size", self.chunk_size, low=1)
        tasks = self._listing()
        ids = list(dict.fromkeys(task.task_id for task in islice(tasks, limit)))
        self.log.info("%d tasks", len(ids))
        if limit is not None and len(ids) == limit:
            self.log.warning("The list stops at limit=%d; there may be more.", limit)
        if chunk_size is None:
            return ids
        return [ids[i : i + chunk_size] for i in range(0, len(ids), chunk_size)]

    def _listing(self) -> Iterator[Task]:
        """Return the tasks asked for."""
        state = None if self.state is None else check.one_of("state", self.state, STATES)
        assignee = None if self.assignee is None else check.text("assignee", self.assignee)
        name = None if self.name is None else check.text("name", self.name)
        unassigned = state == "UNASSIGNED"
        if unassigned and assignee is not None:
            raise RedBrickInputError("A task that is UNASSIGNED has no assignee: give one or the other.")
        project = self.hook.project(self.project_id, org_id=self.org_id)
        stage = None if self.stage_name is None else project.stage(check.text("stage_name", self.stage_name))
        if assignee == "me":
            assignee = project.client.me()
        return project.list_tasks(
            stage, unassigned=unassigned, assignee=assignee, state=None if unassigned else state, search=name
        )
