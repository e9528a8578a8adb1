"""What an event trigger remembers between two looks, and where Airflow has a place for it, between two triggerers."""

from __future__ import annotations

import json
import logging
import zlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

log = logging.getLogger(__name__)


class Memory:
    """One state, kept in an asset's state store if there is one.

    :param store: the trigger's ``asset_state_store``: None, or without asynchronous methods, before Airflow 3.3.2.
    :param about: what tells this trigger's state from that of others of the same asset; JSON.
    """

    def __init__(self, store: Any, about: object) -> None:
        self._store = store if hasattr(store, "aget") else None
        self._key = f"redbrick-{zlib.crc32(json.dumps(about, sort_keys=True).encode()):08x}"
        self._state: Mapping[str, Any] | None = None
        self._kept: Mapping[str, Any] | None = None
        self._recalled = False

    async def recall(self) -> Mapping[str, Any] | None:
        """Return the state; None when there is none yet.

        :raises Exception: when it cannot be read now. To begin anew instead would be to forget.
        """
        if not self._recalled:
            if self._store is not None:
                try:
                    self._kept = await self._store.aget(self._key)
                except ValueError:
                    # Airflow says so when the same trigger watches for several assets.
                    log.warning("Several assets have this trigger: what it told is remembered in this process alone.")
                    self._store = None
            self._state, self._recalled = self._kept, True
        return self._state

    async def keep(self, state: Mapping[str, Any]) -> None:
        """Remember a state.

        :raises Exception: when it cannot be written now; it is remembered here all the same, and written the next time.
        """
        self._state = state
        if self._store is not None and state != self._kept:
            await self._store.aset(self._key, dict(state))
            self._kept = state
