"""Projects that the page offers, and the options that name them.

The page lists the projects of the option ``[redbrick] boards`` first, then each RedBrick connection's own project.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_redbrick.api.ids import check_uuid
from airflow_provider_redbrick.exceptions import RedBrickInputError, short_repr

if TYPE_CHECKING:
    from collections.abc import Iterable

DEFAULT = "redbrick_default"
# Airflow's pattern without the slash, which separates the project id.
_CONNECTION_ID = re.compile(r"[\w#!()\-.:\\]{1,250}")


@dataclass(frozen=True)
class Choice:
    """A project, and the connection to read it through.

    :param connection_id: the connection id.
    :param project_id: the project's UUID; None for the connection's.
    """

    connection_id: str
    project_id: str | None = None


def is_connection_id(text: str) -> bool:
    """Return whether a text can be a connection id."""
    return _CONNECTION_ID.fullmatch(text) is not None


def read_choices(text: str) -> tuple[list[Choice], list[str]]:
    """Parse the option ``[redbrick] boards``.

    Entries are ``connection`` or ``connection/project``, separated by commas or line breaks.

    :return: the distinct choices, and a problem description for each invalid entry.
    """
    choices: dict[Choice, None] = {}
    problems = []
    for entry in filter(None, (part.strip() for part in text.replace("\n", ",").split(","))):
        connection_id, slash, project_id = (part.strip() for part in entry.partition("/"))
        if not is_connection_id(connection_id):
            problems.append(f"{short_repr(entry)} names no connection")
            continue
        try:
            choices[Choice(connection_id, check_uuid("the project", project_id) if slash else None)] = None
        except RedBrickInputError as error:
            problems.append(f"{short_repr(entry)}: {error}".removesuffix("."))
    return list(choices), problems


def all_choices(configured: Iterable[Choice], connection_ids: Iterable[str]) -> list[Choice]:
    """Return all choices, the configured ones first.

    :param configured: the choices of the option ``boards``.
    :param connection_ids: the RedBrick connections in Airflow's database.
    """
    choices = list(configured)
    named = {choice.connection_id for choice in choices}
    return [*choices, *(Choice(connection_id) for connection_id in connection_ids if connection_id not in named)]
