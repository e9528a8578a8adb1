"""Base class of the operators that change tasks.

1. Each task that an operator works on ends in exactly one outcome. The counts of the manifest add up.
2. The report is opened before the first change is sent, so that a path that cannot be written changes nothing.
3. All tasks are attempted before ``fail_on`` decides whether the Airflow task fails. The manifest is then pushed to the
   XCom ``manifest``, since a task that fails returns nothing.
4. An input that lists no work is handled as ``on_empty`` says. It never means "all tasks".
5. Reasons and names are made to_valid_utf8 and stripped of URL signatures before they reach a log, report or XCom.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import AirflowSkipException

from airflow_provider_redbrick.api.signatures import strip_signatures
from airflow_provider_redbrick.assets.outlets import add_to_outlet_events
from airflow_provider_redbrick.batch.outcome import Outcome, Status, Tally
from airflow_provider_redbrick.exceptions import (
    RedBrickInputError,
    RedBrickTasksFailedError,
    single_line,
    to_valid_utf8,
    truncate_message,
)
from airflow_provider_redbrick.hooks import check
from airflow_provider_redbrick.operators.progress import Progress
from airflow_provider_redbrick.operators.report import open_report
from airflow_provider_redbrick.operators.stopping import StoppableOperator

if TYPE_CHECKING:
    from collections.abc import Iterable
    from os import PathLike

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_redbrick.api.project import RedBrickProject
    from airflow_provider_redbrick.api.workflow import Stage

FAIL_ON = ("any", "all", "never")
ON_EMPTY = ("fail", "skip", "succeed")
_MAX_LOGGED_TASKS = 50
_MAX_LOGGED_REASONS = 5


class RedBrickBaseOperator(StoppableOperator):
    """Base of the operators that apply one operation to many tasks.

    :param fail_on: which failures fail the Airflow task, after all tasks were attempted. ``any``: at least one task
        failed. ``all``: every attempted task failed. ``never``: none.
    :param report_path: where to write the full report as JSON Lines, one line per task: a local path or a URI that
        Airflow's object storage supports. A mapped task inserts its map index before the suffix.
    :param on_empty: what to do if the list of work (``task_ids``, ``tasks``, ``reviews``, ``emails``, or the content of
        a file) is empty: ``fail``, ``skip``, or ``succeed`` with a manifest that counts 0. By default, an empty list
        skips the Airflow task; an empty file, or a list that was given and is None, fails it.
    """

    template_fields: Sequence[str] = (*StoppableOperator.template_fields, "report_path")

    work_lists: ClassVar[tuple[str, ...]] = ()
    """Names of the inputs that list the work. ``on_empty`` applies to them."""

    def __init__(
        self,
        *,
        fail_on: str = "any",
        report_path: str | PathLike[str] | None = None,
        on_empty: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.fail_on = fail_on
        self.report_path = report_path
        self.on_empty = on_empty

    def check_inputs(self, *, besides: Collection[str] = ()) -> None:
        """Refuse inputs that were given and are absent.

        :param besides: names of inputs that may be absent. With ``on_empty``, those in :attr:`work_lists` may be, too.
        :raises RedBrickInputError: if another input is absent, or ``on_empty`` is invalid.
        """
        if self.on_empty is not None:
            check.one_of("on_empty", self.on_empty, ON_EMPTY)
            besides = (*besides, *self.work_lists)
        super().check_inputs(besides=besides)

    def work_list(self, name: str) -> list[Any] | None:
        """Return the entries of an input that lists work.

        :param name: name of the input.
        :return: its entries; None if it was not given; an empty list if it is empty and ``on_empty`` is ``succeed``.
        :raises RedBrickInputError: if it is not a list, or if it is empty and that is a failure.
        :raises AirflowSkipException: if it is empty and that skips the Airflow task.
        """
        if not self.is_given(name):
            return None
        value = getattr(self, name)
        if name in self.absent_inputs:
            return self.nothing(f"{name} was given, and is {value!r}.")
        if isinstance(value, Sequence) and not isinstance(value, str) and not len(value):
            return self.nothing(f"{name} is empty.")
        return check.sequence(name, value)

    def nothing(self, reason: str, *, default: str = "skip") -> list[Any]:
        """Apply ``on_empty`` to a list of work that is empty.

        :param reason: a sentence that says which list is empty.
        :param default: the action without ``on_empty``: ``fail``, ``skip`` or ``succeed``.
        :return: an empty list, if the action is ``succeed``.
        :raises RedBrickInputError: if the action is ``fail``.
        :raises AirflowSkipException: if the action is ``skip``.
        """
        action = default if self.on_empty is None else self.on_empty
        if action == "fail":
            raise RedBrickInputError(f"{reason} If that is expected, set on_empty to 'skip' or 'succeed'.")
        if action == "skip":
            raise AirflowSkipException(f"{reason} There is nothing to do.")
        return []

    def get_project(self) -> RedBrickProject:
        """Validate ``fail_on`` and ``report_path``, and return the project.

        :raises RedBrickInputError: if a parameter is invalid.
        """
        check.one_of("fail_on", self.fail_on, FAIL_ON)
        self._report()
        return super().get_project()

    def _report(self) -> str | None:
        return None if self.report_path is None else check.path("report_path", self.report_path)

    def settle(
        self,
        context: Context,
        project: RedBrickProject,
        stage: Stage | None,
        outcomes: Iterable[Outcome],
        *,
        total: int | None = None,
    ) -> dict[str, Any]:
        """Consume all outcomes, write the report, and return the manifest.

        :param context: the Airflow task's context.
        :param project: the project of the tasks.
        :param stage: their stage; None if they have none or several.
        :param outcomes: one outcome per task. The work is done while they are consumed.
        :param total: how many outcomes there will be, if known; for progress lines in the log.
        :return: the manifest.
        :raises RedBrickTasksFailedError: if ``fail_on`` says so. All tasks were attempted then, the report is written,
            and the manifest is in the XCom ``manifest``.
        """
        from airflow_provider_redbrick.hooks.metrics import measured

        tally, progress = Tally(), Progress(total)
        self.trace(project, stage, tally.counts)
        with ExitStack() as stack:
            stack.enter_context(measured(self.operation, tally.counts))
            if isinstance(outcomes, Generator):
                # Closing the generator releases claimed tasks if writing the report fails.
                stack.enter_context(closing(outcomes))
            report = stack.enter_context(open_report(self._report(), context))
            stack.enter_context(self.at_work(lambda: f"{tally.summary()}, and possibly requests in flight"))
            for outcome in map(_storable, outcomes):
                tally.add(outcome)
                self._log(outcome, tally)
                report.add(outcome)
                if line := progress.after():
                    self.log.info("%s: %s", self.operation, line)
        manifest = tally.manifest(
            operation=self.operation,
            org_id=project.org_id,
            project_id=project.project_id,
            stage_name=stage.public_name if stage else None,
            report=report.uri,
        )
        add_to_outlet_events(context, self.outlets, manifest)
        counts = tally.summary()
        self.log.info("%s: %d %s: %s", self.operation, tally.total, "task" if tally.total == 1 else "tasks", counts)
        for reason, number in tally.skipped.most_common(_MAX_LOGGED_REASONS):
            self.log.info("%s: %d skipped: %s", self.operation, number, reason)
        if tally.fails(self.fail_on):
            task_instance = context.get("ti")
            if task_instance is not None:
                task_instance.xcom_push(key="manifest", value=manifest)
            first = tally.failed[0]
            label = first["task_id"] or (repr(first["name"]) if first["name"] else "")
            raise RedBrickTasksFailedError(
                f"{self.operation}: of {tally.total} tasks {counts}. First failure{label and ', task '}{label}: "
                f"{first['reason'].rstrip('.')}. "
                f"A retry skips completed tasks and processes the rest.{_unknown_tasks(tally)}"
            )
        return self.format_return_value(manifest)

    def _log(self, outcome: Outcome, tally: Tally) -> None:
        """Log failed tasks, at most 50 of each status."""
        about = (outcome.task_id, single_line(outcome.name), outcome.status.value, outcome.reason)
        if outcome.status.is_bad and tally.counts[outcome.status.value] <= _MAX_LOGGED_TASKS:
            self.log.warning("Task %s (%s) %s: %s", *about)
        elif outcome.status is Status.SKIPPED:
            self.log.debug("Task %s (%s) %s: %s", *about)


def _storable(outcome: Outcome) -> Outcome:
    """Return an outcome with texts that can be stored.

    The message of an exception may have characters that no XCom can hold. It may also name a presigned URL, whose
    signature must not be stored.
    """
    return replace(outcome, name=to_valid_utf8(outcome.name), reason=truncate_message(strip_signatures(outcome.reason)))


def _unknown_tasks(tally: Tally) -> str:
    """Name the tasks whose state must be checked if no retry follows."""
    if not tally.unknown:
        return ""
    return f" Result unknown for: {', '.join(tally.unknown)}."
