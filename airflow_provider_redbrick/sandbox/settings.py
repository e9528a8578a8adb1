"""What a sandbox can be told, at the start and, mostly, while it runs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Settings:
    """Times in milliseconds. `max_page`: largest page answered; `max_ids`: most ids one mutation takes."""

    latency_ms: int = 0
    transition_ms: int = 0
    max_page: int = 500
    max_ids: int = 50
    require_ownership: bool = True
    demo_tasks: int = 0
    fault: str = ""
    behavior: str = ""

    def changed(self, changes: dict[str, Any]) -> Settings:
        """Give these settings with some replaced; ValueError names what cannot be."""
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
                raise ValueError(f"no setting {name!r}; there are {', '.join(kinds)}")
            if type(value) is not kind or (isinstance(value, int) and value < 0):
                raise ValueError(f"{name} must be {'true or false' if kind is bool else 'a whole number >= 0'}")
        return replace(self, **changes)
