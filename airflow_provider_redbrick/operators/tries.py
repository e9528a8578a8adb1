"""State that survives from one attempt of an Airflow task to the next.

1. An effect found on a task counts as an earlier attempt's only if it happened after the first attempt began.
2. Airflow 3.3 keeps task state across attempts; the time of the first attempt is stored there.
3. Below 3.3, or if the state store fails, the start of the DAG run is used. Clearing a run starts it anew.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pendulum

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

log = logging.getLogger(__name__)

_FIRST_ATTEMPT_KEY = "redbrick_first_try_at"


def first_attempt_at(context: Context) -> pendulum.DateTime | None:
    """Return when the first attempt began.

    :param context: the Airflow task's context.
    :return: the time in UTC, never before the start of the run; None if this is the first attempt.
    """
    run, task_instance = context.get("dag_run"), context.get("ti")
    run_started_at = (
        pendulum.instance(run.start_date).in_timezone("UTC") if run is not None and run.start_date else None
    )
    store = context.get("task_state_store")
    if store is not None:
        try:
            first = store.get(_FIRST_ATTEMPT_KEY)
            if first is None:
                store.set(_FIRST_ATTEMPT_KEY, pendulum.now("UTC").isoformat())
                return None
            first_attempt = pendulum.parse(str(first))
        except Exception as error:  # noqa: BLE001 - the work does not depend on the store
            log.warning(
                "Airflow's task state store does not respond (%s). The start of the run is used instead.", error
            )
        else:
            if isinstance(first_attempt, pendulum.DateTime):
                return max(first_attempt, run_started_at) if run_started_at is not None else first_attempt
    if task_instance is None or task_instance.try_number <= 1:
        return None
    return run_started_at
