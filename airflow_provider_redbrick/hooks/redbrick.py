"""The RedBrick hook: from an Airflow connection to a RedBrick client.

Operators import this module whenever a DAG is parsed. Imports that only a request needs are therefore in methods.

:class:`RedBrickHook` retries. :class:`RedBrickQuickHook` is for callers that a user waits for: it makes one attempt,
with a timeout of at most 8 seconds.
"""

from __future__ import annotations

import platform
import re
import time
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow import __version__ as airflow_version
from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook, Stats

from airflow_provider_redbrick import __version__
from airflow_provider_redbrick._utils import read_once
from airflow_provider_redbrick.client.models.parsing import check_uuid
from airflow_provider_redbrick.exceptions import (
    RedBrickAPIError,
    RedBrickConnectionLookupError,
    RedBrickError,
    RedBrickInputError,
)
from airflow_provider_redbrick.hooks import validation

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from airflow_provider_redbrick.client.operations.account import RedBrickClient
    from airflow_provider_redbrick.client.operations.project import RedBrickProject
    from airflow_provider_redbrick.engine.outcomes import Outcome
    from airflow_provider_redbrick.hooks.connection import Settings
    from airflow_provider_redbrick.hooks.stage import RedBrickStageQueue


USER_AGENT = f"airflow-provider-redbrick/{__version__} airflow/{airflow_version} python/{platform.python_version()}"


