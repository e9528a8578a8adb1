"""Where earlier runs came to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.hooks import check

if TYPE_CHECKING:
    import pendulum
    from airflow.providers.common.compat.sdk import Context


def last_mark(context: Context, task_id: str) -> pendulum.DateTime | None:
    """Return the last ``mark`` that an Airflow task has left in this DAG's earlier runs; None when it has left none.

    :raises RedBrickInputError: when what it calls its mark is no time.
    """
    ti: Any = context["ti"]
    mapped: dict[str, Any] = {} if ti.map_index < 0 else {"map_indexes": ti.map_index}
    found = ti.xcom_pull(task_ids=task_id, include_prior_dates=True, **mapped)
    # One earlier run's value or all of them: releases of Airflow differ, and so do databases in which comes first.
    values = [found] if isinstance(found, Mapping) or not isinstance(found, Iterable) else found
    told = (value.get("mark") for value in values if isinstance(value, Mapping))
    marks = (check.time(f"The mark that {task_id} has left", mark) for mark in told)
    return max((mark for mark in marks if mark is not None), default=None)
