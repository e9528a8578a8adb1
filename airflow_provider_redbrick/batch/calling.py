"""Calling the user's own code for one task after another."""

from __future__ import annotations

import logging
import textwrap
import time
import traceback
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.api.answers import reading
from airflow_provider_redbrick.api.signatures import unsigned
from airflow_provider_redbrick.exceptions import one_line, readable
from airflow_provider_redbrick.labels.names import with_names
from airflow_provider_redbrick.labels.series import to_series
from airflow_provider_redbrick.labels.taxonomy import Taxonomy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from airflow_provider_redbrick.api.models import Task
    from airflow_provider_redbrick.api.project import RedBrickProject

log = logging.getLogger(__name__)


class CallableFailedError(Exception):
    """The user's callable raised; the message names what it raised."""


def call(function: Callable[[Task], Any], task: Task, *, what: str) -> tuple[Any, int]:
    """Call a labeler, reviewer or selector; return its answer and the milliseconds it took.

    :raises CallableFailedError: when it raised: that task's failure and nobody else's.
    """
    started = time.monotonic()
    try:
        answer = function(task)
    except Exception as error:  # noqa: BLE001 - it is the user's own, and may raise anything
        raise _told(error, task, what) from None
    return answer, int((time.monotonic() - started) * 1000)


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
