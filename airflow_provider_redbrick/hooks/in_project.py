"""Base class of all operators and sensors of this provider.

It adds the connection, the organization and the project to an Airflow operator, and validates template fields.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperator

from airflow_provider_redbrick.hooks.inputs import CheckedOperatorInputs
from airflow_provider_redbrick.hooks.redbrick import RedBrickHook

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_redbrick.api.project import RedBrickProject


class InRedBrickProject(CheckedOperatorInputs, BaseOperator):
    """Base of all operators and sensors: a connection and a project.

    :param redbrick_conn_id: the connection. Default: ``redbrick_default``.
    :param org_id: the organization. Default: that of the connection.
    :param project_id: the project. Default: that of the connection.
    """

    template_fields: Sequence[str] = ("redbrick_conn_id", "org_id", "project_id")
    ui_color = "#f6e3e0"

    def __init__(
        self,
        *,
        redbrick_conn_id: str = RedBrickHook.default_conn_name,
        org_id: str | None = None,
        project_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.redbrick_conn_id = redbrick_conn_id
        self.org_id = org_id
        self.project_id = project_id

    @cached_property
    def hook(self) -> RedBrickHook:
        """The hook for the connection."""
        return RedBrickHook(self.redbrick_conn_id)

    def get_project(self) -> RedBrickProject:
        """Return the project.

        :raises RedBrickInputError: if an input that was given is absent, or no project is given.
        """
        self.check_inputs()
        return self.hook.project(self.project_id, org_id=self.org_id)
