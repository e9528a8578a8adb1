"""The HTTP server: GraphQL endpoint, storage, control routes, board and faults.

A GraphQL request passes through these steps, in this order:

1. The API key is checked, and the body is decoded and parsed. Errors here are never replaced by a fault.
2. `Faults.decide` selects the fault of the request, if any.
3. A fault that replaces the execution is answered at once, without any effect on the data.
4. The document is executed, one request at a time, after transitions that are due.
5. The fault `drop_after` aborts the connection after execution, so that the client does not learn the result.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route, Router

from airflow_provider_redbrick.sandbox import control, documents, faults
from airflow_provider_redbrick.sandbox.board_source import StoreBoard
from airflow_provider_redbrick.sandbox.core import Sandbox, signature
from airflow_provider_redbrick.sandbox.engine import FAULT_PREFIX, Document, Engine, InvalidDocumentError
from airflow_provider_redbrick.sandbox.request import Request
from airflow_provider_redbrick.sandbox.wire import BodyError, Call, read_call

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request as HttpRequest
    from starlette.types import Receive, Scope, Send

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
            from airflow_provider_redbrick.sandbox import board  # noqa: PLC0415

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
        return Cut() if fault == "drop_after" else Response(documents.write(answer), media_type="application/json")


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
