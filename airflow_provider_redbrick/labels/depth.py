"""JSON that is nested no deeper, and whose parts are no longer, than can be meant: known before it is parsed.

Parsers take memory by the square of the depth, or give up in ways of their own.
"""

from __future__ import annotations

from itertools import accumulate

from airflow_provider_redbrick.api.values import too_many, values_in

DEEPEST = 100
"""Lists and objects within each other; labels need ten."""

# What is looked at takes up to fifty times its size in memory for a moment.
_AT_A_TIME = 1 << 16
# Brackets in strings count for nothing: quotes tell where those are. The others become steps, as signed bytes.
_NO_SHAPE = bytes(set(range(256)) - set(b'[]{}"'))
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_THERE_AND_BACK = b"\x01\xff"


class BeyondError(Exception):
    """It is too much of something; the message says of what."""


def check_depth(text: bytes) -> None:
    """Check a whole text before it is parsed.

    :raises BeyondError: when it is nested too deep, or has too many values.
    """
    _check_values(values_in(text))
    # Most labels of one task have not even so many brackets.
    if text.count(b"{") + text.count(b"[") > DEEPEST:
        Depth().look(text)


def _check_values(count: int) -> None:
    problem = too_many(count)
    if problem is not None:
        raise BeyondError(problem)


class Depth:
    """Follows the depth of JSON text, piece by piece.

    :ivar depth: at the end of what was looked at.
    """

    def __init__(self) -> None:
        self.depth = 0
        self._in_string = False
        self._left = b""

    def look(self, piece: bytes) -> None:
        """Look at the next piece.

        :raises BeyondError: when it is nested too deep.
        """
        for at in range(0, len(piece), _AT_A_TIME):
            self._look(piece[at : at + _AT_A_TIME])

    def _look(self, piece: bytes) -> None:
        text = self._left + piece
        self._left = b""
        if b"\\" in text:
            # What is left of the others escapes neither a quote nor the next piece.
            text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
            if text.endswith(b"\\"):
                self._left = b"\\"
        steps, self._in_string = steps_of(text, in_string=self._in_string)
        if not steps:
            return
        # Half of all are innermost ones, which add one level: leaving them out halves the work.
        depths = levels(steps.replace(_THERE_AND_BACK, b""), self.depth)
        if max(depths) >= DEEPEST and max(levels(steps, self.depth)) > DEEPEST:
            raise BeyondError(f"it is nested deeper than {DEEPEST} levels")
        self.depth = depths[-1]


def steps_of(text: bytes, *, in_string: bool = False) -> tuple[bytes, bool]:
    """Return the brackets outside of strings as steps, and whether the text ends within a string.

    :param text: JSON without escaped quotes.
    :param in_string: whether it begins within a string.
    """
    parts = text.translate(_STEPS, _NO_SHAPE).split(b'"')
    return b"".join(parts[in_string::2]), in_string ^ (len(parts) % 2 == 0)


def levels(steps: bytes, depth: int) -> list[int]:
    """Return the depth before the first step, and after each."""
    return list(accumulate(memoryview(steps).cast("b"), initial=depth))
