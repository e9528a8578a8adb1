"""What every Airflow task of this provider has: a connection, and a project to work in."""

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
    """Base of all operators and sensors: which project, through which connection.

    :param redbrick_conn_id: the connection.
    :param org_id: the organisation; the connection's when not given.
    :param project_id: the project; the connection's when not given.
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
        """Return the project to work in.

        :raises RedBrickInputError: if an input that was given is absent.
        """
        self.check_inputs()
        return self.hook.project(self.project_id, org_id=self.org_id)
