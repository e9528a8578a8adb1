"""The HTTP server: GraphQL endpoint, storage, control routes, board and faults.

A GraphQL request passes through these steps, in this order:

1. The API key is checked, and the body is decoded and parsed. Errors here are never replaced by a fault.
2. `Faults.decide` selects the fault of the request, if any.
3. A fault that replaces the execution is answered at once, without any effect on the data.
4. The document is executed, one request at a time, after transitions that are due.
5. The fault `drop_after` aborts the connection after execution, so that the client does not learn the result.

A body is plain JSON or, if the header `Content-Encoding-RB` is `gzip`, base64 of gzip of JSON.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import errno
import gc
import gzip
import json
import signal
import socket
import sys
import time
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import uvicorn
from starlette.applications import Starlette
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route, Router
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from redbrick_sandbox import control, demo_project, faults, store
from redbrick_sandbox.board import StoreBoard
from redbrick_sandbox.graphql import FAULT_PREFIX, Document, Engine, InvalidDocumentError
from redbrick_sandbox.sandbox import Request, Sandbox, signature

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from starlette.requests import Request as HttpRequest
    from starlette.types import ASGIApp, Receive, Scope, Send

    from redbrick_sandbox.sandbox import Sandbox


# Key in the ASGI scope of a function that aborts the connection. The server's protocol sets it.
CUT = "sandbox.cut"


def build_app(sandbox: Sandbox) -> Starlette:
    """Build the ASGI application of a sandbox."""
    endpoint = GraphQL(sandbox, Engine())
    routes: list[BaseRoute] = [
        Route("/graphql/", endpoint.handle, methods=["POST"]),
        Route("/api/graphql/", endpoint.handle, methods=["POST"]),
        Route("/storage/{path:path}", Storage(sandbox).handle, methods=["GET", "PUT"]),
        *control.routes(sandbox),
        Mount("/", Board(sandbox)),
    ]
    return Starlette(routes=routes)


class Board:
    """Routes of the board, loaded on first use.

    The board draws images and needs more libraries than the API.
    """

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._pages: Router | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request to the routes of the board."""
        if self._pages is None:
            from redbrick_sandbox import board  # noqa: PLC0415

            self._pages = Router(routes=board.routes(StoreBoard(self._sandbox)))
        await self._pages(scope, receive, send)


class Cut(Response):
    """Response that aborts the connection instead of answering."""

    async def __call__(self, scope: Scope, receive: Receive, _send: Send) -> None:
        """Abort the connection and wait until the server has noticed."""
        cut: Callable[[], None] = scope[CUT]
        cut()
        while (await receive())["type"] != "http.disconnect":
            pass


class GraphQL:
    """GraphQL endpoint.

    :param sandbox: the sandbox.
    :param engine: executes the documents.
    """

    def __init__(self, sandbox: Sandbox, engine: Engine) -> None:
        self._sandbox = sandbox
        self._engine = engine
        self._execution_lock = asyncio.Lock()

    async def handle(self, request: HttpRequest) -> Response:
        """Answer a POST request.

        Half of the configured latency passes before the execution, and the rest after it. The rest includes the time of
        the execution.
        """
        self._sandbox.stats.requests += 1
        latency = self._sandbox.settings.latency_ms / 1000
        due = time.monotonic() + latency
        body = await request.body()
        if latency:
            await asyncio.sleep(latency / 2)
        answer = await self._handle(request, body)
        if latency:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        return answer

    async def _handle(self, request: HttpRequest, body: bytes) -> Response:
        sandbox = self._sandbox
        given = request.headers.get("ApiKey") or request.headers.get("Authorization")
        if given not in sandbox.api_keys:
            return JSONResponse({"message": "Unauthorized"}, status_code=401)
        try:
            call = read_call(body, request.headers)
            document = self._engine.read(call.query)
        except BodyError as error:
            return _errors([{"message": str(error)}])
        except InvalidDocumentError as error:
            return _errors(error.errors)
        sandbox.stats.root_fields.update(name for _, name in document.roots)
        fault = sandbox.faults.decide(
            [name for _, name in document.roots],
            size=call.size,
            mutation=document.mutation,
            pages=document.pages,
        )
        return await self._answer(call, document, fault)

    async def _answer(self, call: Call, document: Document, fault: str | None) -> Response:
        if fault == "slow":
            await asyncio.sleep(faults.SLOW_SECONDS)
        replacement = None if fault is None else _replacement_response(fault)
        if replacement is not None:
            return replacement
        async with self._execution_lock:
            # Send finished responses before the next execution: all requests share one thread.
            await asyncio.sleep(0)
            return self._executed(call, document, fault)

    def _executed(self, call: Call, document: Document, fault: str | None) -> Response:
        self._sandbox.settle()
        request = Request(
            self._sandbox,
            broken=_every_second_root(document) if fault == "gql_partial" else frozenset(),
            not_ok=fault == "not_ok",
            empty_page=fault == "empty_page",
        )
        try:
            answer = self._engine.run(document, call.variables, request)
        except InvalidDocumentError as error:
            return _errors(error.errors)
        return Cut() if fault == "drop_after" else Response(store.write(answer), media_type="application/json")


def _errors(errors: list[Any]) -> Response:
    return JSONResponse({"errors": errors}, status_code=400)


def _every_second_root(document: Document) -> frozenset[str]:
    """Select every second root field, starting with the second, or the only one."""
    aliases = list(dict.fromkeys(alias for alias, _ in document.roots))
    return frozenset(aliases[1::2] or aliases)


