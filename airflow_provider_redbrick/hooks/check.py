"""Validate input before the first request is sent.

Each function takes the name of a parameter, for messages, and its value; it returns the value with its type, or raises
``RedBrickInputError``.

1. A template that was not rendered never reaches the API. Blank texts and texts in place of lists are refused.
2. Texts that templates render to numbers and times are parsed. Flags are not: the text ``"False"`` is truthy.
3. All times are in UTC. A value without a date, or "now", is refused: it would change with each attempt.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Sequence
from datetime import date, datetime, timezone
from typing import Any

import pendulum

from airflow_provider_redbrick.api.ids import check_uuid
from airflow_provider_redbrick.api.moments import moment
from airflow_provider_redbrick.exceptions import RedBrickInputError, has_line_break, short_repr, to_valid_utf8

LARGEST_NUMBER = 2**31 - 1
"""The largest integer that the API accepts: GraphQL's Int has 32 bits."""

TASK_STATES = ("UNASSIGNED", "ASSIGNED", "IN_PROGRESS", "STAGED", "SKIPPED", "PROBLEM")

_TEMPLATE_MARKS = ("{{", "{%", "{#")


def has_template(value: str) -> bool:
    """Return whether a text contains a Jinja template."""
    return any(mark in value for mark in _TEMPLATE_MARKS)


def text(name: str, value: object) -> str:
    """Validate a text that must not be blank.

    :param name: the parameter, for messages.
    :param value: its value.
    :raises RedBrickInputError: if it is not a text, is blank, or has characters that cannot be sent or stored.
    """
    if value is not None and not isinstance(value, str):
        raise RedBrickInputError(f"{name} must be text, not {short_repr(value)}.")
    if not isinstance(value, str) or not value.strip():
        raise RedBrickInputError(f"{name} must not be empty (an unrendered template?), got {short_repr(value)}.")
    if value != to_valid_utf8(value):
        raise RedBrickInputError(f"{name} has characters that cannot be sent or stored: {value[:60]!a}.")
    return value


def plain_text(name: str, value: object) -> str:
    """Validate a text that no templates are rendered in.

    :param name: the parameter, for messages.
    :param value: its value.
    :raises RedBrickInputError: if it is not a text, is blank, or contains a template.
    """
    result = text(name, value)
    if has_template(result):
        raise RedBrickInputError(f"{name} contains a template, but it is not rendered here: {short_repr(result)}.")
    return result


def path(name: str, value: object) -> str:
    """Validate a local path or URI.

    :param name: the parameter, for messages.
    :param value: a text, or an object such as ``pathlib.Path`` or Airflow's ``ObjectStoragePath``.
    :return: the path as text, with ``~`` expanded as the shell does.
    :raises RedBrickInputError: if it is no path, or contains a template or line break.
    """
    # Airflow's ObjectStoragePath is not an os.PathLike in all releases.
    is_path_object = isinstance(value, os.PathLike) or hasattr(value, "storage_options")
    result = text(name, str(value) if is_path_object else value)
    if has_line_break(result):
        raise RedBrickInputError(f"{name} must be a path without line breaks, not {short_repr(result)}.")
    if has_template(result):
        raise RedBrickInputError(f"{name} has a template that was not rendered: {short_repr(result)}.")
    return result if "://" in result else os.path.expanduser(result)  # noqa: PTH111 - a Path would change what it names


def sequence(name: str, value: object) -> list[Any]:
    """Validate a list that must not be empty.

    :param name: the parameter, for messages.
    :param value: its value.
    :raises RedBrickInputError: if it is not a list or is empty.
    """
    if isinstance(value, str):
        raise RedBrickInputError(
            f"{name} must be a list, not the text {value[:60]!r}. Pass the upstream task's `.output`, or set "
            f"render_template_as_native_obj=True on the DAG."
        )
    if not isinstance(value, Sequence):
        raise RedBrickInputError(f"{name} must be a list, not {type(value).__name__}.")
    if not value:
        raise RedBrickInputError(
            f"{name} is empty. If that is expected, skip this task upstream. Dynamic task mapping does so."
        )
    return list(value)


