"""Read tasks with labels from a file, one at a time.

A file is either JSON Lines or one JSON array of objects, and may be compressed with gzip.

1. At most one entry is held in memory.
2. Depth and size limits are enforced before an entry is parsed.
3. An invalid line or array element becomes one entry with a problem; the following entries are still read.
"""

from __future__ import annotations

import gzip
import io
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from airflow_provider_redbrick.exceptions import RedBrickInputError
from airflow_provider_redbrick.labels.compression import GZIP, checked_copy
from airflow_provider_redbrick.labels.strict_json import (
    ArrayError,
    BeyondError,
    Element,
    StrictJSONError,
    check_depth,
    elements_of,
    read_json,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from typing_extensions import Buffer

LONGEST_LINE = 256 * 2**20
_CHUNK = 2**20
_BOM = b"\xef\xbb\xbf"
_SPACE = b" \t\r\n"
_CONTINUATION_STARTS = {b" ", b"\t", b'"', b"}", b"]"}
# Wider encodings, widest first: byte order marks, and first bytes without a mark.
_WIDE_ENCODINGS = [
    (name, mark, tuple(first.encode(f"{name}-{order}") for first in "[{ \t\r\n" for order in ("le", "be")))
    for name, mark in (("UTF-32", (b"\xff\xfe\0\0", b"\0\0\xfe\xff")), ("UTF-16", (b"\xff\xfe", b"\xfe\xff")))
]
_UNREAD = "The rest of the file was not read"


@dataclass(frozen=True)
class Entry:
    """One entry of a file: an object, or the reason why it is invalid.

    The repr shows no labels.

    :param place: the position, counted from 1: ``line 17``, or ``entry 17`` in an array.
    :param value: the object; None if the entry is invalid.
    :param problem: why the entry is invalid, worded to follow a colon.
    """

    place: str
    value: Mapping[str, Any] | None = field(default=None, repr=False)
    problem: str = ""


def read_entries(file: BinaryIO, *, name: str) -> Iterator[Entry]:
    """Yield the entries of a file; the content determines the format.

    Gzip data are verified completely before the first entry. An invalid line or element yields one entry with a
    problem, and reading continues. A broken array, or a read error, yields one last entry with a problem.

    :param file: a file opened for reading bytes; read from its start, neither seeked nor closed.
    :param name: the file's name in messages.
    :raises RedBrickInputError: if the file cannot be read at all or has another format, before any entry.
    """
    with ExitStack() as stack:
        try:
            reader = _buffered(file.read)
            if reader.peek(2)[:2] == GZIP:
                copy = stack.enter_context(closing(checked_copy(reader)))
                reader = _buffered(gzip.GzipFile(fileobj=copy).read1)
            _check_encoding(reader.peek(4)[:4])
            first, lines, size = _first_character(reader)
        except (_UnreadError, ValueError) as error:
            raise RedBrickInputError(f"{name} cannot be read: {error}") from None
        if first == b"[":
            yield from _array(elements_of(reader, longest=LONGEST_LINE, line=lines + 1, start=size))
        elif first == b"{":
            yield from _lines(reader, lines, name)
        elif first:
            raise RedBrickInputError(
                f"{name} is neither JSON Lines (one object per line) nor one JSON array of objects. It starts with "
                f"{first!r}."
            )


def _check_encoding(start: bytes) -> None:
    """Refuse UTF-16 and UTF-32, with or without a byte order mark."""
    for name, marks, first_bytes in _WIDE_ENCODINGS:
        if start.startswith((*marks, *first_bytes)):
            raise ValueError(f"it is encoded as {name}; save it as UTF-8")


class _UnreadError(Exception):
    """The rest of the file cannot be read."""


class _Bytes(io.RawIOBase):
    """Adapt a read function to a file; object store clients lack file methods."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer) -> int:
        view = memoryview(buffer)
        try:
            data = self._read(len(view))
        except Exception as error:
            raise _UnreadError(str(error) or type(error).__name__) from error
        view[: len(data)] = data
        return len(data)


def _buffered(read: Callable[[int], bytes]) -> io.BufferedReader:
    return io.BufferedReader(_Bytes(read), _CHUNK)


def _first_character(reader: io.BufferedReader) -> tuple[bytes, int, int]:
    """Skip whitespace; return the next character and the skipped lines and bytes."""
    size = len(reader.read(3)) if reader.peek(3)[:3] == _BOM else 0
    lines = 0
    while (ahead := reader.peek(1)) and ahead[:1] in _SPACE:
        space = reader.read(len(ahead) - len(ahead.lstrip(_SPACE)))
        lines += space.count(b"\n")
        size += len(space)
    return ahead[:1], lines, size


def _array(elements: Iterator[Element]) -> Iterator[Entry]:
    number = 0
    try:
        for number, element in enumerate(elements, start=1):
            yield _element(number, element)
    except _UnreadError as error:
        yield Entry(f"entry {number + 1}", problem=f"the file cannot be read from here on ({error}). {_UNREAD}")
    except ArrayError as error:
        reason = str(error)
        if error.last is not None and error.last.text:
            last = _element(number + 1, error.last)
            if last.problem:
                reason = last.problem
            else:
                yield last
                number += 1
        yield Entry(f"entry {number + 1}", problem=f"the array is invalid from here on ({reason}). {_UNREAD}")


def _element(number: int, element: Element) -> Entry:
    """Read one element; a problem names its line if it is not the first."""
    place = f"entry {number}"
    line = element.line
    try:
        return _entry(place, _parsed(element.text))
    except StrictJSONError as error:
        problem, line = error.message, line + max(error.line, 1) - 1
    except UnicodeDecodeError as error:
        problem = f"it is not UTF-8 from byte {element.start + error.start + 1} of the file onwards"
        line += element.text.count(b"\n", 0, error.start)
    except BeyondError as error:
        problem = str(error)
    return Entry(place, problem=f"{problem} (line {line})" if line > 1 else problem)


def _lines(reader: io.BufferedReader, number: int, name: str) -> Iterator[Entry]:
    first = number + 1
    try:
        while line := reader.readline(LONGEST_LINE + 1):
            number += 1
            entry = _line(f"line {number}", line, reader)
            if number == first and entry is not None and entry.problem and _spans_lines(line, reader):
                raise RedBrickInputError(
                    f"{name} starts with an object that spans several lines. JSON Lines require one object per line. "
                    f"Use a JSON array for objects that span several lines."
                )
            if entry is not None:
                yield entry
    except _UnreadError as error:
        yield Entry(f"line {number + 1}", problem=f"the file cannot be read from here on ({error}). {_UNREAD}")


def _line(place: str, line: bytes, reader: io.BufferedReader) -> Entry | None:
    """Read one line; return None for a blank one."""
    if len(line) > LONGEST_LINE:
        while line and not line.endswith(b"\n"):
            line = reader.readline(_CHUNK)
        return Entry(place, problem=f"it is longer than {LONGEST_LINE // 2**20} MiB")
    line = line.rstrip(_SPACE).removeprefix(_BOM)
    if not line:
        return None
    try:
        return _entry(place, _parsed(line))
    except StrictJSONError as error:
        return Entry(place, problem=f"{error.message} (column {error.column})" if error.column else error.message)
    except UnicodeDecodeError as error:
        return Entry(place, problem=f"it is not UTF-8 from byte {error.start + 1} onwards")
    except BeyondError as error:
        return Entry(place, problem=str(error))


def _parsed(text: bytes) -> Any:
    if b"\0" in text:
        raise StrictJSONError("it contains NUL bytes, as UTF-16 text does; save the file as UTF-8")
    check_depth(text)
    return read_json(text.decode())


def _spans_lines(line: bytes, reader: io.BufferedReader) -> bool:
    """Return whether a line starts an object that spans several lines."""
    return line.rstrip(_SPACE).endswith((b"{", b"[", b",")) and reader.peek(1)[:1] in _CONTINUATION_STARTS


def _entry(place: str, value: object) -> Entry:
    if isinstance(value, dict):
        return Entry(place, cast("Mapping[str, Any]", value))
    return Entry(place, problem=f"it must be an object, not {type(value).__name__}")
