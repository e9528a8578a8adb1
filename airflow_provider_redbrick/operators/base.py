"""Base class of the operators that change tasks.

1. Each task that an operator works on ends in exactly one outcome. The counts of the manifest add up.
2. The report is opened before the first change is sent, so that a path that cannot be written changes nothing.
3. All tasks are attempted before ``fail_on`` decides whether the Airflow task fails. The manifest is then pushed to the
   XCom ``manifest``, since a task that fails returns nothing.
4. An input that lists no work is handled as ``on_empty`` says. It never means "all tasks".
5. Reasons and names are converted to valid UTF-8, and signatures of URLs are removed from reasons, before they reach a
   log, report or XCom.
6. Airflow calls ``on_kill`` in the main thread. While work is in progress it raises, and the work's ``finally`` blocks
   release claims on the way out. Before that there is nothing to clean up: a flag prevents the work from starting.
7. Timeouts and signals are not subclasses of ``Exception``, so that user code cannot catch them by accident. They are
   logged with the progress so far, and re-raised.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Generator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from math import ceil
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import AirflowSkipException, ObjectStoragePath

from airflow_provider_redbrick._utils import count_tasks
from airflow_provider_redbrick.assets.stages import add_to_outlet_events
from airflow_provider_redbrick.base import TracedOperator
from airflow_provider_redbrick.client.transport.redaction import strip_signatures
from airflow_provider_redbrick.engine.outcomes import Outcome, Status, Tally
from airflow_provider_redbrick.exceptions import (
    RedBrickInputError,
    RedBrickStoppedError,
    RedBrickTasksFailedError,
    single_line,
    to_valid_utf8,
    truncate_message,
)
from airflow_provider_redbrick.hooks import validation
from airflow_provider_redbrick.links import InLinkedProject

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from os import PathLike
    from typing import TypeVar

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_redbrick.client.models.workflow import Stage
    from airflow_provider_redbrick.client.operations.project import RedBrickProject
    from airflow_provider_redbrick.hooks.files import FilesBeside

    ListedT = TypeVar("ListedT")


class StoppableOperator(InLinkedProject, TracedOperator):
    """Base of the operators that clean up when they are stopped."""

    stopping = "nothing more is sent, and claimed tasks that are not finished are released"
    next_attempt = "processes the rest"
    _is_working = False
    _stop_requested = False

    def format_return_value(self, manifest: dict[str, Any]) -> dict[str, Any]:
        """Return a manifest in the form that ``execute`` returns.

        With ``multiple_outputs`` each field becomes an XCom. Airflow 3.0 refuses an XCom of None, which would fail the
        Airflow task after its work is done. Fields that are None are therefore left out.
        """
        if not self.multiple_outputs:
            return manifest
        return {field: value for field, value in manifest.items() if value is not None}

    @contextmanager
    def at_work(self, so_far: Callable[[], str]) -> Iterator[None]:
        """Mark the block as work that can be stopped, and log its progress if it is.

        :param so_far: returns what is done, for the log.
        :raises RedBrickStoppedError: if Airflow stopped the task before the block began.
        """
        if self._stop_requested:
            raise self._stopped()
        self._is_working = True
        try:
            yield
        except Exception:
            raise
        except BaseException:
            # A kill or a timeout, which Airflow raises outside of the Exception hierarchy.
            self.log.warning(
                "%s was stopped. Completed so far: %s. The next attempt %s.",
                self.operation,
                so_far(),
                self.next_attempt,
            )
            raise
        finally:
            self._is_working = False

    def on_kill(self) -> None:
        """Stop between two requests and clean up.

        Airflow calls this in the main thread when the task is marked failed or cleared, a few seconds before it kills
        the process. It also calls this when the task has timed out, after the work has ended.

        :raises RedBrickStoppedError: if work is in progress.
        """
        if self._is_working:
            self._is_working = False
            self.log.warning("Stopping: %s.", self.stopping)
            raise self._stopped()
        # Nothing was changed yet, so there is nothing to clean up. The work must not start.
        self._stop_requested = True

    def _stopped(self) -> RedBrickStoppedError:
        return RedBrickStoppedError(f"{self.operation} was stopped by Airflow. The next attempt {self.next_attempt}.")


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
            validation.one_of("on_empty", self.on_empty, ON_EMPTY)
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
        return validation.sequence(name, value)

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
        validation.one_of("fail_on", self.fail_on, FAIL_ON)
        self._report()
        return super().get_project()

    def _report(self) -> str | None:
        return None if self.report_path is None else validation.path("report_path", self.report_path)

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
        from airflow_provider_redbrick.hooks.redbrick import measured

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
        if self.outlets:
            add_to_outlet_events(context, self.outlets, manifest)
        counts = tally.summary()
        self.log.info("%s: %s: %s", self.operation, count_tasks(tally.total), counts)
        for reason, number in tally.skipped.most_common(_MAX_LOGGED_REASONS):
            self.log.info("%s: %d skipped: %s", self.operation, number, reason)
        if tally.fails(self.fail_on):
            task_instance = context.get("ti")
            if task_instance is not None:
                task_instance.xcom_push(key="manifest", value=manifest)
            first = tally.failed[0]
            label = first["task_id"] or (repr(first["name"]) if first["name"] else "")
            retry_after_s = project.client.transport.retry_after_s
            raise RedBrickTasksFailedError(
                f"{self.operation}: of {tally.total} tasks {counts}. First failure{label and ', task '}{label}: "
                f"{first['reason'].rstrip('.')}. "
                f"A retry skips completed tasks and processes the rest.{_unknown_tasks(tally)}",
                retry_after=str(ceil(retry_after_s)) if retry_after_s else None,
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


EVERY = 5.0
"""Default number of seconds between two progress lines."""


class Progress:
    """Create progress lines: completed tasks, rate, and remaining time.

    A run that is shorter than one interval has no line.

    :param total: number of tasks, if known. Without it, lines have no remaining time.
    :param every: minimum number of seconds between two lines.
    :param clock: a monotonic clock, in seconds.
    """

    def __init__(
        self, total: int | None = None, *, every: float = EVERY, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.done = 0
        self._total = total
        self._every = every
        self._clock = clock
        self._started_at = self._logged_at = clock()

    def after(self, number: int = 1) -> str | None:
        """Count completed tasks, and return a line if one is due.

        :param number: how many tasks were completed since the last call.
        """
        self.done += number
        now = self._clock()
        if now - self._logged_at < self._every:
            return None
        self._logged_at = now
        rate = self.done / (now - self._started_at)
        if self._total is None:
            return f"{self.done} tasks so far, {rate:.1f} a second"
        line = f"{self.done} of {self._total} tasks, {rate:.1f} a second"
        left = max(0, self._total - self.done)
        return f"{line}, {_duration(left / rate)} left" if left and rate else line


def _duration(seconds: float) -> str:
    """Return a duration as text, in seconds below an hour, else in minutes."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


