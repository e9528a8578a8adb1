"""How cost grows: with very many tasks, with imports, and with sensors that wait."""

from __future__ import annotations

import json
import sys
import tempfile
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks import imports, waiting
from benchmarks.sandbox import Sandbox
from benchmarks.side import Side
from benchmarks.table import table
from benchmarks.works import WORKS

SIZES = (1_000, 10_000, 100_000)


def growth(saved: Path) -> str:
    """Measure, save as JSON, and return it all as tables."""
    many, loaded, waited = _many(), imports.measure(), waiting.measure()
    saved.write_text(json.dumps({"many": many, "imports": loaded, "waiting": waited}, indent=1) + "\n")
    return "\n\n".join((_of_many(many), imports.shown(loaded), waiting.shown(waited)))


def _many() -> list[dict[str, Any]]:
    rows = []
    with (
        tempfile.TemporaryDirectory(prefix="benchmarks-") as folder,
        Sandbox(latency_ms=0) as sandbox,
        Side(sys.executable, "benchmarks.ours", sandbox, Path(folder)) as ours,
    ):
        for work, n in product((work for work in WORKS if work.growth), SIZES):
            one = ours.measure(work, n, dict(work.tasks))
            cost = {"seconds": round(one.seconds, 2), "requests": one.requests, "peak_mb": round(one.peak_mb, 1)}
            rows.append({"work": work.name, "n": n, **cost})
            sys.stderr.write(f"{work.words}, {n:,}: {one.seconds:.1f} s\n")
    return rows


def _of_many(rows: list[dict[str, Any]]) -> str:
    words = {work.name: work.words for work in WORKS}
    cells = [
        [words[row["work"]], f"{row['n']:,}", f"{row['seconds']:.1f}", f"{row['requests']:,}", f"{row['peak_mb']:.1f}"]
        for row in rows
    ]
    return "Many tasks, without latency:\n" + table(("work", "tasks", "s", "requests", "MB"), cells)
