"""Fixtures of the lineage tests."""

from __future__ import annotations

from fixtures import run, running_sandbox, sandbox

__all__ = ["run", "running_sandbox", "sandbox"]
