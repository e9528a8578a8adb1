"""A stage as an asset."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset, AssetWatcher

from airflow_provider_redbrick.assets.uris import stage_uri
from airflow_provider_redbrick.exceptions import RedBrickInputError, told

if TYPE_CHECKING:
    from collections.abc import Sequence


def stage_asset(
    *,
    org_id: str,
    project_id: str,
    stage_name: str,
    name: str | None = None,
    watchers: Sequence[AssetWatcher] = (),
    extra: dict[str, Any] | None = None,
) -> Asset:
    """Return the asset of a project's stage, for a DAG's ``schedule`` and for operators' ``outlets``.

    It is written into DAG files, where nothing is looked up: the connection's default ids do not count here. DAG files
    that name the same stage must do so alike, name and watchers too, for Airflow believes the file it read last: make
    the asset in one module, and import it.

    :param stage_name: the stage; ``Ground Truth`` for finished tasks.
    :param name: what Airflow calls it; its URI by default.
    :param watchers: what wakes it.
    :raises RedBrickInputError: when an id is no UUID, the stage's name is blank, or a watcher is none.
    """
    if not isinstance(watchers, (list, tuple)) or not all(isinstance(each, AssetWatcher) for each in watchers):
        raise RedBrickInputError(
            f"watchers must be a list of AssetWatcher(name=..., trigger=...), not {told(watchers)}."
        )
    uri = stage_uri(org_id=org_id, project_id=project_id, stage_name=stage_name)
    return Asset(name=name or uri, uri=uri, watchers=list(watchers), extra=extra or {})


def create_asset(*, org_id: str, project_id: str, stage_name: str, extra: dict[str, Any] | None = None) -> Asset:
    """Return the asset of a stage, as Airflow's collection of lineage makes it."""
    return stage_asset(org_id=org_id, project_id=project_id, stage_name=stage_name, extra=extra)