def _replacement_response(fault: str) -> Response | None:
    """Return the response that replaces the execution; None to execute."""
    if fault == "drop_before":
        return Cut()
    if fault == "html":
        return HTMLResponse("<!doctype html><title>Sandbox</title><p>A page where JSON was expected.</p>")
    if fault == "gql_error":
        return JSONResponse({"errors": [{"message": f"{FAULT_PREFIX}: nothing was executed"}], "data": None})
    status = {**faults.STATUS, "rate_limit": 429, "rate_limit_after": 429, "too_large": 413}.get(fault)
    if status is None:
        return None
    headers = {"Retry-After": "1"} if fault == "rate_limit_after" else None
    return JSONResponse({"message": f"{FAULT_PREFIX}: {fault}"}, status_code=status, headers=headers)


class Storage:
    """Storage endpoint for signed PUT and GET requests."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    async def handle(self, request: HttpRequest) -> Response:
        """Answer a PUT or GET. Answers 403 if the signature is not valid for the request."""
        path = request.path_params["path"]
        signed = request.query_params.get("signature")
        if request.method == "PUT":
            kind = request.headers.get("Content-Type", "")
            encoding = request.headers.get("Content-Encoding", "")
            if signed != signature("PUT", path, kind, encoding):
                return JSONResponse({"message": "SignatureDoesNotMatch"}, status_code=403)
            self._sandbox.put_file(path, await request.body(), kind, encoding or None)
            return Response(status_code=200)
        if signed != signature("GET", path):
            return JSONResponse({"message": "SignatureDoesNotMatch"}, status_code=403)
        query = "SELECT content, type, encoding FROM files WHERE path = ?"
        row = self._sandbox.store.row(query, (path,))
        if row is None:
            return JSONResponse({"message": "NoSuchKey"}, status_code=404)
        headers = {"Content-Type": row["type"]}
        if row["encoding"]:
            headers["Content-Encoding"] = row["encoding"]
        return Response(bytes(row["content"]), headers=headers)


class CuttableProtocol(HttpToolsProtocol):
    """HTTP/1.1 protocol whose application can abort its own connection.

    :param args: passed to the base class.
    :param kwargs: passed to the base class.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        inner: ASGIApp = self.app

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            scope[CUT] = self._cut
            await inner(scope, receive, send)

        self.app = app

    def _cut(self) -> None:
        self.transport.abort()


class _Server(uvicorn.Server):
    """Server that calls a function when it listens."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if self.started:
            self._ready()


def loopback_sockets(port: int) -> list[socket.socket]:
    """Listen on 127.0.0.1 and, if IPv6 is available, on ::1 with the same port.

    :param port: the port. 0 selects one that is free on both addresses.
    :raises OSError: if the port is in use.
    """
    four = _bound(socket.AF_INET, "127.0.0.1", port)
    try:
        return [four, _bound(socket.AF_INET6, "::1", four.getsockname()[1])]
    except OSError as error:
        # Clients try ::1 first for `localhost` and would reach another program that listens there. On a machine without
        # IPv6 they use 127.0.0.1.
        if error.errno != errno.EADDRINUSE:
            return [four]
        four.close()
        if port:
            raise
        return loopback_sockets(port)


def _bound(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
    # With an explicit protocol, asyncio disables Nagle's algorithm, which costs 40 ms per response.
    made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
        made.listen(512)
    except OSError:
        made.close()
        raise
    return made


def ready_line(sandbox: Sandbox) -> dict[str, Any]:
    """Return what a client needs to connect.

    It is printed as JSON when the server listens.
    """
    project = sandbox.project(demo_project.ORG_ID, demo_project.PROJECT_ID)
    ids = urlencode({"org_id": demo_project.ORG_ID, "project_id": demo_project.PROJECT_ID})
    return {
        "url": sandbox.url,
        "org_id": demo_project.ORG_ID,
        "project_id": demo_project.PROJECT_ID,
        "api_key": demo_project.API_KEY,
        "stages": [stage.name for stage in project.flow.stages],
        "members": [person.email for person in demo_project.LABELERS],
        "airflow_conn_uri": f"redbrick://:{demo_project.API_KEY}@{quote(sandbox.url, safe='')}/?{ids}",
    }


def run(sandbox: Sandbox, sockets: list[socket.socket]) -> int:
    """Serve until SIGINT or SIGTERM.

    :param sandbox: the sandbox.
    :param sockets: listening sockets of the same port.
    :return: the exit code.
    """
    sandbox.url = f"http://localhost:{sockets[0].getsockname()[1]}"

    def print_ready_line() -> None:
        sys.stdout.write(json.dumps(ready_line(sandbox)) + "\n")
        sys.stdout.flush()
        sys.stderr.write(f"Listening on loopback only (127.0.0.1 and ::1): {sandbox.url} - stop with Ctrl-C\n")

    config = uvicorn.Config(
        build_app(sandbox),
        http=CuttableProtocol,
        ws="none",
        loop="auto",
        lifespan="off",
        log_level="critical",
        access_log=False,
        proxy_headers=False,
        timeout_keep_alive=60,
        timeout_graceful_shutdown=2,
    )
    # A request creates thousands of objects but no reference cycles. Cycle detection took a sixth of the time.
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)
    # The server stops on the first signal and then raises it again for the previous handler, which does nothing here.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    _Server(config, print_ready_line).run(sockets=sockets)
    sandbox.store.close()
    return 0


ENCODING_HEADER = "Content-Encoding-RB"


class BodyError(ValueError):
    """A request body cannot be decoded. The message says why."""


@dataclass(frozen=True)
class Call:
    """A decoded request. `size` is the size of the decoded body in bytes."""

    query: str
    variables: dict[str, Any] | None
    size: int


def read_call(body: bytes, headers: Mapping[str, str]) -> Call:
    """Decode a request body.

    :param body: the body.
    :param headers: headers of the request.
    :raises BodyError: if the body does not match its headers, or has no query.
    """
    encoding = headers.get(ENCODING_HEADER)
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
