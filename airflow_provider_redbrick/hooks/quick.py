"""A hook for requests that a page or a notification waits for.

It makes one attempt with a timeout of at most 8 seconds.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from airflow_provider_redbrick.api.retry import RetryPolicy
from airflow_provider_redbrick.api.threads import read_once
from airflow_provider_redbrick.hooks.redbrick import RedBrickHook

if TYPE_CHECKING:
    from airflow_provider_redbrick.api.client import RedBrickClient
    from airflow_provider_redbrick.hooks.settings import Settings

_MAX_TIMEOUT_S = 8.0


class RedBrickQuickHook(RedBrickHook):
    """A hook that does not retry and has a short timeout."""

    def _read_settings(self) -> Settings:
        """Return the connection's settings with a timeout of at most 8 seconds."""
        settings = super()._read_settings()
        return replace(settings, timeout=min(settings.timeout, _MAX_TIMEOUT_S))

    @read_once
    def client(self) -> RedBrickClient:
        """A client that makes one attempt."""
        return self._new_client(RetryPolicy(max_attempts=1))
