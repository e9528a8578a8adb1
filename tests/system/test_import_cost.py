"""Parsing a DAG must not load what only running it, or the sandbox, needs."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from airflow_provider_redbrick.get_provider_info import get_provider_info

INFO = get_provider_info()
MODULES = [
    module
    for kind in ("operators", "sensors", "triggers", "hooks")
    for entry in INFO[kind]
    for module in entry["python-modules"]
]
MODULES += [entry["class-name"].rpartition(".")[0] for entry in INFO["task-decorators"]]
MODULES += [path.rpartition(".")[0] for path in INFO["notifications"]]
# Each of Airflow's processes loads it.
MODULES.append("airflow_provider_redbrick.plugins.redbrick")
# DAG files load it.
MODULES.append("airflow_provider_redbrick.assets.stages")
HEAVY = [
    "PIL",
    # Building the models takes about 60 ms.
    "airflow_provider_redbrick.labels.models",
    "airflow.providers.openlineage",
    "redbrick_sandbox",
    "ariadne",
    "graphql",
    "nibabel",
    "numpy",
    "openlineage",
    "pydicom",
    "scipy",
    "starlette",
    "uvicorn",
]


# Imports Airflow once, then each module in a child of its own.
SCRIPT = """
import json, os, sys
from airflow.sdk import BaseOperator
import airflow.providers.common.compat.sdk
before = set(sys.modules)
for module in sys.argv[1:]:
    if os.fork() == 0:
        __import__(module)
        print(json.dumps([module, sorted(set(sys.modules) - before)]), flush=True)
        os._exit(0)
    assert os.wait()[1] == 0, module
"""


@pytest.fixture(scope="module")
def loaded():
    """For each module, the modules it loads beyond what Airflow's own import does."""
    done = subprocess.run([sys.executable, "-c", SCRIPT, *MODULES], capture_output=True, text=True, check=True)
    return {module: set(names) for module, names in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize("module", MODULES)
def test_an_import_loads_nothing_heavy(loaded, module):
    assert module in loaded[module]
    assert not loaded[module].intersection(HEAVY)


@pytest.mark.parametrize(
    "module", [module for module in MODULES if ".operators." in module or ".decorators." in module]
)
def test_an_operator_loads_no_http_library_and_no_trigger(loaded, module):
    """Half of what an import would cost otherwise."""
    needless = {"requests", "urllib3", "airflow_provider_redbrick.client.transport.http", "airflow.triggers.base"}
    assert not loaded[module] & needless


BLOCKING = """
import importlib, pkgutil, sys
blocked = ["hatchling", "hypothesis", "pytest", "selenium", "sphinx", "statsd"]
sys.modules.update(dict.fromkeys(blocked))
from airflow.providers.common.compat.sdk import AirflowOptionalProviderFeatureException
import airflow_provider_redbrick as package
for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
    try:
        importlib.import_module(module.name)
    except AirflowOptionalProviderFeatureException:
        pass  # it needs a newer Airflow
    except ModuleNotFoundError as error:
        if not error.name.startswith("airflow.providers."):
            raise
from redbrick_sandbox.images import demo_studies
demo_studies(20)
"""


def test_nothing_needs_what_only_the_tests_have():
    """A library's helpers for tests may import more than the library declares."""
    subprocess.run([sys.executable, "-c", BLOCKING], capture_output=True, text=True, check=True, timeout=120)
