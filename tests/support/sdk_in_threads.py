"""Watch from where Airflow's Task SDK is called."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from asgiref.sync import async_to_sync

from airflow_provider_redbrick.hooks.redbrick import RedBrickHook

if TYPE_CHECKING:
    import pytest


def loops_of_connections(monkeypatch: pytest.MonkeyPatch) -> list[asyncio.AbstractEventLoop]:
    """Return a list that grows by the event loop in which each connection is read.

    Below Airflow 3.2.2 the triggerer's Task SDK goes from a thread to an event loop as this does.
    """
    loops: list[asyncio.AbstractEventLoop] = []
    read = RedBrickHook.get_connection

    async def note() -> None:
        loops.append(asyncio.get_running_loop())

    def get_connection(conn_id: str) -> Any:
        async_to_sync(note)()
        return read(conn_id)

    monkeypatch.setattr(RedBrickHook, "get_connection", staticmethod(get_connection))
    return loops
