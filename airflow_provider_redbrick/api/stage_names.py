"""What stages are called where the wire and users call them differently; plain names, which DAG files need too."""

from __future__ import annotations

GROUND_TRUTH = "Ground Truth"
ARCHIVED = "ARCHIVED"
END = "END"
"""What a task's ``currentStageName``, and a count, call ground truth."""
_GROUND_TRUTH_NAMES = frozenset({"ground truth", "end", "output"})


def public_stage_name(wire_name: str) -> str:
    """Return the name users see: what a task's ``currentStageName`` calls ``END`` is ground truth."""
    return GROUND_TRUTH if wire_name == END else wire_name


def means_ground_truth(name: str) -> bool:
    """Whether users who give this name mean ground truth."""
    return name.strip().lower() in _GROUND_TRUTH_NAMES


def as_users_see_it(name: str) -> str:
    """Return the one name for ground truth where users may give several, and any other name as it is."""
    return GROUND_TRUTH if means_ground_truth(name) else name
