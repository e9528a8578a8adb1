"""Assets of stages, for DAG schedules and outlets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset, AssetWatcher

from airflow_provider_redbrick.assets.uris import stage_uri
from airflow_provider_redbrick.exceptions import RedBrickInputError, short_repr

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
    """Return the asset of a project's stage, for ``schedule`` and ``outlets``.

    DAG files make no lookups, so the connection's default ids do not apply here. Airflow keeps the definition of the
    file that it parsed last. DAG files that use the same stage must therefore define it identically, including name and
    watchers: create the asset in one module, and import it.

    :param org_id: the organization's UUID.
    :param project_id: the project's UUID.
    :param stage_name: the stage; ``Ground Truth`` for finished tasks.
    :param name: the asset's name in Airflow; its URI by default.
    :param watchers: the watchers that send its events.
    :param extra: the asset's ``extra``; empty by default.
    :raises RedBrickInputError: if an id is no UUID, the stage name is blank, or a watcher is not an ``AssetWatcher``.
    """
    if not isinstance(watchers, (list, tuple)) or not all(isinstance(watcher, AssetWatcher) for watcher in watchers):
        raise RedBrickInputError(
            f"watchers must be a list of AssetWatcher(name=..., trigger=...), not {short_repr(watchers)}."
        )
    uri = stage_uri(org_id=org_id, project_id=project_id, stage_name=stage_name)
    return Asset(name=name or uri, uri=uri, watchers=list(watchers), extra=extra or {})


def create_asset(*, org_id: str, project_id: str, stage_name: str, extra: dict[str, Any] | None = None) -> Asset:
    """Return a stage's asset, as the factory that Airflow's lineage collection calls.

    :param org_id: the organization's UUID.
    :param project_id: the project's UUID.
    :param stage_name: the stage; ``Ground Truth`` for finished tasks.
    :param extra: the asset's ``extra``; empty by default.
    """
    return stage_asset(org_id=org_id, project_id=project_id, stage_name=stage_name, extra=extra)
