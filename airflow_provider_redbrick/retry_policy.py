"""Which of this provider's errors another try can help with, and when: for ``retry_policy`` of Airflow 3.3.

Below Airflow 3.3, which has no retry policies, importing this raises ``AirflowOptionalProviderFeatureException``.
"""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowOptionalProviderFeatureException

from airflow_provider_redbrick.api.retry import retry_after_seconds
from airflow_provider_redbrick.exceptions import HOPELESS, RedBrickAPIError, RedBrickInputError, told

try:
    from airflow.sdk import RetryPolicy
    from airflow.sdk.definitions.retry_policy import RetryDecision
except ImportError as error:
    raise AirflowOptionalProviderFeatureException(
        "Retry policies need Airflow 3.3 or newer: leave RedBrickRetryPolicy out below it."
    ) from error

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

_LONGEST_WAIT = timedelta(hours=1)


class RedBrickRetryPolicy(RetryPolicy):
    """Fail at once where no retry helps, and come back when the server said so.

    * A wrong key, bad input, or something that does not exist: no more tries.
    * A limit, or anything else that passes, for which the server sent ``Retry-After``: another try after that time.
    * Everything else: as the task's ``retries`` and ``retry_delay`` say. So too when some tasks failed, for the next
      try finishes the rest; and when Airflow does not find the connection, for a secrets backend may have failed.

    It never adds to ``retries``. Other packages' policies go beside it in Airflow's ``ChainRetryPolicy``.

    :param longest_wait: at most so long is waited, whatever the server asks for.
    """

    def __init__(self, *, longest_wait: timedelta = _LONGEST_WAIT) -> None:
        if not isinstance(longest_wait, timedelta):
            # Found out when the policy is needed, it would be as if there were none.
            raise RedBrickInputError(f"longest_wait must be a timedelta, not {told(longest_wait)}.")
        self.longest_wait = longest_wait

    def evaluate(
        self,
        exception: BaseException,
        try_number: int,  # noqa: ARG002
        max_tries: int,  # noqa: ARG002
        context: Context | None = None,  # noqa: ARG002
    ) -> RetryDecision:
        """Return what becomes of the task; never the error's words, which Airflow keeps elsewhere."""
        kind = type(exception).__name__
        if isinstance(exception, HOPELESS):
            return RetryDecision.fail(f"{kind}: a retry does not help.")
        if isinstance(exception, RedBrickAPIError) and exception.transient:
            asked = retry_after_seconds(exception.retry_after, now=time.time())
            if asked:
                wait = timedelta(seconds=min(asked, self.longest_wait.total_seconds()))
                return RetryDecision.retry(
                    wait, f"{kind}: the server asks for {asked:.0f} s; trying again after {wait}."
                )
        return RetryDecision.default()

    def serialize(self) -> dict[str, Any]:
        """Return this policy as JSON can hold it."""
        return {"longest_wait": self.longest_wait.total_seconds()}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> RedBrickRetryPolicy:
        """Return the policy again."""
        return cls(longest_wait=timedelta(seconds=data["longest_wait"]))
