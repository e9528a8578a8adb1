"""Fixtures of the triggers' tests."""

from __future__ import annotations

from fixtures import impatient, running_sandbox, sandbox

__all__ = ["impatient", "running_sandbox", "sandbox"]
