"""Encode GraphQL requests and decode answers, in the format of RedBrick's SDK.

Design notes on the wire format:

1. A request is base64 text of gzipped JSON, with the header ``Content-Encoding-RB: gzip``, or plain JSON. Equal
   requests are equal bytes.
2. At most 1000 errors of an answer are read, and each is shortened.
3. The number of JSON values is limited before the body is parsed.

Imports no HTTP library, which takes long to import.

Design notes on answers. The body is read first: a status proves nothing about whether a mutation was applied.

1. A body with a ``data`` object is an answer, whatever the status. Its values are what the server did and read.
2. A status that is about the whole request (credential, rate, gateway) stands if ``data`` has no value.
3. ``data: null``, or an error with a path, says that execution began: some mutations may have been applied.
4. Errors without ``data`` and without a path are request errors of the GraphQL specification: nothing was executed.
   This is believed only together with HTTP 4xx, since servers also omit ``data`` that is null.
5. A body that begins like an answer and cannot be parsed was cut short. It may have been an answer.
6. Any other body is not the API's. With HTTP 2xx and 5xx it may follow an applied mutation.

Design notes on combined mutations:

1. A :class:`Call` is one mutation of one task. :func:`combine` renders several into one document with aliases
   ``m0``, ``m1``, ...
2. Variables with equal simple values are declared once; all others are numbered by alias.
3. The same sequence of mutations always renders the same document, so that a server can cache it.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick._utils import count_values, value_count_problem
from airflow_provider_redbrick.client.transport.errors import MAX_SERVER_WORDS, classify_status, is_rate_limit
from airflow_provider_redbrick.exceptions import RedBrickAnswerError, RedBrickRateLimitError, RedBrickRefusedError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


# An answer has one or two errors per root field.
_MAX_ISSUES = 1000
_NO_JSON = object()
_WHOLE_REQUEST = frozenset({401, 429, 502, 503, 504})
# White space before the first brace of an answer.
_MAX_INDENT = 1000
# Higher levels take twice as long for labels and hardly reduce their size.
_GZIP_LEVEL = 5


@dataclass(frozen=True)
class GraphQLIssue:
    """One entry of an answer's ``errors``.

    :param message: the server's text.
    :param root: the alias or root field that it is about, if named.
    """

    message: str
    root: str | None


@dataclass(frozen=True)
class Answer:
    """A decoded GraphQL answer.

    :param data: the data; may be partial if there are issues.
    :param issues: the errors.
    """

    data: dict[str, Any] | None
    issues: tuple[GraphQLIssue, ...]


def encode(document: str, variables: Mapping[str, Any], *, plain_json: bool) -> tuple[bytes, dict[str, str]]:
    """Return a request's body and headers.

    :param document: the GraphQL document.
    :param variables: its variables.
    :param plain_json: send plain JSON instead of base64 text of gzipped JSON.
    """
    text = json.dumps({"query": document, "variables": variables}, separators=(",", ":")).encode()
    headers = {"Content-Type": "application/json"}
    if plain_json:
        return text, headers
    # mtime=0: equal requests are equal bytes.
    return base64.b64encode(gzip.compress(text, _GZIP_LEVEL, mtime=0)), {**headers, "Content-Encoding-RB": "gzip"}


def decode(status: int, headers: Mapping[str, str], content: bytes) -> Answer:
    """Decode an HTTP response into data and issues.

    :param status: the HTTP status.
    :param headers: the response's headers; ``Content-Type`` and ``Retry-After`` are used.
    :param content: the body, with the API key masked.
    :raises RedBrickAPIError: if the body is not a GraphQL answer, or the whole request was refused.
    """
    problem = value_count_problem(count_values(content))
    body = _NO_JSON if problem else _json(content)
    fields = body if isinstance(body, dict) else {}
    data, issues = fields.get("data"), _issues(fields.get("errors"))
    began = "data" in fields or any(issue.root is not None for issue in issues)
    has_value = isinstance(data, dict) and any(value is not None for value in data.values())
    if not has_value and any(is_rate_limit(issue.message) for issue in issues):
        words = "; ".join(issue.message for issue in issues)
        raise RedBrickRateLimitError(
            f"RedBrick is limiting the rate of requests: {words}",
            status=status,
            retry_after=headers.get("Retry-After"),
            maybe_applied=began or not 400 <= status < 500,
        )
    if isinstance(data, dict) and (has_value or status not in _WHOLE_REQUEST):
        return Answer(data, issues)
    if 200 <= status < 300:
        if data is None and issues:
            return Answer(None, issues)
        raise RedBrickAnswerError(_not_an_answer(body, problem), status=status, maybe_applied=True)
    is_cut_short = body is _NO_JSON and may_be_answer(content)
    # What was cut short is not quoted: it may contain labels.
    error = classify_status(status, headers, b"" if is_cut_short else content)
    if type(error) is RedBrickRefusedError and (began or is_cut_short):
        if issues:
            return Answer(None, issues)
        words = f"{_not_an_answer(body, problem)} The status was HTTP {status}."
        raise RedBrickAnswerError(words, status=status, maybe_applied=True)
    error.maybe_applied = error.maybe_applied or began or is_cut_short
    raise error


def may_be_answer(content: bytes) -> bool:
    """Return whether a body, or its beginning, may be a GraphQL answer: a JSON object."""
    return content[:_MAX_INDENT].removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{")


def _not_an_answer(body: object, problem: str | None) -> str:
    """Return the message about a body that is not a GraphQL answer."""
    if problem is not None:
        return f"RedBrick's answer was not parsed because {problem}."
    if body is _NO_JSON:
        return "RedBrick answered with something that is not JSON (a proxy or login page?)."
    return "RedBrick answered with JSON that is not a GraphQL answer."


def _json(content: bytes) -> object:
    """Parse JSON; return ``_NO_JSON`` if that fails.

    The parser's error is not kept: as a context it would hold the whole body.
    """
    try:
        return json.loads(str(content, "utf-8-sig"))
    except (ValueError, RecursionError):
        return _NO_JSON


def _issues(errors: object) -> tuple[GraphQLIssue, ...]:
    if not isinstance(errors, list):
        errors = [errors] if errors else []
    return tuple(_issue(entry) for entry in errors[:_MAX_ISSUES])


def _issue(entry: object) -> GraphQLIssue:
    if not isinstance(entry, dict):
        return GraphQLIssue(_words(entry), None)
    path = entry.get("path")
    root = path[0] if isinstance(path, list) and path and isinstance(path[0], str) else None
    return GraphQLIssue(_words(entry.get("message") or "no message"), root)


def _words(value: object) -> str:
    """Return the server's text; for deeply nested lists, the type's name."""
    try:
        return str(value)[:MAX_SERVER_WORDS]
    except RecursionError:
        return type(value).__name__


_OPERATION = re.compile(r"\s*(query|mutation)\s+(\w+)")


def describe(document: str) -> tuple[str, bool]:
    """Return a document's operation name and whether it is a mutation.

    :raises ValueError: if the document does not start with ``query <name>`` or ``mutation <name>``.
    """
    match = _OPERATION.match(document)
    if match is None:
        raise ValueError("A document starts with 'query name' or 'mutation name'.")
    return match.group(2), match.group(1) == "mutation"


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
