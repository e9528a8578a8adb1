"""Run the public redbrick-sdk in its own environment against the sandbox, as its acceptance test."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from sandbox_process import SandboxProcess
from sdk import label_corpus

SDK_PYTHON = os.environ.get("REDBRICK_SDK_PYTHON")
DRIVER = Path(label_corpus.__file__).with_name("drive_sdk.py")

pytestmark = [
    pytest.mark.sdk,
    pytest.mark.skipif(
        not SDK_PYTHON,
        reason="REDBRICK_SDK_PYTHON is not set: it names the Python of an environment with redbrick-sdk",
    ),
]

STEPS = [
    "get_project",
    "stages",
    "list_members",
    "create_datapoints",
    "list_tasks",
    "assign_tasks",
    "put_series",
    "put_legacy",
    "put_draft_and_existing",
    "put_segmentation",
    "put_many_labels",
    "review_put_tasks",
    "export_tasks",
    "put_exported_back",
    "move_tasks_to_start",
    "get_task_events",
    "create_from_a_list_of_items",
]


@pytest.fixture(scope="module")
def summary(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    files = tmp_path_factory.mktemp("files")
    # The SDK writes to the home directory of the user, or to the active virtual environment.
    kept = {key: value for key, value in os.environ.items() if key not in ("VIRTUAL_ENV", "PYTHONPATH")}
    environment = {**kept, "HOME": str(home), "NO_PROXY": "localhost", "no_proxy": "localhost"}
    with SandboxProcess() as sandbox:
        done = subprocess.run(
            [str(SDK_PYTHON), str(DRIVER), json.dumps(sandbox.ready), str(files)],
            capture_output=True,
            text=True,
            timeout=170,
            env=environment,
            cwd=files,
            check=False,
        )
    assert done.returncode == 0, done.stderr[-4000:]
    return {**json.loads(done.stdout.splitlines()[-1]), "stderr": done.stderr}


def test_sdk_version_is_the_reference_version(summary):
    assert summary["sdk"] == "v2.35.4"


def test_all_steps_are_run(summary):
    assert list(summary["steps"]) == STEPS


@pytest.mark.parametrize("step", STEPS)
def test_sdk_step_succeeds(summary, step):
    outcome = summary["steps"][step]
    assert outcome == "ok", outcome
