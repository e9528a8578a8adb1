"""Fixtures of the hook's tests that need a running sandbox."""

from __future__ import annotations

from fixtures import holders, quick, run, running_sandbox, sandbox, seen_twice

__all__ = ["holders", "quick", "run", "running_sandbox", "sandbox", "seen_twice"]
