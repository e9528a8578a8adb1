"""The board: a page that shows the sandbox's tasks as cards in the columns of their stages, live."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from importlib import resources
from typing import TYPE_CHECKING, Any, Protocol

from starlette.concurrency import run_in_threadpool
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

if TYPE_CHECKING:
    from starlette.requests import Request

_CARDS = 60
# Twice what a card shows: many screens have two pixels to one.
_PIXELS = 320
_CACHED_THUMBNAILS = 1024

_FILES = {
    "/": ("board.html", "text/html; charset=utf-8"),
    "/board.css": ("board.css", "text/css; charset=utf-8"),
    "/board.js": ("board.js", "text/javascript; charset=utf-8"),
    "/board.svg": ("board.svg", "image/svg+xml"),
}

# Names of tasks and labels are whatever a client sent. The script never makes markup of them, and should it
# ever, nothing that is not one of the files above runs.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
_SAFE = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


class BoardSource(Protocol):
    """What the board shows.

    A summary is ``{"project", "project_id", "org_id", "stages": [{"name", "kind", "title", "count",
    "by_person": {name: n}}]}``, stages in the order of the workflow. A card is ``{"task_id", "name", "state",
    "assignee", "labels", "item", "data_type"}``, labels flat as the API stores them.
    """

    def summary(self) -> dict[str, Any]:
        """Give the project and its stages."""

    def cards(self, stage: str, limit: int) -> list[dict[str, Any]]:
        """Give the first tasks of a stage, at most ``limit``."""

    def blob(self, path: str) -> bytes:
        """Read a file; KeyError when there is none at this path."""


def routes(source: BoardSource) -> list[Route]:
    """Give the routes of the page, what it is made of, and what it asks for."""
    board = Board(source)
    folder = resources.files(__package__).joinpath("static")
    files = [
        Route(path, _Static(folder.joinpath(name).read_bytes(), kind), methods=["GET"])
        for path, (name, kind) in _FILES.items()
    ]
    return [
        *files,
        Route("/board.json", board.state, methods=["GET"]),
        Route("/thumbnail", board.thumbnail, methods=["GET"]),
    ]


class _Static:
    """A file of the page."""

    def __init__(self, content: bytes, kind: str) -> None:
        self._response = Response(content, headers={**_SAFE, "Content-Type": kind})

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._response(scope, receive, send)


class Board:
    """Answers what the page asks for."""

    def __init__(self, source: BoardSource) -> None:
        self._source = source
        self._thumbnails = _Recent(_CACHED_THUMBNAILS)

    async def state(self, _request: Request) -> Response:
        """Answer the summary, and with every stage its first cards."""
        summary = self._source.summary()
        for stage in summary["stages"]:
            stage["cards"] = self._source.cards(stage["name"], _CARDS)
        return Response(_json(summary), headers={**_SAFE, "Cache-Control": "no-store"}, media_type="application/json")

    async def thumbnail(self, request: Request) -> Response:
        """Answer a small PNG of a stored file; 404 when there is no such file."""
        path = request.query_params.get("item", "")
        try:
            content = self._source.blob(path)
        except KeyError:
            return PlainTextResponse("There is no such file.", status_code=404, headers=_SAFE)
        # A file can be put anew at the same place, so the content has its part in the name.
        digest = hashlib.sha256(b"%s\0%d\0%s" % (path.encode(), _PIXELS, content)).hexdigest()
        headers = {**_SAFE, "ETag": f'"{digest}"'}
        if digest in request.headers.get("If-None-Match", ""):
            return Response(status_code=304, headers=headers)
        picture = self._thumbnails.get(digest)
        if picture is None:
            # Decoding takes a while, and the API must answer meanwhile.
            picture = await run_in_threadpool(_draw, content, path.rsplit("/", 1)[-1])
            self._thumbnails.put(digest, picture)
        return Response(picture, headers=headers, media_type="image/png")


class _Recent:
    """The values used last, at most `size` of them."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._values: OrderedDict[str, bytes] = OrderedDict()

    def get(self, key: str) -> bytes | None:
        value = self._values.get(key)
        if value is not None:
            self._values.move_to_end(key)
        return value

    def put(self, key: str, value: bytes) -> None:
        self._values[key] = value
        while len(self._values) > self._size:
            self._values.popitem(last=False)


def _draw(content: bytes, filename: str) -> bytes:
    # Imported here: a sandbox without demo tasks does without the libraries that read pictures.
    from airflow_provider_redbrick.sandbox.images import thumbnail  # noqa: PLC0415

    return thumbnail(content, filename, _PIXELS)


def _json(document: dict[str, Any]) -> str:
    """Write JSON that browsers read: a NaN that came in with labels becomes null."""
    try:
        return json.dumps(document, allow_nan=False)
    except ValueError:
        return json.dumps(json.loads(json.dumps(document), parse_constant=lambda _name: None))
