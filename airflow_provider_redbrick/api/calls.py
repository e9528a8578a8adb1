"""Mutations of single tasks, several of which can go in one request."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.api.operation import describe

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# A document with one root field: its declarations of variables, and the field.
_PARTS = re.compile(r"\s*mutation \w+\((?P<declared>[^)]*)\) \{(?P<field>.*)\}\s*", re.DOTALL)
_DECLARATION = re.compile(r"\$(\w+): ([\w\[\]!]+)")
_VARIABLE = re.compile(r"\$(\w+)")
_SHARED = frozenset({"orgId", "projectId"})


@dataclass(frozen=True)
class Call:
    """A mutation of one task, to be sent.

    :param document: with one root field.
    :param variables: apart from organisation and project.
    """

    document: str
    variables: Mapping[str, Any] = field(repr=False)
    task_id: str

    @property
    def name(self) -> str:
        """The API's name of it."""
        return describe(self.document)[0]


def together(calls: Sequence[Call]) -> tuple[str, dict[str, Any]]:
    """Return one document for several calls, with aliases ``m0`` .., and its variables."""
    document = _together(tuple(call.document for call in calls))
    variables = {f"m{i}_{name}": value for i, call in enumerate(calls) for name, value in call.variables.items()}
    return document, variables


@lru_cache(maxsize=256)
def _together(documents: tuple[str, ...]) -> str:
    """Write the document: the same mutations always make the same, so that servers can keep it."""
    declared: dict[str, str] = {}
    fields = []
    for i, document in enumerate(documents):
        parts = _PARTS.fullmatch(document)
        if parts is None:
            raise ValueError("Only mutations with variables can go together.")
        declared |= {_numbered(name, i): kind for name, kind in _DECLARATION.findall(parts["declared"])}
        fields.append(
            f"m{i}: " + _VARIABLE.sub(lambda found, i=i: f"${_numbered(found[1], i)}", parts["field"].strip())
        )
    variables = ", ".join(f"${name}: {kind}" for name, kind in declared.items())
    return f"mutation {describe(documents[0])[0]}({variables}) {{\n" + "\n".join(fields) + "\n}"


def _numbered(name: str, i: int) -> str:
    return name if name in _SHARED else f"m{i}_{name}"
