"""URIs of stages, ``redbrick://<org_id>/<project_id>/<stage>``.

Each stage has exactly one normalized URI.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote, unquote, urlsplit

from airflow_provider_redbrick.api.ids import check_uuid
from airflow_provider_redbrick.api.stage_names import normalize_stage_name
from airflow_provider_redbrick.exceptions import RedBrickInputError, short_repr, to_valid_utf8
from airflow_provider_redbrick.hooks import check

if TYPE_CHECKING:
    from urllib.parse import SplitResult

SCHEME = "redbrick"


class StageKey(NamedTuple):
    """The stage that a URI identifies."""

    org_id: str
    project_id: str
    stage_name: str


def stage_uri(*, org_id: str, project_id: str, stage_name: str) -> str:
    """Return a stage's URI. ``Output`` and ``END`` become ``Ground Truth``.

    :param org_id: the organization's UUID.
    :param project_id: the project's UUID.
    :param stage_name: the stage's name, without templates.
    :raises RedBrickInputError: if an id is no UUID, or the name is blank or has a template.
    """
    if not isinstance(stage_name, str) or not stage_name.strip() or stage_name != to_valid_utf8(stage_name):
        raise RedBrickInputError(f"stage_name must be a stage's name, not {short_repr(stage_name)}.")
    check.plain_text("stage_name", stage_name)
    ids = f"{check_uuid('org_id', org_id)}/{check_uuid('project_id', project_id)}"
    return f"{SCHEME}://{ids}/{quote(normalize_stage_name(stage_name), safe='')}"


def normalize_uri(uri: SplitResult) -> SplitResult:
    """Return the normalized form of a stage's URI.

    Airflow calls this for each asset of this scheme.

    :raises ValueError: if the URI does not have the form above.
    """
    return urlsplit(stage_uri(**_key(uri)._asdict()))


def _key(uri: SplitResult) -> StageKey:
    path = uri.path.strip("/").split("/")
    if uri.scheme.lower() != SCHEME or len(path) != 2 or uri.query or uri.fragment:
        raise RedBrickInputError(
            f"A RedBrick asset's URI must be {SCHEME}://<org_id>/<project_id>/<stage> with the stage percent-encoded, "
            f"not {short_repr(uri.geturl())}. Use assets.stages.stage_asset to create it."
        )
    return StageKey(check_uuid("org_id", uri.netloc), check_uuid("project_id", path[0]), unquote(path[1]))
