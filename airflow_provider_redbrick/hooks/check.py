"""Input checked before any request: an unrendered template must never become an instruction."""

from __future__ import annotations

import operator
import os
from collections.abc import Sequence
from datetime import date, datetime, timezone
from typing import Any

import pendulum

from airflow_provider_redbrick.api.ids import check_uuid
from airflow_provider_redbrick.api.moments import moment
from airflow_provider_redbrick.exceptions import RedBrickInputError, has_line_break, storable, told

LARGEST_NUMBER = 2**31 - 1
"""The largest that the API has a place for."""

TASK_STATES = ("UNASSIGNED", "ASSIGNED", "IN_PROGRESS", "STAGED", "SKIPPED", "PROBLEM")

_TEMPLATE_MARKS = ("{{", "{%", "{#")


def has_template(value: str) -> bool:
    """Return whether a text has a template of Jinja in it."""
    return any(mark in value for mark in _TEMPLATE_MARKS)


def text(name: str, value: object) -> str:
    """Return a non-blank string."""
    if value is not None and not isinstance(value, str):
        raise RedBrickInputError(f"{name} must be text, not {told(value)}.")
    if not isinstance(value, str) or not value.strip():
        raise RedBrickInputError(f"{name} must not be empty (an unrendered template?), got {told(value)}.")
    if value != storable(value):
        raise RedBrickInputError(f"{name} has characters that cannot be sent or stored: {value[:60]!a}.")
    return value


def plain_text(name: str, value: object) -> str:
    """Return a non-blank string for a place where no templates are rendered."""
    found = text(name, value)
    if has_template(found):
        raise RedBrickInputError(f"{name} has a template that nothing renders here: {told(found)}.")
    return found


def path(name: str, value: object) -> str:
    """Return a local path, with ``~`` as the shell reads it, or a URI; objects that stand for either are read."""
    # Airflow's ObjectStoragePath is no path of Python's in all of its releases.
    stands_for_one = isinstance(value, os.PathLike) or hasattr(value, "storage_options")
    found = text(name, str(value) if stands_for_one else value)
    if has_line_break(found):
        raise RedBrickInputError(f"{name} must be a path without line breaks, not {told(found)}.")
    if has_template(found):
        raise RedBrickInputError(f"{name} has a template that was not rendered: {told(found)}.")
    return found if "://" in found else os.path.expanduser(found)  # noqa: PTH111 - a Path would change what it names


def sequence(name: str, value: object) -> list[Any]:
    """Return a non-empty list."""
    if isinstance(value, str):
        raise RedBrickInputError(
            f"{name} must be a list, but is the text {value[:60]!r}. Pass the upstream task's `.output`, or set "
            f"render_template_as_native_obj=True on the DAG."
        )
    if not isinstance(value, Sequence):
        raise RedBrickInputError(f"{name} must be a list, not {type(value).__name__}.")
    if not value:
        raise RedBrickInputError(
            f"{name} is empty. Where that is normal, skip this task upstream (dynamic task mapping does so by itself)."
        )
    return list(value)


def task_ids(value: object, name: str = "task_ids") -> list[str]:
    """Return a non-empty list of task ids, each of them once."""
    ids = [check_uuid(f"{name}[{i}]", entry) for i, entry in enumerate(sequence(name, value))]
    return list(dict.fromkeys(ids))


def whole_number(name: str, value: object, *, low: int = 0) -> int | None:
    """Return a whole number of at least ``low``, or None; text is read, since templates render to text."""
    if value is None:
        return None
    number = _whole(value)
    if number is None or not low <= number <= LARGEST_NUMBER:
        bounds = f"of at least {low}" if number is None or number < low else f"of at most {LARGEST_NUMBER}"
        raise RedBrickInputError(f"{name} must be a whole number {bounds}, not {told(value)}.")
    return number


def _whole(value: Any) -> int | None:
    try:
        return None if isinstance(value, bool) else int(value) if isinstance(value, str) else operator.index(value)
    except (ValueError, TypeError):
        return None


def time(name: str, value: object) -> pendulum.DateTime | None:
    """Return a moment in UTC, or None.

    ISO-8601 text is read, in UTC when it names no zone. A date is its midnight in UTC. Times of one zone are compared
    by its clock, which shows one hour twice when summer time ends. A time without a date, or "now", would mean
    another moment in each attempt, and is refused.
    """
    if value is None:
        return None
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=timezone.utc)
    found = _instance(value) if isinstance(value, datetime) else moment(value)
    if found is None:
        raise RedBrickInputError(f"{name} must be a date and time, or a date, not {told(value)}.")
    return found.in_timezone("UTC")


def _instance(value: datetime) -> pendulum.DateTime | None:
    try:
        found = pendulum.instance(value, tz="UTC")
        found.in_timezone("UTC")  # what is out of the calendar there cannot be sent, nor compared
    except (ValueError, TypeError, OverflowError):
        return None
    return found


def flag(name: str, value: object) -> bool:
    """Return a truth value; text such as ``"False"`` (a Variable's, say) is truthy and must not pass for one."""
    if not isinstance(value, bool):
        raise RedBrickInputError(f"{name} must be True or False, not {told(value)}.")
    return value


def one_of(name: str, value: object, allowed: Sequence[str]) -> str:
    """Return one of a few words."""
    if not isinstance(value, str) or value not in allowed:
        raise RedBrickInputError(f"{name} must be one of {', '.join(map(repr, allowed))}, not {told(value)}.")
    return value


def task_state(name: str, value: object) -> str | None:
    """Return the state of a task that waits somewhere, or None."""
    return None if value is None else one_of(name, value, TASK_STATES)
