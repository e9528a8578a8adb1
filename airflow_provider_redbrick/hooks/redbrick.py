"""Airflow's connection -> a RedBrick client.

Operators import this when a DAG is parsed: what only talking to RedBrick needs is imported where that begins.
"""

from __future__ import annotations

import platform
from contextlib import closing
from typing import TYPE_CHECKING

from airflow import __version__ as airflow_version
from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook

from airflow_provider_redbrick import __version__
from airflow_provider_redbrick.api.ids import check_uuid
from airflow_provider_redbrick.api.threads import read_once
from airflow_provider_redbrick.exceptions import (
    RedBrickAPIError,
    RedBrickConnectionLookupError,
    RedBrickError,
    RedBrickInputError,
)
from airflow_provider_redbrick.hooks import check

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_redbrick.api.client import RedBrickClient
    from airflow_provider_redbrick.api.project import RedBrickProject
    from airflow_provider_redbrick.api.retry import RetryPolicy
    from airflow_provider_redbrick.batch.outcome import Outcome
    from airflow_provider_redbrick.hooks.settings import Settings
    from airflow_provider_redbrick.hooks.stage import RedBrickStageQueue

USER_AGENT = f"airflow-provider-redbrick/{__version__} airflow/{airflow_version} python/{platform.python_version()}"


class RedBrickHook(BaseHook):
    """Talk to RedBrick with the credential of an Airflow connection.

    Nothing is looked up or connected before it is needed. All operations are methods of :attr:`client` (account-wide)
    and of what :meth:`project` returns (one project). Working on a few tasks of a stage is easier with what
    :meth:`stage` returns.

    :param redbrick_conn_id: the connection.
    """

    conn_name_attr = "redbrick_conn_id"
    default_conn_name = "redbrick_default"
    conn_type = "redbrick"
    hook_name = "RedBrick AI"

    def __init__(self, redbrick_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.redbrick_conn_id = redbrick_conn_id

    @read_once
    def settings(self) -> Settings:
        """The connection's settings, checked.

        :raises RedBrickInputError: when a field is missing or makes no sense.
        """
        return self._read_settings()

    def _read_settings(self) -> Settings:
        from airflow_provider_redbrick.hooks.settings import read_settings

        return read_settings(self.get_connection(check.text("redbrick_conn_id", self.redbrick_conn_id)))

    def load_settings(self) -> Settings:
        """Return :attr:`settings`, for a wait that outlives a secrets backend that fails for a moment.

        :raises RedBrickInputError: if a field is missing or makes no sense.
        :raises RedBrickConnectionLookupError: if Airflow does not find the connection now.
        """
        try:
            return self.settings
        except RedBrickError:
            raise
        except AirflowNotFoundException as error:
            reason = str(error)
        except Exception as error:  # noqa: BLE001 - each secrets backend has errors of its own
            # Others' errors may hold a connection's fields.
            reason = type(error).__name__
        raise RedBrickConnectionLookupError(
            f"Airflow does not find connection {self.redbrick_conn_id!r} ({reason}). Check that it is defined. "
            f"A secrets backend that fails for a moment looks the same, so a retry may help."
        )

    @read_once
    def client(self) -> RedBrickClient:
        """The client for this connection."""
        from airflow_provider_redbrick.api.retry import RetryPolicy

        return self._new_client(RetryPolicy())

    def _new_client(self, policy: RetryPolicy) -> RedBrickClient:
        from airflow_provider_redbrick.api.client import RedBrickClient
        from airflow_provider_redbrick.api.rate_limit import Bundle, shared_rate_limiter
        from airflow_provider_redbrick.api.transport import Transport
        from airflow_provider_redbrick.hooks.metrics import StatsObserver

        settings = self.settings
        transport = Transport(
            settings.url,
            settings.credential,
            timeout=settings.timeout,
            allow_http=settings.allow_http,
            plain_json=settings.plain_json,
            user_agent=USER_AGENT,
            max_connections=settings.max_concurrency,
            policy=policy,
            rate_limiter=shared_rate_limiter((settings.url, settings.credential), settings.requests_per_second or None),
            observer=StatsObserver(),
        )
        return RedBrickClient(
            transport,
            page_size=settings.page_size,
            max_concurrency=settings.max_concurrency,
            bundle=Bundle(settings.mutations_per_request),
        )

    def get_conn(self) -> RedBrickClient:
        """Return the client: Airflow's usual name for it."""
        return self.client

    def project(self, project_id: str | None = None, *, org_id: str | None = None) -> RedBrickProject:
        """Return one project's operations.

        :param project_id: the project; the connection's ``project_id`` when not given. Likewise ``org_id``.
        :raises RedBrickInputError: when an id is given neither here nor in the connection, or is malformed.
        """
        from airflow_provider_redbrick.api.project import RedBrickProject

        return RedBrickProject(self.client, *self.resolve_ids(project_id, org_id=org_id))

    def resolve_ids(self, project_id: str | None = None, *, org_id: str | None = None) -> tuple[str, str]:
        """Return the ids of the organization and the project, from the connection where they are not given.

        :raises RedBrickInputError: if an id is given neither here nor in the connection, or is no UUID.
        """
        for name, value in (("org_id", org_id), ("project_id", project_id)):
            # What may be left out must not be blank: an empty template would quietly mean another project.
            if value is not None:
                check.text(name, value)
        org_id = org_id or self.settings.org_id
        project_id = project_id or self.settings.project_id
        for name, value in (("org_id", org_id), ("project_id", project_id)):
            if not value:
                raise RedBrickInputError(
                    f"No {name}: give it to the operator or put it into the extra of connection "
                    f"{self.redbrick_conn_id!r}."
                )
        return check_uuid("org_id", org_id), check_uuid("project_id", project_id)

    def stage(
        self,
        stage_name: str,
        *,
        project_id: str | None = None,
        org_id: str | None = None,
        validate: str = "strict",
    ) -> RedBrickStageQueue:
        """Return the tasks of one stage, to claim, label, review and assign.

        :param validate: see :class:`~airflow_provider_redbrick.hooks.stage.RedBrickStageQueue`.
        """
        from airflow_provider_redbrick.hooks.stage import RedBrickStageQueue

        return RedBrickStageQueue(self.project(project_id, org_id=org_id), stage_name, validate=validate)

    def reopen(
        self, task_ids: Sequence[str], *, project_id: str | None = None, org_id: str | None = None
    ) -> dict[str, Outcome]:
        """Send ground-truth tasks back to the first stage, with their labels; return what happened to each.

        :raises RedBrickTasksFailedError: when a task failed, after all were tried.
        """
        from airflow_provider_redbrick.hooks.stage import reopen

        return reopen(self.project(project_id, org_id=org_id), task_ids)

    def test_connection(self) -> tuple[bool, str]:
        """Ask the server who this key is, and for the organisation when the connection names one."""
        from airflow_provider_redbrick.api.retry import RetryPolicy

        try:
            # Once: whoever presses "Test" waits for the answer.
            with closing(self._new_client(RetryPolicy(max_attempts=1))) as client:
                words = f"Connected to RedBrick as {client.me()}"
                if self.settings.org_id:
                    words += f", organisation {client.organization_name(self.settings.org_id)!r}"
        except RedBrickAPIError as error:
            return False, error.message
        except RedBrickError as error:
            return False, str(error)
        return True, f"{words}."

    def close(self) -> None:
        """Close the client's connections, if there are any."""
        if "client" in self.__dict__:
            self.client.close()
