"""Times as the API and people write them."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import datetime

import pendulum

# What pendulum reads beside these is a moment of its own making: "now" and "10:00" are today, "2024" is a day of it.
_DATED = re.compile(r"(?:[0-9]{4}-[0-9]{2}-[0-9]{2}|[0-9]{8})(?:[T ][^/]+)?")


def moment(value: object) -> pendulum.DateTime | None:
    """Read an ISO-8601 date, or date and time, in UTC if it names no zone; None if it is neither."""
    if not isinstance(value, str) or not _DATED.fullmatch(value):
        return None  # an interval is no moment either, and half of one is an IndexError of pendulum 3.0
    with suppress(ValueError):
        # What the API writes, read at a third of the cost: a listing has several a task.
        read = datetime.fromisoformat(value)
        if read.tzinfo is not None and not read.utcoffset():
            return pendulum.DateTime(*read.timetuple()[:6], read.microsecond, tzinfo=pendulum.UTC)
    try:
        parsed = pendulum.parse(value)
        if isinstance(parsed, pendulum.DateTime):
            parsed.in_timezone("UTC")  # one that is out of all calendars there is none to calculate with
            return parsed
    except (ValueError, TypeError, OverflowError):
        pass
    return None
