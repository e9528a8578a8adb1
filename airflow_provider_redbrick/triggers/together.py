"""Questions that several ask at the same moment, asked in one go."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Generic, TypeVar

from airflow_provider_redbrick.exceptions import RedBrickError, RedBrickNotFoundError, RedBrickRefusedError
from airflow_provider_redbrick.triggers.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

# Seconds that a question is held back, so that all whose turn it is can join.
GATHER = 0.05

Asked = TypeVar("Asked")
Seen = TypeVar("Seen")


class Together(Generic[Asked, Seen]):
    """Asks for what all want that come within a moment, and gives each what it wants.

    :param ask: asks for some keys, in a thread, and returns for each what is seen or why it cannot be.
    """

    def __init__(self, ask: Callable[[Sequence[Asked]], dict[Asked, Seen | RedBrickError]]) -> None:
        self._ask = ask
        self._wanted: dict[Asked, None] = {}
        self._asking: asyncio.Task[dict[Asked, Seen | RedBrickError]] | None = None

    async def ask(self, wanted: Collection[Asked]) -> dict[Asked, Seen | RedBrickError]:
        """Return for each key what is seen, or why it cannot be."""
        if self._asking is None:
            self._asking = asyncio.create_task(self._answers())
        self._wanted.update(dict.fromkeys(wanted))
        # One of them may be cancelled; the others wait on.
        answers = await asyncio.shield(self._asking)
        return {key: answers[key] for key in wanted}

    async def _answers(self) -> dict[Asked, Seen | RedBrickError]:
        await asyncio.sleep(GATHER)
        wanted, self._wanted, self._asking = list(self._wanted), {}, None
        try:
            return await in_thread(self._ask, wanted)
        except RedBrickError as error:
            return dict.fromkeys(wanted, error)


def apart_if_need_be(
    ask: Callable[[Sequence[str]], dict[str, Seen | RedBrickError]], wanted: Sequence[str]
) -> dict[str, Seen | RedBrickError]:
    """Ask for all at once, if that is possible: what is wrong with one must not hurt the others."""
    try:
        return ask(wanted) if wanted else {}
    except (RedBrickRefusedError, RedBrickNotFoundError) as error:
        if len(wanted) == 1:
            return {wanted[0]: error}
    half = len(wanted) // 2
    return apart_if_need_be(ask, wanted[:half]) | apart_if_need_be(ask, wanted[half:])
