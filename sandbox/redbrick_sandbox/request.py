"""Answer one request, without a socket.

A GraphQL request passes through these steps, in this order:

1. The API key is checked, and the body is decoded and parsed. The document must be one that the server accepts. Errors
   here are never replaced by a fault.
2. `Faults.decide` selects the fault of the request, if any; without one, `LateDraw.decide` whether a mutation is late.
3. A fault that replaces the execution is answered at once, without any effect on the data. So is a late mutation, which
   is applied when its time has come, to the state of that time.
4. The document is executed, one request at a time, after the work that is due.
5. The fault `drop_after` aborts the connection after execution, so that the client does not learn the result.

A body is plain JSON or, if the header `Content-Encoding-RB` is `gzip`, base64 of gzip of JSON.

`Service.handle` does all of it in the caller's thread and with the sandbox's clock, for simulations. The HTTP server
does the same steps, and waits between them without blocking.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import json
import zlib
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

from redbrick_sandbox import faults, store
from redbrick_sandbox.control import Control
from redbrick_sandbox.graphql import FAULT_PREFIX, Document, InvalidDocumentError, require_accepted, shared_engine
from redbrick_sandbox.sandbox import Request, Sandbox, signature

if TYPE_CHECKING:
    from collections.abc import Mapping

ENCODING_HEADER = "Content-Encoding-RB"
GRAPHQL_PATHS = ("/graphql/", "/api/graphql/")
STORAGE_PATH = "/storage/"
CONTROL_PATH = "/_sandbox/"
_JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Reply:
    """A response. If `cut` is true, the connection is aborted instead."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut: bool = False


@dataclass(frozen=True)
class Call:
    """A decoded request. `size` is the size of the decoded body in bytes."""

    query: str
    variables: dict[str, Any] | None
    size: int


@dataclass(frozen=True)
class Accepted:
    """A valid GraphQL request, its fault, and the answer and delay if it is applied late.

    It waits for `wait_s` seconds before it is executed.
    """

    call: Call
    document: Document
    fault: str | None
    late: tuple[str, float] | None

    @property
    def wait_s(self) -> float:
        """Seconds before the execution."""
        return faults.SLOW_SECONDS if self.fault == "slow" else 0.0


class BodyError(ValueError):
    """A request body cannot be decoded. The message says why."""


