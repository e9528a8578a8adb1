"""Fixtures of the links' tests."""

from __future__ import annotations

from fixtures import running_sandbox, sandbox

__all__ = ["running_sandbox", "sandbox"]
