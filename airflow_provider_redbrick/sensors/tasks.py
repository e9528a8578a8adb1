"""Wait until tasks have left a stage or reached one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.batch.waiting import TasksCondition
from airflow_provider_redbrick.exceptions import RedBrickInputError
from airflow_provider_redbrick.hooks import check
from airflow_provider_redbrick.sensors.base import RedBrickWaitSensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_redbrick.api.project import RedBrickProject
    from airflow_provider_redbrick.triggers.tasks import RedBrickTasksTrigger


class RedBrickTasksSensor(RedBrickWaitSensor):
    """Wait until all of the given tasks have left a stage, or reached one; returns how many are in which stage.

    Reviews may be sampled, so a task can jump over a stage: one that is past the stage counts as having reached it.

    :param task_ids: the tasks.
    :param left_stage: wait until none of them is in this stage any more.
    :param reached_stage: wait until all of them are in this stage or past it; ``Ground Truth`` when finished.
    """

    template_fields: Sequence[str] = (*RedBrickWaitSensor.template_fields, "task_ids", "left_stage", "reached_stage")

    def __init__(
        self,
        *,
        task_ids: Sequence[str],
        left_stage: str | None = None,
        reached_stage: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.task_ids = task_ids
        self.left_stage = left_stage
        self.reached_stage = reached_stage

    def condition(self) -> TasksCondition:
        """Return what is waited for, checked."""
        if (self.left_stage is None) == (self.reached_stage is None):
            raise RedBrickInputError("Give left_stage or reached_stage, and not both.")
        left = None if self.left_stage is None else check.text("left_stage", self.left_stage)
        reached = None if self.reached_stage is None else check.text("reached_stage", self.reached_stage)
        return TasksCondition(check.task_ids(self.task_ids), left, reached)

    def trigger(self, condition: Any, **common: Any) -> RedBrickTasksTrigger:
        """Return the trigger that waits for it."""
        from airflow_provider_redbrick.triggers.tasks import RedBrickTasksTrigger

        return RedBrickTasksTrigger(
            task_ids=condition.task_ids,
            left_stage=condition.left_stage,
            reached_stage=condition.reached_stage,
            **common,
        )

    def check_stages(self, project: RedBrickProject, condition: Any) -> None:
        """Refuse a stage name that the project does not have, and to wait where nothing ever stays."""
        stage = project.stage(condition.left_stage or condition.reached_stage)
        if condition.reached_stage is not None and project.info.workflow.position(stage.public_name) < 0:
            raise RedBrickInputError(
                f"Tasks only pass through {stage.name} on their way back: wait for them to leave the stage before it."
            )
