"""Fixtures of the plugin's tests: the sandbox, Airflow's database and its auth manager."""

from __future__ import annotations

import pytest
from fixtures import running_sandbox, sandbox

__all__ = ["running_sandbox", "sandbox"]

ROLES = ("viewer", "op", "admin")


@pytest.fixture(scope="session")
def airflow():
    """Create Airflow's database and auth manager once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS", ",".join(f"{role}:{role}" for role in ROLES))
        patch.setenv("AIRFLOW__API_AUTH__JWT_SECRET", "of no value, but " + "long " * 12 + "enough")
        # Connections are looked up as the API server does.
        patch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
        from airflow.api_fastapi.app import create_auth_manager
        from airflow.utils.db import initdb

        initdb()
        yield create_auth_manager()
