"""Run a sandbox in this process, in virtual time: no socket, no thread, no waiting.

sandbox = SandboxInProcess(behavior="read_lag=2")
ids = sandbox.seed_tasks(5)
with sandbox.connect(transport):  # requests of the provider's client
    ...
sandbox.clock.sleep(2)
"""

from __future__ import annotations

import io
import threading
from typing import TYPE_CHECKING, Any

import requests
from requests.adapters import BaseAdapter, HTTPAdapter
from sandbox_process import SandboxProcess
from urllib3 import HTTPResponse
from urllib3.exceptions import ProtocolError

from redbrick_sandbox import behaviors, http
from redbrick_sandbox.clock import VirtualClock
from redbrick_sandbox.request import Service
from redbrick_sandbox.sandbox import Sandbox, Settings

if TYPE_CHECKING:
    from airflow_provider_redbrick.client.transport.http import Transport


class SandboxAdapter(BaseAdapter):
    """Send the requests of a session to a sandbox in this process.

    A response that comes later than the timeout, by the sandbox's clock, is a `ReadTimeout`.
    """

    def __init__(self, sandbox: Sandbox) -> None:
        super().__init__()
        self._sandbox = sandbox
        self._service = Service(sandbox)
        self._responses = HTTPAdapter()
        self._lock = threading.Lock()

    def send(self, request: requests.PreparedRequest, *_: Any, timeout: Any = None, **__: Any) -> requests.Response:
        """Answer a request.

        :raises requests.ConnectionError: if the sandbox drops the connection.
        :raises requests.ReadTimeout: if the response comes too late.
        """
        # The client may use several threads. A sandbox runs in one thread at a time.
        with self._lock:
            began = self._sandbox.clock.time()
            reply = self._service.handle(request.method, request.url, request.headers, _body_of(request))
            took_s = self._sandbox.clock.time() - began
        limit = timeout[1] if isinstance(timeout, tuple) else timeout
        if limit is not None and took_s > limit:
            raise requests.ReadTimeout("the response came too late", request=request)
        if reply.cut:
            raise requests.ConnectionError(ProtocolError("Connection aborted."), request=request)
        raw = HTTPResponse(io.BytesIO(reply.body), reply.headers, reply.status, preload_content=False)
        return self._responses.build_response(request, raw)

    def close(self) -> None:
        """Do nothing: there are no connections."""


def _body_of(request: requests.PreparedRequest) -> bytes:
    body = request.body
    if body is None or isinstance(body, bytes):
        return body or b""
    if isinstance(body, str):
        return body.encode()
    return body.read() if hasattr(body, "read") else b"".join(body)


class SandboxInProcess(SandboxProcess):
    """A sandbox in this process, with the methods of one in a process of its own.

    :param behavior: behaviors, as on the command line.
    :param clock: time of the sandbox; virtual by default.
    :param settings: settings of the sandbox, such as ``seed``, ``fault`` and ``latency_ms``.
    """

    def __init__(self, *, behavior: str = "", clock: VirtualClock | None = None, **settings: Any) -> None:
        super().__init__()
        self.clock = clock or VirtualClock()
        self.sandbox = Sandbox(Settings(**settings), behaviors=behaviors.parse(behavior), clock=self.clock)
        self.adapter = SandboxAdapter(self.sandbox)
        self.http.mount("http://", self.adapter)
        self._take(http.ready_line(self.sandbox))

    def start(self) -> SandboxInProcess:
        """Do nothing: it is ready."""
        return self

    def connect(self, transport: Transport) -> Transport:
        """Send the requests of the provider's client to this sandbox, and return the client's transport."""
        for session in (transport._session, transport._storage_session):
            session.mount("http://", self.adapter)
        return transport
