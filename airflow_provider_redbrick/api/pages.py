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

MOST_PAGES = 100_000
"""Pages of a listing: 20 million tasks, or 2.5 million where a server gives few at a time."""

MOST_EMPTY = 10_000
"""Empty pages that follow each other: a server that searches a page at a time may find nothing for long."""

# How often the same page may come again: a task that moves while its queue is listed is shown twice.
_MOST_AGAIN = 3


def pages(fetch: Callable[[str | None, int], tuple[list[Any], str | None]], *, page_size: int) -> Iterator[Any]:
    """Yield the entries of every page, asking for smaller pages when the server refuses large ones.

    A page may be empty and still have a cursor: the list goes on.

    :param fetch: ``(cursor, first) -> (entries, next cursor)``.
    :raises RedBrickAPIError: when a page cannot be read, or there is no end of them. What came before it was yielded;
        the list is not complete.
    """
    cursor: str | None = None
    first = page_size
    watch = _Watch()
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
        watch.saw(entries, following)
        cursor = following


class _Watch:
    """Notices that a listing has no end, remembering little of it.

    Of the pages themselves it remembers one: the first, then the second, the fourth and so on, so that a circle of any
    size is noticed whose cursors are new each time.
    """

    def __init__(self) -> None:
        self._pages = 0
        self._empty = 0
        self._again = 0
        self._cursors: set[int] = set()
        self._ids: list[Any] = []

    def saw(self, entries: list[Any], following: object) -> None:
        """Take notice of a page that is followed by another.

        :raises RedBrickAnswerError: when this cannot go on.
        """
        if not isinstance(following, str):
            raise RedBrickAnswerError("RedBrick's listing names no page that could come next.")
        self._pages += 1
        self._empty = 0 if entries else self._empty + 1
        ids = [entry.get("taskId") if isinstance(entry, dict) else entry for entry in entries]
        self._again += bool(ids) and ids == self._ids
        if hash(following) in self._cursors or self._again > _MOST_AGAIN:
            raise RedBrickAnswerError("RedBrick's listing goes in circles: a page that was there comes again.")
        if self._pages >= MOST_PAGES or self._empty >= MOST_EMPTY:
            raise RedBrickAnswerError(f"RedBrick's listing does not come to an end: {self._pages} pages so far.")
        self._cursors.add(hash(following))
        if self._pages & (self._pages - 1) == 0:
            self._ids, self._again = ids, 0


def _may_be_the_size(error: RedBrickAPIError) -> bool:
    """Whether asking for fewer entries may help: the limit is not documented, so a refusal may be about it."""
    if isinstance(error, RedBrickServerError):
        return error.status in {500, 504}
    return isinstance(error, (RedBrickPayloadTooLargeError, RedBrickRefusedError))
