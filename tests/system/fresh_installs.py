"""Run the documented commands for new users, each install in its own environment.

``python tests/system/fresh_installs.py`` reads the installs and the quickstart from the documents, so that a
command which is changed there is tried as it is there. It runs without the packages that the tests have: one that is
missing from an extra shows up here and nowhere else. Versions are those of ``requirements/dev.txt``.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import selectors
import shlex
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
INSTALL = re.compile(r"pip install ['\"]?((?:\./sandbox|\.(?:\[\w+\])?)(?: \./sandbox)?)['\"]?")
BOX = {"pointTopLeft": {"xNorm": 0.1, "yNorm": 0.2}, "wNorm": 0.3, "hNorm": 0.4, "category": "finding"}
SECONDS = 120


# -- in an environment of its own ------------------------------------------------------------------


def smoke_plain() -> None:
    """Import all modules that Airflow may load, put labels, and check the error for masks."""
    from airflow_provider_redbrick.get_provider_info import get_provider_info

    info = get_provider_info()
    kinds = ("operators", "sensors", "triggers", "hooks")
    modules = [module for kind in kinds for entry in info[kind] for module in entry["python-modules"]]
    classes = [*info["notifications"], *(entry["class-name"] for entry in info["task-decorators"])]
    for name in [*modules, *(path.rpartition(".")[0] for path in classes)]:
        importlib.import_module(name)
    for entry in metadata.entry_points(group="airflow.plugins", name="redbrick"):
        assert entry.load()().fastapi_apps
    done = prelabel(lambda _task: {"series": [{"boundingBoxes": [BOX]}]})
    assert done["counts"]["done"] == 1, done
    mask = {"segmentations": "mask.nii", "segmentMap": {"1": "lesion"}}
    Path("mask.nii").write_bytes(bytes(400))
    refused = prelabel(lambda _task: {"series": [mask]}, fail_on="never")
    assert "airflow-provider-redbrick[segmentation]" in str(refused["failed"]), refused


def smoke_segmentation() -> None:
    """Put a mask on a task."""
    import nibabel
    import numpy as np

    nibabel.save(nibabel.Nifti1Image(np.ones((4, 4, 2), np.uint8), np.eye(4)), "mask.nii.gz")
    mask = {"segmentations": "mask.nii.gz", "segmentMap": {"1": "lesion"}}
    done = prelabel(lambda _task: {"series": [mask]})
    assert done["counts"]["done"] == 1, done


def smoke_openlineage() -> None:
    """Read an operator's lineage, as OpenLineage's listener does."""
    from airflow_provider_redbrick.operators.list_tasks import RedBrickListTasksOperator

    lineage = RedBrickListTasksOperator(task_id="list", stage_name="Label").get_openlineage_facets_on_start()
    assert lineage.inputs, lineage


def prelabel(labeler, **options) -> dict:
    """Run the operator on one task of the sandbox."""
    from airflow_provider_redbrick.operators.prelabel import RedBrickPrelabelOperator

    operator = RedBrickPrelabelOperator(task_id="prelabel", stage_name="Label", labeler=labeler, limit=1, **options)
    return operator.execute({})


SMOKES = {".": smoke_plain, ".[segmentation]": smoke_segmentation, ".[openlineage]": smoke_openlineage}


# -- from outside ----------------------------------------------------------------------------------


def main() -> None:
    """Test each documented install, and the quickstart."""
    for name in [name for name in os.environ if name.startswith(("AIRFLOW_", "PYTHON")) or name.endswith("_PROXY")]:
        del os.environ[name]  # a new user has none of them
    documented = {found for page in PAGES for found in INSTALL.findall(page.read_text(encoding="utf-8"))}
    untried = documented ^ {*SMOKES, ". ./sandbox", "./sandbox"}
    assert not untried, f"documented and not tried here, or the reverse: {untried}"
    with tempfile.TemporaryDirectory(prefix="redbrick-first-") as folder:
        place = Path(folder)
        first = install_into(place / "sandbox", ". ./sandbox")
        with served(first, quickstart_commands()) as ready:
            me = ask(f"{ready['url']}/graphql/", {"query": "{ me { userId } }"}, ApiKey=ready["api_key"])
            assert me["data"]["me"]["userId"], me
            os.environ["AIRFLOW_CONN_REDBRICK_DEFAULT"] = ready["airflow_conn_uri"]
            first_dag(first, place)
            for install in SMOKES:
                ask(f"{ready['url']}/_sandbox/reset", {})
                # On top of each other: each extra finds what it brings and what is there without any.
                run([install_into(place / "plain", install) / "python", __file__, install], place)
                say(f"pip install '{install}' does what it promises")


def install_into(env: Path, install: str) -> Path:
    """Run a documented install in its environment, and return the folder of its commands."""
    uv = [sys.executable, "-m", "uv"]
    if not env.exists():
        run([*uv, "venv", "--quiet", "--python", sys.executable, env], ROOT)
    pins = ROOT / "requirements" / "dev.txt"
    run([*uv, "pip", "install", "--quiet", "--python", env / "bin/python", "-c", pins, *install.split()], ROOT)
    return env / "bin"


def quickstart_commands() -> list[str]:
    """Return the commands of the quickstart, in their order."""
    page = (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")
    return [line for block in re.findall(r"```console\n(.*?)```", page, re.DOTALL) for line in block.splitlines()]


@contextmanager
def served(commands: Path, documented: list[str]):
    """Start the sandbox with the documented command, on a free port, and yield its line of JSON."""
    (line,) = [line for line in documented if line.startswith("redbrick-sandbox ")]
    program, *options = shlex.split(line)
    process = subprocess.Popen([commands / program, *options, "--port", "0"], stdout=subprocess.PIPE, text=True)
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            assert selector.select(SECONDS), f"{line}: no line after {SECONDS} s"
        first = process.stdout.readline()
        assert first, f"{line}: it ended with exit code {process.wait(SECONDS)}"
        say(f"{line}: ready")
        yield json.loads(first)
    finally:
        process.terminate()
        process.wait(SECONDS)


def ask(url: str, body: dict | None = None, **headers: str) -> dict:
    """Send a request to the sandbox: GET without a body, else POST."""
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, content, {"Content-Type": "application/json", **headers})
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as answer:
        return json.load(answer)


def first_dag(commands: Path, place: Path) -> None:
    """Run the quickstart's DAG with its commands, except for Airflow's own server."""
    page = (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")
    home = place / "first-airflow"
    (home / "dags").mkdir(parents=True)
    (home / "dags" / "first_dag.py").write_text(re.search(r"```python\n(.*?)```", page, re.DOTALL)[1])
    os.environ |= {"AIRFLOW_HOME": str(home), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    tried = [line for line in quickstart_commands() if re.match(r"airflow (db|dags test) ", line)]
    assert len(tried) == 2, tried
    for line in tried:
        program, *options = shlex.split(line)
        run([commands / program, *options], place)
        say(f"{line}: done")


def run(line: list, folder: Path) -> None:
    """Run a command, and show its output if it failed."""
    done = subprocess.run(line, cwd=folder, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode:
        sys.exit(f"{shlex.join(map(str, line))}\n{done.stdout}{done.stderr}\nexit code {done.returncode}")


def say(words: str) -> None:
    print(f"{time.monotonic() - BEGAN:4.0f} s  {words}", flush=True)


BEGAN = time.monotonic()

if __name__ == "__main__":
    if len(sys.argv) > 1:
        assert not Path(importlib.import_module("airflow_provider_redbrick").__file__).is_relative_to(ROOT)
        SMOKES[sys.argv[1]]()
    else:
        main()
