"""Stop sending mutations once the work that they belong to was stopped.

Design notes on stopping:

1. The stop event belongs to one thread's context. Releasing claims, in another thread or later in the same one, is
   not affected.
2. The event is checked immediately before a mutation is sent, because a request may have waited for minutes.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from airflow_provider_redbrick.exceptions import RedBrickStoppedError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from threading import Event

# Per thread: releasing claims, in another thread or later in the same one, is not affected.
_stop: ContextVar[Event | None] = ContextVar("redbrick_stop", default=None)


@contextmanager
def until(stop: Event) -> Iterator[None]:
    """Let this thread send mutations only until the event is set."""
    token = _stop.set(stop)
    try:
        yield
    finally:
        _stop.reset(token)


def check() -> None:
    """Check, immediately before a mutation is sent, that the work was not stopped.

    :raises RedBrickStoppedError: if it was stopped.
    """
    stop = _stop.get()
    if stop is not None and stop.is_set():
        raise RedBrickStoppedError("The mutation was not sent because the work was stopped.")
