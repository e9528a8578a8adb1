"""Measuring one piece of work in a process of its own. Standard library only: the SDK's Python runs it too.

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
    """What is to be measured: the ``work``, and what it needs to know."""

    Prepare = Callable[[Job], Callable[[], int]]
    """Makes a function that does the work and returns how many tasks it did."""

# Beyond this many seconds a measurement has hung.
_LONGEST = 1800


def serve(prepare: Prepare, warm_up: Callable[[Job], None]) -> None:
    """Answer each job, a line of standard input, with one of standard output; what else is printed is for the log."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    # As Airflow's executor does before it forks: what is imported stays, and need not be looked through.
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
    """Return the most memory this process has had at any time."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def _requests(job: Job) -> int:
    with urllib.request.urlopen(f"{job['url']}/_sandbox/stats", timeout=60) as answer:  # noqa: S310 - loopback
        return int(json.load(answer)["requests"])
