"""Send wrong ground truth back for correction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.api.stage_names import GROUND_TRUTH
from airflow_provider_redbrick.exceptions import RedBrickInputError
from airflow_provider_redbrick.hooks import check
from airflow_provider_redbrick.lineage.flow import BACK
from airflow_provider_redbrick.operators.base import RedBrickBaseOperator
from airflow_provider_redbrick.operators.tries import retry_since

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import pendulum
    from airflow.providers.common.compat.sdk import Context, XComArg

    from airflow_provider_redbrick.api.models import Task
    from airflow_provider_redbrick.api.project import RedBrickProject
    from airflow_provider_redbrick.batch.outcome import Outcome


class RedBrickReopenGroundTruthOperator(RedBrickBaseOperator):
    """Send ground-truth tasks back to the first stage, with their labels, for people to correct.

    Either given tasks, or those that a selector picks among the ground truth last updated within
    ``[updated_after, updated_before)``. These default to the run's data interval, so that a backfill does the right
    dates. A task that was reopened comes back with a later update, which is normally another interval's; where it is
    not (the interval is not over yet), what this key reopened for an update since ``updated_after`` is not reopened
    again. So a second run of the same interval reopens nothing twice.

    Airflow 3's cron schedules have an *empty* data interval by default, which is refused: schedule the DAG with
    ``CronDataIntervalTimetable``, or give both times.

    :param task_ids: the tasks to reopen; those that are not in ground truth are skipped.
    :param selector: called with a :class:`~airflow_provider_redbrick.api.models.Task` that has its labels as
        ``series`` and ``classification``; returns True for a task to reopen.
    :param updated_after: the first moment that counts.
    :param updated_before: the first moment that no longer counts.
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
        """Reopen and return the manifest."""
        from airflow_provider_redbrick.api.detail import Detail
        from airflow_provider_redbrick.batch.reading import KNOWN_CHUNK, ReadAhead
        from airflow_provider_redbrick.batch.reopen import reopen

        self.check_inputs()
        total = None
        if self.is_given("task_ids") == (self.selector is not None):
            raise RedBrickInputError("Give task_ids or a selector, and not both.")
        if self.is_given("task_ids"):
            if self.updated_after is not None or self.updated_before is not None:
                raise RedBrickInputError("updated_after and updated_before go with a selector, not with task_ids.")
            listed = self.work_list("task_ids")
            ids = check.task_ids(listed) if listed else []
            total = len(ids)
            project = self.get_project()
            ahead = ReadAhead(project, ids, detail=Detail.PLACE, size=KNOWN_CHUNK)
            project.open(ahead.begin)
            outcomes = reopen(project, ids, me=project.client.me(), since=retry_since(context), ahead=ahead)
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
        from airflow_provider_redbrick.api.models import Task
        from airflow_provider_redbrick.batch.reopen import reopen, select, updated_between

        due = updated_between(project, project.stage(GROUND_TRUTH), after=after, before=before)
        self.log.info("%d ground-truth tasks were updated from %s to %s", len(due), after, before)
        wrong = []
        for found in select(project, due, selector):
            if isinstance(found, Task):
                wrong.append(found.task_id)
            else:
                yield found
        since = retry_since(context)
        yield from reopen(project, wrong, me=project.client.me(), since=since, once_since=after)

    def _window(self, context: Context) -> tuple[pendulum.DateTime, pendulum.DateTime]:
        """Return the times that count, from the parameters or the run's data interval."""
        after, before = (
            check.time("updated_after", self.updated_after),
            check.time("updated_before", self.updated_before),
        )
        start = after or check.time("the run's data_interval_start", context.get("data_interval_start"))
        end = before or check.time("the run's data_interval_end", context.get("data_interval_end"))
        if start is None or end is None or start >= end:
            raise RedBrickInputError(
                f"Nothing lies between updated_after ({start}) and updated_before ({end}). They default to the run's "
                f"data interval, which Airflow 3's cron schedules and manual runs leave empty: schedule the DAG with "
                f"CronDataIntervalTimetable, or give both times."
            )
        return start, end
