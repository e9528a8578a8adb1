"""Context of a resolver: the request and the arguments of its field."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_provider_redbrick.sandbox.core import Project, Sandbox

Arguments = dict[str, Any]


@dataclass
class Request:
    """One request and the faults that affect it.

    `broken` has the aliases of root fields that fail. `not_ok` and `empty_page` are the faults of these names.
    `touched` collects the ids of the tasks that the current mutation changes.
    """

    sandbox: Sandbox
    broken: frozenset[str] = frozenset()
    not_ok: bool = False
    empty_page: bool = False
    touched: list[str] = field(default_factory=list)


# Arguments have the schema's names. Only those that the client sent are present.
Resolver = Callable[[Request, Arguments], Any]


def scope(request: Request, arguments: Arguments) -> tuple[Sandbox, Project]:
    """Return the sandbox and the project of a request.

    :param request: the request.
    :param arguments: arguments with orgId and projectId.
    :raises RefusalError: if the project does not exist.
    """
    return request.sandbox, request.sandbox.project(arguments["orgId"], arguments["projectId"])
