"""Run the sandbox as a child process, and send the demo's requests to it."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import requests

from demo.places import SANDBOX_DB, SANDBOX_PORT

if TYPE_CHECKING:
    from typing_extensions import Self


class Sandbox:
    """A running sandbox, which stops when its context ends.

    :param tasks: number of tasks with real images in a new sandbox.
    """

    def __init__(self, *, tasks: int) -> None:
        command = [sys.executable, "-m", "redbrick_sandbox", "serve"]
        options = ["--port", str(_free_port()), "--db", str(SANDBOX_DB), "--demo-tasks", str(tasks)]
        self._process = subprocess.Popen(
            [*command, *options, "--transition-ms", "400"], stdout=subprocess.PIPE, text=True
        )
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            raise SystemExit("The sandbox did not start. Its output is above.")
        self.ready: dict[str, Any] = json.loads(line)
        self.url: str = self.ready["url"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(timeout=20)

    def board(self) -> list[dict[str, Any]]:
        """Return the stages in workflow order, with counts and assignments."""
        response = requests.get(f"{self.url}/_sandbox/board", timeout=30)
        response.raise_for_status()
        return list(response.json()["stages"])

    def count(self, title: str) -> int:
        """Return the number of tasks in a stage."""
        return next((int(stage["count"]) for stage in self.board() if stage["title"] == title), 0)

    def people(self, stage: str, *, limit: int, accept_ratio: float = 1.0) -> int:
        """Let simulated people work in a stage.

        :param stage: the name of the stage.
        :param limit: highest number of tasks.
        :param accept_ratio: fraction of reviews that accept, 0 to 1.
        :return: number of completed tasks.
        """
        return int(self._post("humans", {"stage": stage, "limit": limit, "accept_ratio": accept_ratio})["done"])

    def _post(self, route: str, body: dict[str, Any]) -> dict[str, Any]:
        response = requests.post(f"{self.url}/_sandbox/{route}", json=body, timeout=60)
        response.raise_for_status()
        return dict(response.json())


def _free_port() -> int:
    """Return the default port, or 0 (any free port) if it is in use."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", SANDBOX_PORT))
        except OSError:
            return 0
    return SANDBOX_PORT
