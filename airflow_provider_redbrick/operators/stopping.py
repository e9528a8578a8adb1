"""Stopping an operator cleanly when Airflow ends it.

1. Airflow calls ``on_kill`` in the main thread. While work is in progress it raises, and the work's ``finally`` blocks
   release claims on the way out.
2. Before the work has begun there is nothing to clean up. A flag then prevents the work from starting.
3. Timeouts and signals are not subclasses of ``Exception``, so that user code cannot catch them by accident. They are
   logged with what is known to be done, and re-raised.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.exceptions import RedBrickStoppedError
from airflow_provider_redbrick.lineage.operator import TracedOperator
from airflow_provider_redbrick.links.redbrick import InLinkedProject

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


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