class Service:
    """The API, the storage and the control routes of a sandbox."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._control = Control(sandbox)
        self._engine = shared_engine()

    def handle(self, method: str, url: str, headers: Mapping[str, str], body: bytes = b"") -> Reply:
        """Answer a request. The sandbox's clock sleeps for its latency.

        :param method: HTTP method.
        :param url: address or path of the request, with its query.
        :param headers: headers, by name in any case.
        :param body: the body.
        """
        parts = urlsplit(url)
        headers = {name.lower(): value for name, value in headers.items()}
        if method == "POST" and parts.path in GRAPHQL_PATHS:
            self._sandbox.stats.requests += 1
            clock, half_s = self._sandbox.clock, self._sandbox.settings.latency_ms / 2000
            clock.sleep(half_s)
            accepted = self.accept(headers, body)
            if isinstance(accepted, Accepted):
                clock.sleep(accepted.wait_s)
                accepted = self.execute(accepted)
            clock.sleep(half_s)
            reply = accepted
        else:
            parameters = {name: values[0] for name, values in parse_qs(parts.query).items()}
            reply = self.answer(method, parts.path, parameters, headers, body)
        return Reply(reply.status, {**reply.headers, "Date": self.date()}, reply.body, reply.cut)

    def date(self) -> str:
        """Return the `Date` header: the server's time."""
        return formatdate(self._sandbox.clock.server_time(), usegmt=True)

    def accept(self, headers: Mapping[str, str], body: bytes) -> Accepted | Reply:
        """Check and decode a GraphQL request, and decide what happens to it.

        :param headers: headers, by name in lower case.
        :param body: the body.
        :return: the request, or the response if it is invalid.
        """
        sandbox = self._sandbox
        if (headers.get("apikey") or headers.get("authorization")) not in sandbox.api_keys:
            return _json(401, {"message": "Unauthorized"})
        try:
            call = read_call(body, headers)
            if sandbox.behaviors.max_body is not None and call.size > sandbox.behaviors.max_body:
                return _json(413, {"message": "Request Too Long"})
            document = self._engine.read(call.query)
            require_accepted(document, sandbox.behaviors)
        except BodyError as error:
            return _json(400, {"errors": [{"message": str(error)}]})
        except InvalidDocumentError as error:
            return _json(400, {"errors": error.errors})
        root_fields = [name for _, name in document.roots]
        sandbox.stats.root_fields.update(root_fields)
        fault = sandbox.faults.decide(root_fields, mutation=document.mutation, pages=document.pages)
        late = sandbox.late_draw.decide(root_fields) if document.mutation and fault is None else None
        return Accepted(call, document, fault, late)

    def execute(self, accepted: Accepted) -> Reply:
        """Execute a request, or replace its execution."""
        sandbox, fault = self._sandbox, accepted.fault
        replacement = None if fault is None else self._replacement(fault)
        if replacement is not None:
            return replacement
        sandbox.settle()
        if accepted.late is not None:
            how, seconds = accepted.late
            sandbox.schedule(seconds, lambda: self._apply_late(accepted))
            return Reply(0, cut=True) if how == "drop" else _json(504, {"message": "Endpoint request timed out"})
        seen = sandbox if accepted.document.mutation else sandbox.reader()
        try:
            answer = self._run(accepted, seen)
        except InvalidDocumentError as error:
            return _json(400, {"errors": error.errors})
        return Reply(0, cut=True) if fault == "drop_after" else self._answered(answer)

    def _run(self, accepted: Accepted, seen: Sandbox) -> dict[str, Any]:
        request = Request(
            seen,
            broken=_every_second_root(accepted.document) if accepted.fault == "gql_partial" else frozenset(),
            not_ok=accepted.fault == "not_ok",
            empty_page=accepted.fault == "empty_page",
        )
        return self._engine.run(accepted.document, accepted.call.variables, request)

    def _apply_late(self, accepted: Accepted) -> None:
        # The client has its answer already, so a refusal is not reported.
        with suppress(InvalidDocumentError):
            self._run(accepted, self._sandbox)

    def _answered(self, answer: dict[str, Any]) -> Reply:
        """Return an answer in the form that this server gives to errors."""
        behaviors = self._sandbox.behaviors
        if not answer.get("errors"):
            return Reply(200, _JSON, store.write(answer).encode())
        if behaviors.error_path == "no":
            answer["errors"] = [{"message": error["message"]} for error in answer["errors"]]
        if behaviors.error_data == "null":
            answer["data"] = None
        return _json(int(behaviors.error_status), answer)

    def _replacement(self, fault: str) -> Reply | None:
        """Return the response that replaces the execution; None to execute."""
        if fault == "drop_before":
            return Reply(0, cut=True)
        if fault == "html":
            page = b"<!doctype html><title>Sandbox</title><p>A page where JSON was expected.</p>"
            return Reply(200, {"Content-Type": "text/html; charset=utf-8"}, page)
        if fault == "gql_error":
            return self._answered({"errors": [{"message": f"{FAULT_PREFIX}: nothing was executed"}], "data": None})
        status = {**faults.STATUS, "rate_limit": 429, "rate_limit_after": 429, "too_large": 413}.get(fault)
        if status is None:
            return None
        headers = {"Retry-After": "1"} if fault == "rate_limit_after" else {}
        return _json(status, {"message": f"{FAULT_PREFIX}: {fault}"}, headers)

    def answer(
        self, method: str, path: str, parameters: Mapping[str, str], headers: Mapping[str, str], body: bytes
    ) -> Reply:
        """Answer a request to the storage or a control route. They have neither latency nor faults.

        :param method: HTTP method.
        :param path: path of the URL.
        :param parameters: parameters of the URL.
        :param headers: headers, by name in lower case.
        :param body: the body.
        """
        if path.startswith(STORAGE_PATH):
            return self._store(method, unquote(path[len(STORAGE_PATH) :]), parameters, headers, body)
        if path.startswith(CONTROL_PATH):
            return _json(*self._control.handle(method, path[len(CONTROL_PATH) :], parameters, body))
        return Reply(404)

    def _store(
        self, method: str, path: str, signed: Mapping[str, str], headers: Mapping[str, str], body: bytes
    ) -> Reply:
        """Answer a PUT or GET of a file. Answers 403 if the signature is not valid for the request."""
        given = signed.get("signature")
        if method == "PUT":
            kind, encoding = headers.get("content-type", ""), headers.get("content-encoding", "")
            if given != signature("PUT", path, kind, encoding):
                return _json(403, {"message": "SignatureDoesNotMatch"})
            self._sandbox.put_file(path, body, kind, encoding or None)
            return Reply(200)
        if given != signature("GET", path):
            return _json(403, {"message": "SignatureDoesNotMatch"})
        row = self._sandbox.store.row("SELECT content, type, encoding FROM files WHERE path = ?", (path,))
        if row is None:
            return _json(404, {"message": "NoSuchKey"})
        encoding_header = {"Content-Encoding": row["encoding"]} if row["encoding"] else {}
        return Reply(200, {"Content-Type": row["type"], **encoding_header}, bytes(row["content"]))


def _json(status: int, document: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Reply:
    return Reply(status, {**_JSON, **(headers or {})}, store.write(document).encode())


def _every_second_root(document: Document) -> frozenset[str]:
    """Select every second root field, starting with the second, or the only one."""
    aliases = list(dict.fromkeys(alias for alias, _ in document.roots))
    return frozenset(aliases[1::2] or aliases)


def read_call(body: bytes, headers: Mapping[str, str]) -> Call:
    """Decode a request body.

    :param body: the body.
    :param headers: headers of the request, by name in lower case.
    :raises BodyError: if the body does not match its headers, or has no query.
    """
    encoding = headers.get(ENCODING_HEADER.lower())
    if encoding == "gzip":
        try:
            body = gzip.decompress(base64.b64decode(body, validate=True))
        except (binascii.Error, OSError, EOFError, zlib.error) as error:
            raise BodyError(f"{ENCODING_HEADER} says gzip, but the body is not base64 of gzip: {error}") from None
    elif encoding:
        raise BodyError(f"{ENCODING_HEADER}: {encoding!r} is not known")
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BodyError(f"the body is not JSON: {error}") from None
    query = document.get("query") if isinstance(document, dict) else None
    if not isinstance(query, str):
        raise BodyError("the body has no query")
    variables = document.get("variables")
    if variables is not None and not isinstance(variables, dict):
        raise BodyError("variables must be an object")
    return Call(query, variables, len(body))
