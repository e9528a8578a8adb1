"""Call the user's labelers, reviewers and selectors for one task at a time.

Design. The user's code may raise anything, delete its files when it returns, and quote signed URLs in its errors.

1. What the callable raises becomes the failure of one task (``CallableFailedError``). Only ``Exception`` is caught.
2. The answer is taken (copied and validated) before any other code of the user runs. A generator function yields its
   answer, so that files which it deletes afterwards still exist at that time.
3. A generator is always closed, also when its answer was refused or the work was stopped.
4. Logs and messages contain no signature of a signed URL, and no line of an error can pass for a log line.
"""

from __future__ import annotations

import inspect
import logging
import textwrap
import time
import traceback
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

from airflow_provider_redbrick.client.models.parsing import reading
from airflow_provider_redbrick.client.transport.redaction import strip_signatures
from airflow_provider_redbrick.exceptions import RedBrickInputError, single_line, truncate_message
from airflow_provider_redbrick.labels.series_format import to_series
from airflow_provider_redbrick.labels.taxonomy import Taxonomy, with_names

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping, Sequence

    from airflow_provider_redbrick.client.models.task import Task
    from airflow_provider_redbrick.client.operations.project import RedBrickProject

log = logging.getLogger(__name__)

T = TypeVar("T")


class CallableFailedError(Exception):
    """The user's callable raised; the message names what it raised."""


def call(function: Callable[[Task], Any], task: Task, *, what: str, take: Callable[[Any], T]) -> tuple[T, int]:
    """Call a labeler, reviewer or selector and take its answer.

    A generator function yields its answer, so that files which it deletes afterwards exist while the answer is taken.

    :param function: the user's callable.
    :param task: the task, in the form that callables receive.
    :param what: the kind of callable, for messages, such as "labeler".
    :param take: converts the answer to a value that the user's code cannot change; called before any other of it runs.
    :return: the taken answer, and the callable's run time in milliseconds.
    :raises CallableFailedError: if the callable raised.
    :raises RedBrickInputError: if it yields more than one answer, or ``take`` refuses the answer.
    """
    started = time.monotonic()
    with _errors_of_callable(task, what):
        answer = function(task)
        generator = cast("Generator[Any, None, Any]", answer) if inspect.isgenerator(answer) else None
        if generator is not None:
            answer = _next(generator)
    elapsed_ms = int((time.monotonic() - started) * 1000)
    try:
        taken = take(answer)
        if generator is not None:
            _finish(generator, task, what)
    finally:
        if generator is not None:
            # Run the generator's cleanup also if its answer was refused or the work was stopped.
            with _errors_of_callable(task, what):
                generator.close()
    return taken, elapsed_ms


def _next(generator: Generator[Any, None, Any]) -> Any:
    """Return the first value that a generator yields, or else its return value."""
    try:
        return next(generator)
    except StopIteration as end:
        return end.value


def _finish(generator: Generator[Any, None, Any], task: Task, what: str) -> None:
    """Run a generator to its end after its answer; refuse a second answer."""
    with _errors_of_callable(task, what):
        try:
            next(generator)
        except StopIteration:
            return
    raise RedBrickInputError(f"the {what} must yield one answer for a task, but yielded a second one")


@contextmanager
def _errors_of_callable(task: Task, what: str) -> Iterator[None]:
    """Convert any exception of the user's code to the failure of one task."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - the user's code may raise anything
        raise _log_and_summarize(error, task, what) from None


def _log_and_summarize(error: Exception, task: Task, what: str) -> CallableFailedError:
    """Log a callable's exception and return a short error for the task."""
    # HTTP libraries quote the URL that failed, and a signed URL grants access by itself.
    urls = (*(task.item_urls or ()), task.labels_url)
    subject = (what, task.task_id, single_line(task.name))
    raised = "".join(traceback.format_exception(error))
    shown = "\n".join(map(single_line, strip_signatures(raised, urls).split("\n")))
    if shown == raised and all("\n" not in _message_of(each) for each in _chain(error)):
        log.error("The %s raised for task %s (%s)", *subject, exc_info=error)
    else:
        # Indented, so that no line of an error message can pass for a log line.
        log.error("The %s raised for task %s (%s)\n%s", *subject, textwrap.indent(shown, "  "))
    summary = f"The {what} raised {type(error).__name__}: {_message_of(error)}"
    return CallableFailedError(truncate_message(strip_signatures(summary, urls)))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an exception and its causes, each once."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _message_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - `__str__` of the user's exception may raise anything
        return "its message cannot be read"


def with_series_labels(project: RedBrickProject, task: Task) -> Task:
    """Return a task with its labels in the ``series`` format, as callables receive it.

    :param project: the project, for its taxonomy.
    :param task: a task read with ``Detail.FULL``.
    :raises RedBrickNotReadError: if a required part of the task was not read.
    """
    task.require("labels", "labels_map", "series_info", "items")
    with reading("labels"):
        stored: Sequence[Mapping[str, Any]] = task.labels or ()
        if task.labels_url is not None:
            # The server adds category names to inline labels, but not to those in a file.
            stored = with_names(stored, project.taxonomy)
        labels = to_series(
            stored,
            series_info=task.series_info or (),
            labels_map=task.labels_map or (),
            items=task.items or (),
            taxonomy=lambda: Taxonomy.from_wire(project.taxonomy),
        )
    unread = task.unread - {"series", "classification"}
    return replace(task, series=tuple(labels.series), classification=labels.classification, unread=unread)
