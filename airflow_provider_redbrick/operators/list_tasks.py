"""List tasks for downstream Airflow tasks."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick._utils import count_tasks, in_chunks
from airflow_provider_redbrick.base import TracedOperator
from airflow_provider_redbrick.exceptions import RedBrickInputError
from airflow_provider_redbrick.hooks import validation
from airflow_provider_redbrick.lineage import NOWHERE
from airflow_provider_redbrick.links import InLinkedProject

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from airflow.providers.common.compat.sdk import Context, XComArg

    from airflow_provider_redbrick.client.models.task import Task


class RedBrickListTasksOperator(InLinkedProject, TracedOperator):
    """Return the ids of tasks, optionally in chunks for dynamic task mapping.

    ``RedBrickPrelabelOperator.partial(...).expand(task_ids=list_tasks.output)`` processes chunks in parallel. If there
    are none, Airflow skips the mapped task.

    :param stage_name: the stage whose tasks are listed. ``Ground Truth`` lists finished ones. Default: all stages.
    :param state: only tasks in this state, such as ``UNASSIGNED`` or ``STAGED`` (drafts). Default: any.
    :param assignee: only tasks assigned to this person (email or user id), or to the API key (``me``). Default: any.
    :param name: only tasks whose name starts with this text. Case matters, and quotes are part of a name.
    :param limit: maximum number of ids. Default 10,000, which are 400 kB in Airflow's database. None: no limit.
    :param chunk_size: return a list of lists with at most this many ids each. Default: one flat list.
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
        """List the tasks and return their ids.

        :param context: the Airflow task's context.
        :return: the ids, or lists of ids if ``chunk_size`` is set.
        :raises RedBrickInputError: if a parameter is invalid.
        """
        self.check_inputs()
        limit = validation.whole_number("limit", self.limit, low=1)
        chunk_size = validation.whole_number("chunk_size", self.chunk_size, low=1)
        counts: dict[str, int] = {}
        tasks = self._listing(counts)
        ids = [task.task_id for task in islice(tasks, limit)]
        counts["tasks"] = len(ids)
        self.log.info("%s: found %s", self.operation, count_tasks(len(ids)))
        if limit is not None and len(ids) == limit:
            self.log.warning("The list stops at limit=%d. There may be more tasks.", limit)
        if chunk_size is None:
            return ids
        return list(in_chunks(ids, chunk_size))

    def _listing(self, counts: dict[str, int]) -> Iterator[Task]:
        """Return the tasks to list.

        :param counts: counts for lineage, which the caller fills in.
        """
        state = validation.task_state("state", self.state)
        assignee = None if self.assignee is None else validation.text("assignee", self.assignee)
        name = None if self.name is None else validation.text("name", self.name)
        unassigned = state == "UNASSIGNED"
        if unassigned and assignee is not None:
            raise RedBrickInputError("An UNASSIGNED task has no assignee. Give either state='UNASSIGNED' or assignee.")
        from airflow_provider_redbrick.client.models.parsing import Name

        project = self.get_project()
        _ = project.info  # If the project is missing, this read has a clearer error than the listing.
        stage = None if self.stage_name is None else project.stage(validation.text("stage_name", self.stage_name))
        self.trace(project, stage, counts)
        return project.list_tasks(
            stage,
            unassigned=unassigned,
            assignee=assignee,
            state=None if unassigned else state,
            name=None if name is None else Name(name, prefix=True),
        )
