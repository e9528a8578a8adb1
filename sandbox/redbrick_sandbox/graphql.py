"""Execute GraphQL documents against the sandbox's schema.

Parsed documents are cached, because clients send the same few documents again and again. A refusal becomes a GraphQL
error of its field. An unexpected exception is printed, and the client gets a generic error instead.

A server may refuse a document as a whole (`require_accepted`): because of its size, its aliases, or a field that this
server does not have. Nothing is executed then.
"""

from __future__ import annotations

import traceback
import uuid
from dataclasses import dataclass, field
from functools import cache, cached_property, lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from ariadne import MutationType, QueryType, ScalarType, make_executable_schema
from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    GraphQLSchema,
    InlineFragmentNode,
    OperationDefinitionNode,
    OperationType,
    SelectionSetNode,
    execute_sync,
    get_named_type,
    parse,
    validate,
)

from redbrick_sandbox.clock import canonical, written
from redbrick_sandbox.resolvers import accounts, imports, remote_labeling, tasks
from redbrick_sandbox.transitions import RefusalError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from redbrick_sandbox.behaviors import Behaviors
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

    schema: GraphQLSchema
    ast: DocumentNode
    roots: tuple[tuple[str, str], ...]
    mutation: bool
    pages: bool

    @cached_property
    def size(self) -> Size:
        """Size of the document. It is measured only if a server has limits."""
        (operation,) = (node for node in self.ast.definitions if isinstance(node, OperationDefinitionNode))
        fragments = {node.name.value: node for node in self.ast.definitions if isinstance(node, FragmentDefinitionNode)}
        size = Size(self.schema, fragments)
        size.add(operation.selection_set, self.schema.get_root_type(operation.operation), 1)
        return size


@dataclass
class Size:
    """Size of a document: selected fields, levels, aliases of root fields and of others, and fields by their types."""

    schema: GraphQLSchema
    fragments: dict[str, FragmentDefinitionNode]
    fields: int = 0
    depth: int = 0
    root_aliases: int = 0
    nested_aliases: int = 0
    used: set[str] = field(default_factory=set)

    def add(self, selection: SelectionSetNode, parent: Any, level: int) -> None:
        """Add the fields of a selection, with the fragments that it spreads.

        :param selection: the selection.
        :param parent: type of the object that it selects from.
        :param level: depth of its fields. Root fields have depth 1.
        """
        for node in selection.selections:
            if isinstance(node, FieldNode):
                self._add_field(node, parent, level)
            elif isinstance(node, InlineFragmentNode):
                named = node.type_condition
                self.add(node.selection_set, self.schema.type_map[named.name.value] if named else parent, level)
            elif isinstance(node, FragmentSpreadNode):
                part = self.fragments[node.name.value]
                self.add(part.selection_set, self.schema.type_map[part.type_condition.name.value], level)

    def _add_field(self, node: FieldNode, parent: Any, level: int) -> None:
        self.fields += 1
        self.depth = max(self.depth, level)
        self.root_aliases += bool(node.alias and level == 1)
        self.nested_aliases += bool(node.alias and level > 1)
        self.used.add(f"{parent.name}.{node.name.value}")
        if node.selection_set:
            self.add(node.selection_set, get_named_type(parent.fields[node.name.value].type), level + 1)


def require_accepted(document: Document, behaviors: Behaviors) -> None:
    """Refuse a document that this server does not accept. The messages are those of common GraphQL servers.

    :param document: a valid document.
    :param behaviors: the server's behaviors.
    :raises InvalidDocumentError: if the document is too large, or has aliases or fields that the server refuses.
    """
    limits = behaviors.max_root_fields, behaviors.max_complexity, behaviors.max_depth
    if limits == (None, None, None) and behaviors.aliases == "yes" and not behaviors.retired:
        return
    size = document.size
    aliases = 0 if behaviors.aliases == "yes" else size.root_aliases
    aliases += size.nested_aliases if behaviors.aliases == "no" else 0
    problems = []
    for name in sorted(behaviors.retired & size.used):
        kind, _, field_name = name.partition(".")
        problems.append(f"Cannot query field '{field_name}' on type '{kind}'.")
    for limit, actual, message in (
        (behaviors.max_root_fields, len(document.roots), "Root field limit of {} exceeded, found {}."),
        (
            behaviors.max_complexity,
            size.fields,
            "The query exceeds the maximum complexity of {}. Actual complexity is {}.",
        ),
        (behaviors.max_depth, size.depth, "Query depth limit of {} exceeded, found {}."),
        (0, aliases, "Aliases limit of {} exceeded, found {}."),
    ):
        if limit is not None and actual > limit:
            problems.append(message.format(limit, actual))
    if problems:
        raise InvalidDocumentError([GraphQLError(problem) for problem in problems])


class InvalidDocumentError(Exception):
    """A document that is not GraphQL or does not match the schema.

    `errors` are the errors in the API's format.
    """

    def __init__(self, errors: Sequence[GraphQLError]) -> None:
        super().__init__(errors[0].message)
        self.errors = [error.formatted for error in errors]


class Engine:
    """Executable schema. Several sandboxes can share one: it caches documents, and keeps nothing else."""

    def __init__(self) -> None:
        self._times = "utc"
        self.schema = build_schema(lambda text: written(text, self._times))
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
            self.schema,
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
        self._times = request.sandbox.behaviors.times
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


@cache
def shared_engine() -> Engine:
    """Return the engine of this process, because building one takes a tenth of a second."""
    return Engine()


def build_schema(write_time: Callable[[str], str | int] = str) -> GraphQLSchema:
    """Build the schema from its text and the tables of the resolvers.

    :param write_time: returns a canonical time as the server writes it.
    """
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
        ScalarType("DateTime", serializer=write_time, value_parser=_time),
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
