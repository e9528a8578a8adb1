"""The published packages: reproducible, complete, and working after installation."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

from airflow_provider_redbrick.get_provider_info import get_provider_info

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "airflow_provider_redbrick"


def build(folder: Path) -> tuple[Path, Path]:
    """Build wheel and sdist offline, with the installed build backend."""
    line = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-t", "sdist", "-d", str(folder)]
    subprocess.run(line, cwd=ROOT, check=True, capture_output=True, timeout=120)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, sdist


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build(tmp_path_factory.mktemp("dist"))


def test_building_again_gives_the_same_bytes(built, tmp_path):
    assert [one.read_bytes() for one in build(tmp_path)] == [one.read_bytes() for one in built]


def test_the_wheel_has_the_package_and_nothing_else(built):
    with zipfile.ZipFile(built[0]) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
        licences = {Path(name).name for name in wheel.namelist() if "/licenses/" in name}
    here = [path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert names == {str(path.relative_to(ROOT)) for path in here}
    assert licences == {"LICENSE", "NOTICE"}


def test_the_sdist_has_what_tests_and_packagers_need(built):
    with tarfile.open(built[1]) as sdist:
        folders = {Path(name).parts[1] for name in sdist.getnames()}
        whole = " ".join(sdist.getnames())
    assert {"airflow_provider_redbrick", "example_dags", "tests", "LICENSE", "NOTICE", "pyproject.toml"} <= folders
    assert not any(trace in whole for trace in ("__pycache__", ".venv", ".demo", ".pytest_cache"))


def test_airflow_finds_it_where_it_is_installed(built, tmp_path):
    """Unpack the wheel for an Airflow that cannot import this checkout."""
    site = tmp_path / "site"
    with zipfile.ZipFile(built[0]) as wheel:
        wheel.extractall(site)
    script = (
        "import airflow_provider_redbrick as package\n"
        "from airflow.providers_manager import ProvidersManager\n"
        "manager = ProvidersManager()\n"
        "assert 'redbrick' in manager.hooks\n"
        "assert manager.providers['airflow-provider-redbrick'].version == package.__version__\n"
        "from airflow_provider_redbrick.operators.prelabel import RedBrickPrelabelOperator\n"
        "print(package.__file__)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(site), "AIRFLOW_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip().splitlines()[-1] == str(site / "airflow_provider_redbrick" / "__init__.py")


def test_the_registry_file_names_every_class():
    listed = yaml.safe_load((ROOT / ".airflow-registry.yaml").read_text(encoding="utf-8"))
    for kind in ("operators", "sensors", "triggers", "hooks"):
        told = {module for entry in get_provider_info()[kind] for module in entry["python-modules"]}
        assert {entry["module"].rpartition(".")[0] for entry in listed[kind]} == told, kind
        for entry in listed[kind]:
            module, _, name = entry["module"].rpartition(".")
            assert hasattr(importlib.import_module(module), name), entry["module"]


def test_provider_and_sandbox_are_released_under_the_same_version():
    version = re.compile(r'^__version__ = "(.+)"$', re.MULTILINE)
    inits = (PACKAGE / "__init__.py", ROOT / "sandbox" / "redbrick_sandbox" / "__init__.py")
    assert len({version.search(path.read_text(encoding="utf-8"))[1] for path in inits}) == 1


def test_the_sandbox_is_a_distribution_of_its_own(built, tmp_path):
    line = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(line, cwd=ROOT / "sandbox", check=True, capture_output=True, timeout=120)
    (wheel,) = tmp_path.glob("redbrick_sandbox-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        folders = {Path(name).parts[0] for name in archive.namelist() if ".dist-info" not in name}
    assert folders == {"redbrick_sandbox"}
    with zipfile.ZipFile(built[0]) as archive:
        assert not any("sandbox" in name for name in archive.namelist())
