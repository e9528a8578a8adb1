"""Enforce JSON depth and size limits before parsing.

The memory that parsers take grows with the square of the depth, and parsers fail on deep nesting in different ways.
JSON text is scanned for brackets outside of strings, in pieces of 64 KiB:

1. Escaped quotes are removed before strings are located; an escape may span two pieces.
2. Brackets become signed steps, and their running sum is the depth.
"""

from __future__ import annotations

from itertools import accumulate

from airflow_provider_redbrick.api.values import count_values, value_count_problem

DEEPEST = 100
"""The maximum nesting depth; labels need ten levels."""

# Scanning temporarily needs up to fifty times the size of a piece in memory.
_AT_A_TIME = 1 << 16
# Quotes delimit strings, whose brackets are ignored. The other brackets become signed steps.
_NO_SHAPE = bytes(set(range(256)) - set(b'[]{}"'))
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_THERE_AND_BACK = b"\x01\xff"


class BeyondError(Exception):
    """JSON exceeds a limit; the message names the limit."""


def check_depth(text: bytes) -> None:
    """Check a complete JSON text before it is parsed.

    :raises BeyondError: if it is nested too deeply or has too many values.
    """
    _check_values(count_values(text))
    # The labels of most tasks have fewer brackets than this.
    if text.count(b"{") + text.count(b"[") > DEEPEST:
        Depth().look(text)


def _check_values(count: int) -> None:
    problem = value_count_problem(count)
    if problem is not None:
        raise BeyondError(problem)


class Depth:
    """Track the nesting depth of JSON text across pieces.

    :ivar depth: the depth at the end of the text scanned so far.
    """

    def __init__(self) -> None:
        self.depth = 0
        self._in_string = False
        self._left = b""

    def look(self, piece: bytes) -> None:
        """Scan the next piece.

        :raises BeyondError: if it is nested too deeply.
        """
        for at in range(0, len(piece), _AT_A_TIME):
            self._look(piece[at : at + _AT_A_TIME])

    def _look(self, piece: bytes) -> None:
        text = self._left + piece
        self._left = b""
        if b"\\" in text:
            # The remaining backslashes escape neither a quote nor the start of the next piece.
            text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
            if text.endswith(b"\\"):
                self._left = b"\\"
        steps, self._in_string = steps_of(text, in_string=self._in_string)
        if not steps:
            return
        # Half of all pairs are innermost, and add one level: leaving them out halves the work.
        depths = levels(steps.replace(_THERE_AND_BACK, b""), self.depth)
        if max(depths) >= DEEPEST and max(levels(steps, self.depth)) > DEEPEST:
            raise BeyondError(f"it is nested deeper than {DEEPEST} levels")
        self.depth = depths[-1]


def steps_of(text: bytes, *, in_string: bool = False) -> tuple[bytes, bool]:
    """Return the brackets outside of strings as signed steps.

    :param text: JSON without escaped quotes.
    :param in_string: whether the text begins within a string.
    :return: the steps, and whether the text ends within a string.
    """
    parts = text.translate(_STEPS, _NO_SHAPE).split(b'"')
    return b"".join(parts[in_string::2]), in_string ^ (len(parts) % 2 == 0)


def levels(steps: bytes, depth: int) -> list[int]:
    """Return the depth before the first step and after each step.

    :param steps: signed bytes, 1 for an opening and -1 for a closing bracket.
    :param depth: the depth before the first step.
    """
    return list(accumulate(memoryview(steps).cast("b"), initial=depth))
