"""Send ground-truth tasks back for correction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.client.models.workflow import GROUND_TRUTH
from airflow_provider_redbrick.exceptions import RedBrickInputError
from airflow_provider_redbrick.hooks import validation
from airflow_provider_redbrick.lineage import BACK
from airflow_provider_redbrick.operators.base import RedBrickBaseOperator
from airflow_provider_redbrick.operators.stage_base import first_attempt_at

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import pendulum
    from airflow.providers.common.compat.sdk import Context, XComArg

    from airflow_provider_redbrick.client.models.task import Task
    from airflow_provider_redbrick.client.operations.project import RedBrickProject
    from airflow_provider_redbrick.engine.outcomes import Outcome


class RedBrickReopenGroundTruthOperator(RedBrickBaseOperator):
    """Send ground-truth tasks back to the first stage, with their labels.

    The tasks are either given, or picked by a selector among the ground-truth tasks last updated within
    ``[updated_after, updated_before)``. These times default to the run's data interval, so that a backfill uses its own
    dates.

    A task is not reopened twice for one interval. A corrected task comes back with a later update, normally in another
    interval. If the interval has not ended, a task that this API key reopened for an update since ``updated_after`` is
    skipped.

    With Airflow 3's default cron schedules the data interval is *empty*, which is refused. Schedule the DAG with
    ``CronDataIntervalTimetable``, or give both times.

    :param task_ids: the tasks to reopen. Tasks that are not in ground truth are skipped.
    :param selector: called with a :class:`~airflow_provider_redbrick.client.models.task.Task` that has its labels as
        ``series`` and ``classification``; returns True to reopen the task.
    :param updated_after: start of the time range, inclusive: a date and time, or ISO-8601 text, in UTC if it names no
        time zone. Default: start of the data interval.
    :param updated_before: end of the time range, exclusive. Default: end of the data interval.
    """

    template_fields: Sequence[str] = (
        *RedBrickBaseOperator.template_fields,
        "task_ids",
        "updated_after",
        "updated_before",
    )
    operation = "reopen_ground_truth"
    work_lists = ("task_ids",)
    moves = BACK
    stage_name = GROUND_TRUTH

    def __init__(
        self,
        *,
        task_ids: Sequence[str] | XComArg | None = None,
        selector: Callable[[Task], bool] | None = None,
        updated_after: Any = None,
        updated_before: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.task_ids = task_ids
        self.selector = selector
        self.updated_after = updated_after
        self.updated_before = updated_before

    def execute(self, context: Context) -> dict[str, Any]:
        """Reopen the tasks and return the manifest.

        :param context: the Airflow task's context.
        :return: the manifest: what happened to the tasks, with counts by status.
        :raises RedBrickInputError: if a parameter is invalid, or the time range is empty.
        :raises RedBrickTasksFailedError: if tasks failed and ``fail_on`` says that they fail the Airflow task.
        """
        from airflow_provider_redbrick.actions.reopen import reopen
        from airflow_provider_redbrick.client.models.task import Detail
        from airflow_provider_redbrick.engine.task_reader import KNOWN_CHUNK, ReadAhead

        self.check_inputs()
        total = None
        if self.is_given("task_ids") == (self.selector is not None):
            raise RedBrickInputError("Give either task_ids or a selector.")
        if self.is_given("task_ids"):
            if self.updated_after is not None or self.updated_before is not None:
                raise RedBrickInputError(
                    "updated_after and updated_before need a selector. They cannot be combined with task_ids."
                )
            listed = self.work_list("task_ids")
            ids = validation.task_id_list(listed) if listed else []
            total = len(ids)
            project = self.get_project()
            ahead = ReadAhead(project, ids, detail=Detail.PLACE, size=KNOWN_CHUNK)
            project.open(ahead.begin)
            first_attempt = first_attempt_at(context, project.client.clock)
            outcomes = reopen(project, ids, me=project.client.me(), first_attempt_at=first_attempt, ahead=ahead)
        else:
            if not callable(self.selector):
                raise RedBrickInputError(f"selector must be callable, not {type(self.selector).__name__}.")
            after, before = self._window(context)
            project = self.get_project()
            project.open()
            outcomes = self._select_and_reopen(context, project, self.selector, after, before)
        return self.settle(context, project, project.stage(GROUND_TRUTH), outcomes, total=total)

    def _select_and_reopen(
        self,
        context: Context,
        project: RedBrickProject,
        selector: Callable[[Task], bool],
        after: pendulum.DateTime,
        before: pendulum.DateTime,
    ) -> Iterator[Outcome]:
        from airflow_provider_redbrick.actions.reopen import reopen, select, updated_between
        from airflow_provider_redbrick.client.models.task import Task

        due = updated_between(project, project.stage(GROUND_TRUTH), after=after, before=before)
        noun = "task was" if len(due) == 1 else "tasks were"
        self.log.info("%d ground-truth %s updated from %s to %s", len(due), noun, after, before)
        selected_ids = []
        for selected in select(project, due, selector):
            if isinstance(selected, Task):
                selected_ids.append(selected.task_id)
            else:
                yield selected
        first_attempt = first_attempt_at(context, project.client.clock)
        yield from reopen(
            project, selected_ids, me=project.client.me(), first_attempt_at=first_attempt, once_since=after
        )

    def _window(self, context: Context) -> tuple[pendulum.DateTime, pendulum.DateTime]:
        """Return the time range from the parameters or the run's data interval."""
        after, before = (
            validation.time("updated_after", self.updated_after),
            validation.time("updated_before", self.updated_before),
        )
        start = after or validation.time("the run's data_interval_start", context.get("data_interval_start"))
        end = before or validation.time("the run's data_interval_end", context.get("data_interval_end"))
        if start is None or end is None or start >= end:
            raise RedBrickInputError(
                f"The time range from updated_after ({start}) to updated_before ({end}) is empty. Both default to the "
                f"run's data interval, which is empty for Airflow 3's cron schedules and manual runs. Schedule the DAG "
                f"with CronDataIntervalTimetable, or give both times."
            )
        return start, end
