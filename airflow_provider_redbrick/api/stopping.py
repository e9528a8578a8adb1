"""Mutations that must not begin any more once the work they are for was stopped, however long they have waited."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from airflow_provider_redbrick.exceptions import RedBrickStoppedError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from threading import Event

# Of one thread: what gives claims back in another, or later in the same, is sent all the same.
_stop: ContextVar[Event | None] = ContextVar("redbrick_stop", default=None)


@contextmanager
def until(stop: Event) -> Iterator[None]:
    """Let this thread send mutations only until an event is set."""
    token = _stop.set(stop)
    try:
        yield
    finally:
        _stop.reset(token)


def check() -> None:
    """Look right before a mutation is sent.

    :raises RedBrickStoppedError: when the work was stopped.
    """
    stop = _stop.get()
    if stop is not None and stop.is_set():
        raise RedBrickStoppedError("Not sent: the work was stopped.")
