"""What an operator tells with the events of its outlets."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.assets.uris import SCHEME

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from airflow.providers.common.compat.sdk import Context

log = logging.getLogger(__name__)

_TOLD = ("schema_version", "operation", "org_id", "project_id", "stage_name", "counts", "report", "uri")


def tell_outlets(context: Context, outlets: Iterable[Any], manifest: Mapping[str, Any]) -> None:
    """Put a manifest's sums into the events of those outlets that are RedBrick's; what a DAG put there stays.

    Airflow sends the events when the Airflow task has succeeded.
    """
    events = context.get("outlet_events")
    if events is None:
        return
    told = {field: manifest[field] for field in _TOLD if manifest.get(field) is not None}
    for outlet in outlets:
        if _uri(outlet, events).startswith(f"{SCHEME}://"):
            extra = events[outlet].extra
            extra.update({**told, **extra})


def _uri(outlet: Any, events: Any) -> str:
    """Return an outlet's URI; one that names an asset leaves that to its event, where Airflow has looked it up."""
    uri = getattr(outlet, "uri", None)
    if uri is None and getattr(outlet, "name", None):
        try:
            uri = getattr(getattr(events[outlet], "key", None), "uri", None)
        except Exception as error:  # noqa: BLE001 - the work is done, whatever Airflow knows of an asset
            log.warning("The asset %r could not be looked up: %s", outlet, error)
    return str(uri or "")
