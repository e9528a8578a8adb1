"""Parse untrusted JSON: strict syntax, array elements one by one, bounded depth.

``json.loads`` keeps only the last value of a repeated key (RFC 8259, section 4), so labels would be lost silently. It
also stops at the first invalid array element, and its memory use grows with the square of the nesting depth. Hence:

1. :func:`read_json` refuses repeated keys, NaN, infinity, and text that cannot be stored. Valid text is parsed once;
   only refused text is scanned again, to find the position of the error.
2. :func:`elements_of` splits an array before parsing, so an invalid element loses no other one. Only commas and
   brackets outside of strings and elements separate elements; no other syntax is checked. At most one element and one
   piece of the stream are held in memory. An element with unbalanced brackets extends to the end of the stream, and the
   array is reported as unterminated.
3. :func:`check_depth` limits depth and number of values before parsing. Brackets outside of strings become signed
   steps, in pieces of 64 KiB; the running sum of the steps is the depth.
4. Escaped quotes are replaced before strings are located, since every remaining quote delimits a string. The
   replacement has the same length where positions are reported. An escape may span two pieces.
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
from airflow_provider_redbrick.labels.fields import is_list, join, name_of, shown

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedReader


_MAX_SHOWN_CHARACTERS = 60
_TOKEN = re.compile(r'"[^"]*"|[\[\]{},]|-?Infinity|NaN')
# Also matches a valid surrogate pair; the parsed value distinguishes the two.
_SUSPECT_ESCAPE = re.compile(r"\\u(?:0000|[dD][89a-fA-F])")


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
        super().__init__(f"the key {key!r} is repeated")
        self.key = key


class _ConstantError(ValueError):
    """A number is NaN or infinity."""


def read_json(text: str) -> Any:
    """Parse JSON text strictly.

    :raises StrictJSONError: if it is not JSON, repeats a key, or has text that cannot be stored.
    """
    try:
        value = json.loads(text, object_pairs_hook=each_key_once, parse_constant=_refuse_constant)
        if _SUSPECT_ESCAPE.search(text):
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
    # Searching the ASCII form takes a tenth of the time of the walk below, which few values need.
    if not _SUSPECT_ESCAPE.search(json.dumps(value)):
        return
    pending = [("", value)]
    while pending:
        place, item = pending.pop()
        if isinstance(item, str):
            _check_text(place, item)
        elif isinstance(item, Mapping):
            for key, child in item.items():
                _check_text(f"{place}: the key" if place else "the key", key)
                pending.append((join(place, name_of(key)), child))
        elif is_list(item):
            pending.extend((join(place, f"[{i}]"), child) for i, child in enumerate(item))


def _check_text(place: str, text: str) -> None:
    if text != to_valid_utf8(text):
        excerpt = f"{text[:_MAX_SHOWN_CHARACTERS]!a}"
        raise RedBrickInputError(f"{place or 'it'} has characters that cannot be sent or stored: {excerpt}")


def each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build a JSON object, as ``object_pairs_hook`` of the standard parser.

    :raises RepeatedKeyError: if a key is repeated.
    """
    result = dict(pairs)
    if len(result) != len(pairs):
        counts = Counter(key for key, _ in pairs)
        raise RepeatedKeyError(next(key for key, count in counts.items() if count > 1))
    return result


def _refuse_constant(word: str) -> NoReturn:
    raise _ConstantError(f"{word} is not a JSON number")


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

    def advance(self) -> None:
        """Advance past a comma."""
        self.expects_key = True
        self.index += 1


def _first_fault(text: str) -> StrictJSONError | None:
    """Return the first repeated key or invalid number, with its position."""
    levels: list[_Level] = []
    for token in _TOKEN.finditer(without_escapes(text)):
        character = token[0][0]
        problem = ""
        if character in "{[":
            levels.append(_Level(character == "{"))
        elif character in "}]":
            levels.pop()
        elif character == ",":
            levels[-1].advance()
        elif character != '"':
            line = text.count("\n", 0, token.start()) + 1
            return StrictJSONError(f"it is not JSON: {token[0]} is not a JSON number", line)
        elif levels and levels[-1].is_object and levels[-1].expects_key:
            problem = _record_key(levels, json.loads(text[token.start() : token.end()]))
        if problem:
            preceding = text[: token.start()]
            return StrictJSONError(problem, preceding.count("\n") + 1, len(preceding) - preceding.rfind("\n"))
    return None


def _record_key(levels: list[_Level], key: str) -> str:
    """Record a key; return an error message if it is repeated."""
    level = levels[-1]
    if key in level.keys:
        place = reduce(join, (outer.place for outer in levels[:-1]), "")
        return f"{place or 'it'} repeats the key {shown(key)}"
    level.keys.add(key)
    level.label, level.expects_key = name_of(key), False
    return ""


