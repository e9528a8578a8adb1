"""Tell when a stage's queue rises through a threshold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.api.stage_names import as_users_see_it
from airflow_provider_redbrick.batch.waiting import QueueCondition
from airflow_provider_redbrick.batch.watching import WatchResult, crossing
from airflow_provider_redbrick.exceptions import RedBrickInputError
from airflow_provider_redbrick.hooks import check
from airflow_provider_redbrick.triggers.event_base import RedBrickWatchTrigger

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_redbrick.triggers.shared import SharedProject


class RedBrickStageQueueEventTrigger(RedBrickWatchTrigger):
    """For an ``AssetWatcher``: an event when a stage's queue rises through ``at_least``.

    It is sent once, and again only after the queue was below. A queue that is long enough when the watcher is new
    counts as risen. Where nothing survives the triggerer (before Airflow 3.3.2), it does so after each restart. A queue
    that fell and rose again between two looks has not changed.

    The event is ``schema_version, org_id, project_id, stage_name, count, at_least``.

    :param stage_name: the stage; ``Ground Truth`` for finished tasks.
    :param at_least: how many tasks, at least 1, by the server's own count.
    """

    def __init__(self, *, stage_name: str, at_least: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check.plain_text("stage_name", stage_name)
        if check.whole_number("at_least", at_least, low=1) is None:
            raise RedBrickInputError("at_least must be a whole number of at least 1, not None.")
        self.stage_name = stage_name
        self.at_least = at_least

    def watches(self) -> dict[str, Any]:
        """Return the arguments that say what is watched."""
        return {"stage_name": self.stage_name, "at_least": self.at_least}

    def stage(self) -> str:
        """Return the stage that events are about."""
        return as_users_see_it(self.stage_name)

    async def look(self, project: SharedProject, state: Mapping[str, Any] | None) -> WatchResult:
        """Look once, and decide what is to be told."""
        at_least = int(self.at_least)
        poll = await project.look(QueueCondition(self.stage_name, at_least))
        return crossing(state, poll.seen, at_least=at_least)
