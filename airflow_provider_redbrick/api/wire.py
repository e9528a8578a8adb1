"""GraphQL over HTTP, as RedBrick's own clients write it: what is sent, and what comes back."""

from __future__ import annotations

import base64
import gzip
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.api.classify import MAX_SERVER_WORDS, classify_status
from airflow_provider_redbrick.exceptions import RedBrickAnswerError

if TYPE_CHECKING:
    from collections.abc import Mapping

_OPERATION = re.compile(r"\s*(query|mutation)\s+(\w+)")


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


def describe(document: str) -> tuple[str, bool]:
    """Return a document's operation name and whether it is a mutation."""
    match = _OPERATION.match(document)
    if match is None:
        raise ValueError("A document starts with 'query name' or 'mutation name'.")
    return match.group(2), match.group(1) == "mutation"


def encode(document: str, variables: Mapping[str, Any], *, plain_json: bool) -> tuple[bytes, dict[str, str]]:
    """Return a request's body and headers: base64 text of gzipped JSON, or JSON as it is."""
    text = json.dumps({"query": document, "variables": variables}, separators=(",", ":")).encode()
    headers = {"Content-Type": "application/json"}
    if plain_json:
        return text, headers
    # mtime=0: the same request is the same bytes.
    return base64.b64encode(gzip.compress(text, mtime=0)), {**headers, "Content-Encoding-RB": "gzip"}


def decode(status: int, headers: Mapping[str, str], content: bytes) -> Answer:
    """Turn an HTTP answer into data and issues.

    :raises RedBrickAPIError: for every status that is not a success, and for a body that is not a GraphQL answer.
    """
    if not 200 <= status < 300:
        raise classify_status(status, headers, content)
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        raise RedBrickAnswerError(
            "RedBrick answered with something that is not JSON (a proxy or login page?).",
            status=status,
            maybe_applied=True,
        ) from None
    data, errors = (body.get("data"), body.get("errors")) if isinstance(body, dict) else (None, None)
    well_formed = isinstance(body, dict) and (data is None or isinstance(data, dict))
    if not well_formed or (data is None and not errors):
        raise RedBrickAnswerError(
            "RedBrick answered with JSON that is no GraphQL answer.", status=status, maybe_applied=True
        )
    if not isinstance(errors, list):
        errors = [errors] if errors else []
    return Answer(data, tuple(_issue(entry) for entry in errors))


def masked(content: bytes, secret: str) -> bytes:
    """Return an answer without the secret, in each way JSON may spell it: nothing a server echoes may be logged."""
    quoted = json.dumps(secret)[1:-1]
    for spelling in dict.fromkeys((secret, quoted, quoted.replace("/", "\\/"))):
        content = content.replace(spelling.encode(), b"***")
    return content


def _issue(entry: object) -> GraphQLIssue:
    if not isinstance(entry, dict):
        return GraphQLIssue(str(entry)[:MAX_SERVER_WORDS], None)
    path = entry.get("path")
    root = path[0] if isinstance(path, list) and path and isinstance(path[0], str) else None
    return GraphQLIssue(str(entry.get("message") or "no message")[:MAX_SERVER_WORDS], root)