_READ_BYTES = 1 << 17
_SPACE = b" \t\r\n"
# A block within one element is skipped as a whole, which is ten times as fast as bracket by bracket.
_BLOCK_BYTES = 1 << 12
_NESTED_TOKEN = re.compile(rb'"[^"]*"|[\[\]{}]')
_ELEMENT_TOKEN = re.compile(rb'["\[\]{,]')
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
        self._parts: list[bytes] = []
        self._size = 0

    def elements(self) -> Iterator[Element]:
        number = 0
        while piece := self._piece():
            scan = piece.replace(b"\\\\", b"__").replace(b'\\"', b"__") if b"\\" in piece else piece
            start = at = 0
            while (at := self._separator(scan, at)) >= 0:
                self._buffer_part(piece[start:at])
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
            self._buffer_part(piece[start:])
        raise ArrayError("the array is not terminated", self._element())

    def _check_end(self, rest: bytes) -> None:
        while not rest.strip(_SPACE):
            rest = self._reader.read1(_READ_BYTES)
            if not rest:
                return
        raise ArrayError("data follow the end of the array")

    def _piece(self) -> bytes:
        """Read the next piece; hold back a backslash whose escaped byte is missing."""
        piece, self._backslash = self._backslash, b""
        while data := self._reader.read1(_READ_BYTES):
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
                at = self._skip_nested(scan, at)
            elif (token := _ELEMENT_TOKEN.search(scan, at)) is None:
                return -1
            elif token[0] in b",]":
                return token.start()
            else:
                at = token.end()
                self._in_string = token[0] == b'"'
                self._depth = int(not self._in_string)
        return -1

    def _skip_nested(self, scan: bytes, at: int) -> int:
        """Return the offset up to which the nested value contains no separator."""
        block = scan[at : at + _BLOCK_BYTES]
        steps, ends_in_string = steps_of(block)
        depths = levels(steps, self._depth)
        if min(depths) > 0:
            self._depth, self._in_string = depths[-1], ends_in_string
            return at + len(block)
        for token in _NESTED_TOKEN.finditer(block):
            self._depth += _STEP.get(token[0], 0)
            if not self._depth:
                return at + token.end()
        raise AssertionError("the depth is 0 somewhere in the block")

    def _buffer_part(self, part: bytes) -> None:
        self._size += len(part)
        self._parts.append(part)
        if self._size > self._longest:
            raise ArrayError(f"it is longer than {self._longest >> 20} MiB")

    def _element(self) -> Element:
        text = b"".join(self._parts)
        inside = text.lstrip(_SPACE)
        before = text[: len(text) - len(inside)]
        element = Element(self._line + before.count(b"\n"), self._offset + len(before), inside.rstrip(_SPACE))
        self._line += text.count(b"\n")
        self._offset += len(text) + 1
        self._parts, self._size = [], 0
        return element


DEEPEST = 100
"""The maximum nesting depth; labels need ten levels."""

# Scanning temporarily needs up to fifty times the size of a piece in memory.
_SCAN_BYTES = 1 << 16
# Quotes delimit strings, whose brackets are ignored. The other brackets become signed steps.
_NOT_BRACKETS = bytes(set(range(256)) - set(b'[]{}"'))
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_EMPTY_PAIR = b"\x01\xff"


class BeyondError(Exception):
    """JSON exceeds a limit; the message names the limit."""


def check_depth(text: bytes) -> None:
    """Check a complete JSON text before it is parsed.

    :raises BeyondError: if it is nested too deeply or has too many values.
    """
    _check_value_count(count_values(text))
    # The labels of most tasks have fewer brackets than this.
    if text.count(b"{") + text.count(b"[") > DEEPEST:
        Depth().scan(text)


def _check_value_count(count: int) -> None:
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
        self._pending = b""

    def scan(self, piece: bytes) -> None:
        """Scan the next piece.

        :raises BeyondError: if it is nested too deeply.
        """
        for at in range(0, len(piece), _SCAN_BYTES):
            self._scan(piece[at : at + _SCAN_BYTES])

    def _scan(self, piece: bytes) -> None:
        text = self._pending + piece
        self._pending = b""
        if b"\\" in text:
            # The remaining backslashes escape neither a quote nor the start of the next piece.
            text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
            if text.endswith(b"\\"):
                self._pending = b"\\"
        steps, self._in_string = steps_of(text, in_string=self._in_string)
        if not steps:
            return
        # Half of all pairs are innermost and add exactly one level; removing them halves the work.
        depths = levels(steps.replace(_EMPTY_PAIR, b""), self.depth)
        if max(depths) >= DEEPEST and max(levels(steps, self.depth)) > DEEPEST:
            raise BeyondError(f"it is nested deeper than {DEEPEST} levels")
        self.depth = depths[-1]


def steps_of(text: bytes, *, in_string: bool = False) -> tuple[bytes, bool]:
    """Return the brackets outside of strings as signed steps.

    :param text: JSON without escaped quotes.
    :param in_string: whether the text begins within a string.
    :return: the steps, and whether the text ends within a string.
    """
    parts = text.translate(_STEPS, _NOT_BRACKETS).split(b'"')
    return b"".join(parts[in_string::2]), in_string ^ (len(parts) % 2 == 0)


def levels(steps: bytes, depth: int) -> list[int]:
    """Return the depth before the first step and after each step.

    :param steps: signed bytes, 1 for an opening and -1 for a closing bracket.
    :param depth: the depth before the first step.
    """
    return list(accumulate(memoryview(steps).cast("b"), initial=depth))
