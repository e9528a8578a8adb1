"""Many workers. Only collected in the environment that `make scale` makes: it needs Celery, PostgreSQL and Redis."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

import pytest
from airflow_processes import AirflowProcesses, free_port
from sandbox_process import SandboxProcess

collect_ignore_glob = [] if find_spec("celery") else ["test_*.py"]

WORKERS = ("worker-1", "worker-2")


class ManyWorkers(AirflowProcesses):
    """Run an Airflow with two Celery workers."""

    components: ClassVar[dict[str, list[str]]] = {
        **AirflowProcesses.components,
        **{name: ["celery", "worker", "-H", f"{name}@%h", "-c", "2", "--skip-serve-logs"] for name in WORKERS},
    }


@pytest.fixture(scope="session")
def airflow(tmp_path_factory):
    """That Airflow at work, connected with a sandbox."""
    from scale.servers import postgres, redis

    home = tmp_path_factory.mktemp("airflow")
    with SandboxProcess() as sandbox, postgres() as database, redis() as broker:
        settings = {
            "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
            "AIRFLOW__CORE__PARALLELISM": "8",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"postgresql+psycopg2://{database}",
            "AIRFLOW__CELERY__BROKER_URL": broker,
            "AIRFLOW__CELERY__RESULT_BACKEND": f"db+postgresql://{database}",
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
            # A worker that is gone is noticed after seconds, and what was on its way to it goes to the other.
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_SEC": "2",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "10",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "3",
            "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "30",
            "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "5",
        }
        with ManyWorkers(home, sandbox, Path(__file__).parent / "dags", **settings) as processes:
            processes.wait_until_ready()
            yield processes
