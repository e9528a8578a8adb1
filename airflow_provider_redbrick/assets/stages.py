"""Assets of stages and projects, for DAG schedules and outlets.

Each stage and each project has exactly one normalized URI.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

from airflow.sdk import Asset, AssetWatcher

from airflow_provider_redbrick.client.models.parsing import check_uuid
from airflow_provider_redbrick.client.models.workflow import normalize_stage_name
from airflow_provider_redbrick.exceptions import RedBrickInputError, short_repr, to_valid_utf8
from airflow_provider_redbrick.hooks import validation

if TYPE_CHECKING:
    from collections.abc import Sequence
    from urllib.parse import SplitResult


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
