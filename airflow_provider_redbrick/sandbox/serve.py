"""Run the server on loopback: sockets, ready line and shutdown."""

from __future__ import annotations

import errno
import gc
import json
import signal
import socket
import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from airflow_provider_redbrick.sandbox import seed
from airflow_provider_redbrick.sandbox.server import CUT, build_app

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp, Receive, Scope, Send

    from airflow_provider_redbrick.sandbox.core import Sandbox


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
    project = sandbox.project(seed.ORG_ID, seed.PROJECT_ID)
    ids = urlencode({"org_id": seed.ORG_ID, "project_id": seed.PROJECT_ID})
    return {
        "url": sandbox.url,
        "org_id": seed.ORG_ID,
        "project_id": seed.PROJECT_ID,
        "api_key": seed.API_KEY,
        "stages": [stage.name for stage in project.flow.stages],
        "members": [person.email for person in seed.LABELERS],
        "airflow_conn_uri": f"redbrick://:{seed.API_KEY}@{quote(sandbox.url, safe='')}/?{ids}",
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
