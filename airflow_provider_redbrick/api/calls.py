"""Mutations of single tasks, and their combination into one request.

Design notes on combined mutations:

1. A :class:`Call` is one mutation of one task. :func:`combine` renders several into one document with aliases
   ``m0``, ``m1``, ...
2. Variables with equal simple values are declared once; all others are numbered by alias.
3. The same sequence of mutations always renders the same document, so that a server can cache it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.api.operation import describe

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# A document with one root field: its variable declarations and the field.
_PARTS = re.compile(r"\s*mutation \w+\((?P<declared>[^)]*)\) \{(?P<field>.*)\}\s*", re.DOTALL)
_DECLARATION = re.compile(r"\$(\w+): ([\w\[\]!]+)")
_VARIABLE = re.compile(r"\$(\w+)")
_SHARED = frozenset({"orgId", "projectId"})


@dataclass(frozen=True)
class Call:
    """A mutation of one task that was not sent yet.

    :param document: a GraphQL document with one root field.
    :param variables: the document's variables except the organization's and the project's id.
    :param task_id: the task that is changed.
    """

    document: str
    variables: Mapping[str, Any] = field(repr=False)
    task_id: str

    @property
    def name(self) -> str:
        """The API's name of the operation."""
        return describe(self.document)[0]


def combine(calls: Sequence[Call]) -> tuple[str, dict[str, Any]]:
    """Combine calls into one document with aliases ``m0``, ``m1``, ...

    :return: the document and its variables; a variable with the same value in all calls is sent once.
    """
    first = calls[0].variables
    alike = frozenset(name for name in first if all(_same(call.variables, first, name) for call in calls))
    document = _render_combined(tuple(call.document for call in calls), alike)
    variables = {name: first[name] for name in alike}
    for i, call in enumerate(calls):
        variables.update((f"m{i}_{name}", value) for name, value in call.variables.items() if name not in alike)
    return document, variables


def _same(variables: Mapping[str, Any], first: Mapping[str, Any], name: str) -> bool:
    value = first[name]
    # True equals 1, and comparing labels is expensive.
    simple = value is None or isinstance(value, (bool, int, str))
    return simple and name in variables and type(variables[name]) is type(value) and variables[name] == value


@lru_cache(maxsize=256)
def _render_combined(documents: tuple[str, ...], alike: frozenset[str]) -> str:
    """Render the combined document.

    Equal input gives equal text, so that servers can cache the document.
    """
    once = _SHARED | alike
    declared: dict[str, str] = {}
    fields = []
    for i, document in enumerate(documents):
        parts = _PARTS.fullmatch(document)
        if parts is None:
            raise ValueError("Only mutations with variables can be combined.")
        declared |= {_numbered(name, i, once): kind for name, kind in _DECLARATION.findall(parts["declared"])}
        fields.append(
            f"m{i}: " + _VARIABLE.sub(lambda found, i=i: f"${_numbered(found[1], i, once)}", parts["field"].strip())
        )
    variables = ", ".join(f"${name}: {kind}" for name, kind in declared.items())
    return f"mutation {describe(documents[0])[0]}({variables}) {{\n" + "\n".join(fields) + "\n}"


def _numbered(name: str, i: int, once: frozenset[str]) -> str:
    return name if name in once else f"m{i}_{name}"
