"""Times as the API and people write them."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime

import pendulum


def moment(value: object) -> pendulum.DateTime | None:
    """Read an ISO-8601 time, in UTC when it names no zone; None when there is none, or none that can be read."""
    if not isinstance(value, str) or not value or "/" in value:
        return None  # an interval is no moment, and half of one is an IndexError of pendulum 3.0
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
