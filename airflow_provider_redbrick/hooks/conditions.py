"""What sensors are given to wait for, checked: on a worker, and in the triggerer where that is the first to see it."""

from __future__ import annotations

from typing import Any

from airflow_provider_redbrick.batch.waiting import QueueCondition, TasksCondition
from airflow_provider_redbrick.exceptions import RedBrickInputError
from airflow_provider_redbrick.hooks import check

COUNT_BY = ("count", "listing")


def queue_condition(
    *, stage_name: Any, at_least: Any, at_most: Any, unassigned: Any = False, count_by: Any = "count"
) -> QueueCondition:
    """Return what a stage-queue sensor waits for.

    :raises RedBrickInputError: when it makes no sense.
    """
    low = check.whole_number("at_least", at_least)
    high = check.whole_number("at_most", at_most)
    if low is None and high is None:
        raise RedBrickInputError("Give at_least, at_most, or both: there is nothing to wait for.")
    if low is not None and high is not None and low > high:
        raise RedBrickInputError(f"No count is at least {low} and at most {high}.")
    by_listing = check.one_of("count_by", count_by, COUNT_BY) == "listing"
    name = check.text("stage_name", stage_name)
    return QueueCondition(name, low, high, check.flag("unassigned", unassigned), by_listing=by_listing)


def tasks_condition(*, task_ids: Any, left_stage: Any, reached_stage: Any) -> TasksCondition:
    """Return what a tasks sensor waits for.

    :raises RedBrickInputError: when it makes no sense.
    """
    if (left_stage is None) == (reached_stage is None):
        raise RedBrickInputError("Give left_stage or reached_stage, and not both.")
    left = None if left_stage is None else check.text("left_stage", left_stage)
    reached = None if reached_stage is None else check.text("reached_stage", reached_stage)
    return TasksCondition(check.task_ids(task_ids), left, reached)
