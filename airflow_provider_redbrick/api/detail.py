"""How much is read of a task."""

from __future__ import annotations

from enum import Enum, auto


class Detail(Enum):
    """How much is read of a task, each more than the one before."""

    PLACE = auto()
    """Where it is, and who holds it."""
    STATE = auto()
    """Who labelled it last, which version that is, and what labels must fit to."""
    FULL = auto()
    """Its items and labels."""
