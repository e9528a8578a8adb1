"""Triggers for a stage's queue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.hooks.conditions import queue_condition
from airflow_provider_redbrick.triggers.base import RedBrickPollTrigger

if TYPE_CHECKING:
    from airflow_provider_redbrick.batch.waiting import QueueCondition


class RedBrickStageQueueTrigger(RedBrickPollTrigger):
    """Wait for a stage's queue to reach a threshold.

    :param stage_name: the stage; ``Ground Truth`` for finished tasks.
    :param at_least: met with this many tasks or more; None for no lower threshold.
    :param at_most: met with this many tasks or fewer; None for no upper threshold.
    :param unassigned: count unassigned tasks only, by a listing.
    :param count_by: ``count`` for the server's count, ``listing`` to list the queue.
    :param kwargs: the parameters of :class:`RedBrickPollTrigger`.
    """

    def __init__(
        self,
        *,
        stage_name: str,
        at_least: int | None = None,
        at_most: int | None = None,
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

    def condition(self) -> QueueCondition:
        """Return the validated condition."""
        return queue_condition(**self.waits_for())

    def waits_for(self) -> dict[str, Any]:
        """Return the arguments that describe the condition."""
        return {
            "stage_name": self.stage_name,
            "at_least": self.at_least,
            "at_most": self.at_most,
            "unassigned": self.unassigned,
            "count_by": self.count_by,
        }
