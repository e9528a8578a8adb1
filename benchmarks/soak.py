"""Run the chaos suite with many tasks and seeds, and save its results."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

from benchmarks.sandbox import ROOT
from benchmarks.table import table

if TYPE_CHECKING:
    from collections.abc import Sequence

_SUITE = "tests/integration/chaos/test_faults.py"
# The suite's output: "balance, 1000 tasks, seed 3, killed (...): 812 requests, 0 not given back, [{...}, ...]".
_SAID = re.compile(
    r"^(?P<kind>[\w-]+), \d+ tasks, seed \d+.*: (?P<requests>\d+) requests, .*?, (?P<tries>\[.*\])$", re.MULTILINE
)


def soak(saved: Path, *, tasks: int, seeds: Sequence[int], at_a_time: int) -> str:
    """Run the suite once per seed, save the results, and return a table.

    :param saved: the JSON file to write.
    :param tasks: number of tasks per test.
    :param seeds: the seeds.
    :param at_a_time: number of concurrent seeds.
    :raises SystemExit: if a test failed, after all were run and saved.
    """
    with tempfile.TemporaryDirectory(prefix="soak-") as folder, ThreadPoolExecutor(at_a_time) as pool:
        rows_by_seed = list(pool.map(partial(_run, Path(folder), tasks), seeds))
    rows = [row for seed_rows in rows_by_seed for row in seed_rows]
    saved.write_text(json.dumps(rows, indent=1) + "\n")
    failed = [f"{row['work']}, seed {row['seed']}" for row in rows if not row["passed"]]
    if failed or len(rows) % len(seeds):
        raise SystemExit(f"{_shown(rows)}\n\nNot passed: {'; '.join(failed) or 'some were not run'}")
    return _shown(rows)


def _run(folder: Path, tasks: int, seed: int) -> list[dict[str, Any]]:
    report = folder / f"{seed}.xml"
    told = [f"--junitxml={report}", "-o", "junit_logging=system-out", "-o", "junit_family=xunit1"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", _SUITE, *told],
        cwd=ROOT,
        env={**os.environ, "REDBRICK_CHAOS_TASKS": str(tasks), "REDBRICK_CHAOS_SEEDS": str(seed)},
        capture_output=True,
        text=True,
        check=False,
    )
    sys.stderr.write(f"seed {seed}: {done.stdout.strip().splitlines()[-1]}\n")
    # Written by this test run.
    return [_row(case, tasks, seed) for case in ET.parse(report).iter("testcase")]  # noqa: S314


def _row(case: ET.Element, tasks: int, seed: int) -> dict[str, Any]:
    said = _SAID.search(case.findtext("system-out") or "")
    name = case.get("name", "")
    return {
        "seed": seed,
        "work": said["kind"] if said else name,
        "killed": "killed" in name,
        "tasks": tasks,
        "passed": case.find("failure") is None and case.find("error") is None,
        "seconds": round(float(case.get("time", 0))),
        "requests": int(said["requests"]) if said else None,
        "tries": said["tries"].count("{") if said else None,
    }


def _shown(rows: Sequence[dict[str, Any]]) -> str:
    """Return one line for each work and kind of failure, over all seeds."""
    cells = []
    for work, killed in dict.fromkeys((row["work"], row["killed"]) for row in rows):
        alike = [row for row in rows if (row["work"], row["killed"]) == (work, killed)]
        passed = sum(row["passed"] for row in alike)
        spent = sum(row["seconds"] for row in alike)
        asked = sum(row["requests"] or 0 for row in alike)
        trouble = "faults, killed workers" if killed else "faults"
        cells.append([work, trouble, f"{alike[0]['tasks']:,}", f"{passed} of {len(alike)}", f"{asked:,}", f"{spent:,}"])
    return table(("work", "trouble", "tasks", "seeds passed", "requests", "s"), cells)
