"""What the tests of lineage share with the operators'."""

from __future__ import annotations

from fixtures import run, running_sandbox, sandbox

__all__ = ["run", "running_sandbox", "sandbox"]
