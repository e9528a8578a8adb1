"""Split iterables into chunks."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

T = TypeVar("T")


def in_chunks(entries: Iterable[T], size: int) -> Iterator[list[T]]:
    """Split entries into lists of at most ``size``, consuming the input lazily.

    :param entries: the entries; only as many are consumed as were asked for.
    :param size: the maximum length of a list.
    """
    remaining = iter(entries)
    return iter(lambda: list(islice(remaining, size)), [])
