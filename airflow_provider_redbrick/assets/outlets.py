"""Asset events that operators and the webhook send.

Operators add a summary of their manifest to the events of their outlets. The webhook registers events in the API
server, as a trigger would from the triggerer.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.assets.uris import SCHEME

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from airflow.providers.common.compat.sdk import Context

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
