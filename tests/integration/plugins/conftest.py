"""Fixtures of the plugin's tests: the sandbox, Airflow's database and its auth manager."""

from __future__ import annotations

import pendulum
import pytest
from fixtures import running_sandbox, sandbox

from airflow_provider_redbrick.assets.stages import project_asset

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


@pytest.fixture
def record_queues(airflow, sandbox):
    """Add an event of a project's asset: ``record_queues(project_id, {"Label": 3}, hours_ago=2)``."""
    from airflow.models.asset import AssetEvent, AssetModel
    from airflow.utils.session import create_session
    from sqlalchemy import delete

    def add(project_id, queues, *, hours_ago=0, extra=None):
        asset = project_asset(org_id=sandbox.org_id, project_id=project_id)
        with create_session() as session:
            model = session.query(AssetModel).filter_by(uri=asset.uri).one_or_none()
            if model is None:
                model = AssetModel(name=asset.name, uri=asset.uri, group="asset")
                session.add(model)
                session.flush()
            at = pendulum.now("UTC").subtract(hours=hours_ago)
            session.add(AssetEvent(asset_id=model.id, extra=extra or {"queues": queues}, timestamp=at))

    yield add
    with create_session() as session:
        # The sandbox's projects have the same ids in each test.
        session.execute(delete(AssetEvent))
