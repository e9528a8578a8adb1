"""Where RedBrick's web app shows things: pure functions from a connection's settings to addresses."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from airflow_provider_redbrick.api.endpoint import DEFAULT_HOST, is_loopback

if TYPE_CHECKING:
    from airflow_provider_redbrick.hooks.settings import Settings

_PUBLIC_APP = "https://app.redbrickai.com"


def project_address(settings: Settings, org_id: str, project_id: str) -> str:
    """Return where a project is shown; empty when that cannot be known.

    * the connection's ``web_url``, where it has one;
    * for RedBrick's public API: ``https://app.redbrickai.com``;
    * for a loopback host, i.e. the sandbox: its board;
    * for any other host, which has the API under ``/api``: the host itself.

    An API behind an ``amazonaws.com`` gateway does not say where its web app is.
    """
    parts = urlsplit(settings.url)
    if settings.web_url is not None:
        base = settings.web_url
    elif settings.url.startswith(f"{DEFAULT_HOST}/"):
        base = _PUBLIC_APP
    elif is_loopback(parts.hostname or ""):
        return f"{parts.scheme}://{parts.netloc}/?project={project_id}"
    elif not parts.path.startswith("/api/"):
        return ""
    else:
        base = f"{parts.scheme}://{parts.netloc}"
    return f"{base}/{org_id}/projects/{project_id}"


def task_address(settings: Settings, org_id: str, project_id: str, task_id: str) -> str:
    """Return where a task is shown; empty when that cannot be known.

    RedBrick publishes no address of a single task. This one opens its project and names the task.
    """
    project = project_address(settings, org_id, project_id)
    return project and f"{project}{'&' if '?' in project else '?'}taskId={task_id}"
