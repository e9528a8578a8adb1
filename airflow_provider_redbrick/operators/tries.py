"""What an Airflow task knows of its earlier tries."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pendulum

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

log = logging.getLogger(__name__)

_FIRST_TRY = "redbrick_first_try_at"


def retry_since(context: Context) -> pendulum.DateTime | None:
    """Return since when earlier tries may have worked, or None when there was none.

    Airflow 3.3 keeps state across tries, so that the moment of the first one is known; what was done before it is not
    this task's doing. Below 3.3 the start of the run stands in for it. Clearing a run starts it anew.
    """
    run, task_instance = context.get("dag_run"), context.get("ti")
    run_began = pendulum.instance(run.start_date).in_timezone("UTC") if run is not None and run.start_date else None
    store = context.get("task_state_store")
    if store is not None:
        try:
            first = store.get(_FIRST_TRY)
            if first is None:
                store.set(_FIRST_TRY, pendulum.now("UTC").isoformat())
                return None
            first_try = pendulum.parse(str(first))
        except Exception as error:  # noqa: BLE001 - a store that fails must not fail work that can do without it
            log.warning("Airflow's task state store does not answer (%s); the run's start is used instead.", error)
        else:
            if isinstance(first_try, pendulum.DateTime):
                return max(first_try, run_began) if run_began is not None else first_try
    if task_instance is None or task_instance.try_number <= 1:
        return None
    return run_began
