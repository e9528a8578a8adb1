"""Wait until a stage's queue crosses a threshold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.batch.waiting import QueueCondition
from airflow_provider_redbrick.exceptions import RedBrickInputError
from airflow_provider_redbrick.hooks import check
from airflow_provider_redbrick.sensors.base import RedBrickWaitSensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_redbrick.api.project import RedBrickProject
    from airflow_provider_redbrick.triggers.stage_queue import RedBrickStageQueueTrigger

COUNT_BY = ("count", "listing")


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
        """Return what is waited for, checked."""
        at_least = check.whole_number("at_least", self.at_least)
        at_most = check.whole_number("at_most", self.at_most)
        if at_least is None and at_most is None:
            raise RedBrickInputError("Give at_least, at_most, or both: there is nothing to wait for.")
        if at_least is not None and at_most is not None and at_least > at_most:
            raise RedBrickInputError(f"No count is at least {at_least} and at most {at_most}.")
        count_by = check.one_of("count_by", self.count_by, COUNT_BY)
        name = check.text("stage_name", self.stage_name)
        check.flag("unassigned", self.unassigned)
        return QueueCondition(name, at_least, at_most, self.unassigned, by_listing=count_by == "listing")

    def trigger(self, condition: Any, **common: Any) -> RedBrickStageQueueTrigger:
        """Return the trigger that waits for it."""
        from airflow_provider_redbrick.triggers.stage_queue import RedBrickStageQueueTrigger

        return RedBrickStageQueueTrigger(
            stage_name=condition.stage_name,
            at_least=condition.at_least,
            at_most=condition.at_most,
            unassigned=condition.unassigned,
            count_by=self.count_by,
            **common,
        )

    def check_stages(self, project: RedBrickProject, condition: Any) -> None:
        """Refuse a stage name that the project does not have."""
        project.stage(condition.stage_name)
