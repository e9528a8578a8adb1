"""Looking at the queues now and then while nobody has the page open, so that it can show their course."""

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


class Sampling:
    """Counts the queues of some projects again and again, in a thread that ends with its process.

    :param choices: the projects; others are counted only while somebody looks at them.
    :param minutes: from one look to the next. The first comes after them: a server that starts has other work.
    :param days: how long what was seen is kept.
    """

    def __init__(self, choices: Sequence[Choice], *, minutes: float, days: float) -> None:
        self._choices = choices
        self._seconds = minutes * 60
        self._days = days
        self._over = Event()
        self._troubles: dict[Choice, str] = {}

    def start(self) -> None:
        """Begin."""
        Thread(target=self._run, name="redbrick-sampling", daemon=True).start()

    def stop(self) -> None:
        """End before the next look."""
        self._over.set()

    def _run(self) -> None:
        while not self._over.wait(self._seconds):
            self.look()

    def look(self) -> None:
        """Count all queues once; what cannot be counted is said once, and not at every look."""
        for choice in self._choices:
            try:
                self._sample(choice)
            except Exception as error:  # noqa: BLE001 - the next look may fare better
                trouble = f"{type(error).__name__}: {error}"
                if self._troubles.get(choice) != trouble:
                    log.info("The queues of connection %r are not counted: %s", choice.connection_id, trouble)
                self._troubles[choice] = trouble
            else:
                self._troubles.pop(choice, None)

    def _sample(self, choice: Choice) -> None:
        with closing(PageHook(choice.connection_id)) as hook:
            project = hook.project(choice.project_id)
            counts = project.queues()
        records.courses_of(project.project_id, counts, days=self._days)
