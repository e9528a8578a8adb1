"""A hook for whoever cannot wait: somebody sits before a page, or a message must go out."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from airflow_provider_redbrick.api.retry import RetryPolicy
from airflow_provider_redbrick.api.threads import read_once
from airflow_provider_redbrick.hooks.redbrick import RedBrickHook

if TYPE_CHECKING:
    from airflow_provider_redbrick.api.client import RedBrickClient
    from airflow_provider_redbrick.hooks.settings import Settings

_SECONDS = 8.0


class RedBrickQuickHook(RedBrickHook):
    """A hook that asks once, and does not wait long."""

    def _read_settings(self) -> Settings:
        """Read the connection's settings, with a shorter timeout."""
        settings = super()._read_settings()
        return replace(settings, timeout=min(settings.timeout, _SECONDS))

    @read_once
    def client(self) -> RedBrickClient:
        """A client that tries once."""
        return self._new_client(RetryPolicy(max_attempts=1))
