"""The running sandbox, and Airflow's server side in this process: a database, people, and what they may see."""

from __future__ import annotations

import pytest
from fixtures import running_sandbox, sandbox

__all__ = ["running_sandbox", "sandbox"]

ROLES = ("viewer", "op", "admin")


@pytest.fixture(scope="session")
def airflow():
    """Make the database once, and the one who decides who may see what."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS", ",".join(f"{role}:{role}" for role in ROLES))
        patch.setenv("AIRFLOW__API_AUTH__JWT_SECRET", "of no value, but " + "long " * 12 + "enough")
        # Connections are looked up as the API server does.
        patch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
        from airflow.api_fastapi.app import create_auth_manager
        from airflow.utils.db import initdb

        initdb()
        yield create_auth_manager()
