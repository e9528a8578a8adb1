"""Fixtures for the calls of three generations of RedBrick's SDK, made with this provider."""

from __future__ import annotations

import pytest
from fixtures import holders, new_run, run, running_sandbox, sandbox
from sandbox_calls import ASSIGN, data

from airflow_provider_redbrick.hooks.redbrick import RedBrickHook

__all__ = ["holders", "new_run", "run", "running_sandbox", "sandbox"]


@pytest.fixture
def hook(sandbox) -> RedBrickHook:
    """Hook of the connection `redbrick_default` to the sandbox."""
    return RedBrickHook()


@pytest.fixture
def assign_to_key(sandbox):
    """Assign tasks to the API key, which the SDK guides require before `put_tasks`."""
    return lambda task_ids: data(sandbox, ASSIGN, ids=list(task_ids), me=True)
