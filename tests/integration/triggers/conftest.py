"""Fixtures of the triggers' tests."""

from __future__ import annotations

from fixtures import failing, impatient, running_sandbox, sandbox

__all__ = ["failing", "impatient", "running_sandbox", "sandbox"]
