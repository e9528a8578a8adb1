"""Run the sandbox for measurements in a separate process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests

if TYPE_CHECKING:
    from typing_extensions import Self

ROOT = Path(__file__).resolve().parent.parent
# Prevents requests to other machines.
_NOT_INHERITED = ("AIRFLOW_CONN_", "AIRFLOW__", "REDBRICK_")


def environment(**more: str) -> dict[str, str]:
    """Return a process environment without inherited settings and proxies."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(_NOT_INHERITED) and not name.lower().endswith("_proxy")
    }
    return {**kept, "NO_PROXY": "*", **more}


class Sandbox:
    """A running sandbox, which stops when its context ends.

    :param latency_ms: how long each of its answers takes.
    """

    def __init__(self, *, latency_ms: int) -> None:
        command = [sys.executable, "-m", "benchmarks.five_people", "serve", "--port", "0"]
        self._process = subprocess.Popen(
            [*command, "--latency-ms", str(latency_ms)],
            cwd=ROOT,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            raise SystemExit("The sandbox did not start.")
        self.ready: dict[str, Any] = json.loads(line)
        self._http = requests.Session()
        self._http.trust_env = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()
        self._process.terminate()
        self._process.wait(timeout=20)

    def fresh(self, count: int, **options: Any) -> list[str]:
        """Reset the sandbox, create tasks, and return their ids.

        :param count: number of tasks.
        :param options: options of ``POST /_sandbox/tasks``.
        """
        self._post("reset", {})
        return list(self._post("tasks", {"count": count, **options})["task_ids"])

    def without_latency(self) -> None:
        """Remove the latency until the next reset."""
        self._post("settings", {"latency_ms": 0})

    def add_project(self) -> str:
        """Create another project and return its id."""
        return str(self._post("projects", {})["project_id"])

    def stats(self) -> dict[str, Any]:
        """Return the requests and applied changes since the last reset."""
        answer = self._http.get(f"{self.ready['url']}/_sandbox/stats", timeout=60)
        answer.raise_for_status()
        return dict(answer.json())

    def _post(self, route: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = self._http.post(f"{self.ready['url']}/_sandbox/{route}", json=body, timeout=600)
        answer.raise_for_status()
        return dict(answer.json())
