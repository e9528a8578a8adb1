"""GraphQL over HTTP, as RedBrick's own clients write it: what is sent, and what comes back."""

from __future__ import annotations

import base64
import gzip
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.api.classify import MAX_SERVER_WORDS, classify_status
from airflow_provider_redbrick.api.values import too_many, values_in
from airflow_provider_redbrick.exceptions import RedBrickAnswerError

if TYPE_CHECKING:
    from collections.abc import Mapping

# An answer names each of its root fields once or twice.
_MOST_ISSUES = 1000
_NO_JSON = object()
# Higher levels take twice as long for labels, and make them no smaller to speak of.
_LEVEL = 5


@dataclass(frozen=True)
class GraphQLIssue:
    """One entry of an answer's ``errors``: the server's words, and the alias or root field it is about, if named."""

    message: str
    root: str | None


@dataclass(frozen=True)
class Answer:
    """A decoded GraphQL answer; ``data`` may be partial when there are ``issues``."""

    data: dict[str, Any] | None
    issues: tuple[GraphQLIssue, ...]


def encode(document: str, variables: Mapping[str, Any], *, plain_json: bool) -> tuple[bytes, dict[str, str]]:
    """Return a request's body and headers: base64 text of gzipped JSON, or JSON as it is."""
    text = json.dumps({"query": document, "variables": variables}, separators=(",", ":")).encode()
    headers = {"Content-Type": "application/json"}
    if plain_json:
        return text, headers
    # mtime=0: the same request is the same bytes.
    return base64.b64encode(gzip.compress(text, _LEVEL, mtime=0)), {**headers, "Content-Encoding-RB": "gzip"}


def decode(status: int, headers: Mapping[str, str], content: bytes) -> Answer:
    """Turn an HTTP answer into data and issues.

    :raises RedBrickAPIError: for every status that is not a success, and for a body that is not a GraphQL answer.
    """
    if not 200 <= status < 300:
        raise classify_status(status, headers, content)
    problem = too_many(values_in(content))
    if problem is not None:
        words = f"RedBrick's answer was not read: {problem}."
        raise RedBrickAnswerError(words, status=status, maybe_applied=True)
    body = _json(content)
    data, errors = (body.get("data"), body.get("errors")) if isinstance(body, dict) else (None, None)
    well_formed = isinstance(body, dict) and (data is None or isinstance(data, dict))
    if not well_formed or (data is None and not errors):
        words = (
            "something that is not JSON (a proxy or login page?)"
            if body is _NO_JSON
            else "JSON that is no GraphQL answer"
        )
        raise RedBrickAnswerError(f"RedBrick answered with {words}.", status=status, maybe_applied=True)
    if not isinstance(errors, list):
        errors = [errors] if errors else []
    return Answer(data, tuple(_issue(entry) for entry in errors[:_MOST_ISSUES]))


def _json(content: bytes) -> object:
    """Read JSON; what cannot be read is no JSON, and not the context of any error: that would keep all of it."""
    try:
        return json.loads(str(content, "utf-8-sig"))
    except (ValueError, RecursionError):
        return _NO_JSON


def _issue(entry: object) -> GraphQLIssue:
    if not isinstance(entry, dict):
        return GraphQLIssue(_words(entry), None)
    path = entry.get("path")
    root = path[0] if isinstance(path, list) and path and isinstance(path[0], str) else None
    return GraphQLIssue(_words(entry.get("message") or "no message"), root)


def _words(value: object) -> str:
    """Return the server's words; in place of a tower of lists, what it is."""
    try:
        return str(value)[:MAX_SERVER_WORDS]
    except RecursionError:
        return type(value).__name__
