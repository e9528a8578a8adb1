"""Print demo messages, also while Airflow's output is redirected."""

from __future__ import annotations

import os

# A second handle on the terminal, because the first one is redirected while Airflow runs.
_TERMINAL = os.fdopen(os.dup(1), "w", buffering=1)


def say(message: str) -> None:
    """Print a line without buffering, so that pipes and CI logs show it at once."""
    _TERMINAL.write(f"{message}\n")
