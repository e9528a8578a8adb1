"""Measure requests and event-loop delays of many sensors in one triggerer.

`python -m benchmarks.waiting` is the triggerer; it is told what to do in one line of JSON, as its argument.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import subprocess
import sys
import tempfile
import time
from typing import Any

from benchmarks.sandbox import ROOT, Sandbox, environment
from benchmarks.table import table

TRIGGERS, PROJECTS = 1_000, 20
# Seconds between two polls of a trigger, and the number of measured intervals.
INTERVAL, INTERVALS = 30, 2
LATENCY_MS = 50
# Seconds without triggers, which show the machine's own delays.
IDLE = 10
# Sleep time of the loop's watcher, in seconds. A late wake-up shows a blocked loop.
_TICK = 0.005


def measure() -> dict[str, Any]:
    """Return the number of requests, and the longest delay of the loop."""
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as home, Sandbox(latency_ms=LATENCY_MS) as sandbox:
        projects = [sandbox.add_project() for _ in range(PROJECTS)]
        variables = {"AIRFLOW_HOME": home, "AIRFLOW_CONN_REDBRICK_DEFAULT": sandbox.ready["airflow_conn_uri"]}
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.waiting", json.dumps(projects)],
            cwd=ROOT,
            env=environment(**variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        marks: list[int] = []
        found = None
        for line in process.stdout or ():
            if line.startswith("{"):
                found = json.loads(line)
            else:
                marks.append(sandbox.stats()["requests"])
        process.wait(timeout=60)
    if found is None:
        raise SystemExit("The triggerer ended.")
    polls = (marks[-1] - marks[0]) / (len(marks) - 1)
    return {
        "triggers": TRIGGERS,
        "projects": PROJECTS,
        "interval_s": INTERVAL,
        "first_requests": marks[0],
        "requests_a_poll": round(polls, 1),
        "requests_a_project_a_poll": round(polls / PROJECTS, 2),
        **found,
    }


def shown(found: dict[str, Any]) -> str:
    """Return a table."""
    cells = [[name.replace("_", " "), f"{value:,}"] for name, value in found.items()]
    return "Sensors that wait in one event loop:\n" + table(("", ""), cells)


class _Watcher:
    """Sleep repeatedly, and record the longest delay."""

    def __init__(self) -> None:
        self.worst = 0.0

    async def run(self) -> None:
        while True:
            due = time.perf_counter() + _TICK
            await asyncio.sleep(_TICK)
            self.worst = max(self.worst, time.perf_counter() - due)


async def _triggerer(projects: list[str]) -> None:
    """Run triggers whose condition is never met, and report each interval and delay."""
    from airflow_provider_redbrick.triggers.redbrick import RedBrickStageQueueTrigger

    stages = ("Label", "Review_1", "Ground Truth")
    triggers = [
        RedBrickStageQueueTrigger(
            redbrick_conn_id="redbrick_default",
            org_id=None,
            project_id=projects[i % len(projects)],
            stage_name=stages[i // len(projects) % len(stages)],
            at_least=10**9,
            poke_interval=INTERVAL,
            deadline=time.time() + 3600,
        )
        for i in range(TRIGGERS)
    ]

    async def wait(trigger: RedBrickStageQueueTrigger) -> None:
        async for event in trigger.run():
            raise SystemExit(f"A sensor stopped waiting: {event}")

    # Garbage collection over all objects of Airflow takes longer than the measured delays, so it is excluded.
    gc.collect()
    gc.freeze()
    watcher = _Watcher()
    watching = asyncio.create_task(watcher.run())
    await asyncio.sleep(IDLE)
    idle, watcher.worst = watcher.worst, 0.0
    waiting = [asyncio.create_task(wait(trigger)) for trigger in triggers]
    # All triggers start in the first interval, as after a restart.
    await asyncio.sleep(INTERVAL)
    starting, watcher.worst = watcher.worst, 0.0
    for i in range(INTERVALS + 1):
        sys.stdout.write(f"mark {i}\n")
        sys.stdout.flush()
        if i < INTERVALS:
            await asyncio.sleep(INTERVAL)
    lags = {"idle_loop": idle, "at_start": starting, "while_polling": watcher.worst}
    found = {f"worst_lag_ms_{when}": round(lag * 1000, 1) for when, lag in lags.items()}
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()
    for task in (watching, *waiting):
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.gather(*waiting, return_exceptions=True)


if __name__ == "__main__":
    asyncio.run(_triggerer(json.loads(sys.argv[1])))
