"""Retry policy for Airflow 3.3 that knows which RedBrick errors a retry can fix.

Older Airflows have no retry policies: there, importing this module raises
``AirflowOptionalProviderFeatureException``.
"""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowOptionalProviderFeatureException

from airflow_provider_redbrick.client.transport.retry import retry_after_seconds
from airflow_provider_redbrick.exceptions import (
    PERMANENT_ERRORS,
    RedBrickAPIError,
    RedBrickInputError,
    RedBrickTasksFailedError,
    short_repr,
)

try:
    from airflow.sdk import RetryPolicy
    from airflow.sdk.definitions.retry_policy import RetryDecision
except ImportError as error:
    raise AirflowOptionalProviderFeatureException(
        "Retry policies need Airflow 3.3 or newer. Remove RedBrickRetryPolicy from the DAG on older versions."
    ) from error

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

_LONGEST_WAIT = timedelta(hours=1)


class RedBrickRetryPolicy(RetryPolicy):
    """Fail at once if no retry helps; otherwise retry when the server asks for it.

    * A wrong API key, invalid input, or something that does not exist: no further attempt.
    * A rate limit, or another transient error, for which the server sent ``Retry-After``: the next attempt after that
      time. This includes tasks that failed while the server asked to wait.
    * All other errors: as the task's ``retries`` and ``retry_delay`` say. This includes other tasks that failed,
      because the next attempt processes the rest, and a connection that Airflow cannot find, because a secrets
      backend may have failed.

    The policy never adds to ``retries``. Combine it with policies of other packages in Airflow's
    ``ChainRetryPolicy``.

    :param longest_wait: upper bound of the wait, whatever the server asks for.
    :raises RedBrickInputError: if ``longest_wait`` is not a ``timedelta``.
    """

    def __init__(self, *, longest_wait: timedelta = _LONGEST_WAIT) -> None:
        if not isinstance(longest_wait, timedelta):
            # Checked here, because Airflow ignores a policy that fails when it is evaluated.
            raise RedBrickInputError(f"longest_wait must be a timedelta, not {short_repr(longest_wait)}.")
        self.longest_wait = longest_wait

    def evaluate(
        self,
        exception: BaseException,
        try_number: int,  # noqa: ARG002
        max_tries: int,  # noqa: ARG002
        context: Context | None = None,  # noqa: ARG002
    ) -> RetryDecision:
        """Decide whether Airflow retries the task, and when.

        The reason contains no text of the exception, because Airflow stores reasons outside the task's log.

        :param exception: the error that ended the attempt.
        :param try_number: the number of the attempt; not used.
        :param max_tries: the number of attempts that are allowed; not used.
        :param context: the Airflow context; not used.
        """
        kind = type(exception).__name__
        if isinstance(exception, PERMANENT_ERRORS):
            return RetryDecision.fail(f"{kind}: a retry does not help.")
        if isinstance(exception, RedBrickTasksFailedError) or (
            isinstance(exception, RedBrickAPIError) and exception.transient
        ):
            retry_after_s = retry_after_seconds(exception.retry_after, now=time.time())
            if retry_after_s:
                wait = timedelta(seconds=min(retry_after_s, self.longest_wait.total_seconds()))
                return RetryDecision.retry(
                    wait, f"{kind}: the server asked for {retry_after_s:.0f} s. The next attempt starts in {wait}."
                )
        return RetryDecision.default()

    def serialize(self) -> dict[str, Any]:
        """Return this policy as JSON-serializable data."""
        return {"longest_wait": self.longest_wait.total_seconds()}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> RedBrickRetryPolicy:
        """Return the policy that :meth:`serialize` described."""
        return cls(longest_wait=timedelta(seconds=data["longest_wait"]))
