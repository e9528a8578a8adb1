"""Addresses of projects and tasks in RedBrick's web app.

Pure functions of a connection's settings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from airflow_provider_redbrick.api.endpoint import DEFAULT_HOST, is_loopback

if TYPE_CHECKING:
    from airflow_provider_redbrick.hooks.settings import Settings

_PUBLIC_APP = "https://app.redbrickai.com"


def project_address(settings: Settings, org_id: str, project_id: str) -> str:
    """Return a project's address in the web app; empty if it is unknown.

    * The connection's ``web_url``, where it has one.
    * For RedBrick's public API: ``https://app.redbrickai.com``.
    * For a loopback host, that is the sandbox: its board.
    * For any other host that has the API under ``/api``: the host itself.

    An API behind an ``amazonaws.com`` gateway does not reveal the address of its web app.

    :param settings: the connection's settings.
    :param org_id: the organization's UUID.
    :param project_id: the project's UUID.
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
    """Return a task's address in the web app; empty if it is unknown.

    RedBrick documents no address of a single task. This one opens its project and names the task.

    :param settings: the connection's settings.
    :param org_id: the organization's UUID.
    :param project_id: the project's UUID.
    :param task_id: the task's UUID.
    """
    project = project_address(settings, org_id, project_id)
    return project and f"{project}{'&' if '?' in project else '?'}taskId={task_id}"
