"""Event trigger for tasks that become ground truth."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.client.models.workflow import GROUND_TRUTH
from airflow_provider_redbrick.engine.watching import Arrivals, WatchResult, announce_arrivals, watermark_of
from airflow_provider_redbrick.triggers.base import RedBrickWatchTrigger

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_redbrick.triggers.poll_group import SharedProject


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
