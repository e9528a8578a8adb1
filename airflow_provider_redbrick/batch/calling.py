"""Calling the user's own code for one task after another."""

from __future__ import annotations

import inspect
import logging
import textwrap
import time
import traceback
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

from airflow_provider_redbrick.api.answers import reading
from airflow_provider_redbrick.api.signatures import unsigned
from airflow_provider_redbrick.exceptions import RedBrickInputError, one_line, readable
from airflow_provider_redbrick.labels.names import with_names
from airflow_provider_redbrick.labels.series import to_series
from airflow_provider_redbrick.labels.taxonomy import Taxonomy

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping, Sequence

    from airflow_provider_redbrick.api.models import Task
    from airflow_provider_redbrick.api.project import RedBrickProject

log = logging.getLogger(__name__)

T = TypeVar("T")


class CallableFailedError(Exception):
    """The user's callable raised; the message names what it raised."""


def call(function: Callable[[Task], Any], task: Task, *, what: str, take: Callable[[Any], T]) -> tuple[T, int]:
    """Call a labeler, reviewer or selector; return what is taken of its answer and the milliseconds it took.

    A generator function gives its answer by ``yield``: files that it deletes afterwards are still there when the answer
    is taken.

    :param take: called with the answer before anything else of the user's code runs; returns nothing that this code can
        change.
    :raises CallableFailedError: when it raised: that task's failure and nobody else's.
    :raises RedBrickInputError: if it yields more than one answer, or ``take`` refuses the answer.
    """
    started = time.monotonic()
    with _about(task, what):
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
            # The answer was refused, or the work was stopped: the generator's own cleaning up is done all the same.
            with _about(task, what):
                generator.close()
    return taken, elapsed_ms


def _next(generator: Generator[Any, None, Any]) -> Any:
    """Return the answer that a generator yields; without one, what it returns."""
    try:
        return next(generator)
    except StopIteration as end:
        return end.value


def _finish(generator: Generator[Any, None, Any], task: Task, what: str) -> None:
    """Let a generator go on to its end after its answer."""
    with _about(task, what):
        try:
            next(generator)
        except StopIteration:
            return
    raise RedBrickInputError(f"the {what} must yield one answer for a task, and yielded a second one")


@contextmanager
def _about(task: Task, what: str) -> Iterator[None]:
    """Turn whatever the user's code raises into the failure of one task."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - it is the user's own, and may raise anything
        raise _told(error, task, what) from None


def _told(error: Exception, task: Task, what: str) -> CallableFailedError:
    """Log what a callable raised, and return it in a few words."""
    # HTTP libraries name the URL that failed, and such a URL is all the permission that its item needs.
    urls = (*(task.item_urls or ()), task.labels_url)
    about = (what, task.task_id, one_line(task.name))
    raised = "".join(traceback.format_exception(error))
    shown = "\n".join(map(one_line, unsigned(raised, urls).split("\n")))
    if shown == raised and all("\n" not in _words(each) for each in _chain(error)):
        log.error("The %s raised for task %s (%s)", *about, exc_info=error)
    else:
        # Indented, so that no line of a message can pass for one of the log.
        log.error("The %s raised for task %s (%s)\n%s", *about, textwrap.indent(shown, "  "))
    words = f"The {what} raised {type(error).__name__}: {_words(error)}"
    return CallableFailedError(readable(unsigned(words, urls)))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and those that it came from, each once."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _words(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - it is the user's, and may do anything
        return "it does not say why"


def handed(project: RedBrickProject, task: Task) -> Task:
    """Return a task read in full as callables see it: with its labels in the ``series`` format.

    :raises RedBrickNotReadError: if something that this takes was not read.
    """
    task.require("labels", "labels_map", "series_info", "items")
    with reading("labels"):
        stored: Sequence[Mapping[str, Any]] = task.labels or ()
        if task.labels_url is not None:
            # Labels that come in a file, unlike those that come inline, were not given their names by the server.
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
