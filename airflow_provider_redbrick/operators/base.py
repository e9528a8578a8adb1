"""What all operators on tasks share: the manifest, the report, and when to fail."""

from __future__ import annotations

from collections.abc import Collection, Generator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import AirflowSkipException

from airflow_provider_redbrick.api.signatures import unsigned
from airflow_provider_redbrick.assets.outlets import tell_outlets
from airflow_provider_redbrick.batch.outcome import Outcome, Status, Tally
from airflow_provider_redbrick.exceptions import (
    RedBrickInputError,
    RedBrickTasksFailedError,
    one_line,
    readable,
    storable,
)
from airflow_provider_redbrick.hooks import check
from airflow_provider_redbrick.operators.progress import Progress
from airflow_provider_redbrick.operators.report import report_at
from airflow_provider_redbrick.operators.stopping import StoppableOperator

if TYPE_CHECKING:
    from collections.abc import Iterable
    from os import PathLike

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_redbrick.api.project import RedBrickProject
    from airflow_provider_redbrick.api.workflow import Stage

FAIL_ON = ("any", "all", "never")
ON_EMPTY = ("fail", "skip", "succeed")
_LOGGED = 50
_REASONS = 5


class RedBrickBaseOperator(StoppableOperator):
    """Base of the operators that do one thing to many tasks.

    :param fail_on: when failed tasks fail the Airflow task, after all tasks were tried: ``any`` of them failed,
        ``all`` that were tried did, or ``never``.
    :param report_path: where to write the full report, one JSON object a line and one line a task: a local path or
        any URI that Airflow's object storage knows. A mapped task's has its map index before the suffix.
    :param on_empty: what to do if the list of work (``task_ids``, ``tasks``, ``reviews``, ``emails``, or what a file
        lists) has nothing in it: ``fail``, ``skip``, or ``succeed`` with a manifest that counts 0. Without it, an empty
        list skips the Airflow task; an empty file, and a list that was given and is None, fail it.
    """

    template_fields: Sequence[str] = (*StoppableOperator.template_fields, "report_path")

    work_lists: ClassVar[tuple[str, ...]] = ()
    """The inputs that list what to work on: ``on_empty`` is about these."""

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
        """Refuse inputs that were given and are absent, unless ``on_empty`` says what that means."""
        if self.on_empty is not None:
            check.one_of("on_empty", self.on_empty, ON_EMPTY)
            besides = (*besides, *self.work_lists)
        super().check_inputs(besides=besides)

    def work_list(self, name: str) -> list[Any] | None:
        """Return what an input lists; None if it was not given, and an empty list if ``on_empty`` lets that succeed.

        :raises RedBrickInputError: if it is no list, or if nothing in it is a failure.
        :raises AirflowSkipException: if nothing in it skips the Airflow task.
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
        """Do what ``on_empty`` says of a list with nothing in it: return it, or raise.

        :param default: what to do if ``on_empty`` is not given.
        :raises RedBrickInputError: if that is a failure.
        :raises AirflowSkipException: if that skips the Airflow task.
        """
        action = default if self.on_empty is None else self.on_empty
        if action == "fail":
            raise RedBrickInputError(f"{reason} Where that is normal, set on_empty to 'skip' or 'succeed'.")
        if action == "skip":
            raise AirflowSkipException(f"{reason} There is nothing to do.")
        return []

    def get_project(self) -> RedBrickProject:
        """Return the project to work in, once what is to become of the outcomes is clear."""
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
        """Carry ``outcomes`` out to the end, write the report, and return the manifest.

        :param total: how many outcomes there will be, where that is known beforehand.
        :raises RedBrickTasksFailedError: when ``fail_on`` says so, after all tasks were tried and the report is
            written; the manifest is then in the XCom ``manifest``.
        """
        from airflow_provider_redbrick.hooks.metrics import measured

        tally, progress = Tally(), Progress(total)
        self.trace(project, stage, tally.counts)
        with ExitStack() as stack:
            stack.enter_context(measured(self.operation, tally.counts))
            if isinstance(outcomes, Generator):
                # When the report cannot be written any more, what was claimed is given back now.
                stack.enter_context(closing(outcomes))
            report = stack.enter_context(report_at(self._report(), context))
            stack.enter_context(self.at_work(lambda: f"{tally.words()}, and perhaps some on their way"))
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
        tell_outlets(context, self.outlets, manifest)
        counts = tally.words()
        self.log.info("%s: %d tasks: %s", self.operation, tally.total, counts)
        for reason, number in tally.skipped.most_common(_REASONS):
            self.log.info("%s: %d skipped: %s", self.operation, number, reason)
        if tally.fails(self.fail_on):
            task_instance = context.get("ti")
            if task_instance is not None:
                task_instance.xcom_push(key="manifest", value=manifest)
            first = tally.failed[0]
            which = first["task_id"] or (repr(first["name"]) if first["name"] else "")
            raise RedBrickTasksFailedError(
                f"{self.operation}: of {tally.total} tasks {counts}. First failure{which and ', task '}{which}: "
                f"{first['reason'].rstrip('.')}. "
                f"The next try leaves alone what is done and tries the rest.{_undecided(tally)}"
            )
        return self.as_returned(manifest)

    def _log(self, outcome: Outcome, tally: Tally) -> None:
        """Log what did not go through, as far as a person would read; what was skipped is no news."""
        about = (outcome.task_id, one_line(outcome.name), outcome.status.value, outcome.reason)
        if outcome.status.is_bad and tally.counts[outcome.status.value] <= _LOGGED:
            self.log.warning("Task %s (%s) %s: %s", *about)
        elif outcome.status is Status.SKIPPED:
            self.log.debug("Task %s (%s) %s: %s", *about)


def _storable(outcome: Outcome) -> Outcome:
    """Return an outcome that can be kept: what a callable raised, say, may have words that no XCom can hold.

    Nor may it have a signature: files may be given as presigned URLs, and reasons name them.
    """
    return replace(outcome, name=storable(outcome.name), reason=readable(unsigned(outcome.reason)))


def _undecided(tally: Tally) -> str:
    """Name the tasks that somebody should look at when there is no next try."""
    if not tally.unknown:
        return ""
    return f" Whether it was applied is not known of: {', '.join(tally.unknown)}."
