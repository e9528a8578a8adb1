"""Settings of a sandbox. Most can be changed while it runs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Settings:
    """Settings of a sandbox.

    Times are in milliseconds. `max_page` is the largest page size that a query accepts; `max_ids` is the largest number
    of task ids that a mutation accepts.
    """

    latency_ms: int = 0
    transition_ms: int = 0
    max_page: int = 500
    max_ids: int = 50
    require_ownership: bool = True
    demo_tasks: int = 0
    fault: str = ""
    behavior: str = ""

    def changed(self, changes: dict[str, Any]) -> Settings:
        """Return the settings with some values replaced.

        :raises ValueError: if a name is unknown or fixed at the start, or a value has the wrong type.
        """
        kinds = {
            "latency_ms": int,
            "transition_ms": int,
            "max_page": int,
            "max_ids": int,
            "require_ownership": bool,
        }
        for name, value in changes.items():
            kind = kinds.get(name)
            if kind is None:
                raise ValueError(f"no setting {name!r}; the settings are {', '.join(kinds)}")
            if type(value) is not kind or (isinstance(value, int) and value < 0):
                raise ValueError(f"{name} must be {'true or false' if kind is bool else 'a whole number >= 0'}")
        return replace(self, **changes)
