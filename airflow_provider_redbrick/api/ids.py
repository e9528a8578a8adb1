"""Ids of organisations, projects and tasks."""

from __future__ import annotations

import uuid

from airflow_provider_redbrick.exceptions import RedBrickInputError, told


def is_uuid(value: object) -> bool:
    """Whether a text is a UUID."""
    try:
        return isinstance(value, str) and bool(uuid.UUID(value))
    except ValueError:
        return False


def check_uuid(what: str, value: object) -> str:
    """Return an id, checked before it is sent.

    :raises RedBrickInputError: for a blank (an unrendered template) or malformed one.
    """
    try:
        return str(uuid.UUID(str(value) if isinstance(value, (str, uuid.UUID)) else ""))
    except ValueError:
        raise RedBrickInputError(f"{what} must be a UUID, not {told(value)}.") from None
