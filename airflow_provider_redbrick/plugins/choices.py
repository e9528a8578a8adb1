"""Which projects the page offers: those in Airflow's configuration, and each connection's own."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_redbrick.api.ids import check_uuid
from airflow_provider_redbrick.exceptions import RedBrickInputError, told

if TYPE_CHECKING:
    from collections.abc import Iterable

DEFAULT = "redbrick_default"
# As Airflow takes them, but for the slash, which comes before a project's id.
_CONNECTION_ID = re.compile(r"[\w#!()\-.:\\]{1,250}")


@dataclass(frozen=True)
class Choice:
    """A project, and the connection it is read through.

    :param project_id: the connection's own when None.
    """

    connection_id: str
    project_id: str | None = None


def is_connection_id(text: str) -> bool:
    """Whether a text can be the id of a connection."""
    return _CONNECTION_ID.fullmatch(text) is not None


def read_choices(text: str) -> tuple[list[Choice], list[str]]:
    """Read the option ``[redbrick] boards``: ``connection`` or ``connection/project``, separated by commas or lines.

    :return: what can be chosen, each once, and what is wrong with the other entries.
    """
    choices: dict[Choice, None] = {}
    problems = []
    for entry in filter(None, (part.strip() for part in text.replace("\n", ",").split(","))):
        connection_id, slash, project_id = (part.strip() for part in entry.partition("/"))
        if not is_connection_id(connection_id):
            problems.append(f"{told(entry)} names no connection")
            continue
        try:
            choices[Choice(connection_id, check_uuid("the project", project_id) if slash else None)] = None
        except RedBrickInputError as error:
            problems.append(f"{told(entry)}: {error}".removesuffix("."))
    return list(choices), problems


def all_choices(configured: Iterable[Choice], connection_ids: Iterable[str]) -> list[Choice]:
    """Return what can be chosen, the configured ones first."""
    choices = list(configured)
    named = {choice.connection_id for choice in choices}
    return [*choices, *(Choice(each) for each in connection_ids if each not in named)]
