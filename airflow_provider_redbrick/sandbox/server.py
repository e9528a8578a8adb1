"""The sandbox over HTTP: GraphQL, storage, control routes and board, and the faults that hit requests."""

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
from airflow_provider_redbrick.sandbox.engine import FAULT_WORDS, Document, Engine, InvalidDocumentError
from airflow_provider_redbrick.sandbox.request import Request
from airflow_provider_redbrick.sandbox.wire import BodyError, Call, read_call

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request as HttpRequest
    from starlette.types import Receive, Scope, Send

# The server's protocol puts a function of this name into the scope; calling it cuts the connection.
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
    """The board's pages. Loaded when somebody first looks at them: they draw, and need more than the API does."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._pages: Router | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a request to the board's own routes."""
        if self._pages is None:
            from airflow_provider_redbrick.sandbox import board  # noqa: PLC0415

            self._pages = Router(routes=board.routes(StoreBoard(self._sandbox)))
        await self._pages(scope, receive, send)


class Cut(Response):
    """No answer: the connection is closed where an answer would begin."""

    async def __call__(self, scope: Scope, receive: Receive, _send: Send) -> None:
        """Close the connection and wait until the server has noticed."""
        cut: Callable[[], None] = scope[CUT]
        cut()
        while (await receive())["type"] != "http.disconnect":
            pass


class GraphQL:
    """The API's endpoint."""

    def __init__(self, sandbox: Sandbox, engine: Engine) -> None:
        self._sandbox = sandbox
        self._engine = engine
        self._turn = asyncio.Lock()

    async def handle(self, request: HttpRequest) -> Response:
        """Answer one POST, with half of the latency on the way here; what the answer takes to make is in the rest."""
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
        spoiled = None if fault is None else _instead(fault)
        if spoiled is not None:
            return spoiled
        async with self._turn:
            # Answers that are due go out before the next is made: many requests that come together share one thread.
            await asyncio.sleep(0)
            return self._executed(call, document, fault)

    def _executed(self, call: Call, document: Document, fault: str | None) -> Response:
        self._sandbox.settle()
        request = Request(
            self._sandbox,
            broken=_half(document) if fault == "gql_partial" else frozenset(),
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


def _half(document: Document) -> frozenset[str]:
    """Choose every second root field, beginning with the second; the only one if there is but one."""
    aliases = list(dict.fromkeys(alias for alias, _ in document.roots))
    return frozenset(aliases[1::2] or aliases)


def _instead(fault: str) -> Response | None:
    """Give the answer that a fault puts in place of executing anything; None when it executes."""
    if fault == "drop_before":
        return Cut()
    if fault == "html":
        return HTMLResponse("<!doctype html><title>Sandbox</title><p>A page where JSON was expected.</p>")
    if fault == "gql_error":
        return JSONResponse({"errors": [{"message": f"{FAULT_WORDS}: nothing was executed"}], "data": None})
    status = {**faults.STATUS, "rate_limit": 429, "rate_limit_after": 429, "too_large": 413}.get(fault)
    if status is None:
        return None
    headers = {"Retry-After": "1"} if fault == "rate_limit_after" else None
    return JSONResponse({"message": f"{FAULT_WORDS}: {fault}"}, status_code=status, headers=headers)


class Storage:
    """Presigned PUT and GET of files."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    async def handle(self, request: HttpRequest) -> Response:
        """Answer one PUT or GET; 403 when the address is not one the API gave out for it."""
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
