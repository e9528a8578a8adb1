"""Number of tasks and seeds of the chaos suite, from the environment or small defaults."""

from __future__ import annotations

import os

TASKS = int(os.environ.get("REDBRICK_CHAOS_TASKS", "100"))
SEEDS = [int(seed) for seed in os.environ.get("REDBRICK_CHAOS_SEEDS", "1").split(",")]
TIMEOUT_S = 180 + TASKS
"""Timeout of a test in seconds, for this number of tasks."""
