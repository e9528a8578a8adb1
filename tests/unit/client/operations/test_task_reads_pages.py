"""Tests for listings: nothing missing, nothing twice, and errors are not the end."""

from __future__ import annotations

from itertools import islice

import pytest

from airflow_provider_redbrick import exceptions as err
from airflow_provider_redbrick.client.operations.task_reads import SMALLEST_PAGE, pages

TOO_LARGE = [
    err.RedBrickPayloadTooLargeError("x", status=413),
    err.RedBrickRefusedError("first is too large"),
    err.RedBrickServerError("x", status=504),
]


class Listing:
    """A listing of numbers whose cursor is the next number; refuses pages over ``largest`` with ``error``."""

    def __init__(self, total, *, largest=10_000, error=None):
        self.total, self.largest, self.error = total, largest, error
        self.asked = []

    def __call__(self, cursor, first):
        self.asked.append((cursor, first))
        if first > self.largest:
            raise self.error
        start = int(cursor or 0)
        end = min(start + first, self.total)
        return list(range(start, end)), (str(end) if end < self.total else None)


@pytest.mark.parametrize("total", [0, 1, 199, 200, 201, 1000])
def test_pages_yield_every_entry_once_in_order(total):
    listing = Listing(total)
    assert list(pages(listing, page_size=200)) == list(range(total))
    assert len(listing.asked) == max(1, -(-total // 200))


def test_empty_page_with_a_cursor_is_not_the_end():
    script = {None: ([], "a"), "a": ([1], "b"), "b": ([], "c"), "c": ([2], None)}
    assert list(pages(lambda cursor, first: script[cursor], page_size=10)) == [1, 2]


@pytest.mark.parametrize("error", TOO_LARGE, ids=lambda error: type(error).__name__)
def test_refused_page_is_requested_smaller_and_stays_smaller(error):
    listing = Listing(180, largest=60, error=error)
    assert list(pages(listing, page_size=200)) == list(range(180))
    assert listing.asked == [(None, 200), (None, 100), (None, 50), ("50", 50), ("100", 50), ("150", 50)]


def test_smallest_page_refused_raises_the_error():
    listing = Listing(100, largest=0, error=err.RedBrickRefusedError("no such stage"))
    with pytest.raises(err.RedBrickRefusedError, match="no such stage"):
        list(pages(listing, page_size=200))
    assert [first for _, first in listing.asked] == [200, 100, 50, SMALLEST_PAGE]


@pytest.mark.parametrize(
    "error", [err.RedBrickAuthError("x"), err.RedBrickAnswerError("x"), err.RedBrickNotFoundError("x")]
)
def test_error_unrelated_to_size_is_not_retried(error):
    listing = Listing(100, largest=0, error=error)
    with pytest.raises(type(error)):
        list(pages(listing, page_size=200))
    assert len(listing.asked) == 1


def test_error_in_a_later_page_is_raised_after_earlier_entries():
    def fetch(cursor, first):
        if cursor is None:
            return [1, 2], "a"
        raise err.RedBrickConnectionError("gone")

    walk = pages(fetch, page_size=10)
    assert list(islice(walk, 2)) == [1, 2]
    with pytest.raises(err.RedBrickConnectionError, match="gone"):
        next(walk)


@pytest.mark.parametrize("circle", [{"a": "a"}, {"a": "b", "b": "a"}, {"a": "b", "b": "c", "c": "b"}])
def test_cyclic_listing_is_an_error(circle):
    def fetch(cursor, first):
        return [cursor], circle[cursor] if cursor else "a"

    with pytest.raises(err.RedBrickAnswerError, match="repeats a page"):
        list(islice(pages(fetch, page_size=10), 20))


def test_pages_are_requested_lazily():
    listing = Listing(1000)
    walk = pages(listing, page_size=10)
    assert listing.asked == []
    list(islice(walk, 10))
    assert len(listing.asked) == 1
