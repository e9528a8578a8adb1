"""Many things, a few at a time."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

T = TypeVar("T")


def in_chunks(entries: Iterable[T], size: int) -> Iterator[list[T]]:
    """Return entries in lists of so many, reading no further than what is asked for."""
    remaining = iter(entries)
    return iter(lambda: list(islice(remaining, size)), [])