class RedBrickHook(BaseHook):
    """Connect to RedBrick with the credential of an Airflow connection.

    Nothing is looked up or connected until it is needed. :attr:`client` has the account-level operations, and
    :meth:`project` returns those of one project. For a few tasks of one stage, use :meth:`stage`.

    :param redbrick_conn_id: the connection. Default: ``redbrick_default``.
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
        """The validated settings of the connection.

        :raises RedBrickInputError: if a field is missing or invalid.
        """
        return self._read_settings()

    def _read_settings(self) -> Settings:
        from airflow_provider_redbrick.hooks.connection import read_settings

        return read_settings(self.get_connection(validation.text("redbrick_conn_id", self.redbrick_conn_id)))

    def load_settings(self) -> Settings:
        """Return :attr:`settings`, with an error for a failed lookup.

        Callers that wait for a long time can retry on that error, since a secrets backend may fail temporarily.

        :raises RedBrickInputError: if a field is missing or invalid.
        :raises RedBrickConnectionLookupError: if Airflow cannot find the connection now.
        """
        try:
            return self.settings
        except RedBrickError:
            raise
        except AirflowNotFoundException as error:
            reason = str(error)
        except Exception as error:  # noqa: BLE001 - each secrets backend has errors of its own
            # The message of a backend's error may contain fields of the connection.
            reason = type(error).__name__
        raise RedBrickConnectionLookupError(
            f"Airflow cannot find connection {self.redbrick_conn_id!r} ({reason}). Check that it is defined. "
            f"If a secrets backend failed temporarily, a retry helps."
        )

    @read_once
    def client(self) -> RedBrickClient:
        """The client of this connection, with retries."""
        return self._new_client()

    def _new_client(self, **limits: int) -> RedBrickClient:
        from airflow_provider_redbrick.client.operations.account import RedBrickClient
        from airflow_provider_redbrick.client.transport.http import Transport
        from airflow_provider_redbrick.client.transport.retry import BatchSize, RetryPolicy, shared_rate_limiter

        settings = self.settings
        transport = Transport(
            settings.url,
            settings.credential,
            timeout=settings.timeout,
            allow_http=settings.allow_http,
            plain_json=settings.plain_json,
            user_agent=USER_AGENT,
            max_connections=settings.max_concurrency,
            policy=RetryPolicy(**limits),
            rate_limiter=shared_rate_limiter((settings.url, settings.credential), settings.requests_per_second or None),
            observer=StatsObserver(),
        )
        return RedBrickClient(
            transport,
            page_size=settings.page_size,
            max_concurrency=settings.max_concurrency,
            bundle=BatchSize(settings.mutations_per_request),
            settle_seconds=settings.settle_seconds,
        )

    def get_conn(self) -> RedBrickClient:
        """Return the client, under Airflow's usual name."""
        return self.client

    def project(self, project_id: str | None = None, *, org_id: str | None = None) -> RedBrickProject:
        """Return the operations of one project.

        :param project_id: the project. Default: that of the connection.
        :param org_id: the organization. Default: that of the connection.
        :raises RedBrickInputError: if an id is missing or malformed.
        """
        from airflow_provider_redbrick.client.operations.project import RedBrickProject

        return RedBrickProject(self.client, *self.resolve_ids(project_id, org_id=org_id))

    def resolve_ids(self, project_id: str | None = None, *, org_id: str | None = None) -> tuple[str, str]:
        """Return the ids of the organization and the project.

        :param project_id: the project. Default: that of the connection.
        :param org_id: the organization. Default: that of the connection.
        :return: the organization id and the project id.
        :raises RedBrickInputError: if an id is missing, blank, or not a UUID.
        """
        for name, value in (("org_id", org_id), ("project_id", project_id)):
            # A blank id is refused: a template that renders to nothing would select the connection's project.
            if value is not None:
                validation.text(name, value)
        org_id = org_id or self.settings.org_id
        project_id = project_id or self.settings.project_id
        for name, value in (("org_id", org_id), ("project_id", project_id)):
            if not value:
                raise RedBrickInputError(
                    f"No {name}. Give it to the operator, or add it to the extra of connection "
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
        """Return the task queue of one stage, to claim, label, review and assign.

        :param stage_name: the stage.
        :param project_id: the project. Default: that of the connection.
        :param org_id: the organization. Default: that of the connection.
        :param validate: how to treat invalid labels; see
            :class:`~airflow_provider_redbrick.hooks.stage.RedBrickStageQueue`.
        :raises RedBrickInputError: if a parameter is invalid.
        """
        from airflow_provider_redbrick.hooks.stage import RedBrickStageQueue

        return RedBrickStageQueue(self.project(project_id, org_id=org_id), stage_name, validate=validate)

    def reopen(
        self, task_ids: Sequence[str], *, project_id: str | None = None, org_id: str | None = None
    ) -> dict[str, Outcome]:
        """Send ground-truth tasks back to the first stage, with their labels.

        :param task_ids: the tasks. Those that are not in ground truth are skipped.
        :param project_id: the project. Default: that of the connection.
        :param org_id: the organization. Default: that of the connection.
        :return: the outcomes by task id.
        :raises RedBrickTasksFailedError: if a task failed. All tasks were attempted then.
        """
        from airflow_provider_redbrick.hooks.stage import reopen

        return reopen(self.project(project_id, org_id=org_id), task_ids)

    def test_connection(self) -> tuple[bool, str]:
        """Test the connection by reading the user and the organization's name.

        :return: whether it works, and a message for the user.
        """
        try:
            # One attempt, because the user waits for the result.
            with closing(self._new_client(max_attempts=1)) as client:
                message = f"Connected to RedBrick as {client.me()}"
                if self.settings.org_id:
                    message += f", organization {client.organization_name(self.settings.org_id)!r}"
        except RedBrickAPIError as error:
            return False, error.message
        except RedBrickError as error:
            return False, str(error)
        return True, f"{message}."

    def close(self) -> None:
        """Close the client's connections, if it was created."""
        if "client" in self.__dict__:
            self.client.close()


_MAX_TIMEOUT_S = 8.0


class RedBrickQuickHook(RedBrickHook):
    """A hook that does not retry and has a short timeout."""

    def _read_settings(self) -> Settings:
        """Return the connection's settings with a timeout of at most 8 seconds."""
        settings = super()._read_settings()
        return replace(settings, timeout=min(settings.timeout, _MAX_TIMEOUT_S))

    @read_once
    def client(self) -> RedBrickClient:
        """A client that makes one attempt."""
        return self._new_client(max_attempts=1)


# ------------------------------------------------------------------ metrics

# docs/metrics.md lists the names. Names alone are meaningful, since not every metrics backend supports tags.

# Airflow releases type this differently.
_stats: Any = Stats


class StatsObserver:
    """Count and time requests in Airflow's metrics."""

    def answered(self, operation: str, seconds: float, error: RedBrickAPIError | None) -> None:
        """Count and time a request to the API.

        :param operation: name of the API operation.
        :param seconds: duration of the request.
        :param error: the error that it ended with; None if it succeeded.
        """
        tags = {"operation": operation}
        _stats.incr("redbrick.requests", tags={**tags, "answer": _kind(error) if error else "ok"})
        _stats.timing("redbrick.request.duration", timedelta(seconds=seconds), tags=tags)

    def retrying(self, operation: str, error: RedBrickAPIError) -> None:
        """Count a request that is sent again.

        :param operation: name of the API operation.
        :param error: the error of the previous attempt.
        """
        _stats.incr("redbrick.retries", tags={"operation": operation, "reason": _kind(error)})

    def waited(self, seconds: float) -> None:
        """Time a wait for the rate limit."""
        _stats.timing("redbrick.rate_limit.wait", timedelta(seconds=seconds))


@contextmanager
def measured(operation: str, counts: Mapping[str, int]) -> Iterator[None]:
    """Time a run of an operator, and count its tasks by status at the end.

    Both are recorded also if the run fails.

    :param operation: name of the operator's operation.
    :param counts: number of tasks by status; read at the end.
    """
    started_at = time.monotonic()
    tags = {"operation": operation}
    try:
        yield
    finally:
        for status, number in counts.items():
            if number:
                _stats.incr(f"redbrick.tasks.{status}", number, tags=tags)
        _stats.timing("redbrick.run.duration", timedelta(seconds=time.monotonic() - started_at), tags=tags)


def _kind(error: RedBrickAPIError) -> str:
    """Return the kind of error: ``rate_limit`` for a ``RedBrickRateLimitError``."""
    name = type(error).__name__.removeprefix("RedBrick").removesuffix("Error")
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
