"""Sensor for tasks that leave a stage or reach one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.hooks.validation import tasks_condition
from airflow_provider_redbrick.sensors.base import RedBrickWaitSensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.providers.common.compat.sdk import XComArg

    from airflow_provider_redbrick.engine.polling import TasksCondition


class RedBrickTasksSensor(RedBrickWaitSensor):
    """Wait until all given tasks have left or reached a stage.

    Returns the number of tasks by stage. Reviews may be sampled, so a task can skip a stage. A task that is past the
    stage counts as having reached it.

    :param task_ids: the task ids.
    :param left_stage: wait until no task is in this stage any more.
    :param reached_stage: wait until all tasks are in this stage or past it; ``Ground Truth`` for finished tasks.
    """

    template_fields: Sequence[str] = (*RedBrickWaitSensor.template_fields, "task_ids", "left_stage", "reached_stage")
    trigger_path = "airflow_provider_redbrick.triggers.redbrick.RedBrickTasksTrigger"
    awaited = ("task_ids", "left_stage", "reached_stage")

    def __init__(
        self,
        *,
        task_ids: Sequence[str] | XComArg,
        left_stage: str | None = None,
        reached_stage: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.task_ids = task_ids
        self.left_stage = left_stage
        self.reached_stage = reached_stage
        self.plan_start()

    def condition(self) -> TasksCondition:
        """Return the validated condition."""
        return tasks_condition(**self.waits_for())
