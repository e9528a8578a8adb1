"""What the demo says, also while Airflow's output goes to the log."""

from __future__ import annotations

import os

# A second handle on the terminal: the first one is redirected whenever Airflow runs.
_TERMINAL = os.fdopen(os.dup(1), "w", buffering=1)


def say(words: str) -> None:
    """Print a line at once: whoever watches a pipe or a CI log watches too."""
    _TERMINAL.write(f"{words}\n")
