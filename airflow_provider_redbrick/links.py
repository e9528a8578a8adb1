"""Operator links to RedBrick's web app, and their addresses.

The worker computes the addresses, because it has the rendered ids and the connection, and stores them as XComs before
the work starts. Showing a link then needs no request and no connection.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow.providers.common.compat.sdk import BaseOperatorLink

from airflow_provider_redbrick.base import InRedBrickProject
from airflow_provider_redbrick.client.models.parsing import check_uuid
from airflow_provider_redbrick.client.transport.endpoint import DEFAULT_HOST, is_loopback

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow.providers.common.compat.sdk import BaseOperator, Context, TaskInstanceKey

    from airflow_provider_redbrick.hooks.connection import Settings


log = logging.getLogger(__name__)

_PUBLIC_APP = "https://app.redbrickai.com"

# Attributes of one attempt. Runs in one process share the operator, and each must read the connection again.
_ATTEMPT_ATTRIBUTES = ("hook", "_project", "_poll_budget")


class RedBrickProjectLink(BaseOperatorLink):
    """Link to the project that an Airflow task works in."""

    name = "RedBrick project"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002
        """Return the address; empty if the connection or an id is missing or invalid.

        :param operator: the operator with rendered fields.
        :param ti_key: the task instance's key; not used.
        """
        return _address(operator)


class RedBrickTaskLink(BaseOperatorLink):
    """Link to the RedBrick task, for an Airflow task with exactly one."""

    name = "RedBrick task"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002
        """Return the address; empty without exactly one task, or if it is unknown.

        :param operator: the operator with rendered fields.
        :param ti_key: the task instance's key; not used.
        """
        task_id = _only_task(operator)
        return _address(operator, task_id) if task_id else ""


class InLinkedProject(InRedBrickProject):
    """Base of all operators and sensors, with links to the project and the task."""

    operator_extra_links = (RedBrickProjectLink(), RedBrickTaskLink())

    def pre_execute(self, context: Context) -> None:
        """Publish the links before the work starts.

        Airflow itself publishes them when the task has ended.
        """
        for name in _ATTEMPT_ATTRIBUTES:
            vars(self).pop(name, None)
        super().pre_execute(context)
        task_instance: Any = context.get("ti")
        for link in self.operator_extra_links:
            try:
                address = link.get_link(self, ti_key=task_instance)
                if address:
                    _push(task_instance, link.xcom_key, address)
            except Exception as error:  # noqa: BLE001 - a missing link must not fail the task
                log.warning("The link %r is not available before the task ends: %s", link.name, type(error).__name__)


def _push(task_instance: Any, key: str, address: str) -> None:
    """Store an address as an XCom in Airflow's database, where the UI reads it.

    A custom XCom backend may store values elsewhere, with only a reference in the database. Airflow, too, bypasses the
    backend when it writes links at the end of a task.
    """
    from airflow.providers.common.compat.sdk import XCom
    from airflow.sdk.bases.xcom import BaseXCom

    if XCom is BaseXCom:
        task_instance.xcom_push(key=key, value=address)
        return
    BaseXCom.set(
        key=key,
        value=address,
        dag_id=task_instance.dag_id,
        task_id=task_instance.task_id,
        run_id=task_instance.run_id,
        map_index=-1 if task_instance.map_index is None else task_instance.map_index,
    )


def _address(operator: Any, task_id: object = None) -> str:
    """Return the address of an operator's project or task; empty if unknown."""
    try:
        settings = operator.hook.settings
        org_id = check_uuid("org_id", operator.org_id or settings.org_id)
        project_id = check_uuid("project_id", operator.project_id or settings.project_id)
        if task_id is None:
            return project_address(settings, org_id, project_id)
        return task_address(settings, org_id, project_id, check_uuid("task_id", task_id))
    except Exception as error:  # noqa: BLE001 - the operator itself reports the error and fails
        log.debug("The link's address is unknown: %s", type(error).__name__)
        return ""


def _only_task(operator: object) -> object:
    """Return the id of an operator's only task; None if it has none or several."""
    for field in ("task_ids", "tasks"):
        tasks = getattr(operator, field, None)
        if isinstance(tasks, Sequence) and not isinstance(tasks, str) and len(tasks) == 1:
            entry: str | Mapping[str, Any] = tasks[0]
            return entry if isinstance(entry, str) else entry.get("taskId")
    return None


def project_address(settings: Settings, org_id: str, project_id: str) -> str:
    """Return a project's address in the web app; empty if it is unknown.

    * The connection's ``web_url``, if it is set.
    * For RedBrick's public API: ``https://app.redbrickai.com``.
    * For a loopback host, which is the sandbox: the sandbox's board.
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

    RedBrick documents no address of a single task. This address opens the project, with the task's id in the query.

    :param settings: the connection's settings.
    :param org_id: the organization's UUID.
    :param project_id: the project's UUID.
    :param task_id: the task's UUID.
    """
    project = project_address(settings, org_id, project_id)
    return project and f"{project}{'&' if '?' in project else '?'}taskId={task_id}"
