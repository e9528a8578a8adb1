"""The door for RedBrick's webhook. It is shut unless Airflow's configuration has a secret for it."""

from __future__ import annotations

import hmac
import logging
from typing import TYPE_CHECKING

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from airflow_provider_redbrick.exceptions import RedBrickInputError
from airflow_provider_redbrick.plugins.hints import Seen, read_hints
from airflow_provider_redbrick.plugins.options import webhook_options
from airflow_provider_redbrick.plugins.waking import Waking

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

log = logging.getLogger(__name__)

LARGEST = 256 << 10
"""Bytes of a message; RedBrick's take about 300 an event."""
_REMEMBERED = 10_000
_WAITING = 2_000


def webhook_app() -> Unlogged | None:
    """Return the application, None when it is not wanted.

    ``POST /<secret>`` takes a message and answers at once: 202 when it was taken, or was here before; 400 when it is
    none, 404 for another secret, 413 when it is too large, 503 when too many wait. What RedBrick says in it is only
    the occasion to ask RedBrick.

    Each process of the API server remembers for itself which events were here: with several of them, a message that is
    sent again may wake once each.
    """
    options = webhook_options()
    if options is None:
        return None
    secret = options.secret
    seen = Seen(_REMEMBERED)
    waking = Waking(options.connection_id, seen, most=_WAITING)
    app = FastAPI(title="RedBrick webhook", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.waking = waking
    log.info("The webhook is open; RedBrick is asked through connection %r.", options.connection_id)

    @app.post("/{given}")
    async def take(given: str, request: Request) -> JSONResponse:
        if not hmac.compare_digest(_bytes(given), _bytes(secret)):
            return _answer(404, "There is nothing here.")
        body = await _body(request)
        if body is None:
            return _answer(413, f"A message has at most {LARGEST} bytes.")
        try:
            hints = seen.new(read_hints(body))
        except RedBrickInputError as error:
            return _answer(400, str(error))
        if hints and not waking.take(hints):
            seen.forget(hints)
            return _answer(503, "Too many messages are waiting.")
        return _answer(202, "Taken.")

    return Unlogged(app)


class Unlogged:
    """An application whose addresses appear in no log of the server: the secret is a part of them.

    What servers log is taken from the scope that they have handed in.
    """

    def __init__(self, app: FastAPI) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        inside = dict(scope)
        if scope["type"] == "http":
            scope["path"] = f"{scope.get('root_path', '')}/***"
        await self.app(inside, receive, send)


def _bytes(text: str) -> bytes:
    """Return text as bytes; an address may have been decoded into what is no text."""
    return text.encode("utf-8", "surrogatepass")


async def _body(request: Request) -> bytes | None:
    """Read a message, and no more of it than may be."""
    announced = request.headers.get("Content-Length", "")
    # Other characters count as digits too, and are no numbers.
    if announced.isascii() and announced.isdecimal() and int(announced[:20]) > LARGEST:
        return None
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > LARGEST:
            return None
    return bytes(body)


def _answer(status: int, words: str) -> JSONResponse:
    return JSONResponse({"message": words}, status, headers={"Cache-Control": "no-store"})
