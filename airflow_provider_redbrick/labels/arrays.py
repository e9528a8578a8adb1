"""The elements of a long JSON array, cut out of a stream one at a time and not yet parsed.

A parser stops at the first element that is not JSON. Cut at the commas between the elements, an array loses only the
element that is broken.

1. Only commas and brackets outside of strings and of elements separate; nothing else of JSON is looked at here.
2. No more than one element and one piece of the stream is held in memory.
3. An element whose brackets do not match takes in all that follows, and the array has no end.
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
# Blocks that no element ends in are passed over, ten times as fast as bracket by bracket.
_BLOCK = 1 << 12
_INSIDE = re.compile(rb'"[^"]*"|[\[\]{}]')
_BETWEEN = re.compile(rb'["\[\]{,]')
_STEP = {b"{": 1, b"[": 1, b"}": -1, b"]": -1}


class ArrayError(Exception):
    """The array does not go on as one, so that the rest of it cannot be read.

    :ivar last: the beginning of the element that it stops in, if it stops in one.
    """

    def __init__(self, message: str, last: Element | None = None) -> None:
        super().__init__(message)
        self.last = last


@dataclass(frozen=True)
class Element:
    """The text of one element.

    :param line: the line that it begins in, counted from 1.
    :param start: the place of its first byte in the stream, counted from 0.
    """

    line: int
    start: int
    text: bytes


def elements_of(reader: BufferedReader, *, longest: int, line: int = 1, start: int = 0) -> Iterator[Element]:
    """Yield the elements of an array.

    :param reader: a stream at the bracket that begins the array.
    :param longest: bytes of an element.
    :param line: the line that the array begins in.
    :param start: how many bytes of the stream are before it.
    :raises ArrayError: if the array does not end, an element is too long, or something follows the end.
    """
    yield from _Array(reader, longest, line, start).elements()


class _Array:
    """An array as far as it was read."""

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
        """Read on; a backslash at the end waits for what it escapes."""
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
        """Return the place of the next comma between elements, or of the array's end; -1 for none in this piece."""
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
        """Return the place up to which nothing separates elements."""
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
