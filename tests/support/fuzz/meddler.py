"""A proxy before the sandbox that changes some responses and counts requests."""

from __future__ import annotations

import base64
import gzip
import json
import re
import threading
from dataclasses import dataclass
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from fuzz.values import KEY, SIGNATURE, Change
from tiny_server import Reply

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sandbox_process import SandboxProcess

_SENT = ("Content-Type", "Content-Encoding", "Content-Encoding-RB", "x-ms-blob-type")
_KEPT = ("Content-Type", "Content-Encoding")


@dataclass(frozen=True)
class Meddling:
    """The change of one response.

    :param number: to which, counted from 0.
    :param how: how its text changes, or what comes instead of it.
    """

    number: int
    how: Change | Reply


class Meddler:
    """Forward requests to the sandbox, with a unique key and unique signatures."""

    def __init__(self, sandbox: SandboxProcess) -> None:
        self.sandbox = sandbox
        self.meddlings: dict[int, list[Change | Reply]] = {}
        self.documents: list[str] = []
        self._asked = 0
        self._lock = threading.Lock()
        self._server = _Server(self)
        self.origin = f"http://localhost:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def __enter__(self) -> Meddler:  # noqa: PYI034
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def mutations(self) -> list[str]:
        """The mutations that were sent."""
        return [document for document in self.documents if document.lstrip().startswith("mutation")]

    @property
    def connection(self) -> str:
        """The connection to use, as JSON: one request at a time, so that the same example is the same conversation."""
        ids = {"org_id": self.sandbox.org_id, "project_id": self.sandbox.project_id}
        extra = {**ids, "timeout": 5, "settle_seconds": 0.1}
        whole = {"conn_type": "redbrick", "password": KEY, "host": self.origin}
        return json.dumps({**whole, "extra": {**extra, "max_concurrency": 1}})

    def begin(self, meddlings: Sequence[Meddling] = ()) -> None:
        """Reset the proxy with new changes."""
        self.meddlings = {}
        for each in meddlings:
            self.meddlings.setdefault(each.number, []).append(each.how)
        self.documents = []
        self._asked = 0

    def answer(self, method: str, path: str, headers: Any, body: bytes) -> Reply:
        """Return the answer to a request."""
        with self._lock:
            number = self._asked
            self._asked += 1
            if path.startswith("/graphql/"):
                self.documents.append(_document(headers, body))
        reply = self._passed_on(method, path, headers, body)
        for how in self.meddlings.get(number, ()):
            reply = how if isinstance(how, Reply) else _changed(reply, how)
        return reply

    def _passed_on(self, method: str, path: str, headers: Any, body: bytes) -> Reply:
        there = HTTPConnection(urlsplit(self.sandbox.url).netloc, timeout=30)
        sent = {name: headers[name] for name in _SENT if headers[name] is not None}
        if headers["ApiKey"] == KEY:
            sent["ApiKey"] = self.sandbox.api_key
        there.request(method, path.replace(f"{SIGNATURE}-", ""), body, sent)
        response = there.getresponse()
        content = response.read()
        there.close()
        if path.startswith("/graphql/"):
            content = content.replace(self.sandbox.url.encode(), self.origin.encode())
            content = re.sub(rb"([?&]signature=)", rb"\1" + f"{SIGNATURE}-".encode(), content)
        kept = {name: response.headers[name] for name in _KEPT if response.headers[name] is not None}
        return Reply(response.status, content, kept)


def _document(headers: Any, body: bytes) -> str:
    if headers["Content-Encoding-RB"] == "gzip":
        body = gzip.decompress(base64.b64decode(body))
    return str(json.loads(body)["query"])


def _changed(reply: Reply, change: Change) -> Reply:
    try:
        text = reply.body.decode()
    except UnicodeDecodeError:
        return Reply(reply.status, reply.body[: int(len(reply.body) * change.where)], reply.headers)
    if KEY in text:
        return reply  # half a key is not an echo
    return Reply(reply.status, change(text).encode("utf-8", "surrogatepass"), reply.headers)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16  # headers and body in one packet
    server: _Server

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        reply = self.server.meddler.answer(self.command, self.path, self.headers, body)
        self.send_response(reply.status)
        for name, value in {"Content-Length": str(len(reply.body)), **(reply.headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(reply.body)

    do_POST = do_GET = do_PUT = answer  # noqa: N815

    def log_message(self, *args: Any) -> None:
        """Keep quiet."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, meddler: Meddler) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.meddler = meddler

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log nothing, because clients that disconnect are part of the tests."""
