"""Tests of the plugin's registration and options."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import airflow_provider_redbrick
from airflow_provider_redbrick.get_provider_info import get_provider_info
from airflow_provider_redbrick.plugins import access
from airflow_provider_redbrick.plugins.redbrick import RedBrickPlugin


def test_entry_point_loads_the_plugin():
    entries = [entry for entry in metadata.entry_points(group="airflow.plugins") if entry.name == "redbrick"]
    assert [entry.load() for entry in entries] == [RedBrickPlugin]


def test_page_is_in_the_navigation():
    (view,) = RedBrickPlugin().external_views
    assert (view["name"], view["destination"], view["url_route"]) == ("RedBrick", "nav", "redbrick")
    # An absolute address would be wrong behind a path prefix.
    assert not view["href"].startswith("/")


def test_airflow_loads_the_plugin():
    from airflow import plugins_manager

    if hasattr(plugins_manager, "get_fastapi_plugins"):
        apps, _ = plugins_manager.get_fastapi_plugins()
    else:  # before 3.2
        plugins_manager.initialize_fastapi_plugins()
        apps = plugins_manager.fastapi_apps
    assert [app["url_prefix"] for app in apps].count("/redbrick") == 1


SCRIPT = """
import sys
from airflow.providers.common.compat.sdk import AirflowPlugin
before = set(sys.modules)
from airflow_provider_redbrick.plugins.redbrick import RedBrickPlugin
RedBrickPlugin().external_views
print(*sorted(set(sys.modules) - before))
"""


def test_importing_the_plugin_imports_no_other_modules():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    ours = {"airflow_provider_redbrick", "airflow_provider_redbrick.plugins"}
    assert set(done.stdout.split()) <= {*ours, "airflow_provider_redbrick.plugins.redbrick"}


def test_every_option_is_documented_with_its_default():
    options = get_provider_info()["config"]["redbrick"]["options"]
    used = set()
    for path in Path(airflow_provider_redbrick.__file__).parent.glob("plugins/*.py"):
        used |= set(re.findall(r'_(?:text|secret)\("(\w+)",', path.read_text()))
    assert used == set(options) == {"boards", "webhook_secret", "webhook_conn_id"}
    assert {options[name]["default"] for name in ("boards", "webhook_conn_id")} == {access.DEFAULT_CONN_ID}


def test_webhook_secret_is_sensitive():
    secret = get_provider_info()["config"]["redbrick"]["options"]["webhook_secret"]
    assert secret["sensitive"]
    assert not secret["default"]
