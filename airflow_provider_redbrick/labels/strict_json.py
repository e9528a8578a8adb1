"""Parse users' JSON strictly: repeated keys, NaN and unstorable text are refused.

``json.loads`` keeps only the last value of a repeated key, so labels would be lost silently (RFC 8259, section 4).

1. Valid text is parsed once. Only refused text is scanned again, to find the position.
2. Escapes are replaced by text of the same length before quotes are located, so positions are kept.

A parser stops at the first invalid element. Splitting at the commas between elements loses only the invalid element.

1. Only commas and brackets outside of strings and elements separate elements. No other JSON syntax is checked here.
2. At most one element and one piece of the stream are held in memory.
3. An element with unbalanced brackets extends to the end of the stream, and the array is reported as unterminated.

The memory that parsers take grows with the square of the depth, and parsers fail on deep nesting in different ways.
JSON text is scanned for brackets outside of strings, in pieces of 64 KiB:

1. Escaped quotes are removed before strings are located; an escape may span two pieces.
2. Brackets become signed steps, and their running sum is the depth.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import reduce
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NoReturn

from airflow_provider_redbrick._utils import count_values, value_count_problem
from airflow_provider_redbrick.exceptions import RedBrickInputError, to_valid_utf8
from airflow_provider_redbrick.labels.schema import is_list, join, name_of, shown

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedReader


_LONGEST_SHOWN = 60
_TOKEN = re.compile(r'"[^"]*"|[\[\]{},]|-?Infinity|NaN')
# A pair of surrogates stands for one character, and is matched as well: the value tells.
_SUSPECT = re.compile(r"\\u(?:0000|[dD][89a-fA-F])")


class StrictJSONError(ValueError):
    """Text is invalid or ambiguous JSON.

    :ivar message: the reason, worded to follow a colon.
    :ivar line: the line, counted from 1; 0 if unknown.
    :ivar column: the column in that line, counted from 1; 0 if unknown.
    """

    def __init__(self, message: str, line: int = 0, column: int = 0) -> None:
        """Store the reason and the position.

        :param message: the reason, worded to follow a colon.
        :param line: the line, counted from 1; 0 if unknown.
        :param column: the column, counted from 1; 0 if unknown.
        """
        super().__init__(message)
        self.message = message
        self.line = line
        self.column = column


class RepeatedKeyError(ValueError):
    """An object has a key twice.

    :ivar key: the key.
    """

    def __init__(self, key: str) -> None:
        super().__init__(f"the key {key!r} is there twice")
        self.key = key


class _ConstantError(ValueError):
    """A number is NaN or infinity."""


def read_json(text: str) -> Any:
    """Parse JSON text strictly.

    :raises StrictJSONError: if it is not JSON, repeats a key, or has text that cannot be stored.
    """
    try:
        value = json.loads(text, object_pairs_hook=each_key_once, parse_constant=_refuse_constant)
        if _SUSPECT.search(text):
            check_storable(value)
    except json.JSONDecodeError as error:
        raise StrictJSONError(f"it is not JSON: {error.msg}", error.lineno, error.colno) from None
    except (RepeatedKeyError, _ConstantError) as error:
        raise _first_fault(text) or StrictJSONError(f"it is not JSON: {error}") from None
    except RedBrickInputError as error:
        raise StrictJSONError(str(error)) from None
    except ValueError as error:
        raise StrictJSONError(f"it is not JSON: {error}") from None
    return value


def without_escapes(text: str) -> str:
    """Replace escapes, so that every remaining quote delimits a string."""
    return text.replace("\\\\", "__").replace('\\"', "__")


def check_storable(value: Any) -> None:
    """Check that all text in plain JSON values, keys included, can be stored.

    :raises RedBrickInputError: if text has NUL or half a surrogate pair; the message names the field.
    """
    # What is written in ASCII tells, at a tenth of the time: of most values there is nothing to look for.
    if not _SUSPECT.search(json.dumps(value)):
        return
    left = [("", value)]
    while left:
        where, inner = left.pop()
        if isinstance(inner, str):
            _check_text(where, inner)
        elif isinstance(inner, Mapping):
            for key, below in inner.items():
                _check_text(f"{where}: the key" if where else "the key", key)
                left.append((join(where, name_of(key)), below))
        elif is_list(inner):
            left.extend((join(where, f"[{i}]"), below) for i, below in enumerate(inner))


def _check_text(where: str, text: str) -> None:
    if text != to_valid_utf8(text):
        shown = f"{text[:_LONGEST_SHOWN]!a}"
        raise RedBrickInputError(f"{where or 'it'} has characters that cannot be sent or stored: {shown}")


def each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build a JSON object, as ``object_pairs_hook`` of the standard parser.

    :raises RepeatedKeyError: if a key is repeated.
    """
    found = dict(pairs)
    if len(found) != len(pairs):
        counts = Counter(key for key, _ in pairs)
        raise RepeatedKeyError(next(key for key, count in counts.items() if count > 1))
    return found


def _refuse_constant(word: str) -> NoReturn:
    raise _ConstantError(f"{word} is no JSON number")


@dataclass
class _Level:
    """An object or a list that is open at the current position."""

    is_object: bool
    keys: set[str] = field(default_factory=set)
    label: str = ""
    index: int = 0
    expects_key: bool = True

    @property
    def place(self) -> str:
        return self.label if self.is_object else f"[{self.index}]"

    def go_on(self) -> None:
        """Read a comma."""
        self.expects_key = True
        self.index += 1


def _first_fault(text: str) -> StrictJSONError | None:
    """Return the first repeated key or invalid number, with its position."""
    levels: list[_Level] = []
    for token in _TOKEN.finditer(without_escapes(text)):
        kind = token[0][0]
        words = ""
        if kind in "{[":
            levels.append(_Level(kind == "{"))
        elif kind in "}]":
            levels.pop()
        elif kind == ",":
            levels[-1].go_on()
        elif kind != '"':
            line = text.count("\n", 0, token.start()) + 1
            return StrictJSONError(f"it is not JSON: {token[0]} is no JSON number", line)
        elif levels and levels[-1].is_object and levels[-1].expects_key:
            words = _key(levels, json.loads(text[token.start() : token.end()]))
        if words:
            before = text[: token.start()]
            return StrictJSONError(words, before.count("\n") + 1, len(before) - before.rfind("\n"))
    return None


def _key(levels: list[_Level], key: str) -> str:
    """Read a key; return what is wrong with it."""
    level = levels[-1]
    if key in level.keys:
        place = reduce(join, (outer.place for outer in levels[:-1]), "")
        return f"{place or 'it'} has the key {shown(key)} twice"
    level.keys.add(key)
    level.label, level.expects_key = name_of(key), False
    return ""


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
