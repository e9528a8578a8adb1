"""JSON of no more values than can be meant: counted before it is parsed.

A byte of JSON can become a hundred in memory, so that a bound on bytes is none on memory.
"""

from __future__ import annotations

MOST_VALUES = 10_000_000
"""Objects, lists and what is in them, in one text; all labels of a large task are some hundred thousand."""


def values_in(text: str | bytes) -> int:
    """Return how many values JSON text has at most; what is in its strings is counted too."""
    if isinstance(text, str):
        return sum(map(text.count, "{[,"))
    return sum(map(text.count, (b"{", b"[", b",")))


def too_many(count: int) -> str | None:
    """Return what is wrong with so many values, None for nothing."""
    return f"it has more than {MOST_VALUES} values" if count > MOST_VALUES else None
