"""What a resolver is given: the request it works for, and the arguments of its field."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_provider_redbrick.sandbox.core import Project, Sandbox

Arguments = dict[str, Any]


@dataclass
class Request:
    """One request: the sandbox, and the fault it is under.

    `broken` are the aliases of root fields that must fail; `not_ok` and `empty_page` are the faults of these
    names; `touched` collects the tasks that the mutation being executed changes.
    """

    sandbox: Sandbox
    broken: frozenset[str] = frozenset()
    not_ok: bool = False
    empty_page: bool = False
    touched: list[str] = field(default_factory=list)


# Arguments come by the schema's names, and only those that were sent.
Resolver = Callable[[Request, Arguments], Any]


def scope(request: Request, arguments: Arguments) -> tuple[Sandbox, Project]:
    """Get the sandbox and the project that orgId and projectId name, or refuse."""
    return request.sandbox, request.sandbox.project(arguments["orgId"], arguments["projectId"])
