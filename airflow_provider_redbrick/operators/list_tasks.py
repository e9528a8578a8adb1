"""List tasks for other Airflow tasks to work on."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.api.chunks import in_chunks
from airflow_provider_redbrick.exceptions import RedBrickInputError
from airflow_provider_redbrick.hooks import check
from airflow_provider_redbrick.lineage.flow import NOWHERE
from airflow_provider_redbrick.lineage.operator import TracedOperator
from airflow_provider_redbrick.links.redbrick import InLinkedProject

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from airflow.providers.common.compat.sdk import Context, XComArg

    from airflow_provider_redbrick.api.models import Task


class RedBrickListTasksOperator(InLinkedProject, TracedOperator):
    """Return the ids of tasks, in chunks when ``chunk_size`` is given: what dynamic task mapping expands over.

    ``RedBrickPrelabelOperator.partial(...).expand(task_ids=list_tasks.output)`` works on the chunks in parallel; when
    there are none, Airflow skips it.

    :param stage_name: the stage whose tasks are listed; ``Ground Truth`` for finished ones; all stages by default.
    :param state: only tasks in this state, e.g. ``UNASSIGNED`` or ``STAGED`` (drafts).
    :param assignee: only tasks of this person (an e-mail or user id), or of the API key itself: ``me``.
    :param name: only tasks whose name begins like this. Case counts, and quotes are part of a name.
    :param limit: how many to list at most of those. XComs are kept in Airflow's database: 10,000 ids are 400 kB.
    :param chunk_size: return lists of at most so many ids, in a list.
    """

    template_fields: Sequence[str] = (
        *InLinkedProject.template_fields,
        "stage_name",
        "state",
        "assignee",
        "name",
        "limit",
        "chunk_size",
    )
    operation = "list_tasks"
    moves = NOWHERE

    def __init__(
        self,
        *,
        stage_name: str | None = None,
        state: str | None = None,
        assignee: str | None = None,
        name: str | None = None,
        limit: int | XComArg | str | None = 10_000,
        chunk_size: int | XComArg | str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.stage_name = stage_name
        self.state = state
        self.assignee = assignee
        self.name = name
        self.limit = limit
        self.chunk_size = chunk_size

    def execute(self, context: Context) -> list[str] | list[list[str]]:  # noqa: ARG002
        """List and return the ids."""
        self.check_inputs()
        limit = check.whole_number("limit", self.limit, low=1)
        chunk_size = check.whole_number("chunk_size", self.chunk_size, low=1)
        counts: dict[str, int] = {}
        tasks = self._listing(counts)
        ids = [task.task_id for task in islice(tasks, limit)]
        counts["tasks"] = len(ids)
        self.log.info("%d tasks", len(ids))
        if limit is not None and len(ids) == limit:
            self.log.warning("The list stops at limit=%d; there may be more.", limit)
        if chunk_size is None:
            return ids
        return list(in_chunks(ids, chunk_size))

    def _listing(self, counts: dict[str, int]) -> Iterator[Task]:
        """Return the tasks asked for; ``counts`` is what lineage will say of them."""
        state = check.task_state("state", self.state)
        assignee = None if self.assignee is None else check.text("assignee", self.assignee)
        name = None if self.name is None else check.text("name", self.name)
        unassigned = state == "UNASSIGNED"
        if unassigned and assignee is not None:
            raise RedBrickInputError("A task that is UNASSIGNED has no assignee: give one or the other.")
        from airflow_provider_redbrick.api.project import Name

        project = self.get_project()
        _ = project.info  # a listing of a project that is not there says something less clear
        stage = None if self.stage_name is None else project.stage(check.text("stage_name", self.stage_name))
        self.trace(project, stage, counts)
        return project.list_tasks(
            stage,
            unassigned=unassigned,
            assignee=assignee,
            state=None if unassigned else state,
            name=None if name is None else Name(name, prefix=True),
        )
