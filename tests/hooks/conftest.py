"""The running sandbox, for the hook's tests that need a whole server."""

from __future__ import annotations

from fixtures import holders, running_sandbox, sandbox

__all__ = ["holders", "running_sandbox", "sandbox"]
