"""Measure every work at every size, with both sides in turn, on one sandbox."""

from __future__ import annotations

import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks.limits import limit_s, sdk_s
from benchmarks.sandbox import Sandbox
from benchmarks.side import Measured, Side
from benchmarks.throughput import throughput
from benchmarks.works import WORKS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.works import Work

LATENCY_MS = 50
# Enough tasks for every request size to occur.
LEARNT_FROM = 500


@dataclass(frozen=True)
class Comparison:
    """The results.

    :param rows: one for every work and size.
    :param left_out: why numbers are missing in some.
    :param rates: mutations a second that the sandbox itself answers, by how many there are in a request.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    rates: dict[int, float] = field(default_factory=dict)


def compare(*, sizes: Sequence[int], runs: int, sdk_python: str | None, sdk_cap: float) -> Comparison:
    """Measure everything ``runs`` times and return the medians.

    A machine has slow periods. Each round therefore measures everything once, so that slow periods affect all works.

    :param sizes: numbers of tasks.
    :param runs: number of rounds. Works of a second or less vary most, and get twice as many, plus one.
    :param sdk_python: the SDK's interpreter; None measures only this provider.
    :param sdk_cap: seconds that one run of the SDK may take; what would take longer is left out.
    """
    comparison = Comparison()
    rounds = 2 * runs + 1
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmarks-")))
        sandbox = stack.enter_context(Sandbox(latency_ms=LATENCY_MS))
        sides = {"ours": stack.enter_context(Side(sys.executable, "benchmarks.ours", sandbox, folder))}
        if sdk_python:
            sides["sdk"] = stack.enter_context(Side(sdk_python, "benchmarks.public_sdk", sandbox, folder))
        cases = [_Case(work, n, runs if n > LEARNT_FROM else rounds, dict(sides)) for work in WORKS for n in sizes]
        for case in cases:
            if words := case.without_what_takes_over(sdk_cap):
                comparison.left_out.append(words)
        for work in WORKS:
            # The sandbox is slow with a new GraphQL document. That time is excluded.
            sides["ours"].measure(work, min(max(sizes), LEARNT_FROM), dict(work.tasks))
        for number in range(rounds):
            for case in cases:
                case.measure(number, rounds)
        comparison.rows.extend(case.row() for case in cases)
        comparison.rates.update(throughput(sandbox))
    return comparison


@dataclass
class _Case:
    """A work with a number of tasks.

    :param times: how often it is measured.
    :param sides: who is measured.
    """

    work: Work
    n: int
    times: int
    sides: dict[str, Side]
    found: dict[str, list[Measured]] = field(default_factory=dict)

    def without_what_takes_over(self, cap: float) -> str | None:
        """Skip the SDK if its run takes longer than the cap, and return a message."""
        would_take = sdk_s(self.work.name, self.n, LATENCY_MS / 1000)
        if would_take <= cap or self.sides.pop("sdk", None) is None:
            return None
        return f"{self.work.words}, {self.n:,}, SDK: not measured, a run takes over {would_take:,.0f} s."

    def measure(self, number: int, rounds: int) -> None:
        """Measure each side in its number of rounds, evenly spread."""
        if number * self.times // rounds == (number - 1) * self.times // rounds:
            return
        spent = []
        for name in sorted(self.sides, reverse=bool(number % 2)):
            tasks = {**self.work.tasks, **(self.work.for_sdk if name == "sdk" else {})}
            measured = self.sides[name].measure(self.work, self.n, tasks)
            self.found.setdefault(name, []).append(measured)
            spent.append(f"{name} {measured.seconds:.2f} s")
        sys.stderr.write(f"{number + 1}. {self.work.words}, {self.n:,}: {', '.join(spent)}\n")

    def row(self) -> dict[str, Any]:
        """Return the medians."""
        return {
            "work": self.work.name,
            "n": self.n,
            "ours_s": self._middle("ours", "seconds", 3),
            "sdk_s": self._middle("sdk", "seconds", 3),
            "limit_s": round(limit_s(self.work.name, self.n, LATENCY_MS / 1000), 3),
            "ours_requests": self._middle("ours", "requests", None),
            "sdk_requests": self._middle("sdk", "requests", None),
            "ours_peak_mb": self._middle("ours", "peak_mb", 1),
            "sdk_peak_mb": self._middle("sdk", "peak_mb", 1),
        }

    def _middle(self, side: str, what: str, digits: int | None) -> float | None:
        many = self.found.get(side)
        return round(median(getattr(one, what) for one in many), digits) if many else None
