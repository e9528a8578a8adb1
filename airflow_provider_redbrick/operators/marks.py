"""Watermarks that earlier runs left in XComs.

1. Only values of earlier runs count. A cleared run still has its own XCom until the task that wrote it runs again; its
   value is removed from what is pulled.
2. The latest watermark wins. Each mapped task has its own.
3. Airflow releases differ in what ``xcom_pull(include_prior_dates=True)`` returns: all values, or the latest one. Where
   it is only the current run's, the pull is repeated for the previous run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.hooks import check

if TYPE_CHECKING:
    import pendulum
    from airflow.providers.common.compat.sdk import Context


def get_last_watermark(context: Context, task_id: str) -> pendulum.DateTime | None:
    """Return the latest ``watermark`` that an Airflow task left in earlier runs.

    The value of the current run does not count.

    :param context: the context of the Airflow task that runs.
    :param task_id: the Airflow task of this DAG whose XComs are read.
    :return: the watermark; None if there is none.
    :raises RedBrickInputError: if a ``watermark`` is not a time.
    """
    ti: Any = context["ti"]
    of_task = {"task_ids": task_id, **({} if ti.map_index < 0 else {"map_indexes": ti.map_index})}
    own = _values(ti.xcom_pull(**of_task))
    # Airflow's "prior dates" include the current run and exclude later ones.
    earlier = _without(_values(ti.xcom_pull(**of_task, include_prior_dates=True)), own)
    if own and not earlier:
        # Some Airflow releases, and mapped tasks, return only the latest value, which is the current run's here.
        earlier = _up_to_previous_run(ti, of_task)
    name = f"The watermark of Airflow task {task_id!r}"
    watermarks = [check.time(name, value["watermark"]) for value in earlier if "watermark" in value]
    return max((watermark for watermark in watermarks if watermark is not None), default=None)


def _up_to_previous_run(ti: Any, of_task: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the values up to the previous run; none if that run is unknown."""
    find = getattr(ti, "get_previous_dagrun", None)
    previous = None if find is None else find()
    if previous is None:
        return []
    return _values(ti.xcom_pull(**of_task, run_id=previous.run_id, include_prior_dates=True))


def _values(found: Any) -> list[Mapping[str, Any]]:
    """Return the objects among the pulled values: one value or several."""
    values = [found] if isinstance(found, Mapping) or not isinstance(found, Iterable) else found
    return [value for value in values if isinstance(value, Mapping)]


def _without(values: list[Mapping[str, Any]], others: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return ``values`` without ``others``, each removed once."""
    left = list(values)
    for other in others:
        if other in left:
            left.remove(other)
    return left
