"""The HTTP server: GraphQL endpoint, storage, control routes and board.

The steps of a request are in `request`. This module waits between them, and sends the response. Invariants:

1. Every response has a `Date` of the server's clock, which a behavior can set ahead or behind.
2. A request for another host than this server is refused: a web page could otherwise reach the server under its own
   name (DNS rebinding), and read the data with the key, which is public.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import json
import signal
import socket
import sys
import time
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route, Router
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from redbrick_sandbox import demo_project
from redbrick_sandbox.board import StoreBoard
from redbrick_sandbox.request import CONTROL_PATH, GRAPHQL_PATHS, STORAGE_PATH, Accepted, Reply, Service

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request as HttpRequest
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from redbrick_sandbox.sandbox import Sandbox


# Key in the ASGI scope of a function that aborts the connection. The server's protocol sets it.
CUT = "sandbox.cut"


def build_app(sandbox: Sandbox) -> ASGIApp:
    """Build the ASGI application of a sandbox."""
    service = Service(sandbox)
    endpoint = GraphQL(sandbox, service)
    routes: list[BaseRoute] = [
        *(Route(path, endpoint.handle, methods=["POST"]) for path in GRAPHQL_PATHS),
        Route(STORAGE_PATH + "{path:path}", Direct(service).handle, methods=["GET", "PUT"]),
        Route(CONTROL_PATH + "{name}", Direct(service).handle, methods=["GET", "POST"]),
        Mount("/", Board(sandbox)),
    ]
    return Front(Starlette(routes=routes), service)


class Front:
    """Refuse requests of foreign web pages, and date each response by the server's clock.

    :param app: answers the other requests.
    :param service: has the server's clock.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""

        async def send_dated(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"date", self._service.date().encode())]
            await send(message)

        refusal = _refusal(scope) if scope["type"] == "http" else None
        await (refusal or self._app)(scope, receive, send_dated)


def _refusal(scope: Scope) -> Response | None:
    """Return the response to a request that a foreign web page could have sent; None if it could not."""
    headers = {name: value.decode("latin-1").lower() for name, value in scope["headers"]}
    own = _own_names(scope["server"][1])
    if headers.get(b"host") not in own:
        return JSONResponse({"error": f"this server is {max(own)}, and no other host"}, status_code=403)
    if not scope["path"].startswith(CONTROL_PATH):
        return None
    origin = headers.get(b"origin")
    if origin is not None and origin.removeprefix("http://") not in own:
        return JSONResponse({"error": f"origin {origin!r} may not control the sandbox"}, status_code=403)
    kind = headers.get(b"content-type", "").partition(";")[0].strip()
    if scope["method"] == "POST" and kind != "application/json":
        # A page may send other types to foreign servers without asking.
        return JSONResponse({"error": "the Content-Type must be application/json"}, status_code=415)
    return None


@lru_cache(4)
def _own_names(port: int) -> frozenset[str]:
    names = ("127.0.0.1", "[::1]", "localhost")
    return frozenset({*(f"{name}:{port}" for name in names), *(names if port == 80 else ())})


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

    :param sandbox: has the latency and the counters.
    :param service: answers the requests.
    """

    def __init__(self, sandbox: Sandbox, service: Service) -> None:
        self._sandbox = sandbox
        self._service = service
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
        reply = self._service.accept(request.headers, body)
        if isinstance(reply, Accepted):
            reply = await self._execute(reply)
        if latency:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        return _response(reply)

    async def _execute(self, accepted: Accepted) -> Reply:
        if accepted.wait_s:
            await asyncio.sleep(accepted.wait_s)
        async with self._execution_lock:
            # Send finished responses before the next execution: all requests share one thread.
            await asyncio.sleep(0)
            return self._service.execute(accepted)


class Direct:
    """Endpoint of the storage and of the control routes, which have no latency."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def handle(self, request: HttpRequest) -> Response:
        """Answer a request."""
        path, parameters = request.url.path, request.query_params
        body = await request.body()
        return _response(self._service.answer(request.method, path, parameters, request.headers, body))


def _response(reply: Reply) -> Response:
    return Cut() if reply.cut else Response(reply.body, reply.status, reply.headers)


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
        date_header=False,
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
