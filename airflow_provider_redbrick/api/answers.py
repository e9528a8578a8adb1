"""Taking values out of answers whose shape is not guaranteed.

Anything may be missing or null. What is there is of the kind that it is to be, or none of it can be trusted: each
function raises ``TypeError`` or ``ValueError`` for anything else, which :func:`reading` turns into an error of its own.
"""

from __future__ import annotations

import json
import math
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_redbrick.exceptions import RedBrickAnswerError, storable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

T = TypeVar("T")

_ID = re.compile(r"[\w-]{1,100}")


@contextmanager
def reading(operation: str, *, task_ids: Sequence[str] = (), maybe_applied: bool = False) -> Iterator[None]:
    """Make an answer of another shape an error of its own, named after the operation, instead of a ``KeyError``.

    :param task_ids: the tasks it is about.
    :param maybe_applied: whether it was a mutation, which the server has carried out whatever it answers.

    The error that it makes does not lead to the one it was made of, which may hold the whole answer.
    """
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError, RecursionError) as error:
        words = f"RedBrick's answer lacks what was asked for ({type(error).__name__}: {error})."
        told = RedBrickAnswerError(words, operation=operation, task_ids=task_ids, maybe_applied=maybe_applied)
        try:
            raise told from None
        finally:
            told.__context__ = None


def text(value: object) -> str:
    """Return text, empty when there is none; what no log, database or XCom could hold is replaced in it."""
    return storable(text_as_it_is(value) or "")


def text_as_it_is(value: object) -> str | None:
    """Return text that the server must get back, or that leads somewhere; None when there is none."""
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} in place of text")
    return value or None


def identifier(value: object) -> str:
    """Return the id of a task.

    Ids are compared as text, and users write them in lower case or had them made so. They are also names of folders.
    """
    if not isinstance(value, str) or not _ID.fullmatch(value):
        raise ValueError("no task id")
    return value.lower()


def number(value: object) -> float | None:
    """Return a number that one can calculate with."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{type(value).__name__} in place of a number")
    if not math.isfinite(value):
        raise ValueError(f"{value} in place of a number")
    return value


def elements(value: object, kind: type[T], *, nulls: bool = True) -> tuple[T, ...]:
    """Return what is in a list.

    :param kind: of what kind it is.
    :param nulls: whether some of it may be null.
    """
    if value is not None and not isinstance(value, list):
        raise TypeError(f"{type(value).__name__} in place of a list")
    for each in value or ():
        if not isinstance(each, kind) and not (nulls and each is None):
            raise TypeError(f"{type(each).__name__} in place of {kind.__name__}")
    return tuple(value or ())


def index(value: object) -> int | None:
    """Return a place in a list, counted from 0."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
        raise TypeError(f"{type(value).__name__} in place of an index")
    return value


def json_object(written: object) -> dict[str, Any]:
    """Read JSON text that holds an object; anything else is an empty one."""
    try:
        value = json.loads(written) if isinstance(written, str) else None
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
