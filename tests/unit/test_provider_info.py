"""Tests of the provider's metadata and of what Airflow reads from it."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import os
import subprocess
import sys
from importlib import metadata, resources
from pathlib import Path

import jsonschema
import pytest
from airflow.providers.common.compat.sdk import BaseHook, BaseOperator, BaseSensorOperator
from airflow.sdk.bases.notifier import BaseNotifier
from airflow.triggers.base import BaseTrigger

import airflow_provider_redbrick
from airflow_provider_redbrick.get_provider_info import get_provider_info

PACKAGE = Path(airflow_provider_redbrick.__file__).parent
INFO = get_provider_info()
(CONNECTION_TYPE,) = INFO["connection-types"]
KINDS = {"operators": BaseOperator, "sensors": BaseSensorOperator, "triggers": BaseTrigger, "hooks": BaseHook}
BASES = {"operators.base", "operators.stage_base", "sensors.base", "triggers.base"}


def test_entry_point_imports_no_other_modules():
    script = (
        "import sys; before = set(sys.modules)\n"
        "from airflow_provider_redbrick.get_provider_info import get_provider_info\n"
        "get_provider_info()\nprint(' '.join(sorted(set(sys.modules) - before)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    ours = {"airflow_provider_redbrick", "airflow_provider_redbrick.get_provider_info"}
    assert set(done.stdout.split()) - ours <= {"__future__"}


def test_installed_entry_point_returns_the_info():
    entries = [
        entry
        for entry in metadata.entry_points(group="apache_airflow_provider")
        if entry.dist is not None and entry.dist.name == "airflow-provider-redbrick"
    ]
    assert [entry.load()() for entry in entries] == [INFO]


def schema(name: str):
    return json.loads((resources.files("airflow") / name).read_text())


PARTS = schema("provider.yaml.schema.json")["properties"]
FORMS = "conn-fields" in PARTS["connection-types"]["items"]["properties"]


def test_info_matches_the_runtime_schema():
    jsonschema.validate(INFO, schema("provider_info.schema.json"))


@pytest.mark.skipif(not FORMS, reason="this Airflow shows only the standard fields of a connection")
def test_connection_form_matches_the_provider_yaml_schema():
    jsonschema.validate(INFO["connection-types"], PARTS["connection-types"])


def test_form_field_schemas_accept_their_defaults():
    for field in CONNECTION_TYPE["conn-fields"].values():
        jsonschema.Draft7Validator.check_schema(field["schema"])
        if "default" in field["schema"]:
            jsonschema.validate(field["schema"]["default"], field["schema"])


def listed(kind: str) -> set[str]:
    return {module for entry in INFO[kind] for module in entry["python-modules"]}


def on_disk(kind: str) -> set[str]:
    """Return the modules of a folder that define a public class, bases aside."""
    found = set()
    for path in (PACKAGE / kind).glob("*.py"):
        if f"{kind}.{path.stem}" in BASES:
            continue
        classes = [node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef)]
        module = f"airflow_provider_redbrick.{kind}.{path.stem}"
        if any(not name.startswith("_") and is_a(KINDS[kind], module, name) for name in classes):
            found.add(module)
    return found


def is_a(kind: type, module: str, name: str) -> bool:
    return issubclass(getattr(importlib.import_module(module), name), kind)


@pytest.mark.parametrize("kind", KINDS)
def test_listed_modules_match_the_package(kind):
    assert listed(kind) == on_disk(kind)
    assert listed(kind)


@pytest.mark.parametrize("kind", KINDS)
def test_class_names_have_prefix_and_kind(kind):
    for module in listed(kind):
        defined = [
            name
            for name, value in vars(importlib.import_module(module)).items()
            if inspect.isclass(value) and value.__module__ == module and issubclass(value, KINDS[kind])
        ]
        assert defined
        for name in defined:
            assert name.startswith("RedBrick")
            assert name.endswith(kind[:-1].capitalize())


def in_folder(kind: str) -> set[str]:
    return {path.stem for path in (PACKAGE / kind).glob("*.py")} - {"__init__"}


def found_at(path: str):
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def test_every_decorator_is_registered():
    from airflow.sdk import task

    listed = {entry["name"]: entry["class-name"] for entry in INFO["task-decorators"]}
    assert listed == {
        f"redbrick_{name}": f"airflow_provider_redbrick.decorators.redbrick.redbrick_{name}_task"
        for name in ("auto_review", "prelabel")
    }
    for name, path in listed.items():
        assert getattr(task, name) is found_at(path)


def test_every_notifier_is_listed():
    assert {path.split(".")[-2] for path in INFO["notifications"]} == in_folder("notifications")
    for path in INFO["notifications"]:
        assert issubclass(found_at(path), BaseNotifier)
        assert path.rpartition(".")[2].startswith("RedBrick")
        assert path.endswith("Notifier")


def test_every_referenced_integration_is_described():
    described = {entry["integration-name"] for entry in INFO["integrations"]}
    for kind in KINDS:
        assert {entry["integration-name"] for entry in INFO[kind]} <= described


def test_connection_type_matches_the_hook():
    module, _, name = CONNECTION_TYPE["hook-class-name"].rpartition(".")
    hook = getattr(importlib.import_module(module), name)
    assert hook.conn_type == CONNECTION_TYPE["connection-type"]
    assert hook.hook_name == CONNECTION_TYPE["hook-name"]
    assert hook.default_conn_name == f"{hook.conn_type}_default"
    assert hook.conn_name_attr in inspect.signature(hook).parameters


# ------------------------------------------------------------------ as read by Airflow


@pytest.fixture(scope="module")
def manager():
    from airflow.providers_manager import ProvidersManager

    return ProvidersManager()


@pytest.mark.filterwarnings("ignore:ProvidersManager.hooks is deprecated")
def test_airflow_loads_the_hook(manager):
    found = manager.hooks["redbrick"]
    assert found is not None
    assert found.hook_class_name == CONNECTION_TYPE["hook-class-name"]
    assert found.connection_id_attribute_name == "redbrick_conn_id"
    assert found.connection_testable
    assert found.package_name == "airflow-provider-redbrick"


@pytest.mark.skipif(not FORMS, reason="this Airflow shows only the standard fields of a connection")
def test_airflow_shows_the_form_fields(manager):
    ours = {name for name in manager.connection_form_widgets if name.startswith("extra__redbrick__")}
    assert ours == {f"extra__redbrick__{name}" for name in CONNECTION_TYPE["conn-fields"]}


@pytest.mark.skipif(not FORMS, reason="this Airflow shows only the standard fields of a connection")
def test_airflow_relabels_the_standard_fields(manager):
    behaviour = manager.field_behaviours["redbrick"]
    assert behaviour["relabeling"]["password"] == "API key"
    assert "login" in behaviour["hidden_fields"]


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """The output of ``airflow providers``, with all commands started at once."""
    running = {}
    for command in ("list", "hooks", "behaviours"):
        environment = {**os.environ, "AIRFLOW_HOME": str(tmp_path_factory.mktemp(command))}
        line = [sys.executable, "-m", "airflow", "providers", command, "--output", "json"]
        running[command] = subprocess.Popen(
            line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
        )
    outputs = {command: process.communicate(timeout=120)[0] for command, process in running.items()}
    return {command: json.loads(text[text.index("[{") :]) if "[{" in text else [] for command, text in outputs.items()}


def test_command_line_lists_the_provider(shown):
    (row,) = [row for row in shown["list"] if row["package_name"] == "airflow-provider-redbrick"]
    assert row["version"] == airflow_provider_redbrick.__version__
    assert "Medical-image labeling" in row["description"]


def test_command_line_lists_the_hook(shown):
    (row,) = [row for row in shown["hooks"] if row["connection_type"] == "redbrick"]
    assert row["class"] == CONNECTION_TYPE["hook-class-name"]
    assert row["conn_id_attribute_name"] == "redbrick_conn_id"


@pytest.mark.skipif(not FORMS, reason="this Airflow shows only the standard fields of a connection")
def test_command_line_lists_the_connection_form(shown):
    assert "redbrick" in [row["field_behaviours"] for row in shown["behaviours"]]
