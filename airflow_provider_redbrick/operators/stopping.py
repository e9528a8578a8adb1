"""What becomes of an operator's work when Airflow stops it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.exceptions import RedBrickStoppedError
from airflow_provider_redbrick.lineage.operator import TracedOperator
from airflow_provider_redbrick.links.redbrick import InLinkedProject

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class StoppableOperator(InLinkedProject, TracedOperator):
    """Base of the operators that work for long, and leave things in order when they are stopped."""

    stopping = "nothing more is sent, and what was claimed and not finished is given back"
    next_try = "does the rest"
    _at_work = False
    _to_stop = False

    def as_returned(self, manifest: dict[str, Any]) -> dict[str, Any]:
        """Return a manifest as the operator returns it.

        With ``multiple_outputs`` each field becomes an XCom. Airflow 3.0 refuses an XCom of None, which would fail the
        Airflow task after its work is done, so fields of None are left out.
        """
        if not self.multiple_outputs:
            return manifest
        return {field: value for field, value in manifest.items() if value is not None}

    @contextmanager
    def at_work(self, so_far: Callable[[], str]) -> Iterator[None]:
        """Say that there is something to stop, and when it is stopped, say in the log how far it came.

        :param so_far: what is known to be done by then.
        :raises RedBrickStoppedError: when Airflow has stopped the task before the work began.
        """
        if self._to_stop:
            raise self._stopped()
        self._at_work = True
        try:
            yield
        except Exception:
            raise
        except BaseException:
            # Killed, or timed out: Airflow lets neither pass for an exception that somebody may catch.
            self.log.warning(
                "%s was stopped. Known until then: %s. The next try %s.", self.operation, so_far(), self.next_try
            )
            raise
        finally:
            self._at_work = False

    def on_kill(self) -> None:
        """Stop between two requests; what is to be undone is undone on the way out.

        Airflow calls this in the main thread when the task is marked failed or cleared, and kills the process for
        good a few seconds later; also when the task has timed out, and everything has come to its end.
        """
        if self._at_work:
            self._at_work = False
            self.log.warning("Stopping: %s.", self.stopping)
            raise self._stopped()
        # While it only looks there is nothing to leave in order, but it must not begin any more.
        self._to_stop = True

    def _stopped(self) -> RedBrickStoppedError:
        return RedBrickStoppedError(f"{self.operation} was stopped by Airflow; the next try {self.next_try}.")