def task_ids(value: object, name: str = "task_ids") -> list[str]:
    """Validate a list of task ids that must not be empty.

    :param value: its value.
    :param name: the parameter, for messages.
    :return: the ids without duplicates, in their order.
    :raises RedBrickInputError: if it is not a list, is empty, or has an entry that is not a UUID.
    """
    ids = [check_uuid(f"{name}[{i}]", entry) for i, entry in enumerate(sequence(name, value))]
    return list(dict.fromkeys(ids))


def whole_number(name: str, value: object, *, low: int = 0) -> int | None:
    """Validate an optional whole number.

    :param name: the parameter, for messages.
    :param value: an integer, or its text, since templates render to text.
    :param low: the smallest permitted value.
    :return: the number; None if ``value`` is None.
    :raises RedBrickInputError: if it is not a whole number or out of range.
    """
    if value is None:
        return None
    number = _whole(value)
    if number is None or not low <= number <= LARGEST_NUMBER:
        bounds = f"of at least {low}" if number is None or number < low else f"of at most {LARGEST_NUMBER}"
        raise RedBrickInputError(f"{name} must be a whole number {bounds}, not {short_repr(value)}.")
    return number


def _whole(value: Any) -> int | None:
    try:
        return None if isinstance(value, bool) else int(value) if isinstance(value, str) else operator.index(value)
    except (ValueError, TypeError):
        return None


def time(name: str, value: object) -> pendulum.DateTime | None:
    """Validate an optional time.

    Times are converted to UTC because those of one zone would be compared by its local clock, which repeats an hour
    when daylight saving time ends.

    :param name: the parameter, for messages.
    :param value: a ``datetime``, a ``date`` (its midnight in UTC), or ISO-8601 text, in UTC if it names no zone.
    :return: the time in UTC; None if ``value`` is None.
    :raises RedBrickInputError: if it is not a time, has no date, or is relative such as "now".
    """
    if value is None:
        return None
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=timezone.utc)
    result = _instance(value) if isinstance(value, datetime) else moment(value)
    if result is None:
        raise RedBrickInputError(f"{name} must be a date and time, or a date, not {short_repr(value)}.")
    return result.in_timezone("UTC")


def _instance(value: datetime) -> pendulum.DateTime | None:
    try:
        result = pendulum.instance(value, tz="UTC")
        result.in_timezone("UTC")  # A time outside of UTC's calendar can be neither sent nor compared.
    except (ValueError, TypeError, OverflowError):
        return None
    return result


def flag(name: str, value: object) -> bool:
    """Validate a boolean.

    A text such as ``"False"`` (from a Variable, say) is truthy and is refused.

    :param name: the parameter, for messages.
    :param value: its value.
    :raises RedBrickInputError: if it is not True or False.
    """
    if not isinstance(value, bool):
        raise RedBrickInputError(f"{name} must be True or False, not {short_repr(value)}.")
    return value


def one_of(name: str, value: object, allowed: Sequence[str]) -> str:
    """Validate one of several permitted texts.

    :param name: the parameter, for messages.
    :param value: its value.
    :param allowed: the permitted texts.
    :raises RedBrickInputError: if it is not one of them.
    """
    if not isinstance(value, str) or value not in allowed:
        raise RedBrickInputError(f"{name} must be one of {', '.join(map(repr, allowed))}, not {short_repr(value)}.")
    return value


def task_state(name: str, value: object) -> str | None:
    """Validate an optional task state.

    :param name: the parameter, for messages.
    :param value: one of :data:`TASK_STATES`, or None.
    :raises RedBrickInputError: if it is not a task state.
    """
    return None if value is None else one_of(name, value, TASK_STATES)
