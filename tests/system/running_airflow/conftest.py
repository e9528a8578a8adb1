"""One whole Airflow for all tests here: `-m "not airflow"` leaves them out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from airflow_processes import AirflowProcesses
from sandbox_process import SandboxProcess
from statsd_server import StatsdServer


@pytest.fixture(scope="session")
def metrics():
    """Where the Airflow below sends this provider's metrics."""
    with StatsdServer() as server:
        yield server


@pytest.fixture(scope="session")
def lineage(tmp_path_factory):
    """Where it writes its lineage events, of the DAGs that ask for it: a file each."""
    return tmp_path_factory.mktemp("lineage")


@pytest.fixture(scope="session")
def airflow(tmp_path_factory, metrics, lineage):
    """An Airflow at work, each component a process of its own, connected with a sandbox (``airflow.sandbox``)."""
    home, dags = tmp_path_factory.mktemp("airflow"), Path(__file__).parent / "dags"
    settings = {
        **metrics.settings,
        "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps({"type": "file", "log_file_path": str(lineage / "event")}),
        "AIRFLOW__OPENLINEAGE__SELECTIVE_ENABLE": "True",
    }
    with SandboxProcess() as sandbox, AirflowProcesses(home, sandbox, dags, **settings) as processes:
        processes.wait_until_ready()
        yield processes
