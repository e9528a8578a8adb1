"""Levels of detail at which tasks are read."""

from __future__ import annotations

from enum import Enum, auto


class Detail(Enum):
    """Level of detail at which tasks are read. Each includes the one before."""

    PLACE = auto()
    """Stage, state and assignee."""
    STATE = auto()
    """Also who labeled it last, the version of the labels, and the series that labels refer to."""
    FULL = auto()
    """Also its items and labels."""
