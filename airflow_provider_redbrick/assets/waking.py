"""Register asset events of a stage from Airflow's API server.

Registration uses Airflow's database, so never call it on an event loop. It flushes and leaves the commit to the caller.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.assets.uris import stage_uri

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.orm import Session


def wake(*, org_id: str, project_id: str, stage_name: str, extra: Mapping[str, Any], session: Session) -> int:
    """Register an event for each active asset of a stage.

    DAGs scheduled on these assets then run. The function flushes, and leaves the commit to the caller.

    :param org_id: the organization's UUID.
    :param project_id: the project's UUID.
    :param stage_name: the stage's name.
    :param extra: what DAGs read as the event's ``extra["payload"]``: small, and JSON.
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
