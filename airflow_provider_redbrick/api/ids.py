"""Ids of organizations, projects and tasks."""

from __future__ import annotations

import uuid

from airflow_provider_redbrick.exceptions import RedBrickInputError, short_repr


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
