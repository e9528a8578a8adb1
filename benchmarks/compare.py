"""The comparison: every work at every size, by turns ours and the SDK's, on one sandbox."""

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
# Tasks that are enough for every size of request to occur.
LEARNT_FROM = 500


@dataclass(frozen=True)
class Comparison:
    """What came of it.

    :param rows: one for every work and size.
    :param left_out: why numbers are missing in some.
    :param rates: mutations a second that the sandbox itself answers, by how many there are in a request.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    rates: dict[int, float] = field(default_factory=dict)


def compare(*, sizes: Sequence[int], runs: int, sdk_python: str | None, sdk_cap: float) -> Comparison:
    """Measure everything ``runs`` times and return the medians.

    :param runs: how often; what takes a second or less varies most, and is measured twice as often, and once.
    :param sdk_python: the SDK's interpreter; None measures ours alone.
    :param sdk_cap: seconds that one run of the SDK may take; what would take longer is left out.
    """
    comparison = Comparison()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmarks-")))
        sandbox = stack.enter_context(Sandbox(latency_ms=LATENCY_MS))
        sides = {"ours": stack.enter_context(Side(sys.executable, "benchmarks.ours", sandbox, folder))}
        if sdk_python:
            sides["sdk"] = stack.enter_context(Side(sdk_python, "benchmarks.public_sdk", sandbox, folder))
        for work in WORKS:
            for n in sizes:
                chosen = dict(sides)
                would_take = sdk_s(work.name, n, LATENCY_MS / 1000)
                if "sdk" in chosen and would_take > sdk_cap:
                    del chosen["sdk"]
                    comparison.left_out.append(
                        f"{work.words}, {n:,}, SDK: not measured, a run takes over {would_take:,.0f} s."
                    )
                times = runs if n > LEARNT_FROM else 2 * runs + 1
                comparison.rows.append(_row(work, n, _by_turns(work, n, times, chosen)))
        comparison.rates.update(throughput(sandbox))
    return comparison


def _by_turns(work: Work, n: int, runs: int, sides: dict[str, Side]) -> dict[str, list[Measured]]:
    found: dict[str, list[Measured]] = {name: [] for name in sides}
    # Our documents are long, and the sandbox takes its time with one it has not seen before: not ours to measure.
    sides["ours"].measure(work, min(n, LEARNT_FROM), dict(work.tasks))
    for number in range(runs):
        # Who comes first changes, since a machine gets faster or slower while it works.
        for name in sorted(sides, reverse=bool(number % 2)):
            tasks = {**work.tasks, **(work.for_sdk if name == "sdk" else {})}
            found[name].append(sides[name].measure(work, n, tasks))
    spent = "; ".join(f"{name} {', '.join(f'{one.seconds:.2f}' for one in many)} s" for name, many in found.items())
    sys.stderr.write(f"{work.words}, {n:,}: {spent}\n")
    return found


def _row(work: Work, n: int, found: dict[str, list[Measured]]) -> dict[str, Any]:
    def middle(side: str, what: str, digits: int | None) -> float | None:
        many = found.get(side)
        return round(median(getattr(one, what) for one in many), digits) if many else None

    return {
        "work": work.name,
        "n": n,
        "ours_s": middle("ours", "seconds", 3),
        "sdk_s": middle("sdk", "seconds", 3),
        "limit_s": round(limit_s(work.name, n, LATENCY_MS / 1000), 3),
        "ours_requests": middle("ours", "requests", None),
        "sdk_requests": middle("sdk", "requests", None),
        "ours_peak_mb": middle("ours", "peak_mb", 1),
        "sdk_peak_mb": middle("sdk", "peak_mb", 1),
    }
