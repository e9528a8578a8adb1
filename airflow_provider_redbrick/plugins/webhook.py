"""Webhook endpoint. Disabled unless ``webhook_secret`` is set.

Design note:

1. The address contains the secret, so it appears in no access log. The secret is compared in constant time.
2. A payload is untrusted. It is limited in size and only triggers a verification with RedBrick.
3. The endpoint answers at once. Verification runs in a thread with a bounded queue.
4. Each process of the API server remembers events by itself. With several processes, a message that is resent may send
   one asset event per process.
"""

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
"""Maximum bytes of a message. RedBrick's take about 300 per event."""
_MAX_SEEN_EVENTS = 10_000
_MAX_WAITING_HINTS = 2_000


def webhook_app() -> Unlogged | None:
    """Return the application; None if the webhook is disabled.

    ``POST /<secret>`` answers at once: 202 if the message is accepted or known, 400 if it is invalid, 404 for another
    secret, 413 if it is too large, 503 if too many hints are waiting.
    """
    options = webhook_options()
    if options is None:
        return None
    secret = options.secret
    seen = Seen(_MAX_SEEN_EVENTS)
    waking = Waking(options.connection_id, seen, most=_MAX_WAITING_HINTS)
    app = FastAPI(title="RedBrick webhook", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.waking = waking
    log.info("The webhook is enabled. Events are verified through connection %r.", options.connection_id)

    @app.post("/{path_secret}")
    async def take(path_secret: str, request: Request) -> JSONResponse:
        if not hmac.compare_digest(_bytes(path_secret), _bytes(secret)):
            return _answer(404, "Not found.")
        body = await _body(request)
        if body is None:
            return _answer(413, f"A message must have at most {LARGEST} bytes.")
        try:
            hints = seen.new(read_hints(body))
        except RedBrickInputError as error:
            return _answer(400, str(error))
        if hints and not waking.take(hints):
            seen.forget(hints)
            return _answer(503, "Too many messages are waiting.")
        return _answer(202, "Accepted.")

    return Unlogged(app)


class Unlogged:
    """Hide an application's paths from the server's access log.

    The paths contain the secret. Servers log the path of the scope that they passed in.
    """

    def __init__(self, app: FastAPI) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        inside = dict(scope)
        if scope["type"] == "http":
            scope["path"] = f"{scope.get('root_path', '')}/***"
        await self.app(inside, receive, send)


def _bytes(text: str) -> bytes:
    """Encode text that may contain lone surrogates from a decoded address."""
    return text.encode("utf-8", "surrogatepass")


async def _body(request: Request) -> bytes | None:
    """Read a message; None if it is larger than ``LARGEST``."""
    announced = request.headers.get("Content-Length", "")
    # str.isdecimal() accepts non-ASCII digits, too.
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
