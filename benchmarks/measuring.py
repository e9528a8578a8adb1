"""Measure one work in a separate process.

Uses only the standard library, because the SDK's Python runs it too.

The process that has imported everything forks for each measurement, so that all begin with the same memory and with
no connections. Two things are not measured: opening a project once, which fetches the pages of libraries from disk,
and what the work is given.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import signal
import sys
import time
import traceback
import urllib.request
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable

    Job = dict[str, Any]
    """A measurement: the ``work`` and its parameters."""

    Prepare = Callable[[Job], Callable[[], int]]
    """Create a function that does the work and returns the number of processed tasks."""

# Time limit for one measurement, in seconds.
_LONGEST = 1800


def serve(prepare: Prepare, warm_up: Callable[[Job], None]) -> None:
    """Read jobs from standard input, and write one result line for each.

    Other output goes to standard error.

    :param prepare: creates the function to measure from a job.
    :param warm_up: runs before the measurement.
    """
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    # Airflow's executor does the same before it forks: imported objects are excluded from garbage collection.
    gc.collect()
    gc.freeze()
    answers.write("ready\n")
    for line in sys.stdin:
        if os.fork() == 0:
            _answer(line, prepare, warm_up, answers)
        if os.wait()[1]:
            answers.write(json.dumps({"error": "The process was killed."}) + "\n")


def _answer(line: str, prepare: Prepare, warm_up: Callable[[Job], None], answers: TextIO) -> None:
    signal.alarm(_LONGEST)
    try:
        job = json.loads(line)
        warm_up(job)
        answer: dict[str, Any] = _measure(job, prepare(job))
    except Exception as error:  # noqa: BLE001 - whatever it is, the one who asked shall know
        traceback.print_exc()
        answer = {"error": f"{type(error).__name__}: {error}"}
    answers.write(json.dumps(answer) + "\n")
    answers.flush()
    sys.stderr.flush()
    os._exit(0)


def _measure(job: Job, work: Callable[[], int]) -> dict[str, float]:
    requests_before, memory_before = _requests(job), _peak_mb()
    started = time.perf_counter()
    done = work()
    seconds = time.perf_counter() - started
    return {
        "seconds": seconds,
        "peak_mb": _peak_mb() - memory_before,
        "requests": _requests(job) - requests_before,
        "done": done,
    }


def _peak_mb() -> float:
    """Return the peak memory of this process."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def _requests(job: Job) -> int:
    with urllib.request.urlopen(f"{job['url']}/_sandbox/stats", timeout=60) as answer:  # noqa: S310 - loopback
        return int(json.load(answer)["requests"])
