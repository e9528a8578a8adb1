"""Application of the RedBrick page: static files and JSON endpoints.

Design note on access:

1. Every request needs a user who is signed in to Airflow and may view its website.
2. A project is shown only to users who may read its connection in Airflow.
3. Runs are shown only of DAGs that the user may read.
4. The page writes nothing, neither to RedBrick nor to Airflow's database.
5. The content security policy allows only the page's own files, in case untrusted names ever reach the markup.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from importlib import resources
from typing import Annotated, Any

import pendulum
from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import AccessView, ConnectionDetails
from airflow.api_fastapi.core_api.security import get_user, requires_access_connection, requires_access_view
from fastapi import Depends, FastAPI, HTTPException, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response

from airflow_provider_redbrick.plugins import records
from airflow_provider_redbrick.plugins.access import BusyError, Choice, ReadCache, all_choices, configured_choices
from airflow_provider_redbrick.plugins.project_view import (
    TaskActivity,
    error_payload,
    project_payload,
    read_project,
    run_rows,
)

log = logging.getLogger(__name__)

# A board is read at most this often, however many users look at it.
CACHE_TTL_S = 8.0
_FILES = {
    "page.html": "text/html; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
# Names of stages, people and tasks are untrusted. The script never turns them into markup. If it did, this policy would
# still run nothing but the files above.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'self'; require-trusted-types-for 'script'"
)
_SECURITY_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

User = Annotated[Any, Depends(get_user)]


def page_app() -> FastAPI:
    """Return the page's application, for signed-in users of Airflow."""
    cache = ReadCache(ttl_s=CACHE_TTL_S, max_entries=64, threads=4)
    configured_choices(report=True)
    may_view = [Depends(requires_access_view(AccessView.WEBSITE))]
    app = FastAPI(title="RedBrick", docs_url=None, redoc_url=None, openapi_url=None, dependencies=may_view)

    @app.middleware("http")
    async def add_security_headers(request: Request, call_next: Any) -> Any:
        response = await call_next(request)
        response.headers.update(_SECURITY_HEADERS)
        return response

    @app.get("/")
    def page() -> Response:
        return _file("page.html")

    @app.get("/static/{name}")
    def static(name: str) -> Response:
        if name not in _FILES:
            raise HTTPException(404, "The file does not exist.")
        return _file(name)

    @app.get("/boards")
    def boards(user: User) -> JSONResponse:
        choices = _choices()
        readable = {conn_id: _may_read(user, conn_id) for conn_id in {choice.connection_id for choice in choices}}
        allowed = [choice for choice in choices if readable[choice.connection_id]]
        return JSONResponse(
            [{"connection": choice.connection_id, "project": choice.project_id or ""} for choice in allowed]
        )

    @app.get("/boards/{connection_id}", dependencies=[Depends(requires_access_connection("GET"))])
    async def board(connection_id: str, user: User, project: Annotated[str, Query(max_length=64)] = "") -> JSONResponse:
        try:
            read = partial(_read, connection_id, project or None)
            payload, activity = await asyncio.wrap_future(cache.submit((connection_id, project), read))
        except BusyError as error:
            payload, activity = error_payload(error), []
        if activity:
            dag_ids = await run_in_threadpool(lambda: get_auth_manager().get_authorized_dag_ids(user=user))
            activity = [entry for entry in activity if entry.dag_id in dag_ids]
        return JSONResponse({**payload, "connection": connection_id, "runs": run_rows(activity)})

    return app


def _choices() -> list[Choice]:
    return all_choices(configured_choices(), records.redbrick_connections())


def _file(name: str) -> Response:
    content = resources.files(__package__).joinpath("static").joinpath(name).read_bytes()
    return Response(content, media_type=_FILES[name])


def _may_read(user: Any, connection_id: str) -> bool:
    details = ConnectionDetails(conn_id=connection_id)
    return get_auth_manager().is_authorized_connection(method="GET", details=details, user=user)


def _read(connection_id: str, project_id: str | None) -> tuple[dict[str, Any], list[TaskActivity]]:
    """Return a project's payload, or that of the error, and the DAGs' activity in it."""
    now = pendulum.now("UTC")
    read_at = {"read_at": now.isoformat(timespec="seconds")}
    try:
        data = read_project(connection_id, project_id)
    except Exception as error:
        payload = error_payload(error)
        if payload["state"] == "broken":
            log.exception("The project could not be read through connection %r.", connection_id)
        return payload | read_at, []
    try:
        history = records.list_samples(data.org_id, data.project_id)
        activity = records.list_activity(data.project_id)
    except Exception:  # the project is shown without history and runs
        log.exception("Airflow's own records could not be read. The page shows the project without them.")
        history, activity = {}, []
    return project_payload(data, history, now=int(now.timestamp())) | read_at, activity
