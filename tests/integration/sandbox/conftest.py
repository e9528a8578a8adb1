"""Fixtures of the sandbox tests."""

from __future__ import annotations

import pytest
from sandbox_process import SandboxProcess


@pytest.fixture(scope="module")
def running():
    with SandboxProcess() as process:
        yield process


@pytest.fixture
def sandbox(running):
    """A sandbox as if freshly started: one process a module, reset for each test."""
    running.reset()
    return running
