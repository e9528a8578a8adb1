"""Assets of stages and projects for DAG schedules and outlets, and their events.

Each stage and each project has exactly one normalized URI.

Operators add a summary of their manifest to the events of their outlets. The webhook registers events in the API
server, as a trigger would from the triggerer.

Registration uses Airflow's database, so never call it on an event loop. The commit is left to the caller.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

from airflow.sdk import Asset, AssetWatcher

from airflow_provider_redbrick.client.models.parsing import check_uuid
from airflow_provider_redbrick.client.models.workflow import normalize_stage_name
from airflow_provider_redbrick.exceptions import RedBrickInputError, short_repr, to_valid_utf8
from airflow_provider_redbrick.hooks import validation

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from urllib.parse import SplitResult

    from airflow.providers.common.compat.sdk import Context
    from sqlalchemy.orm import Session


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


def project_asset(*, org_id: str, project_id: str, name: str | None = None) -> Asset:
    """Return the asset of a whole project, for ``outlets`` of Airflow tasks that record its queues.

    Its events start no DAG that waits for a stage.

    :param org_id: the organization's UUID.
    :param project_id: the project's UUID.
    :param name: the asset's name in Airflow; its URI by default.
    :raises RedBrickInputError: if an id is no UUID.
    """
    uri = project_uri(org_id=org_id, project_id=project_id)
    return Asset(name=name or uri, uri=uri)


def create_asset(*, org_id: str, project_id: str, stage_name: str, extra: dict[str, Any] | None = None) -> Asset:
    """Return a stage's asset, as the factory that Airflow's lineage collection calls.

    :param org_id: the organization's UUID.
    :param project_id: the project's UUID.
    :param stage_name: the stage; ``Ground Truth`` for finished tasks.
    :param extra: the asset's ``extra``; empty by default.
    """
    return stage_asset(org_id=org_id, project_id=project_id, stage_name=stage_name, extra=extra)


SCHEME = "redbrick"


def project_uri(*, org_id: str, project_id: str) -> str:
    """Return a project's URI.

    :param org_id: the organization's UUID.
    :param project_id: the project's UUID.
    :raises RedBrickInputError: if an id is no UUID.
    """
    return f"{SCHEME}://{check_uuid('org_id', org_id)}/{check_uuid('project_id', project_id)}"


def stage_uri(*, org_id: str, project_id: str, stage_name: str) -> str:
    """Return a stage's URI. ``Output`` and ``END`` become ``Ground Truth``.

    :param org_id: the organization's UUID.
    :param project_id: the project's UUID.
    :param stage_name: the stage's name, without templates.
    :raises RedBrickInputError: if an id is no UUID, or the name is blank or has a template.
    """
    if not isinstance(stage_name, str) or not stage_name.strip() or stage_name != to_valid_utf8(stage_name):
        raise RedBrickInputError(f"stage_name must be a stage's name, not {short_repr(stage_name)}.")
    validation.plain_text("stage_name", stage_name)
    project = project_uri(org_id=org_id, project_id=project_id)
    return f"{project}/{quote(normalize_stage_name(stage_name), safe='')}"


def normalize_uri(uri: SplitResult) -> SplitResult:
    """Return the normalized form of a stage's or a project's URI.

    Airflow calls this for each asset of this scheme.

    :raises ValueError: if the URI has another form.
    """
    project_id, *stage = uri.path.strip("/").split("/")
    if uri.scheme.lower() != SCHEME or not project_id or len(stage) > 1 or uri.query or uri.fragment:
        raise RedBrickInputError(
            f"A RedBrick asset's URI must be {SCHEME}://<org_id>/<project_id>/<stage> with the stage percent-encoded, "
            f"or {SCHEME}://<org_id>/<project_id>, not {short_repr(uri.geturl())}. Use assets.stages.stage_asset or "
            f"project_asset to create it."
        )
    if not stage:
        return urlsplit(project_uri(org_id=uri.netloc, project_id=project_id))
    return urlsplit(stage_uri(org_id=uri.netloc, project_id=project_id, stage_name=unquote(stage[0])))


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
