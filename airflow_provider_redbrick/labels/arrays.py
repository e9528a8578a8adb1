"""Split a JSON array in a stream into its elements without parsing them.

A parser stops at the first invalid element. Splitting at the commas between elements loses only the invalid element.

1. Only commas and brackets outside of strings and elements separate elements. No other JSON syntax is checked here.
2. At most one element and one piece of the stream are held in memory.
3. An element with unbalanced brackets extends to the end of the stream, and the array is reported as unterminated.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_redbrick.labels.depth import levels, steps_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedReader

_PIECE = 1 << 17
_SPACE = b" \t\r\n"
# Blocks within one element are skipped as a whole, ten times as fast as bracket by bracket.
_BLOCK = 1 << 12
_INSIDE = re.compile(rb'"[^"]*"|[\[\]{}]')
_BETWEEN = re.compile(rb'["\[\]{,]')
_STEP = {b"{": 1, b"[": 1, b"}": -1, b"]": -1}


class ArrayError(Exception):
    """The rest of the array cannot be read.

    :param message: the reason.
    :param last: the incomplete element at which reading stopped, if any.
    """

    def __init__(self, message: str, last: Element | None = None) -> None:
        super().__init__(message)
        self.last = last


@dataclass(frozen=True)
class Element:
    """The text of one array element.

    :param line: the line of its first byte, counted from 1.
    :param start: the offset of its first byte in the stream, counted from 0.
    :param text: the bytes of the element, without surrounding whitespace.
    """

    line: int
    start: int
    text: bytes


def elements_of(reader: BufferedReader, *, longest: int, line: int = 1, start: int = 0) -> Iterator[Element]:
    """Yield the elements of an array.

    :param reader: a stream positioned at the opening bracket.
    :param longest: the maximum size of one element in bytes.
    :param line: the line of the opening bracket, counted from 1.
    :param start: the offset of the opening bracket in the stream.
    :raises ArrayError: if the array is not terminated, an element is too long, or data follows the array.
    """
    yield from _Array(reader, longest, line, start).elements()


class _Array:
    """The read position in an array."""

    def __init__(self, reader: BufferedReader, longest: int, line: int, start: int) -> None:
        self._reader = reader
        self._longest = longest
        self._line = line
        self._offset = start + len(reader.read(1))
        self._depth = 0
        self._in_string = False
        self._backslash = b""
        self._kept: list[bytes] = []
        self._size = 0

    def elements(self) -> Iterator[Element]:
        number = 0
        while piece := self._piece():
            scan = piece.replace(b"\\\\", b"__").replace(b'\\"', b"__") if b"\\" in piece else piece
            start = at = 0
            while (at := self._separator(scan, at)) >= 0:
                self._keep(piece[start:at])
                is_last = piece[at : at + 1] == b"]"
                element = self._element()
                if element.text or number or not is_last:
                    yield element
                if is_last:
                    self._check_end(piece[at + 1 :])
                    return
                number += 1
                at += 1
                start = at
            self._keep(piece[start:])
        raise ArrayError("the array has no end", self._element())

    def _check_end(self, rest: bytes) -> None:
        while not rest.strip(_SPACE):
            rest = self._reader.read1(_PIECE)
            if not rest:
                return
        raise ArrayError("something follows the end of the array")

    def _piece(self) -> bytes:
        """Read the next piece; hold back a backslash whose escaped byte is missing."""
        piece, self._backslash = self._backslash, b""
        while data := self._reader.read1(_PIECE):
            piece += data
            if (len(piece) - len(piece.rstrip(b"\\"))) % 2 == 0:
                break
            if len(piece) > 1:
                self._backslash = b"\\"
                return piece[:-1]
        return piece

    def _separator(self, scan: bytes, at: int) -> int:
        """Return the offset of the next separator or the array's end, else -1."""
        while 0 <= at < len(scan):
            if self._in_string:
                at = scan.find(b'"', at) + 1 or len(scan) + 1
                self._in_string = at > len(scan)
            elif self._depth:
                at = self._past_nested(scan, at)
            elif (token := _BETWEEN.search(scan, at)) is None:
                return -1
            elif token[0] in b",]":
                return token.start()
            else:
                at = token.end()
                self._in_string = token[0] == b'"'
                self._depth = int(not self._in_string)
        return -1

    def _past_nested(self, scan: bytes, at: int) -> int:
        """Return the offset up to which the nested value contains no separator."""
        block = scan[at : at + _BLOCK]
        steps, ends_in_string = steps_of(block)
        depths = levels(steps, self._depth)
        if min(depths) > 0:
            self._depth, self._in_string = depths[-1], ends_in_string
            return at + len(block)
        for token in _INSIDE.finditer(block):
            self._depth += _STEP.get(token[0], 0)
            if not self._depth:
                return at + token.end()
        raise AssertionError("the depth is 0 somewhere in the block")

    def _keep(self, part: bytes) -> None:
        self._size += len(part)
        self._kept.append(part)
        if self._size > self._longest:
            raise ArrayError(f"it is longer than {self._longest >> 20} MiB")

    def _element(self) -> Element:
        text = b"".join(self._kept)
        inside = text.lstrip(_SPACE)
        before = text[: len(text) - len(inside)]
        element = Element(self._line + before.count(b"\n"), self._offset + len(before), inside.rstrip(_SPACE))
        self._line += text.count(b"\n")
        self._offset += len(text) + 1
        self._kept, self._size = [], 0
        return element
