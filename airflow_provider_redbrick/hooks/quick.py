"""A hook for whoever cannot wait: somebody sits before a page, or a message must go out."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

from airflow_provider_redbrick.api.retry import RetryPolicy
from airflow_provider_redbrick.hooks.redbrick import RedBrickHook

if TYPE_CHECKING:
    from airflow_provider_redbrick.api.client import RedBrickClient
    from airflow_provider_redbrick.hooks.settings import Settings

_SECONDS = 8.0


class RedBrickQuickHook(RedBrickHook):
    """A hook that asks once, and does not wait long."""

    @cached_property
    def settings(self) -> Settings:
        """The connection's settings, with less patience."""
        found = super().settings
        return replace(found, timeout=min(found.timeout, _SECONDS))

    @cached_property
    def client(self) -> RedBrickClient:
        """A client that tries once."""
        return self._new_client(RetryPolicy(max_attempts=1))
