"""The demo's files and the environment of its Airflow."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".demo"
DAGS = ROOT / "example_dags"
AIRFLOW_LOG = HOME / "airflow.log"
SANDBOX_DB = HOME / "sandbox.db"
SANDBOX_PORT = 8585


def airflow_environment(connection: str) -> dict[str, str]:
    """Return the environment of a private Airflow that is connected to the sandbox."""
    return {
        "AIRFLOW_HOME": str(HOME / "airflow"),
        "AIRFLOW_CONN_REDBRICK_DEFAULT": connection,
        "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__PARALLELISM": "4",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "INFO",
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "10",
        # Otherwise workers exit late after a deferral, and the scheduler treats the task as lost.
        "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
        "NO_PROXY": "localhost,127.0.0.1",
        "PATH": f"{ROOT / '.venv' / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}",
    }
