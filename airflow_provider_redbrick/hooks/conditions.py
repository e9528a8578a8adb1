"""Validate the conditions that sensors wait for.

A worker validates them, and the triggerer does if it is the first to see them (``start_from_trigger``).
"""

from __future__ import annotations

from typing import Any

from airflow_provider_redbrick.batch.waiting import QueueCondition, TasksCondition
from airflow_provider_redbrick.exceptions import RedBrickInputError
from airflow_provider_redbrick.hooks import check

COUNT_BY = ("count", "listing")


def queue_condition(
    *, stage_name: Any, at_least: Any, at_most: Any, unassigned: Any = False, count_by: Any = "count"
) -> QueueCondition:
    """Return the condition of a stage-queue sensor.

    :param stage_name: the stage.
    :param at_least: the smallest count that meets the condition; None for no lower bound.
    :param at_most: the largest count that meets it; None for no upper bound. One of the two must be given.
    :param unassigned: whether to count only unassigned tasks.
    :param count_by: ``count`` uses the server's count; ``listing`` lists the tasks.
    :raises RedBrickInputError: if a parameter is invalid, or no count can meet the condition.
    """
    low = check.whole_number("at_least", at_least)
    high = check.whole_number("at_most", at_most)
    if low is None and high is None:
        raise RedBrickInputError("Give at_least, at_most, or both.")
    if low is not None and high is not None and low > high:
        raise RedBrickInputError(f"No count is at least {low} and at most {high}.")
    by_listing = check.one_of("count_by", count_by, COUNT_BY) == "listing"
    name = check.text("stage_name", stage_name)
    return QueueCondition(name, low, high, check.flag("unassigned", unassigned), by_listing=by_listing)


def tasks_condition(*, task_ids: Any, left_stage: Any, reached_stage: Any) -> TasksCondition:
    """Return the condition of a tasks sensor.

    :param task_ids: the tasks.
    :param left_stage: the stage that all of them must have left.
    :param reached_stage: the stage that all of them must have reached. Exactly one of the two stages must be given.
    :raises RedBrickInputError: if a parameter is invalid.
    """
    if (left_stage is None) == (reached_stage is None):
        raise RedBrickInputError("Give either left_stage or reached_stage.")
    left = None if left_stage is None else check.text("left_stage", left_stage)
    reached = None if reached_stage is None else check.text("reached_stage", reached_stage)
    return TasksCondition(check.task_ids(task_ids), left, reached)
