"""Tell which tasks have become ground truth."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.api.stage_names import GROUND_TRUTH
from airflow_provider_redbrick.batch.arriving import Arrivals
from airflow_provider_redbrick.batch.watching import WatchResult, arrivals, since
from airflow_provider_redbrick.triggers.event_base import RedBrickWatchTrigger

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_redbrick.triggers.shared import SharedProject


class RedBrickGroundTruthEventTrigger(RedBrickWatchTrigger):
    """For an ``AssetWatcher``: an event when tasks have become ground truth.

    Each is told once in an ordinary life, and again when it was reopened and finished anew; when a triggerer is killed
    at the wrong moment, twice: at least once. What was ground truth before the watcher was new is not told; what
    arrives while the triggerer is down is told when it is back (from Airflow 3.3.2; before that, it is not).

    The event is ``schema_version, org_id, project_id, stage_name, count, task_ids``; of more than 1,000 tasks there
    are several.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._arrivals = Arrivals()

    def watches(self) -> dict[str, Any]:
        """Return the arguments that say what is watched."""
        return {}

    def stage(self) -> str:
        """Return the stage that events are about."""
        return GROUND_TRUTH

    async def look(self, project: SharedProject, state: Mapping[str, Any] | None) -> WatchResult:
        """Look once, and decide what is to be told."""
        seen = await project.read(partial(self._arrivals.look, since=since(state)))
        return arrivals(state, seen, mark=self._arrivals.mark)
