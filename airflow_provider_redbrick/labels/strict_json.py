"""Parse users' JSON strictly: repeated keys, NaN and unstorable text are refused.

``json.loads`` keeps only the last value of a repeated key, so labels would be lost silently (RFC 8259, section 4).

1. Valid text is parsed once. Only refused text is scanned again, to find the position.
2. Escapes are replaced by text of the same length before quotes are located, so positions are kept.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import Any, NoReturn

from airflow_provider_redbrick.exceptions import RedBrickInputError, to_valid_utf8
from airflow_provider_redbrick.labels.rules import is_list, join, name_of, shown

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