class Report:
    """Write outcomes to a report file, or discard them without one.

    :param uri: URI of the report; None without one.
    :param file: the report, open for text; None without one.
    """

    def __init__(self, uri: str | None, file: Any) -> None:
        self.uri = uri
        self._file = file

    def add(self, outcome: Outcome) -> None:
        """Write the row of one task."""
        if self._file is not None:
            self._file.write(json.dumps(outcome.to_row()) + "\n")


@contextmanager
def open_report(path: str | None, context: Context) -> Iterator[Report]:
    """Open the report, before the first change is sent.

    :param path: a local path or URI; None for no report.
    :param context: the Airflow task's context. A mapped task's report has its map index in the name.
    :raises RedBrickInputError: if the report cannot be written.
    """
    if path is None:
        yield Report(None, None)
        return
    try:
        uri, file = _open_report(path, getattr(context.get("ti"), "map_index", -1))
    except Exception as error:  # noqa: BLE001 - clients of object stores raise what they like
        from airflow_provider_redbrick.hooks.files import find_write_problem

        reason = truncate_message(find_write_problem(path) or str(error) or type(error).__name__)
        raise RedBrickInputError(f"report_path {path!r} cannot be written: {reason}") from None
    with file:
        yield Report(uri, file)


def _open_report(path: str, map_index: object) -> tuple[str, Any]:
    """Return the report's URI and its open file."""
    place = ObjectStoragePath(path)
    if isinstance(map_index, int) and map_index >= 0:
        # All mapped tasks have the same path, so each writes its own report beside it.
        place = place.parent / f"{place.stem}.{map_index}{place.suffix}"
        path = str(place)
    place.parent.mkdir(parents=True, exist_ok=True)
    return path, place.open("w")  # type: ignore[no-untyped-call]


class EmptyFileError(RedBrickInputError):
    """Raised if a file that must list tasks has no entries."""


class RedBrickListFileBaseOperator(RedBrickBaseOperator):
    """Base of the operators whose tasks may come from a file.

    :param allowed_folders: further folders, as absolute paths or URIs, that files named in the list may be in. Default:
        only the list's own folder and its subfolders. A URI matches with its connection and bucket. Files named in the
        DAG itself may be anywhere.
    """

    def __init__(self, *, allowed_folders: Sequence[str] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.allowed_folders = allowed_folders

    def get_project(self) -> RedBrickProject:
        """Validate ``allowed_folders`` and return the project.

        :raises RedBrickInputError: if a parameter is invalid.
        """
        from airflow_provider_redbrick.hooks.files import check_folders

        check_folders("allowed_folders", self.allowed_folders)
        return super().get_project()

    def tasks_of(self, read: Callable[[], Iterable[ListedT]]) -> Iterable[ListedT]:
        """Return the tasks of a file, or apply ``on_empty`` if it has none.

        Without ``on_empty`` an empty file is a failure, since it may be truncated.

        :param read: parses the open file.
        """
        try:
            return read()
        except EmptyFileError as error:
            return self.nothing(str(error), default="fail")

    def files_beside(self, path: str) -> FilesBeside:
        """Return a callable that opens the files that a list of tasks names.

        :param path: path of the list.
        """
        from airflow_provider_redbrick.hooks.files import FilesBeside, check_folders

        return FilesBeside(path, check_folders("allowed_folders", self.allowed_folders))
