"""Command line: `python -m benchmarks`, and its commands `growth` and `soak`."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

from benchmarks import table
from benchmarks.compare import LATENCY_MS, compare
from benchmarks.growth import growth
from benchmarks.limits import CONNECTIONS, MUTATIONS_A_REQUEST
from benchmarks.plot import draw
from benchmarks.sandbox import ROOT
from benchmarks.soak import soak
from benchmarks.works import NOTES

RESULTS = ROOT / "benchmarks" / "results.json"
GROWTH = ROOT / "benchmarks" / "growth.json"
SOAK = ROOT / "benchmarks" / "soak.json"
PLOT = ROOT / "docs" / "images" / "benchmark.png"
SIZES = (50, 500, 5000)
RUNS = 3
# Time limit for one run of the SDK, in seconds.
CAP, QUICK_CAP = 60.0, 30.0


def main() -> None:
    """Measure, print, and save."""
    options = _parser().parse_args()
    started = time.monotonic()
    if options.what == "growth":
        say(growth(GROWTH))
    elif options.what == "soak":
        say(soak(SOAK, tasks=options.tasks, seeds=range(1, options.seeds + 1), at_a_time=options.at_a_time))
    else:
        _compare(options)
    say(f"\nTook {time.monotonic() - started:,.0f} s.")


def say(words: str) -> None:
    """Print a line without buffering."""
    sys.stdout.write(f"{words}\n")
    sys.stdout.flush()


def _compare(options: argparse.Namespace) -> None:
    made = compare(
        sizes=options.sizes or (SIZES[:2] if options.quick else SIZES),
        runs=options.runs,
        sdk_python=None if options.without_sdk else _sdk_python(),
        sdk_cap=QUICK_CAP if options.quick else CAP,
    )
    say(table.comparison(made.rows))
    say("")
    for words in (*NOTES, *made.left_out, _of_the_sandbox(made.rates)):
        say(f"* {words}")
    options.results.write_text(json.dumps(made.rows, indent=1) + "\n")
    if options.results == RESULTS:
        draw(made.rows, PLOT)


def _of_the_sandbox(rates: dict[int, float]) -> str:
    asked = CONNECTIONS * 1000 / LATENCY_MS
    return (
        f"The sandbox itself answers {rates[1]:,.0f} of the cheapest mutation a second, or "
        f"{rates[MUTATIONS_A_REQUEST]:,.0f} with {MUTATIONS_A_REQUEST} a request; {CONNECTIONS} connections and "
        f"{LATENCY_MS} ms ask for {asked:,.0f} and {asked * MUTATIONS_A_REQUEST:,.0f}."
    )


def _sdk_python() -> str:
    python = os.environ.get("REDBRICK_SDK_PYTHON") or str(ROOT / ".venv-sdk" / "bin" / "python")
    if not Path(python).is_file():
        raise SystemExit(f"There is no {python}: REDBRICK_SDK_PYTHON names the Python that has the public SDK.")
    return python


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    add = parser.add_argument
    add("what", nargs="?", choices=("compare", "growth", "soak"), default="compare", help="(default: compare)")
    add("--quick", action="store_true", help=f"{SIZES[0]} and {SIZES[1]} tasks only")
    add("--sizes", type=int, nargs="+", metavar="N", help="numbers of tasks instead")
    add(
        "--runs",
        type=int,
        default=RUNS,
        metavar="N",
        help="how often thousands are measured; hundreds twice as often, and once (default: %(default)s)",
    )
    add("--without-sdk", action="store_true", help="ours alone")
    add("--results", type=Path, default=RESULTS, metavar="PATH", help="where to save; elsewhere, nothing is drawn")
    add("--tasks", type=int, default=1000, metavar="N", help="soak: tasks of each work (default: %(default)s)")
    add("--seeds", type=int, default=10, metavar="N", help="soak: how many seeds (default: %(default)s)")
    add("--at-a-time", type=int, default=2, metavar="N", help="soak: seeds beside each other (default: %(default)s)")
    return parser


if __name__ == "__main__":
    main()
