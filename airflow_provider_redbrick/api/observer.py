"""Interface for metrics about requests.

The transport reports each attempt, retry and wait to an observer, and does not depend on how metrics are stored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from airflow_provider_redbrick.exceptions import RedBrickAPIError


class Observer(Protocol):
    """Receive events about requests.

    Methods are called by any thread, during its work: they must be fast and must not raise. Times are in seconds.
    """

    def answered(self, operation: str, seconds: float, error: RedBrickAPIError | None) -> None:
        """Record the end of an API request.

        :param operation: the API operation.
        :param seconds: the duration.
        :param error: the error it ended with; ``None`` for success.
        """

    def retrying(self, operation: str, error: RedBrickAPIError) -> None:
        """Record that a request, to the API or to storage, is sent again.

        :param operation: the operation.
        :param error: the error that caused the retry.
        """

    def waited(self, seconds: float) -> None:
        """Record that a request was delayed by the server's or the configured rate limit."""


class NoObserver:
    """Observer that ignores all events."""

    def answered(self, operation: str, seconds: float, error: RedBrickAPIError | None) -> None:
        """Do nothing.

        :param operation: ignored.
        :param seconds: ignored.
        :param error: ignored.
        """

    def retrying(self, operation: str, error: RedBrickAPIError) -> None:
        """Do nothing.

        :param operation: ignored.
        :param error: ignored.
        """

    def waited(self, seconds: float) -> None:
        """Do nothing."""
