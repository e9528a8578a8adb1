"""Sample queue lengths in the background, so that the page shows their history."""

from __future__ import annotations

import logging
from contextlib import closing
from threading import Event, Thread
from typing import TYPE_CHECKING

from airflow_provider_redbrick.plugins import records
from airflow_provider_redbrick.plugins.reading import PageHook

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_redbrick.plugins.choices import Choice

log = logging.getLogger(__name__)


class QueueSampler:
    """Count the queues of some projects periodically, in a daemon thread.

    :param choices: the projects. Others are counted only while their page is open.
    :param minutes: minutes between counts, and before the first one: a starting server is busy.
    :param days: days of history to keep.
    """

    def __init__(self, choices: Sequence[Choice], *, minutes: float, days: float) -> None:
        self._choices = choices
        self._seconds = minutes * 60
        self._days = days
        self._over = Event()
        self._troubles: dict[Choice, str] = {}

    def start(self) -> None:
        """Start the thread."""
        Thread(target=self._run, name="redbrick-sampling", daemon=True).start()

    def stop(self) -> None:
        """Stop before the next count."""
        self._over.set()

    def _run(self) -> None:
        while not self._over.wait(self._seconds):
            self.look()

    def look(self) -> None:
        """Count all queues once. A repeated error is logged only once."""
        for choice in self._choices:
            try:
                self._sample(choice)
            except Exception as error:  # noqa: BLE001 - the next count may succeed
                trouble = f"{type(error).__name__}: {error}"
                if self._troubles.get(choice) != trouble:
                    log.info("The queues of connection %r could not be counted: %s", choice.connection_id, trouble)
                self._troubles[choice] = trouble
            else:
                self._troubles.pop(choice, None)

    def _sample(self, choice: Choice) -> None:
        with closing(PageHook(choice.connection_id)) as hook:
            project = hook.project(choice.project_id)
            counts = project.queues()
        records.update_history(project.project_id, counts, days=self._days)
