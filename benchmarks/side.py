"""Run one side of the comparison in a process with all modules imported."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.sandbox import ROOT, environment

if TYPE_CHECKING:
    from pathlib import Path

    from typing_extensions import Self

    from benchmarks.sandbox import Sandbox
    from benchmarks.works import Work


@dataclass(frozen=True)
class Measured:
    """The result of one measurement."""

    seconds: float
    peak_mb: float
    requests: int


class Side:
    """A measuring process, which ends when its context ends.

    :param python: the interpreter that can import it.
    :param module: ``benchmarks.ours`` or ``benchmarks.public_sdk``.
    :param sandbox: the sandbox to measure against.
    :param folder: folder for files and its log.
    """

    def __init__(self, python: str, module: str, sandbox: Sandbox, folder: Path) -> None:
        self._sandbox, self._folder = sandbox, folder
        self._log = folder / f"{module}.log"
        home = folder / module
        home.mkdir()
        variables = {
            "HOME": str(home),
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW_CONN_REDBRICK_DEFAULT": sandbox.ready["airflow_conn_uri"],
            "REDBRICK_DISABLE_VERSION_CHECK": "1",
        }
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [python, "-m", module],
                cwd=ROOT,
                env=environment(**variables),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self._heard("ready")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.stdin:
            self._process.stdin.close()
        self._process.wait(timeout=20)

    def measure(self, work: Work, n: int, tasks: dict[str, Any]) -> Measured:
        """Measure a work once on new tasks, and verify its result.

        :param work: the work.
        :param n: number of tasks.
        :param tasks: options of the new tasks.
        :raises SystemExit: if the work was not done completely.
        """
        sandbox = self._sandbox
        ids = sandbox.fresh(n, **tasks)
        known = {name: sandbox.ready[name] for name in ("url", "org_id", "project_id", "api_key", "members")}
        job = {"work": work.name, "task_ids": ids, "folder": str(self._folder), **known}
        answer = self._ask(json.dumps(job))
        done = answer.pop("done", None)
        if done != n or not self._applied(work, ids):
            raise SystemExit(f"{work.name} of {n} was not done ({done}): {answer.get('error', 'see')} {self._end()}")
        return Measured(**answer)

    def _applied(self, work: Work, ids: list[str]) -> bool:
        if work.mutation is None:
            return True
        applied = self._sandbox.stats()["applied"]
        return all(applied.get(task_id, {}).get(work.mutation) == 1 for task_id in ids)

    def _ask(self, job: str) -> dict[str, Any]:
        if self._process.stdin:
            self._process.stdin.write(f"{job}\n")
            self._process.stdin.flush()
        return self._heard("{")

    def _heard(self, start: str) -> dict[str, Any]:
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line.startswith(start):
            raise SystemExit(f"A measuring process ended: {line}{self._end()}")
        return json.loads(line) if start == "{" else {}

    def _end(self) -> str:
        return f"\n{self._log}:\n" + "\n".join(self._log.read_text(errors="replace").splitlines()[-20:])
