"""How many tasks each operator gets, and with which seeds: few by default, and as many as the environment says."""

from __future__ import annotations

import os

TASKS = int(os.environ.get("REDBRICK_CHAOS_TASKS", "100"))
SEEDS = [int(seed) for seed in os.environ.get("REDBRICK_CHAOS_SEEDS", "1").split(",")]
PATIENCE = 180 + TASKS
"""Seconds after which a test of so many tasks hangs."""
