"""Where earlier runs came to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.hooks import check

if TYPE_CHECKING:
    import pendulum
    from airflow.providers.common.compat.sdk import Context


def last_mark(context: Context, task_id: str) -> pendulum.DateTime | None:
    """Return the last ``mark`` that an Airflow task has left in this DAG's earlier runs; None if it has left none.

    The current run's own mark does not count: a run that was cleared still has it until the task that left it runs.

    :raises RedBrickInputError: if what it calls its mark is no time.
    """
    ti: Any = context["ti"]
    of_task = {"task_ids": task_id, **({} if ti.map_index < 0 else {"map_indexes": ti.map_index})}
    own = _values(ti.xcom_pull(**of_task))
    # Airflow's "prior dates" include the current run, and no later one.
    earlier = _without(_values(ti.xcom_pull(**of_task, include_prior_dates=True)), own)
    if own and not earlier:
        # Some releases of Airflow, and mapped tasks, give the latest value alone: here it is the current run's.
        earlier = _up_to_previous_run(ti, of_task)
    marks = [check.time(f"The mark that {task_id} has left", value["mark"]) for value in earlier if "mark" in value]
    return max((mark for mark in marks if mark is not None), default=None)


def _up_to_previous_run(ti: Any, of_task: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return what was left up to the run before; nothing where Airflow does not say which one that is."""
    find = getattr(ti, "get_previous_dagrun", None)
    previous = None if find is None else find()
    if previous is None:
        return []
    return _values(ti.xcom_pull(**of_task, run_id=previous.run_id, include_prior_dates=True))


def _values(found: Any) -> list[Mapping[str, Any]]:
    """Return the objects among what was pulled: one value or all of them, as releases of Airflow have it."""
    values = [found] if isinstance(found, Mapping) or not isinstance(found, Iterable) else found
    return [value for value in values if isinstance(value, Mapping)]


def _without(values: list[Mapping[str, Any]], others: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return values without others, each of which is taken away once."""
    left = list(values)
    for other in others:
        if other in left:
            left.remove(other)
    return left
