"""Triggers of the sensors, and event triggers for asset watchers."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.client.models.workflow import GROUND_TRUTH, normalize_stage_name
from airflow_provider_redbrick.engine.polling import QueueCondition
from airflow_provider_redbrick.engine.watching import (
    Arrivals,
    WatchResult,
    announce_arrivals,
    evaluate_threshold,
    watermark_of,
)
from airflow_provider_redbrick.exceptions import RedBrickInputError
from airflow_provider_redbrick.hooks import validation
from airflow_provider_redbrick.hooks.validation import queue_condition, tasks_condition
from airflow_provider_redbrick.triggers.base import RedBrickPollTrigger, RedBrickWatchTrigger

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_provider_redbrick.engine.polling import TasksCondition
    from airflow_provider_redbrick.triggers.poll_group import SharedProject


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


class RedBrickStageQueueEventTrigger(RedBrickWatchTrigger):
    """Send an event when a stage's queue rises to ``at_least``.

    The event is sent once, and again only after the queue was below the threshold. A queue that is long enough at the
    first poll counts as risen. Without a state store (before Airflow 3.3.2) that also applies after each restart of the
    triggerer. A queue that falls and rises again between two polls, or within the connection's ``settle_seconds``, is
    not reported.

    The event has ``schema_version, org_id, project_id, stage_name, count, at_least``.

    :param stage_name: the stage; ``Ground Truth`` for finished tasks.
    :param at_least: the threshold, at least 1 task, by the server's count.
    """

    def __init__(self, *, stage_name: str, at_least: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        validation.plain_text("stage_name", stage_name)
        if validation.whole_number("at_least", at_least, low=1) is None:
            raise RedBrickInputError("at_least must be a whole number of at least 1, not None.")
        self.stage_name = stage_name
        self.at_least = at_least

    def watches(self) -> dict[str, Any]:
        """Return the arguments that describe what is watched."""
        return {"stage_name": self.stage_name, "at_least": self.at_least}

    def stage(self) -> str:
        """Return the public name of the watched stage."""
        return normalize_stage_name(self.stage_name)

    async def poll(self, project: SharedProject, state: Mapping[str, Any] | None) -> WatchResult:
        """Poll once, and decide which events to send.

        :param project: the shared project to read.
        :param state: the state after the previous poll; None at the first one.
        :return: the events to send and the new state.
        """
        at_least, began = int(self.at_least), time.monotonic()
        result = await project.poll(QueueCondition(self.stage_name, at_least))
        client = project.client
        return evaluate_threshold(
            state,
            result.observed,
            at_least=at_least,
            read_at=client.clock.now().subtract(seconds=time.monotonic() - began),
            settle_seconds=client.settle_seconds,
        )


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


class RedBrickGroundTruthEventTrigger(RedBrickWatchTrigger):
    """Send an event when tasks become ground truth. For an ``AssetWatcher``.

    Each task is reported at least once: normally once, and twice when the triggerer is killed before it saved its
    state. A task that is reopened and finished again is reported again. Tasks that were ground truth before the watcher
    existed are not reported. Tasks that arrive while the triggerer is down are reported when it restarts. That needs
    Airflow 3.3.2 or later; older releases do not report them.

    The event has ``schema_version, org_id, project_id, stage_name, count, task_ids``. More than 1,000 tasks are sent in
    several events.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._arrivals = Arrivals()

    def watches(self) -> dict[str, Any]:
        """Return the arguments that describe what is watched."""
        return {}

    def stage(self) -> str:
        """Return the public name of the watched stage."""
        return GROUND_TRUTH

    async def poll(self, project: SharedProject, state: Mapping[str, Any] | None) -> WatchResult:
        """Poll once, and decide which events to send.

        :param project: the shared project to read.
        :param state: the state after the previous poll; None at the first one.
        :return: the events to send and the new state.
        """
        arrivals = await project.read(partial(self._arrivals.look, updated_after=watermark_of(state)))
        return announce_arrivals(
            state, arrivals, read_at=self._arrivals.read_at, settle_seconds=project.client.settle_seconds
        )
