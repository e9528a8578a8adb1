"""What importing each operator and sensor costs, after Airflow itself."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from statistics import median
from typing import Any

from airflow_provider_redbrick.get_provider_info import get_provider_info
from benchmarks.sandbox import ROOT, environment
from benchmarks.table import table

_RUNS = 7
_ALL = "all of them"
# Imports Airflow once, then what is asked for in a child of its own, again and again.
_SCRIPT = """
import json, os, sys, time
from airflow.sdk import BaseOperator
import airflow.providers.common.compat.sdk
for names in json.loads(sys.argv[1]):
    if os.fork() == 0:
        started = time.perf_counter()
        for name in names:
            __import__(name)
        print(time.perf_counter() - started, flush=True)
        os._exit(0)
    assert os.wait()[1] == 0, names
"""


def measure() -> list[dict[str, Any]]:
    """Return milliseconds by module, medians, and of all modules together."""
    info: dict[str, Any] = dict(get_provider_info())
    modules = [
        module for kind in ("operators", "sensors") for entry in info[kind] for module in entry["python-modules"]
    ]
    together = [*([module] for module in modules), modules]
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as home:
        done = subprocess.run(
            [sys.executable, "-c", _SCRIPT, json.dumps(together * _RUNS)],
            cwd=ROOT,
            env=environment(AIRFLOW_HOME=home),
            capture_output=True,
            text=True,
            check=True,
        )
    taken = [float(line) * 1000 for line in done.stdout.split()]
    names = [*modules, _ALL]
    return [{"module": name, "ms": round(median(taken[i :: len(names)]), 1)} for i, name in enumerate(names)]


def shown(rows: list[dict[str, Any]]) -> str:
    """Return a table."""
    cells = [[row["module"].removeprefix("airflow_provider_redbrick."), f"{row['ms']:.1f}"] for row in rows]
    return "Importing, after Airflow:\n" + table(("module", "ms"), cells)
