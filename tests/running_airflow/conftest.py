"""One whole Airflow for all tests here: `-m "not airflow"` leaves them out."""

from __future__ import annotations

from pathlib import Path

import pytest
from airflow_processes import AirflowProcesses
from sandbox_process import SandboxProcess


@pytest.fixture(scope="session")
def airflow(tmp_path_factory):
    """An Airflow at work, each component a process of its own, connected with a sandbox (``airflow.sandbox``)."""
    home = tmp_path_factory.mktemp("airflow")
    with SandboxProcess() as sandbox, AirflowProcesses(home, sandbox, Path(__file__).parent / "dags") as processes:
        processes.wait_until_ready()
        yield processes
