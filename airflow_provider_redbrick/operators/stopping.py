"""What becomes of an operator's work when Airflow stops it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from airflow_provider_redbrick.exceptions import RedBrickStoppedError
from airflow_provider_redbrick.hooks.in_project import InRedBrickProject

if TYPE_CHECKING:
    from collections.abc import Iterator


class StoppableOperator(InRedBrickProject):
    """Base of the operators that work for long, and leave things in order when they are stopped."""

    operation = ""
    stopping = "nothing more is sent, and what was claimed and not finished is given back"
    next_try = "does the rest"
    _at_work = False

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Say that there is something to stop."""
        self._at_work = True
        try:
            yield
        finally:
            self._at_work = False

    def on_kill(self) -> None:
        """Stop between two requests; what is to be undone is undone on the way out.

        Airflow calls this in the main thread when the task is marked failed or cleared, and kills the process for
        good a few seconds later.
        """
        if self._at_work:
            self._at_work = False
            self.log.warning("Stopping: %s.", self.stopping)
            raise RedBrickStoppedError(f"{self.operation} was stopped by Airflow; the next try {self.next_try}.")
