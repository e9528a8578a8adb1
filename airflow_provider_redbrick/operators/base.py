"""What all operators on tasks share: the manifest, the report, and when to fail."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.batch.outcome import Outcome, Status, Tally
from airflow_provider_redbrick.exceptions import RedBrickInputError, RedBrickStoppedError, RedBrickTasksFailedError
from airflow_provider_redbrick.hooks import check
from airflow_provider_redbrick.hooks.in_project import InRedBrickProject
from airflow_provider_redbrick.operators.report import report_at

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_redbrick.api.project import RedBrickProject
    from airflow_provider_redbrick.api.workflow import Stage

FAIL_ON = ("any", "all", "never")
_LOGGED = 50
_PASSED_THROUGH = frozenset({"labelset-input", "feedback"})


class RedBrickTasksOperator(InRedBrickProject):
    """Base of the operators that do one thing to many tasks.

    :param fail_on: when failed tasks fail the Airflow task, after all tasks were tried: ``any`` of them failed,
        ``all`` that were tried did, or ``never``.
    :param report_path: where to write the full report, one JSON object a line and one line a task: a local path or
        any URI that Airflow's object storage knows. A mapped task's has its map index before the suffix.
    """

    template_fields: Sequence[str] = (*InRedBrickProject.template_fields, "report_path")
    operation = ""
    _at_work = False

    def __init__(self, *, fail_on: str = "any", report_path: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.fail_on = fail_on
        self.report_path = report_path

    def get_project(self) -> RedBrickProject:
        """Return the project to work in, once what is to become of the outcomes is clear."""
        check.one_of("fail_on", self.fail_on, FAIL_ON)
        if self.report_path is not None:
            check.text("report_path", self.report_path)
        return super().get_project()

    def settle(
        self, context: Context, project: RedBrickProject, stage: Stage | None, outcomes: Iterable[Outcome]
    ) -> dict[str, Any]:
        """Carry ``outcomes`` out to the end, write the report, and return the manifest.

        :raises RedBrickTasksFailedError: when ``fail_on`` says so, after all tasks were tried and the report is
            written; the manifest is then in the XCom ``manifest``.
        """
        tally = Tally()
        with ExitStack() as stack:
            if isinstance(outcomes, Generator):
                # When the report cannot be written any more, what was claimed is given back now.
                stack.enter_context(closing(outcomes))
            report = stack.enter_context(report_at(self.report_path, context))
            self._at_work = True
            try:
                for outcome in outcomes:
                    tally.add(outcome)
                    self._log(outcome, tally)
                    report.add(outcome)
            finally:
                self._at_work = False
        manifest = tally.manifest(
            operation=self.operation,
            org_id=project.org_id,
            project_id=project.project_id,
            stage_name=stage.public_name if stage else None,
            report=report.uri,
        )
        counts = ", ".join(f"{number} {status.replace('_', ' ')}" for status, number in tally.counts.items())
        self.log.info("%s: %d tasks: %s", self.operation, tally.total, counts)
        if tally.fails(self.fail_on):
            task_instance = context.get("ti")
            if task_instance is not None:
                task_instance.xcom_push(key="manifest", value=manifest)
            first = tally.failed[0]
            raise RedBrickTasksFailedError(
                f"{self.operation}: of {tally.total} tasks {counts}. First failure, task "
                f"{first['task_id'] or repr(first['name'])}: {first['reason'].rstrip('.')}. "
                f"The next try leaves alone what is done and tries the rest."
            )
        return manifest

    def on_kill(self) -> None:
        """Stop between two requests; what was claimed and not finished is given back on the way out.

        Airflow calls this in the main thread when the task is marked failed or cleared, and kills the process for
        good a few seconds later.
        """
        if self._at_work:
            self._at_work = False
            self.log.warning("Stopping: nothing more is sent, and what was claimed and not finished is given back.")
            raise RedBrickStoppedError(f"{self.operation} was stopped by Airflow; the next try does the rest.")

    def _log(self, outcome: Outcome, tally: Tally) -> None:
        """Log what did not go through, as far as a person would read."""
        if outcome.status is Status.FAILED and tally.counts[outcome.status.value] <= _LOGGED:
            self.log.warning("Task %s (%s) failed: %s", outcome.task_id, outcome.name, outcome.reason)
        elif outcome.status is Status.SKIPPED and tally.counts[outcome.status.value] <= _LOGGED:
            self.log.info("Task %s (%s) was skipped: %s", outcome.task_id, outcome.name, outcome.reason)


def working_stage(project: RedBrickProject, name: object) -> Stage:
    """Return a stage in which tasks can be worked on.

    :raises RedBrickInputError: for ground truth, a stage that tasks only pass through, or one that is not there.
    """
    stage = project.stage(check.text("stage_name", name))
    if stage.is_ground_truth:
        raise RedBrickInputError(
            "Tasks in Ground Truth are finished. To change their labels, reopen them and work on them in their stage."
        )
    if stage.kind in _PASSED_THROUGH:
        # Its queue is always empty: waiting for ever would look like success.
        known = ", ".join(known.name for known in project.info.workflow.stages if known.is_label or known.is_review)
        raise RedBrickInputError(f"Tasks only pass through {stage.name}; they wait in: {known or 'no stage'}.")
    return stage
