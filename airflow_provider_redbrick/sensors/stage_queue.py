"""Wait until a stage's queue crosses a threshold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.hooks.conditions import queue_condition
from airflow_provider_redbrick.sensors.base import RedBrickWaitSensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.providers.common.compat.sdk import XComArg

    from airflow_provider_redbrick.batch.waiting import QueueCondition


class RedBrickStageQueueSensor(RedBrickWaitSensor):
    """Wait until a stage's queue is long enough, or short enough; returns the count.

    :param stage_name: the stage; ``Ground Truth`` for finished tasks.
    :param at_least: met when so many tasks or more are there.
    :param at_most: met when so many tasks or fewer are there; 0 waits for an empty queue.
    :param unassigned: count only tasks that nobody holds. They are counted by a listing that stops as soon as the
        answer is certain, so that what is returned may be less than all there are.
    :param count_by: ``count`` uses the server's own count of the stage; ``listing`` lists the queue, for servers
        whose count means something else.
    """

    template_fields: Sequence[str] = (*RedBrickWaitSensor.template_fields, "stage_name", "at_least", "at_most")
    trigger_path = "airflow_provider_redbrick.triggers.stage_queue.RedBrickStageQueueTrigger"
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
        """Return what is waited for, checked."""
        return queue_condition(**self.waits_for())
