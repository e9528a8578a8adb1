"""Airflow plugin: the RedBrick page and the webhook endpoint.

Airflow imports this module in each of its processes, so it imports nothing else of the provider. Only the API server
creates the applications.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

from airflow.providers.common.compat.sdk import AirflowPlugin

# Addresses are relative to Airflow's own, which may have a path.
_VIEWS: list[Any] = [
    {
        "name": "RedBrick",
        "href": "redbrick/",
        "destination": "nav",
        "url_route": "redbrick",
        "icon": "redbrick/static/icon.svg",
    }
]


class RedBrickPlugin(AirflowPlugin):
    """Add the RedBrick page to Airflow's navigation, and the webhook endpoint.

    Airflow 3.0 cannot list it in the navigation. The page is then available at ``/redbrick/`` only.
    """

    name = "redbrick"
    external_views = _VIEWS

    @cached_property
    def fastapi_apps(self) -> list[Any]:  # type: ignore[override]
        """The page's application, and the webhook's if it is enabled."""
        from airflow_provider_redbrick.plugins.page import page_app
        from airflow_provider_redbrick.plugins.webhook import webhook_app

        apps = [{"name": "RedBrick", "app": page_app(), "url_prefix": "/redbrick"}]
        webhook = webhook_app()
        if webhook is not None:
            apps.append({"name": "RedBrick webhook", "app": webhook, "url_prefix": "/redbrick-webhook"})
        return apps
