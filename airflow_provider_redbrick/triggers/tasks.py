"""Trigger for tasks that leave a stage or reach one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.hooks.validation import tasks_condition
from airflow_provider_redbrick.triggers.base import RedBrickPollTrigger

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_redbrick.engine.polling import TasksCondition


class RedBrickTasksTrigger(RedBrickPollTrigger):
    """Wait for tasks to leave a stage or reach one.

    :param task_ids: the task ids.
    :param left_stage: wait until no task is in this stage any more.
    :param reached_stage: wait until all tasks are in this stage or past it.
    :param kwargs: the parameters of :class:`RedBrickPollTrigger`.
    """

    def __init__(
        self,
        *,
        task_ids: Sequence[str],
        left_stage: str | None = None,
        reached_stage: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        # Keep a string as it is, for validation to report; list() would split it into letters.
        self.task_ids = task_ids if isinstance(task_ids, str) else list(task_ids)
        self.left_stage = left_stage
        self.reached_stage = reached_stage

    def condition(self) -> TasksCondition:
        """Return the validated condition."""
        return tasks_condition(**self.waits_for())

    def waits_for(self) -> dict[str, Any]:
        """Return the arguments that describe the condition."""
        return {"task_ids": self.task_ids, "left_stage": self.left_stage, "reached_stage": self.reached_stage}
