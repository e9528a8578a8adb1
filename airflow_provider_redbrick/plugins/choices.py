"""Which projects the page offers: those in Airflow's configuration, and each connection's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

DEFAULT = "redbrick_default"


@dataclass(frozen=True)
class Choice:
    """A project, and the connection it is read through.

    :param project_id: the connection's own when None.
    """

    connection_id: str
    project_id: str | None = None


def read_choices(text: str) -> list[Choice]:
    """Read the option ``[redbrick] boards``: ``connection`` or ``connection/project``, separated by commas or lines."""
    found = []
    for entry in text.replace("\n", ",").split(","):
        connection_id, _, project_id = (part.strip() for part in entry.partition("/"))
        if connection_id:
            found.append(Choice(connection_id, project_id or None))
    return list(dict.fromkeys(found))


def all_choices(configured: str, connection_ids: Iterable[str]) -> list[Choice]:
    """Return what can be chosen, the configured ones first."""
    choices = read_choices(configured)
    named = {choice.connection_id for choice in choices}
    return [*choices, *(Choice(each) for each in connection_ids if each not in named)]
