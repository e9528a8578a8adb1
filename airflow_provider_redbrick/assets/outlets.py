"""What an operator tells with the events of its outlets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.assets.uris import SCHEME

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from airflow.providers.common.compat.sdk import Context

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
        if str(getattr(outlet, "uri", "")).startswith(f"{SCHEME}://"):
            extra = events[outlet].extra
            extra.update({**told, **extra})
