"""Sensor for a stage's queue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.hooks.validation import queue_condition
from airflow_provider_redbrick.sensors.base import RedBrickWaitSensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.providers.common.compat.sdk import XComArg

    from airflow_provider_redbrick.engine.polling import QueueCondition


class RedBrickStageQueueSensor(RedBrickWaitSensor):
    """Wait until a stage's queue reaches a threshold, and return the count.

    :param stage_name: the stage; ``Ground Truth`` for finished tasks.
    :param at_least: met with this many tasks or more.
    :param at_most: met with this many tasks or fewer; 0 waits for an empty queue.
    :param unassigned: count only unassigned tasks. They are counted by a listing that stops as soon as the result is
        certain, so the returned count may be less than the total.
    :param count_by: ``count`` uses the server's own count of the stage; ``listing`` lists the queue, for servers
        whose count means something else.
    """

    template_fields: Sequence[str] = (*RedBrickWaitSensor.template_fields, "stage_name", "at_least", "at_most")
    trigger_path = "airflow_provider_redbrick.triggers.redbrick.RedBrickStageQueueTrigger"
    awaited = ("stage_name", "at_least", "at_most", "unassigned", "count_by")

    def __init__(
        self,
        *,
        stage_name: str,
        at_least: int | XComArg | str | None = None,
        at_most: int | XComArg | str | None = None,
        unassigned: bool = False,
        count_by: str = "count",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.stage_name = stage_name
        self.at_least = at_least
        self.at_most = at_most
        self.unassigned = unassigned
        self.count_by = count_by
        self.plan_start()

    def condition(self) -> QueueCondition:
        """Return the validated condition."""
        return queue_condition(**self.waits_for())
