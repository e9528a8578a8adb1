"""Tests for the retry policy. tests/system/running_airflow tests it in a running Airflow."""

from __future__ import annotations

import subprocess
import sys
import time
from datetime import timedelta
from email.utils import formatdate

import pytest
from airflow.providers.common.compat.sdk import AirflowNotFoundException

from airflow_provider_redbrick import exceptions
from airflow_provider_redbrick.exceptions import (
    RedBrickAuthError,
    RedBrickConnectionError,
    RedBrickConnectionLookupError,
    RedBrickError,
    RedBrickInputError,
    RedBrickNotFoundError,
    RedBrickRateLimitError,
    RedBrickRefusedError,
    RedBrickServerError,
    RedBrickTasksFailedError,
)

pytest.importorskip("airflow.sdk.definitions.retry_policy", reason="this Airflow has no retry policies")

from airflow.sdk.definitions.retry_policy import RetryAction

from airflow_provider_redbrick.retry_policy import RedBrickRetryPolicy


def decide(error: BaseException, **options):
    return RedBrickRetryPolicy(**options).evaluate(error, try_number=1, max_tries=3)


@pytest.mark.parametrize("kind", [RedBrickAuthError, RedBrickInputError, RedBrickNotFoundError])
def test_permanent_error_fails_at_once(kind):
    decision = decide(kind("the words"))
    assert decision.action is RetryAction.FAIL
    assert decision.reason == f"{kind.__name__}: a retry does not help."


@pytest.mark.parametrize(
    "error",
    [
        RedBrickTasksFailedError("3 of 5 tasks failed"),
        RedBrickServerError("HTTP 500", status=500, retry_after="60"),
        RedBrickConnectionError("no answer"),
        RedBrickRefusedError("no"),
        RedBrickRateLimitError("HTTP 429", status=429),
        RedBrickRateLimitError("HTTP 429", status=429, retry_after="0"),
        RedBrickRateLimitError("HTTP 429", status=429, retry_after="soon"),
        RedBrickRateLimitError("HTTP 429", status=429, retry_after=formatdate(time.time() - 60, usegmt=True)),
        # A secrets backend that fails for a moment looks like a missing connection.
        RedBrickConnectionLookupError("not found"),
        AirflowNotFoundException("The conn_id `x` isn't defined"),
        ValueError("raised by a user's code"),
        KeyboardInterrupt(),
    ],
    ids=repr,
)
def test_other_error_follows_the_task_settings(error):
    assert decide(error).action is RetryAction.DEFAULT


@pytest.mark.parametrize(
    "error",
    [
        RedBrickRateLimitError("HTTP 429", status=429, retry_after="300"),
        RedBrickServerError("HTTP 503", status=503, retry_after="300"),
        RedBrickTasksFailedError("3 of 5 tasks failed", retry_after="300"),
    ],
)
def test_retry_after_sets_the_delay(error):
    decision = decide(error)
    assert (decision.action, decision.retry_delay) == (RetryAction.RETRY, timedelta(minutes=5))
    assert "300 s" in decision.reason


def test_retry_after_may_be_a_date():
    error = RedBrickRateLimitError("HTTP 429", status=429, retry_after=formatdate(time.time() + 1000, usegmt=True))
    decision = decide(error)
    assert decision.action is RetryAction.RETRY
    assert timedelta(seconds=900) < decision.retry_delay <= timedelta(seconds=1001)


@pytest.mark.parametrize("asked", ["7200", "9" * 30, "Wed, 31 Dec 2098 23:59:59 GMT"])
def test_retry_after_is_capped_at_longest_wait(asked):
    error = RedBrickRateLimitError("HTTP 429", status=429, retry_after=asked)
    assert decide(error).retry_delay == timedelta(hours=1)
    assert decide(error, longest_wait=timedelta(minutes=2)).retry_delay == timedelta(minutes=2)


def test_every_provider_error_has_a_decision():
    kinds = [kind for kind in vars(exceptions).values() if isinstance(kind, type) and issubclass(kind, RedBrickError)]
    final = {kind for kind in kinds if decide(kind("words")).action is RetryAction.FAIL}
    inputs = {kind for kind in kinds if issubclass(kind, RedBrickInputError)}
    assert final == {RedBrickAuthError, RedBrickNotFoundError, *inputs}


def test_reason_does_not_quote_the_server():
    for retry_after in (None, "60"):
        decision = decide(RedBrickAuthError("secret words", retry_after=retry_after))
        assert "secret" not in (decision.reason or "")


def test_policy_survives_serialization():
    policy = RedBrickRetryPolicy(longest_wait=timedelta(minutes=3))
    back = RedBrickRetryPolicy.deserialize(policy.serialize())
    assert back.longest_wait == policy.longest_wait


def test_policy_does_not_change_the_serialized_dag():
    """An object's address would create a new DAG version each time the file is parsed."""
    from airflow.sdk import DAG
    from airflow.serialization.serialized_objects import DagSerialization

    from airflow_provider_redbrick.operators.list_tasks import RedBrickListTasksOperator

    def stored() -> dict:
        with DAG("one", schedule=None, default_args={"retry_policy": RedBrickRetryPolicy()}) as dag:
            operator = RedBrickListTasksOperator(task_id="list")
        assert isinstance(operator.retry_policy, RedBrickRetryPolicy)
        return DagSerialization.to_dict(dag)

    assert stored() == stored()
    assert stored()["dag"]["tasks"][0]["__var"]["has_retry_policy"] is True


def test_airflow_without_policies_gets_a_clear_error():
    """Simulated by hiding the module, because no older Airflow is installed."""
    script = (
        "import airflow.sdk, sys\n"
        "sys.modules['airflow.sdk.definitions.retry_policy'] = None\n"
        "try:\n    import airflow_provider_redbrick.retry_policy\n"
        "except Exception as error:\n    print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "AirflowOptionalProviderFeatureException Retry policies need Airflow 3.3" in done.stdout


@pytest.mark.parametrize("wait", [60, "60", None])
def test_invalid_longest_wait_is_refused_by_the_constructor(wait):
    with pytest.raises(RedBrickInputError, match="longest_wait must be a timedelta"):
        RedBrickRetryPolicy(longest_wait=wait)
