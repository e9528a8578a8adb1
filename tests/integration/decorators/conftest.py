"""Fixtures for the tests of the decorators."""

from __future__ import annotations

from fixtures import new_run, run, running_sandbox, sandbox

__all__ = ["new_run", "run", "running_sandbox", "sandbox"]
