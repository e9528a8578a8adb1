"""State that an event trigger keeps between polls.

Design note on stored state:

1. Airflow's state store belongs to the asset. The key is a checksum of what the trigger watches, so that several
   triggers of one asset do not overwrite each other.
2. A state that cannot be read raises: starting without it would lose or repeat events.
3. A state that cannot be written stays in memory and is written with the next change.
4. Where one trigger watches for several assets, Airflow refuses access; the state is then kept in this process only.
"""

from __future__ import annotations

import json
import logging
import zlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

log = logging.getLogger(__name__)


class EventState:
    """Store one state in an asset's state store, or in this process without one.

    :param store: the trigger's ``asset_state_store``. Before Airflow 3.3.2 it is None or has no asynchronous methods.
    :param about: JSON that distinguishes this trigger's state from others of the same asset.
    """

    def __init__(self, store: Any, about: object) -> None:
        self._store = store if hasattr(store, "aget") else None
        self._key = f"redbrick-{zlib.crc32(json.dumps(about, sort_keys=True).encode()):08x}"
        self._state: Mapping[str, Any] | None = None
        self._kept: Mapping[str, Any] | None = None
        self._recalled = False

    async def recall(self) -> Mapping[str, Any] | None:
        """Return the state, or None before the first one.

        :raises Exception: if the store cannot be read now. Starting without the state would lose events.
        """
        if not self._recalled:
            if self._store is not None:
                try:
                    self._kept = await self._store.aget(self._key)
                except ValueError:
                    # Airflow raises this when the same trigger watches for several assets.
                    log.warning("Several assets use this trigger. Its state is kept in this process only.")
                    self._store = None
            self._state, self._recalled = self._kept, True
        return self._state

    async def keep(self, state: Mapping[str, Any]) -> None:
        """Save a state.

        :raises Exception: if the store cannot be written now. The state stays in memory and is written the next time.
        """
        self._state = state
        if self._store is not None and state != self._kept:
            await self._store.aset(self._key, dict(state))
            self._kept = state
