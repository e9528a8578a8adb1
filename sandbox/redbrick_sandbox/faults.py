"""Decide which requests fail, and how.

This module only decides; the server carries the decision out. A specification is text such as
`http_503=0.1,drop_after=0.05,seed=7`: a probability for each fault, and a seed. Invariants:

1. The same specification and the same sequence of requests produce the same faults.
2. Each request draws once for each fault, whatever the outcome. Enabling one fault does not shift the others.
3. One-shot faults take precedence over probabilities.

A fault affects single requests. What holds for all of them is a behavior (`behaviors`).
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


STATUS = {"http_500": 500, "http_502": 502, "http_503": 503, "http_504": 504}
NAMES = (
    *STATUS,
    "rate_limit",
    "rate_limit_after",
    "too_large",
    "drop_before",
    "drop_after",
    "slow",
    "gql_error",
    "gql_partial",
    "not_ok",
    "html",
    "empty_page",
)
MUTATION_ONLY = frozenset({"not_ok"})
PAGES_ONLY = frozenset({"empty_page"})
SLOW_SECONDS = 1.0


@dataclass
class Shot:
    """A one-shot fault for requests that contain a root field.

    It passes over `skip` such requests and then affects `times` of them.
    """

    fault: str
    root_field: str
    skip: int = 0
    times: int = 1


@dataclass(frozen=True)
class Plan:
    """A parsed fault specification: the probability of each fault, and the seed."""

    chances: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0


def parse(spec: str) -> Plan:
    """Parse a fault specification. Empty text means no faults.

    :raises ValueError: if a name is unknown, or a value is not valid for it.
    """
    chances: dict[str, float] = {}
    seed = 0
    for part in filter(None, (piece.strip() for piece in spec.split(","))):
        name, equals, text = part.partition("=")
        name = name.strip()
        if not equals:
            raise ValueError(f"{part!r} is not of the form name=value")
        if name != "seed" and name not in NAMES:
            raise ValueError(f"no fault {name!r}; the faults are {', '.join(NAMES)}")
        if name == "seed":
            seed = _whole(name, text)
        else:
            chances[name] = _chance(name, text)
    return Plan(chances, seed)


def _whole(name: str, text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        raise ValueError(f"{name} takes a whole number, not {text!r}") from None
    if number < 0:
        raise ValueError(f"{name} must not be negative")
    return number


def _chance(name: str, text: str) -> float:
    try:
        chance = float(text)
    except ValueError:
        raise ValueError(f"{name} takes a probability, not {text!r}") from None
    if not 0 <= chance <= 1:
        raise ValueError(f"{name} takes a probability from 0 to 1, not {text}")
    return chance


class Faults:
    """Faults of a running server: the specification and the queued one-shot faults."""

    def __init__(self, spec: str = "") -> None:
        self.shots: list[Shot] = []
        self.replace(spec)

    def replace(self, spec: str) -> None:
        """Replace the specification. An empty one also clears the one-shot faults."""
        self.plan = parse(spec)
        self.spec = spec
        self._random = random.Random(self.plan.seed)
        if not spec.strip():
            self.shots.clear()

    def add(self, shots: Sequence[Shot]) -> None:
        """Queue one-shot faults, all or none.

        :raises ValueError: if a fault is unknown, or a field has the wrong type.
        """
        for shot in shots:
            if shot.fault not in NAMES:
                raise ValueError(f"no fault {shot.fault!r}; the faults are {', '.join(NAMES)}")
            if type(shot.root_field) is not str or type(shot.skip) is not int or type(shot.times) is not int:
                raise ValueError("root_field takes text, skip and times whole numbers")
        self.shots += shots

    def decide(self, root_fields: Sequence[str], *, mutation: bool, pages: bool) -> str | None:
        """Return the fault of a request, or None.

        :param root_fields: names of the request's root fields.
        :param mutation: whether the request is a mutation.
        :param pages: whether the request reads a page of tasks.
        """
        # One draw for each fault whatever the outcome, or switching one fault on would shift all others.
        drawn = [name for name, chance in self.plan.chances.items() if self._random.random() < chance]
        aimed = self._aimed(root_fields)
        if aimed:
            return aimed
        for name in drawn:
            if (name in MUTATION_ONLY and not mutation) or (name in PAGES_ONLY and not pages):
                continue
            return name
        return None

    def _aimed(self, root_fields: Sequence[str]) -> str | None:
        for shot in self.shots:
            if shot.root_field not in root_fields or shot.times <= 0:
                continue
            if shot.skip > 0:
                shot.skip -= 1
                continue
            shot.times -= 1
            if shot.times == 0:
                self.shots.remove(shot)
            return shot.fault
        return None

    def state(self) -> dict[str, object]:
        """Return the active faults in the format of the control route."""
        return {"spec": self.spec, "once": [vars(shot).copy() for shot in self.shots]}
