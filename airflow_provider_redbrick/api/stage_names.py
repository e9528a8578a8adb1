"""Stage names that differ between the API and users.

DAG files import this module, so it has no other imports.
"""

from __future__ import annotations

GROUND_TRUTH = "Ground Truth"
ARCHIVED = "ARCHIVED"
END = "END"
"""Ground truth in a task's ``currentStageName`` and in counts."""
_GROUND_TRUTH_NAMES = frozenset({"ground truth", "end", "output"})


def public_stage_name(wire_name: str) -> str:
    """Return the name that users see: ``Ground Truth`` in place of ``END``."""
    return GROUND_TRUTH if wire_name == END else wire_name


def means_ground_truth(name: str) -> bool:
    """Return whether a name given by a user means ground truth."""
    return name.strip().lower() in _GROUND_TRUTH_NAMES


def normalize_stage_name(name: str) -> str:
    """Return ``Ground Truth`` for each of its names, and any other name unchanged."""
    return GROUND_TRUTH if means_ground_truth(name) else name
