"""Read a listing page by page.

Design notes on pages:

1. The server's page limit is not documented. When a page is refused, its size is halved, down to
   :data:`SMALLEST_PAGE`.
2. An empty page with a cursor is not the end: a server may search a page at a time.
3. A listing that does not end is an error: a repeated cursor, the same page several times, or too many pages. The
   check remembers hashes of cursors and the ids of one page.
4. A page that cannot be read is an error, and never the end of the listing.
"""

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
"""Maximum pages of a listing: 20 million tasks, or 2.5 million with small pages."""

MOST_EMPTY = 10_000
"""Maximum consecutive empty pages: a server that searches a page at a time may find nothing for long."""

# How often a page may repeat: a task that moves while its queue is listed is shown twice.
_MAX_REPEATS = 3


def pages(fetch: Callable[[str | None, int], tuple[list[Any], str | None]], *, page_size: int) -> Iterator[Any]:
    """Yield the entries of all pages, reducing the page size if a page is refused.

    A page may be empty and still have a cursor, in which case the listing continues.

    :param fetch: ``(cursor, first) -> (entries, next cursor)``.
    :param page_size: the initial number of entries per page.
    :raises RedBrickAPIError: if a page cannot be read, or the listing does not end. The entries before it were
        yielded; the listing is incomplete.
    """
    cursor: str | None = None
    first = page_size
    guard = _EndlessListingGuard()
    while True:
        try:
            entries, following = fetch(cursor, first)
        except RedBrickAPIError as error:
            if first <= SMALLEST_PAGE or not _size_may_matter(error):
                raise
            first = max(SMALLEST_PAGE, first // 2)
            continue
        yield from entries
        if not following:
            return
        guard.check(entries, following)
        cursor = following


class _EndlessListingGuard:
    """Detect a listing that does not end, in little memory.

    Of the pages only one is remembered: the first, then the second, the fourth and so on. A cycle of any length is
    thus detected even if its cursors are new each time.
    """

    def __init__(self) -> None:
        self._pages = 0
        self._empty = 0
        self._repeats = 0
        self._cursors: set[int] = set()
        self._ids: list[Any] = []

    def check(self, entries: list[Any], following: object) -> None:
        """Check a page that is followed by another one.

        :param entries: the page's entries.
        :param following: the cursor of the next page.
        :raises RedBrickAnswerError: if the listing does not end.
        """
        if not isinstance(following, str):
            raise RedBrickAnswerError("RedBrick's listing has an invalid cursor for the next page.")
        self._pages += 1
        self._empty = 0 if entries else self._empty + 1
        ids = [entry.get("taskId") if isinstance(entry, dict) else entry for entry in entries]
        self._repeats += bool(ids) and ids == self._ids
        if hash(following) in self._cursors or self._repeats > _MAX_REPEATS:
            raise RedBrickAnswerError("RedBrick's listing repeats a page and does not end.")
        if self._pages >= MOST_PAGES or self._empty >= MOST_EMPTY:
            raise RedBrickAnswerError(f"RedBrick's listing does not end. Reading stopped after {self._pages} pages.")
        self._cursors.add(hash(following))
        if self._pages & (self._pages - 1) == 0:
            self._ids, self._repeats = ids, 0


def _size_may_matter(error: RedBrickAPIError) -> bool:
    """Return whether a smaller page may help.

    The page limit is not documented, so any refusal may be about the size.
    """
    if isinstance(error, RedBrickServerError):
        return error.status in {500, 504}
    return isinstance(error, (RedBrickPayloadTooLargeError, RedBrickRefusedError))
