"""The buttons beside an Airflow task that open RedBrick."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperatorLink

from airflow_provider_redbrick.api.ids import check_uuid
from airflow_provider_redbrick.hooks.in_project import InRedBrickProject
from airflow_provider_redbrick.links.addresses import project_address, task_address

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow.providers.common.compat.sdk import BaseOperator, Context, TaskInstanceKey

log = logging.getLogger(__name__)

# What an attempt keeps with the operator. Several runs in one process share it, and the next reads the connection anew.
_OF_ONE_ATTEMPT = ("hook", "_project", "_patience")


class RedBrickProjectLink(BaseOperatorLink):
    """Opens the project that an Airflow task works in.

    The address is made on the worker, where the rendered ids and the connection are, and kept as an XCom: looking at
    it costs no request and needs no connection.
    """

    name = "RedBrick project"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002
        """Return the address; empty when the connection or an id is missing or malformed."""
        return _address(operator)


class RedBrickTaskLink(BaseOperatorLink):
    """Opens the RedBrick task, for an Airflow task that was given a single one."""

    name = "RedBrick task"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002
        """Return the address; empty when the Airflow task is about no task or several, or as above."""
        task_id = _only_task(operator)
        return _address(operator, task_id) if task_id else ""


class InLinkedProject(InRedBrickProject):
    """Base of all operators and sensors: links from a task instance to what it is about."""

    operator_extra_links = (RedBrickProjectLink(), RedBrickTaskLink())

    def pre_execute(self, context: Context) -> None:
        """Show the links while the work goes on; Airflow by itself does so when it has ended."""
        for name in _OF_ONE_ATTEMPT:
            vars(self).pop(name, None)
        super().pre_execute(context)
        task_instance: Any = context.get("ti")
        for link in self.operator_extra_links:
            try:
                address = link.get_link(self, ti_key=task_instance)
                if address:
                    _push(task_instance, link.xcom_key, address)
            except Exception as error:  # noqa: BLE001 - a link is no reason to fail
                log.warning("The link %r cannot be shown yet: %s", link.name, type(error).__name__)


def _push(task_instance: Any, key: str, address: str) -> None:
    """Keep an address as an XCom in Airflow's database, where the UI reads it as it is.

    A backend of the user's own may keep values elsewhere, and only the place of each in the database. Airflow writes
    links past it, too, when the task has ended.
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
    """Return the address of an operator's project or task; empty when that is not known."""
    try:
        settings = operator.hook.settings
        org_id = check_uuid("org_id", operator.org_id or settings.org_id)
        project_id = check_uuid("project_id", operator.project_id or settings.project_id)
        if task_id is None:
            return project_address(settings, org_id, project_id)
        return task_address(settings, org_id, project_id, check_uuid("task_id", task_id))
    except Exception as error:  # noqa: BLE001 - the operator itself says what is wrong, and fails of it
        log.debug("No link: %s", type(error).__name__)
        return ""


def _only_task(operator: object) -> object:
    """Return the id of the one task that an operator was given, None when there is no such task."""
    for field in ("task_ids", "tasks"):
        given = getattr(operator, field, None)
        if isinstance(given, Sequence) and not isinstance(given, str) and len(given) == 1:
            entry: str | Mapping[str, Any] = given[0]
            return entry if isinstance(entry, str) else entry.get("taskId")
    return None
