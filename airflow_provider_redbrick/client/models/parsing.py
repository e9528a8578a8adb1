"""Parse API answers whose shape is not guaranteed.

Design notes:

1. Any value but an id may be missing or null; the parsers return an empty value or ``None`` for it.
2. A value of another type than expected makes the whole answer untrustworthy. The parsers raise ``TypeError`` or
   ``ValueError``.
3. :func:`reading` converts those into a :class:`RedBrickAnswerError` that names the operation.

``pendulum`` also accepts texts that depend on the current time: "now" and "10:00" are today, "2024" is a day of that
year. Only texts with a full date are parsed.
"""

from __future__ import annotations

import json
import math
import re
import uuid
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

import pendulum

from airflow_provider_redbrick._utils import count_values, value_count_problem
from airflow_provider_redbrick.exceptions import RedBrickAnswerError, RedBrickInputError, short_repr, to_valid_utf8

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


T = TypeVar("T")

_ID = re.compile(r"[\w-]{1,100}")


@contextmanager
def reading(operation: str, *, task_ids: Sequence[str] = (), maybe_applied: bool = False) -> Iterator[None]:
    """Convert a parsing error into a :class:`RedBrickAnswerError`.

    The new error has no context: the original one may hold the whole answer.

    :param operation: the API operation, for the message.
    :param task_ids: the tasks that the answer is about.
    :param maybe_applied: whether the operation is a mutation, which the server has applied whatever it answers.
    :raises RedBrickAnswerError: if the body raises an error that a malformed answer causes.
    """
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError, RecursionError) as error:
        words = f"RedBrick's answer lacks what was asked for ({type(error).__name__}: {error})."
        malformed = RedBrickAnswerError(words, operation=operation, task_ids=task_ids, maybe_applied=maybe_applied)
        try:
            raise malformed from None
        finally:
            malformed.__context__ = None


def text(value: object) -> str:
    """Return a text value, replacing characters that logs and databases refuse.

    :return: an empty text for null.
    """
    return to_valid_utf8(raw_text(value) or "")


def raw_text(value: object) -> str | None:
    """Return a text value unchanged, as ids and URLs need it.

    :return: ``None`` for null and for an empty text.
    """
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} in place of text")
    return value or None


def identifier(value: object) -> str:
    """Return a task id in lower case.

    Ids are compared as text, and users write them in either case. They are also used as folder names, so only
    letters, digits, ``_`` and ``-`` are allowed.
    """
    if not isinstance(value, str) or not _ID.fullmatch(value):
        raise ValueError("not a task id")
    return value.lower()


def number(value: object) -> float | None:
    """Return a finite number, or ``None`` for null."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{type(value).__name__} in place of a number")
    if not math.isfinite(value):
        raise ValueError(f"{value} in place of a number")
    return value


def elements(value: object, kind: type[T], *, nulls: bool = True) -> tuple[T, ...]:
    """Return a list's elements.

    :param value: the list; null counts as an empty one.
    :param kind: the type that each element must have.
    :param nulls: whether elements may be null.
    :raises TypeError: if the value is not a list, or an element has another type.
    """
    if value is not None and not isinstance(value, list):
        raise TypeError(f"{type(value).__name__} in place of a list")
    for element in value or ():
        if not isinstance(element, kind) and not (nulls and element is None):
            raise TypeError(f"{type(element).__name__} in place of {kind.__name__}")
    return tuple(value or ())


def index(value: object) -> int | None:
    """Return a list index (counted from 0), or ``None`` for null."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
        raise TypeError(f"{type(value).__name__} in place of an index")
    return value


def json_object(written: object) -> dict[str, Any]:
    """Parse JSON text that holds an object; return an empty one for anything else."""
    try:
        value = json.loads(written) if isinstance(written, str) else None
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


_DATED = re.compile(r"(?:[0-9]{4}-[0-9]{2}-[0-9]{2}|[0-9]{8})(?:[T ][^/]+)?")


def moment(value: object) -> pendulum.DateTime | None:
    """Parse an ISO 8601 date, or date and time; without a time zone it is UTC.

    :return: ``None`` for any other value.
    """
    if not isinstance(value, str) or not _DATED.fullmatch(value):
        return None  # also for an interval: half of one is an IndexError in pendulum 3.0
    with suppress(ValueError):
        # Fast path for the API's own format, at a third of the cost: a listing has several times per task.
        read = datetime.fromisoformat(value)
        if read.tzinfo is not None and not read.utcoffset():
            return pendulum.DateTime(*read.timetuple()[:6], read.microsecond, tzinfo=pendulum.UTC)
    try:
        parsed = pendulum.parse(value)
        if isinstance(parsed, pendulum.DateTime):
            parsed.in_timezone("UTC")  # raises an error if it is out of range in UTC
            return parsed
    except (ValueError, TypeError, OverflowError):
        pass
    return None


def is_uuid(value: object) -> bool:
    """Return whether a value is the text of a UUID."""
    try:
        return isinstance(value, str) and bool(uuid.UUID(value))
    except ValueError:
        return False


def check_uuid(what: str, value: object) -> str:
    """Validate an id before it is sent, and return it in canonical form.

    :param what: the parameter's name, for the message.
    :param value: the id, as text or ``UUID``.
    :raises RedBrickInputError: if it is empty (e.g. an unrendered template) or malformed.
    """
    try:
        return str(uuid.UUID(str(value) if isinstance(value, (str, uuid.UUID)) else ""))
    except ValueError:
        raise RedBrickInputError(f"{what} must be a UUID, not {short_repr(value)}.") from None


@dataclass(frozen=True)
class Name:
    """A search for task names: one exact name or a prefix, case-sensitive.

    The server's search is only a hint: it also matches ids, and treats a text in double quotes as exact.

    :param text: the name or prefix.
    :param prefix: whether names that start with the text match too.
    """

    text: str
    prefix: bool = False

    @property
    def search(self) -> str | None:
        """The server's search term; finds at least all matches. ``None`` for all tasks."""
        if not self.prefix:
            return f'"{self.text}"'
        # How the server treats a quote within a text is not documented.
        return self.text.partition('"')[0] or None

    def fits(self, name: str) -> bool:
        """Return whether a task's name matches."""
        return name.startswith(self.text) if self.prefix else name == self.text


def flat_labels(written: str | bytes) -> tuple[Mapping[str, Any], ...]:
    """Parse stored labels from JSON text.

    :raises ValueError: if the text is not a list, or has too many values. Returning no labels would be wrong.
    """
    problem = value_count_problem(count_values(written))
    if problem is not None:
        raise ValueError(problem)
    value = json.loads(written)
    if value is not None and not isinstance(value, list):
        raise ValueError(f"the stored labels are not a list but {type(value).__name__}")
    return tuple(label for label in value or () if isinstance(label, dict))
