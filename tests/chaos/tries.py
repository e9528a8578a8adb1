"""The tries of an Airflow task, some of which are killed, and all of which may fail."""

from __future__ import annotations

import json
import os
import signal
import threading
from itertools import count
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.exceptions import RedBrickError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest
    from chaos.tap import Tap
    from fixtures import Run
    from sandbox_process import SandboxProcess

# So many tries that come to the tasks the weather lasts. A thousand tasks need several hundred reads, and among so many
# some always fail in such weather, and with them the try.
STORMY = 5
# Those that do not come that far count less: one read that fails while the queue is listed ends a try.
AT_MOST = 200
CALM = 2


class KeptState:
    """What Airflow 3.3 keeps for a task across its tries, in whatever process they run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def get(self, key: str) -> Any:
        return self._all().get(key)

    def set(self, key: str, value: Any) -> None:
        self.path.write_text(json.dumps({**self._all(), key: value}))

    def _all(self) -> dict[str, Any]:
        return dict(json.loads(self.path.read_text())) if self.path.exists() else {}


class Tries:
    """Tries of one task in one run, each with a fresh operator, as Airflow does it."""

    def __init__(self, run: Run, sandbox: SandboxProcess, tap: Tap, log: pytest.LogCaptureFixture) -> None:
        self.run = run
        self._sandbox = sandbox
        self._tap = tap
        self._log = log

    def finish(self, make: Callable[[], Any], *, about: str) -> list[dict[str, Any]]:
        """Try until a try succeeds; answers the manifest of each try that had one.

        The log then holds what the last try said.
        """
        manifests: list[dict[str, Any]] = []
        calm = 0
        for _ in range(AT_MOST):
            if len(manifests) >= STORMY:
                self._sandbox.faults("")
                calm += 1
            self._log.clear()
            try:
                return [*manifests, self.run.try_once(make())]
            except RedBrickError as error:
                last = error
                manifests += [self.run.xcoms["manifest"]] if "manifest" in self.run.xcoms else []
            if calm == CALM:
                break
        raise AssertionError(f"{about}: not done after {self.run.tries} tries, {calm} of them in good weather: {last}")

    def killed(self, operator: Any, *, request: int, how: str, delay: float) -> str:
        """Try in a process of its own, which is killed while it talks to the server.

        It dies ``before`` the nth request is sent, ``during`` it (up to ``delay`` seconds later) or ``after`` its
        answer. Answers how the try ended: ``killed``, or before that ``done`` or ``failed``.
        """
        pid = os.fork()
        if pid == 0:  # pragma: no cover - another process
            code = 1
            try:
                self._die_at(request, how, delay)
                self.run.try_once(operator)
                code = 0
            finally:
                os._exit(code)
        try:
            _, status = os.waitpid(pid, 0)
        except BaseException:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
        self.run.tries += 1
        if os.WIFSIGNALED(status):
            return "killed"
        return "done" if os.WEXITSTATUS(status) == 0 else "failed"

    def _die_at(self, request: int, how: str, delay: float) -> None:  # pragma: no cover - another process
        sent, answered = count(1), count(1)

        def die() -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        def before(_text: str) -> None:
            if next(sent) != request or how == "after":
                return
            if how == "before":
                die()
            threading.Timer(delay, die).start()

        def after(_answer: Any) -> None:
            if how == "after" and next(answered) == request:
                die()

        self._tap.before, self._tap.after = before, after
