"""Web page that shows tasks as cards, one column per stage.

The page polls `/board.json` and stays current while tasks move.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, OrderedDict
from importlib import resources
from typing import TYPE_CHECKING, Any, Protocol

from starlette.concurrency import run_in_threadpool
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from redbrick_sandbox import demo_project, listing
from redbrick_sandbox.labels import current_labels
from redbrick_sandbox.transitions import GROUND_TRUTH, OUTPUT, RefusalError

if TYPE_CHECKING:
    from starlette.requests import Request

    from redbrick_sandbox.sandbox import Project, Sandbox
    from redbrick_sandbox.store import Record


_CARDS_PER_STAGE = 60
# Twice the size of a card's image, for screens with two device pixels per CSS pixel.
_THUMBNAIL_PIXELS = 320
_CACHED_THUMBNAILS = 1024

_FILES = {
    "/": ("board.html", "text/html; charset=utf-8"),
    "/board.css": ("board.css", "text/css; charset=utf-8"),
    "/board.js": ("board.js", "text/javascript; charset=utf-8"),
    "/board.svg": ("board.svg", "image/svg+xml"),
}

# Names of tasks and labels are untrusted input. The script never inserts them as markup. If it did by mistake, this
# policy would still run only the files above.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
_SECURITY_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


class BoardSource(Protocol):
    """Data source of the board.

    A summary is ``{"project", "project_id", "org_id", "stages": [{"name", "kind", "title", "count",
    "by_person": {name: n}}]}``, with stages in workflow order. A card is ``{"task_id", "name", "state",
    "assignee", "labels", "item", "data_type"}``, with flat labels as the API stores them.
    """

    def summary(self) -> dict[str, Any]:
        """Return the project and its stages."""

    def cards(self, stage: str, limit: int) -> list[dict[str, Any]]:
        """Return the first tasks of a stage as cards.

        :param stage: name of the stage.
        :param limit: maximum number of cards.
        """

    def blob(self, path: str) -> bytes:
        """Read a stored file.

        :raises KeyError: if the path does not exist.
        """


def routes(source: BoardSource) -> list[Route]:
    """Return the routes of the page, its static files and its data."""
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
    """Static file of the page."""

    def __init__(self, content: bytes, kind: str) -> None:
        self._response = Response(content, headers={**_SECURITY_HEADERS, "Content-Type": kind})

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._response(scope, receive, send)


class Board:
    """Endpoints that the page reads."""

    def __init__(self, source: BoardSource) -> None:
        self._source = source
        self._thumbnails = _LruCache(_CACHED_THUMBNAILS)

    async def state(self, _request: Request) -> Response:
        """Return the summary, with the first cards of each stage."""
        summary = self._source.summary()
        for stage in summary["stages"]:
            stage["cards"] = self._source.cards(stage["name"], _CARDS_PER_STAGE)
        return Response(
            _json(summary), headers={**_SECURITY_HEADERS, "Cache-Control": "no-store"}, media_type="application/json"
        )

    async def thumbnail(self, request: Request) -> Response:
        """Return a small PNG of a stored file, or status 404 if the file does not exist."""
        path = request.query_params.get("item", "")
        try:
            content = self._source.blob(path)
        except KeyError:
            return PlainTextResponse("There is no such file.", status_code=404, headers=_SECURITY_HEADERS)
        # A file can be overwritten, so the digest covers the content as well as the path.
        digest = hashlib.sha256(b"%s\0%d\0%s" % (path.encode(), _THUMBNAIL_PIXELS, content)).hexdigest()
        headers = {**_SECURITY_HEADERS, "ETag": f'"{digest}"'}
        if digest in request.headers.get("If-None-Match", ""):
            return Response(status_code=304, headers=headers)
        picture = self._thumbnails.get(digest)
        if picture is None:
            # Decoding is slow, and the API must stay responsive.
            picture = await run_in_threadpool(_draw, content, path.rsplit("/", 1)[-1])
            self._thumbnails.put(digest, picture)
        return Response(picture, headers=headers, media_type="image/png")


class _LruCache:
    """Least-recently-used cache of at most `size` values."""

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
    # Imported here: a sandbox without demo tasks does not need the image libraries.
    from redbrick_sandbox.images import thumbnail  # noqa: PLC0415

    return thumbnail(content, filename, _THUMBNAIL_PIXELS)


def _json(document: dict[str, Any]) -> str:
    """Serialize JSON that browsers accept: NaN and infinities in labels become null."""
    try:
        return json.dumps(document, allow_nan=False)
    except ValueError:
        return json.dumps(json.loads(json.dumps(document), parse_constant=lambda _name: None))


class StoreBoard:
    """Read a project from the store for the board.

    :param sandbox: the sandbox that stores the project.
    :param project_id: the project; the demo project by default.
    """

    def __init__(self, sandbox: Sandbox, project_id: str = demo_project.PROJECT_ID) -> None:
        self._sandbox = sandbox
        self._project_id = project_id

    def _project(self) -> Project:
        return self._sandbox.project(demo_project.ORG_ID, self._project_id)

    def summary(self) -> dict[str, Any]:
        """Return the project and its stages, each with its task count and assignees."""
        self._sandbox.settle()
        project = self._project()
        rows = self._sandbox.store.rows(
            "SELECT stage, holders, COUNT(*) AS n FROM tasks WHERE project_id = ? GROUP BY stage, holders",
            (self._project_id,),
        )
        counts: Counter[str] = Counter()
        people: dict[str, Counter[str]] = {}
        for row in rows:
            counts[row["stage"]] += row["n"]
            held = people.setdefault(row["stage"], Counter())
            holders = [each for each in row["holders"].split(",") if each]
            for name in [demo_project.short_name(each) for each in holders] or ["unassigned"]:
                held[name] += row["n"]
        stages = []
        for stage in project.flow.stages:
            output = stage.brick == OUTPUT
            stored = GROUND_TRUTH if output else stage.name
            stages.append(
                {
                    "name": stage.name,
                    "kind": stage.brick,
                    "title": "Ground Truth" if output else stage.name,
                    "count": counts[stored],
                    "by_person": {} if output else dict(people.get(stored, {})),
                }
            )
        return {
            "project": project.document["name"],
            "project_id": self._project_id,
            "org_id": demo_project.ORG_ID,
            "stages": stages,
        }

    def cards(self, stage: str, limit: int) -> list[dict[str, Any]]:
        """Return the first tasks of a stage as cards.

        :param stage: name of the stage. The name of the output stage and "END" both mean ground truth. An unknown stage
            has no cards.
        :param limit: maximum number of cards. The behavior `max_page` also limits it.
        """
        self._sandbox.settle()
        project = self._project()
        stored = GROUND_TRUTH if stage == project.flow.output else stage
        size = min(limit, self._sandbox.behaviors.max_page)
        page = listing.page(self._sandbox, listing.in_stage(project, stored), size, None)
        return [self._card(record) for record in page.records]

    def _card(self, record: Record) -> dict[str, Any]:
        store = self._sandbox.store
        row = store.row("SELECT items, body FROM datapoints WHERE dp_id = ?", (record.dp_id,))
        items = json.loads(row["items"]) if row else []
        series = (json.loads(row["body"]).get("seriesInfo") or [{}]) if row else [{}]
        holders = record.task.holders
        return {
            "task_id": record.task.task_id,
            "name": record.name,
            "state": record.task.state,
            "assignee": demo_project.short_name(holders[0]) if holders else None,
            "labels": self._labels(record),
            "item": items[0] if items else None,
            "data_type": series[0].get("dataType"),
        }

    def _labels(self, record: Record) -> list[dict[str, Any]]:
        try:
            return current_labels(self._sandbox, record.version)
        except RefusalError:
            # The labels file was overwritten with invalid content. The API reports that; the board shows no labels.
            return []

    def blob(self, path: str) -> bytes:
        """Read a stored file.

        :raises KeyError: if the path does not exist.
        """
        row = self._sandbox.store.row("SELECT content FROM files WHERE path = ?", (path,))
        if row is None:
            raise KeyError(path)
        return bytes(row["content"])
