"""Walking a listing page by page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.exceptions import (
    RedBrickAnswerError,
    RedBrickAPIError,
    RedBrickPayloadTooLargeError,
    RedBrickRefusedError,
    RedBrickServerError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SMALLEST_PAGE = 25


def pages(fetch: Callable[[str | None, int], tuple[list[Any], str | None]], *, page_size: int) -> Iterator[Any]:
    """Yield the entries of every page, asking for smaller pages when the server refuses large ones.

    A page may be empty and still have a cursor: the list goes on.

    :param fetch: ``(cursor, first) -> (entries, next cursor)``.
    :raises RedBrickAPIError: when a page cannot be read. What came before it was yielded; the list is not complete.
    """
    cursor: str | None = None
    seen: set[str] = set()
    first = page_size
    while True:
        try:
            entries, following = fetch(cursor, first)
        except RedBrickAPIError as error:
            if first <= SMALLEST_PAGE or not _may_be_the_size(error):
                raise
            first = max(SMALLEST_PAGE, first // 2)
            continue
        yield from entries
        if not following:
            return
        if following in seen:
            raise RedBrickAnswerError("RedBrick's listing goes in circles: a page named an earlier one as the next.")
        seen.add(following)
        cursor = following


def _may_be_the_size(error: RedBrickAPIError) -> bool:
    """Whether asking for fewer entries may help: the limit is not documented, so a refusal may be about it."""
    if isinstance(error, RedBrickServerError):
        return error.status in {500, 504}
    return isinstance(error, (RedBrickPayloadTooLargeError, RedBrickRefusedError))
