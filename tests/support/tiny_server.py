"""A real HTTP server on loopback with scripted responses."""

from __future__ import annotations

import base64
import gzip
import json
import socket
import struct
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping
    from email.message import Message


@dataclass(frozen=True)
class ReceivedRequest:
    """A request that arrived."""

    method: str
    path: str
    headers: Message
    body: bytes

    @property
    def graphql(self) -> dict[str, Any]:
        body = self.body
        if self.headers["Content-Encoding-RB"] == "gzip":
            body = gzip.decompress(base64.b64decode(body, validate=True))
        return json.loads(body)


@dataclass(frozen=True)
class Reply:
    status: int
    body: bytes = b""
    headers: Mapping[str, str] | None = None


class Unread:
    """Drop the connection without reading the request."""


def json_reply(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    return Reply(status, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})


def drop(handler: Handler) -> None:
    """Drop the connection after the request was read."""
    reset(handler.connection)


def hang(handler: Handler) -> None:
    """Do not answer before the test ends."""
    handler.server.tiny.wait_until_closed()


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


class Handler(BaseHTTPRequestHandler):
    server: Server

    def handle(self) -> None:
        tiny = self.server.tiny
        tiny.connections += 1
        if isinstance(tiny.replies[0], Unread):
            tiny.next_reply()
            # Wait until the client has sent something. Otherwise it may know that nothing was sent.
            self.connection.recv(1, socket.MSG_PEEK)
            reset(self.connection)
            return
        super().handle()

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.tiny.got.append(ReceivedRequest(self.command, self.path, self.headers, body))
        reply = self.server.tiny.next_reply()
        if callable(reply):
            reply(self)
            return
        self.send_response(reply.status)
        headers = {"Content-Length": str(len(reply.body)), **(reply.headers or {})}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(reply.body)

    do_POST = do_GET = do_PUT = answer  # noqa: N815

    def finish(self) -> None:
        if self.connection.fileno() >= 0:
            super().finish()

    def log_message(self, *args: Any) -> None:
        """Log nothing."""


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, tiny: TinyServer, tls: ssl.SSLContext | None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.tiny = tiny
        self.tls = tls

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        return (self.tls.wrap_socket(connection, server_side=True) if self.tls else connection), address

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore errors: tests make clients disconnect."""


class TinyServer:
    """Answers each request with the next of ``replies``, and repeats the last one."""

    def __init__(self, *replies: Any, tls: ssl.SSLContext | None = None) -> None:
        self.replies = list(replies)
        self.got: list[ReceivedRequest] = []
        self.connections = 0
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._server = Server(self, tls)
        self.port = self._server.server_address[1]
        self.origin = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self.url = f"{self.origin}/graphql/"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def next_reply(self) -> Reply | Callable[[Any], None]:
        with self._lock:
            return self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]

    def wait_until_closed(self) -> None:
        self._over.wait(30)

    def __enter__(self) -> TinyServer:  # noqa: PYI034
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def dead_port() -> int:
    """Return a port that no process listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
