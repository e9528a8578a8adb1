"""Tasks with labels, read from a file one after the other: JSON Lines, or one long JSON array of objects."""

from __future__ import annotations

import gzip
import io
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn, cast

from airflow_provider_redbrick.exceptions import RedBrickInputError
from airflow_provider_redbrick.labels.depth import ArrayReader, BeyondError, check_depth

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from typing_extensions import Buffer

LONGEST_LINE = 256 * 2**20
_CHUNK = 2**20
_GZIP = b"\x1f\x8b"
_BOM = b"\xef\xbb\xbf"
_SPACE = b" \t\r\n"
_INSIDE = {b" ", b"\t", b'"', b"}", b"]"}
_UNREAD = "the rest of the file was not read"


@dataclass(frozen=True)
class Entry:
    """One entry of a file: a mapping, or why there is none; the repr shows no labels.

    :param place: where it is, counted from 1: ``line 17``, in an array ``entry 17``.
    :param problem: what is wrong with it, in words that follow a colon.
    """

    place: str
    value: Mapping[str, Any] | None = field(default=None, repr=False)
    problem: str = ""


def read_entries(file: BinaryIO, *, name: str) -> Iterator[Entry]:
    """Yield the entries of a file, one held in memory at a time; the content says which kind of file it is.

    Either kind may be compressed with gzip. A broken line is one entry with a problem, and the lines after it are
    read; a broken array, and a file that cannot be read on, end with one such entry.

    :param file: a file opened for reading bytes; only read from its start, neither sought in nor closed.
    :param name: what the file is called in messages.
    :raises RedBrickInputError: when the file cannot be read at all or is of another kind, before any entry.
    """
    try:
        reader = _buffered(file.read)
        if reader.peek(2)[:2] == _GZIP:
            reader = _buffered(gzip.GzipFile(fileobj=reader).read1)
        first, lines_before = _first_character(reader)
    except _UnreadError as error:
        raise RedBrickInputError(f"{name} cannot be read: {error}") from None
    if first == b"[":
        yield from _array(reader)
    elif first == b"{":
        yield from _lines(reader, lines_before, name)
    elif first:
        raise RedBrickInputError(
            f"{name} is neither JSON Lines (one object a line) nor one JSON array of objects: it starts with {first!r}."
        )


class _UnreadError(Exception):
    """The file cannot be read on: whatever the client of an object store raises, or a broken compression."""


class _Bytes(io.RawIOBase):
    """Makes a file of a function that reads: object stores' clients have not all methods of a file."""

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


def _first_character(reader: io.BufferedReader) -> tuple[bytes, int]:
    """Skip to the first character that is no space; return it, and how many lines were skipped."""
    if reader.peek(3)[:3] == _BOM:
        reader.read(3)
    lines = 0
    while (ahead := reader.peek(1)) and ahead[:1] in _SPACE:
        space = reader.read(len(ahead) - len(ahead.lstrip(_SPACE)))
        lines += space.count(b"\n")
    return ahead[:1], lines


def _array(reader: io.BufferedReader) -> Iterator[Entry]:
    import ijson  # type: ignore[import-untyped]

    number = 0
    try:
        shallow = ArrayReader(reader, LONGEST_LINE)
        for number, value in enumerate(ijson.items(shallow, "item", use_float=True), start=1):
            yield _entry(f"entry {number}", value)
    except BeyondError as error:
        # The parser gets nothing of the piece that this is in, and so cannot say which entry it is.
        yield Entry(f"entry {number + 1}", problem=f"this one or one of the next cannot be read: {error}; {_UNREAD}")
    except _UnreadError as error:
        yield Entry(f"entry {number + 1}", problem=f"the file cannot be read from here on ({error}); {_UNREAD}")
    except (ijson.JSONError, ValueError) as error:
        words = error.args[0] if error.args else type(error).__name__
        told = words.decode(errors="replace") if isinstance(words, bytes) else str(words)
        # From the second line on, the parser shows what is in the file.
        reason = told.partition("\n")[0].rstrip(".")
        yield Entry(f"entry {number + 1}", problem=f"the array is broken here ({reason}); {_UNREAD}")


def _lines(reader: io.BufferedReader, number: int, name: str) -> Iterator[Entry]:
    first = number + 1
    try:
        while line := reader.readline(LONGEST_LINE + 1):
            number += 1
            entry = _line(f"line {number}", line, reader)
            if number == first and entry is not None and entry.problem and _goes_on(line, reader):
                raise RedBrickInputError(
                    f"{name} starts with an object that goes over several lines: JSON Lines have one whole object a "
                    f"line; objects over several lines can be read in a JSON array."
                )
            if entry is not None:
                yield entry
    except _UnreadError as error:
        yield Entry(f"line {number + 1}", problem=f"the file cannot be read from here on ({error}); {_UNREAD}")


def _line(place: str, line: bytes, reader: io.BufferedReader) -> Entry | None:
    """Read one line; None for a blank one."""
    if len(line) > LONGEST_LINE:
        while line and not line.endswith(b"\n"):
            line = reader.readline(_CHUNK)
        return Entry(place, problem=f"it is longer than {LONGEST_LINE // 2**20} MiB")
    line = line.rstrip(_SPACE)
    if not line:
        return None
    try:
        check_depth(line)
        return _entry(place, json.loads(line.decode("utf-8"), parse_constant=_refuse_constant))
    except (BeyondError, ValueError) as error:
        return Entry(place, problem=_unread_line(error))


def _unread_line(error: BeyondError | ValueError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"it is not UTF-8 from byte {error.start + 1} on"
    if isinstance(error, json.JSONDecodeError):
        return f"it is not JSON: {error.msg} (column {error.colno})"
    return str(error) if isinstance(error, BeyondError) else f"it is not JSON: {error}"


def _goes_on(line: bytes, reader: io.BufferedReader) -> bool:
    """Whether a line is the first of an object that is written over several lines, rather than a broken one."""
    return line.rstrip(_SPACE).endswith((b"{", b"[", b",")) and reader.peek(1)[:1] in _INSIDE


def _entry(place: str, value: object) -> Entry:
    if isinstance(value, dict):
        return Entry(place, cast("Mapping[str, Any]", value))
    return Entry(place, problem=f"it must be an object, not {type(value).__name__}")


def _refuse_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON number")
