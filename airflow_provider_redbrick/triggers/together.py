"""Coalesce requests that start at the same moment."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Generic, TypeVar

from airflow_provider_redbrick.exceptions import RedBrickError, RedBrickNotFoundError, RedBrickRefusedError
from airflow_provider_redbrick.triggers.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

#: Seconds that a request is delayed, so that triggers that poll at the same moment can join it.
GATHER = 0.05

Key = TypeVar("Key")
Value = TypeVar("Value")


class RequestCoalescer(Generic[Key, Value]):
    """Combine the keys requested within ``GATHER`` seconds into one request.

    :param ask: requests some keys, in a thread, and returns each key's value or the error that prevented it.
    """

    def __init__(self, ask: Callable[[Sequence[Key]], dict[Key, Value | RedBrickError]]) -> None:
        self._ask = ask
        self._pending: dict[Key, None] = {}
        self._asking: asyncio.Task[dict[Key, Value | RedBrickError]] | None = None

    async def ask(self, keys: Collection[Key]) -> dict[Key, Value | RedBrickError]:
        """Return each key's value, or the error that prevented it."""
        if self._asking is None:
            self._asking = asyncio.create_task(self._answers())
        self._pending.update(dict.fromkeys(keys))
        # A canceled caller must not cancel the request of the others.
        answers = await asyncio.shield(self._asking)
        return {key: answers[key] for key in keys}

    async def ask_one(self, key: Key) -> Value:
        """Return the value of one key.

        :raises RedBrickError: if it cannot be read.
        """
        answer = (await self.ask([key]))[key]
        if isinstance(answer, RedBrickError):
            raise answer.with_traceback(None)
        return answer

    async def _answers(self) -> dict[Key, Value | RedBrickError]:
        await asyncio.sleep(GATHER)
        keys, self._pending, self._asking = list(self._pending), {}, None
        try:
            return await in_thread(self._ask, keys)
        except RedBrickError as error:
            return dict.fromkeys(keys, error)


def bisect_on_error(
    ask: Callable[[Sequence[str]], dict[str, Value | RedBrickError]], keys: Sequence[str]
) -> dict[str, Value | RedBrickError]:
    """Request all keys together, and bisect when the server refuses.

    One invalid key fails alone instead of failing the others.

    :param ask: requests some keys and returns each key's value or error.
    :param keys: the keys.
    :return: each key's value, or the error that prevented it.
    """
    try:
        return ask(keys) if keys else {}
    except (RedBrickRefusedError, RedBrickNotFoundError) as error:
        if len(keys) == 1:
            return {keys[0]: error}
    half = len(keys) // 2
    return bisect_on_error(ask, keys[:half]) | bisect_on_error(ask, keys[half:])
