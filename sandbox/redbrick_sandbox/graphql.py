"""Execute GraphQL documents against the sandbox's schema.

Parsed documents are cached, because clients send the same few documents again and again. A refusal becomes a GraphQL
error of its field. An unexpected exception is printed, and the client gets a generic error instead.
"""

from __future__ import annotations

import traceback
import uuid
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from ariadne import MutationType, QueryType, ScalarType, make_executable_schema
from graphql import (
    DocumentNode,
    FieldNode,
    GraphQLError,
    GraphQLSchema,
    OperationDefinitionNode,
    OperationType,
    execute_sync,
    parse,
    validate,
)

from redbrick_sandbox.resolvers import accounts, imports, remote_labeling, tasks
from redbrick_sandbox.store import canonical
from redbrick_sandbox.transitions import RefusalError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from redbrick_sandbox.sandbox import Arguments, Request, Resolver

FAULT_PREFIX = "sandbox fault"
_CACHED_DOCUMENTS = 512
_PAGES = frozenset({"genericTasks", "tasksPaged"})


@dataclass(frozen=True)
class Document:
    """A valid document.

    `roots` are its root fields as (alias, name). `mutation` says whether it is a mutation, `pages` whether it reads a
    page of tasks.
    """

    ast: DocumentNode
    roots: tuple[tuple[str, str], ...]
    mutation: bool
    pages: bool


class InvalidDocumentError(Exception):
    """A document that is not GraphQL or does not match the schema.

    `errors` are the errors in the API's format.
    """

    def __init__(self, errors: Sequence[GraphQLError]) -> None:
        super().__init__(errors[0].message)
        self.errors = [error.formatted for error in errors]


class Engine:
    """Executable schema. Its only state is the cache of parsed documents."""

    def __init__(self) -> None:
        self.schema = build_schema()
        self.read = lru_cache(_CACHED_DOCUMENTS)(self._read)

    def _read(self, text: str) -> Document:
        """Parse and validate a document.

        :raises InvalidDocumentError: if it is not valid.
        """
        try:
            ast = parse(text, no_location=True)
        except GraphQLError as error:
            raise InvalidDocumentError([error]) from None
        operations = [node for node in ast.definitions if isinstance(node, OperationDefinitionNode)]
        errors = validate(self.schema, ast)
        if not errors and len(operations) != 1:
            errors = [GraphQLError("exactly one operation is needed")]
        if errors:
            raise InvalidDocumentError(errors)
        fields = [node for node in operations[0].selection_set.selections if isinstance(node, FieldNode)]
        return Document(
            ast,
            tuple((node.alias.value if node.alias else node.name.value, node.name.value) for node in fields),
            operations[0].operation is OperationType.MUTATION,
            any(_reads_page(node) for node in fields),
        )

    def run(self, document: Document, variables: dict[str, Any] | None, request: Request) -> dict[str, Any]:
        """Execute a document.

        :param document: the document.
        :param variables: values of its variables.
        :param request: context of the resolvers.
        :return: the response, with `data` and, if a field failed, `errors`.
        :raises InvalidDocumentError: if the variables do not match the document.
        """
        result = execute_sync(
            self.schema, document.ast, variable_values=variables, context_value=request, field_resolver=_field
        )
        errors = result.errors or []
        if result.data is None and errors and all(error.path is None for error in errors):
            raise InvalidDocumentError(errors)
        answer: dict[str, Any] = {"data": result.data}
        if errors:
            answer["errors"] = [_shown(error) for error in errors]
        return answer


def _reads_page(node: FieldNode) -> bool:
    chosen = node.selection_set.selections if node.selection_set else ()
    # A fragment may contain the entries. Only plain fields without entries are certain not to read a page.
    return node.name.value in _PAGES and any(
        not isinstance(each, FieldNode) or each.name.value == "entries" for each in chosen
    )


def _field(source: dict[str, Any], info: Any, **arguments: Any) -> Any:
    """Resolve a field of a mapping.

    The default resolver of graphql-core checks the type of each mapping, which is slower.
    """
    value = source.get(info.field_name)
    return value(**arguments) if callable(value) else value


def _shown(error: GraphQLError) -> dict[str, Any]:
    shown: dict[str, Any] = {"message": error.message}
    if error.path is not None:
        shown["path"] = list(error.path)
    return shown


def build_schema() -> GraphQLSchema:
    """Build the schema from its text and the tables of the resolvers."""
    text = files("redbrick_sandbox").joinpath("schema.graphql").read_text(encoding="utf-8")
    query, mutation = QueryType(), MutationType()
    subjects = (accounts, tasks, remote_labeling, imports)
    for subject in subjects:
        for name, resolver in getattr(subject, "QUERIES", {}).items():
            query.set_field(name, _guarded(resolver))
        for name, resolver in getattr(subject, "MUTATIONS", {}).items():
            mutation.set_field(name, _mutating(name, resolver))
    return make_executable_schema(
        text,
        query,
        mutation,
        ScalarType("UUID", value_parser=_uuid),
        ScalarType("CustomUUID", value_parser=_text),
        ScalarType("DateTime", value_parser=_time),
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise GraphQLError("an id must be text")
    return value


def _uuid(value: Any) -> str:
    if not isinstance(value, str):
        raise GraphQLError("a UUID must be text")
    try:
        return _canonical_id(value)
    except ValueError:
        raise GraphQLError(f"{value[:80]!r} is not a UUID") from None


@lru_cache(10_000)
def _canonical_id(text: str) -> str:
    return str(uuid.UUID(text))


def _time(value: Any) -> str:
    try:
        return canonical(value)
    except (ValueError, TypeError, OverflowError):
        raise GraphQLError(f"{str(value)[:80]!r} is not an ISO-8601 time") from None


def _guarded(resolver: Resolver) -> Callable[..., Any]:
    """Wrap a resolver: apply field faults, and turn refusals into GraphQL errors."""

    def resolve(_root: Any, info: Any, **arguments: Any) -> Any:
        request: Request = info.context
        if info.path.key in request.broken:
            raise GraphQLError(f"{FAULT_PREFIX}: this field failed")
        try:
            return resolver(request, arguments)
        except RefusalError as refusal:
            raise GraphQLError(str(refusal)) from None
        except Exception:  # noqa: BLE001 - internal errors are not disclosed to clients
            traceback.print_exc()
            raise GraphQLError("internal error of the sandbox; its output has the traceback") from None

    return resolve


def _mutating(name: str, resolver: Resolver) -> Callable[..., Any]:
    """Wrap a mutation: make it atomic, and count the tasks it changed."""

    def mutate(request: Request, arguments: Arguments) -> Any:
        with request.sandbox.mutation(name) as touched:
            request.touched = touched
            return resolver(request, arguments)

    guarded = _guarded(mutate)

    def resolve(root: Any, info: Any, **arguments: Any) -> Any:
        if info.context.not_ok and "ok" in getattr(info.return_type, "fields", {}):
            return {"ok": False, "message": f"{FAULT_PREFIX}: not ok"}
        return guarded(root, info, **arguments)

    return resolve
