"""Who is told what requests cost: the seam for metrics, of which nothing here knows how they are kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from airflow_provider_redbrick.exceptions import RedBrickAPIError


class Observer(Protocol):
    """Is told by any thread, in the middle of its work: it must be quick, and raise nothing. Times are in seconds."""

    def answered(self, operation: str, seconds: float, error: RedBrickAPIError | None) -> None:
        """Take notice of a request to the API that has come to its end, and of the error it ended with."""

    def retrying(self, operation: str, error: RedBrickAPIError) -> None:
        """Take notice that a request, to the API or to storage, is sent again because of an error."""

    def waited(self, seconds: float) -> None:
        """Take notice that a request was held back: by the server's limit, or to keep below the rate that is set."""


class NoObserver:
    """Takes no notice."""

    def answered(self, operation: str, seconds: float, error: RedBrickAPIError | None) -> None:
        """Do nothing."""

    def retrying(self, operation: str, error: RedBrickAPIError) -> None:
        """Do nothing."""

    def waited(self, seconds: float) -> None:
        """Do nothing."""
