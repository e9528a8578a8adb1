"""JSON that is nested no deeper, and whose parts are no longer, than can be meant: known before it is parsed.

Parsers take memory by the square of the depth, or give up in ways of their own.
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

from airflow_provider_redbrick.api.values import too_many, values_in

if TYPE_CHECKING:
    from io import BufferedReader

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

    def look(self, piece: bytes) -> int | None:
        """Look at the next piece; return how far up it gets, None when nothing in it begins or ends.

        :raises BeyondError: when it is nested too deep.
        """
        lowest = [self._look(piece[at : at + _AT_A_TIME]) for at in range(0, len(piece), _AT_A_TIME)]
        return min((each for each in lowest if each is not None), default=None)

    def _look(self, piece: bytes) -> int | None:
        text = self._left + piece
        self._left = b""
        if b"\\" in text:
            # What is left of the others escapes neither a quote nor the next piece.
            text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
            if text.endswith(b"\\"):
                self._left = b"\\"
        parts = text.translate(_STEPS, _NO_SHAPE).split(b'"')
        steps = b"".join(parts[self._in_string :: 2])
        self._in_string ^= len(parts) % 2 == 0
        if not steps:
            return None
        # Half of all are innermost ones, which add one level: leaving them out halves the work.
        depths = self._along(steps.replace(_THERE_AND_BACK, b""))
        if max(depths) >= DEEPEST and max(self._along(steps)) > DEEPEST:
            raise BeyondError(f"it is nested deeper than {DEEPEST} levels")
        self.depth = depths[-1]
        return min(depths)

    def _along(self, steps: bytes) -> list[int]:
        return list(accumulate(memoryview(steps).cast("b"), initial=self.depth))


class ArrayReader:
    """Reads an array for a parser.

    :param longest: bytes of one element.
    """

    def __init__(self, reader: BufferedReader, longest: int) -> None:
        self._reader = reader
        self._longest = longest
        self._depth = Depth()
        self._since = 0
        self._values = 0

    def read(self, size: int = -1) -> bytes:
        """Read on.

        :raises BeyondError: when something within what was read is nested too deep, or an element is too long or has
            too many values.
        """
        data = self._reader.read(size)
        lowest = self._depth.look(data)
        # An element has ended where the way up leads back to the array itself.
        ended = lowest is not None and lowest <= 1
        self._since = 0 if ended else self._since + len(data)
        self._values = 0 if ended else self._values + values_in(data)
        if self._since > self._longest:
            raise BeyondError(f"it is longer than {self._longest >> 20} MiB")
        _check_values(self._values)
        return data
