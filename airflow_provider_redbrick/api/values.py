"""Limit the number of JSON values, counted before parsing.

A byte of JSON can become a hundred bytes in memory, so a size limit alone does not limit memory.
"""

from __future__ import annotations

MOST_VALUES = 10_000_000
"""Maximum objects, lists and elements in a text. A large task has some hundred thousand."""


def count_values(text: str | bytes) -> int:
    """Return an upper bound of the number of values in JSON text.

    Brackets and commas in strings are counted too.
    """
    if isinstance(text, str):
        return sum(map(text.count, "{[,"))
    return sum(map(text.count, (b"{", b"[", b",")))


def value_count_problem(count: int) -> str | None:
    """Return the problem with a number of values, or ``None`` if it is allowed."""
    return f"it has more than {MOST_VALUES} values" if count > MOST_VALUES else None
