"""Asset events that operators and the webhook send.

Operators add a summary of their manifest to the events of their outlets. The webhook registers events in the API
server, as a trigger would from the triggerer.

Registration uses Airflow's database, so never call it on an event loop. The commit is left to the caller.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.assets.stages import SCHEME, stage_uri

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from airflow.providers.common.compat.sdk import Context
    from sqlalchemy.orm import Session


log = logging.getLogger(__name__)

_EVENT_FIELDS = ("schema_version", "operation", "org_id", "project_id", "stage_name", "counts", "report", "uri")


def add_to_outlet_events(context: Context, outlets: Iterable[Any], manifest: Mapping[str, Any]) -> None:
    """Add a manifest's summary to the events of RedBrick outlets.

    Values that the DAG put there are kept. Airflow sends the events when the Airflow task has succeeded.

    :param context: the task's context.
    :param outlets: the operator's outlets. Other schemes are skipped.
    :param manifest: the operator's manifest.
    """
    events = context.get("outlet_events")
    if events is None:
        return
    summary = {field: manifest[field] for field in _EVENT_FIELDS if manifest.get(field) is not None}
    for outlet in outlets:
        if _uri(outlet, events).startswith(f"{SCHEME}://"):
            extra = events[outlet].extra
            extra.update({**summary, **extra})


def _uri(outlet: Any, events: Any) -> str:
    """Return an outlet's URI; empty if it is unknown.

    An outlet that only names an asset has no URI of its own. Airflow resolves it in the event.
    """
    uri = getattr(outlet, "uri", None)
    if uri is None and getattr(outlet, "name", None):
        try:
            uri = getattr(getattr(events[outlet], "key", None), "uri", None)
        except Exception as error:  # noqa: BLE001 - the work is done; a failed asset lookup must not fail the task
            log.warning("The asset %r could not be looked up. Its event has no RedBrick summary: %s", outlet, error)
    return str(uri or "")


def register_stage_events(
    *, org_id: str, project_id: str, stage_name: str, extra: Mapping[str, Any], session: Session
) -> int:
    """Register an event for each active asset of a stage.

    DAGs scheduled on these assets then run. The session is flushed, not committed.

    :param org_id: the organization's UUID.
    :param project_id: the project's UUID.
    :param stage_name: the stage's name.
    :param extra: the event's ``extra["payload"]``: a small JSON object.
    :param session: a session of Airflow's own database.
    :return: the number of events.
    :raises RedBrickInputError: if an id is no UUID, or the stage name is blank.
    """
    uri = stage_uri(org_id=org_id, project_id=project_id, stage_name=stage_name)
    from airflow.assets.manager import asset_manager
    from airflow.models.asset import AssetModel
    from sqlalchemy import select

    assets = session.scalars(select(AssetModel).where(AssetModel.uri == uri, AssetModel.active.has())).all()
    events = [
        asset_manager.register_asset_change(
            asset=asset, extra={"from_webhook": True, "payload": dict(extra)}, session=session
        )
        for asset in assets
    ]
    return sum(event is not None for event in events)
