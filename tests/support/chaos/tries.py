"""Attempts of an Airflow task, some of which are killed and each of which may fail."""

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

# Faults are injected until this number of attempts has reached the tasks. A thousand tasks need several hundred reads,
# of which some always fail, and with them the attempt.
ATTEMPTS_WITH_FAULTS = 5
# Limit that includes attempts that did not reach the tasks: one failed read while the queue is listed ends an attempt.
MAX_ATTEMPTS = 200
ATTEMPTS_WITHOUT_FAULTS = 2


class KeptState:
    """State that Airflow 3.3 keeps for a task across attempts, here in a file shared by processes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def get(self, key: str) -> Any:
        return self._all().get(key)

    def set(self, key: str, value: Any) -> None:
        self.path.write_text(json.dumps({**self._all(), key: value}))

    def _all(self) -> dict[str, Any]:
        return dict(json.loads(self.path.read_text())) if self.path.exists() else {}


class Attempts:
    """Attempts of one task in one run, each with a new operator, as in Airflow."""

    def __init__(self, run: Run, sandbox: SandboxProcess, tap: Tap, log: pytest.LogCaptureFixture) -> None:
        self.run = run
        self._sandbox = sandbox
        self._tap = tap
        self._log = log

    def finish(self, make: Callable[[], Any], *, about: str) -> list[dict[str, Any]]:
        """Attempt until one succeeds, and return the manifests of all attempts that had one.

        The log then holds the messages of the last attempt.
        """
        manifests: list[dict[str, Any]] = []
        without_faults = 0
        for _ in range(MAX_ATTEMPTS):
            if len(manifests) >= ATTEMPTS_WITH_FAULTS:
                self._sandbox.faults("")
                without_faults += 1
            self._log.clear()
            try:
                return [*manifests, self.run.try_once(make())]
            except RedBrickError as error:
                last = error
                manifests += [self.run.xcoms["manifest"]] if "manifest" in self.run.xcoms else []
            if without_faults == ATTEMPTS_WITHOUT_FAULTS:
                break
        raise AssertionError(
            f"{about}: not done after {self.run.tries} attempts, {without_faults} of them without faults: {last}"
        )

    def killed(self, operator: Any, *, request: int, how: str, delay: float) -> str:
        """Attempt in a separate process that is killed during its requests.

        :param request: the number of the request, from 1.
        :param how: killed ``before`` the request is sent, ``during`` it or ``after`` its answer.
        :param delay: seconds after the request at which ``during`` kills.
        :return: ``killed``, or ``done`` or ``failed`` if the attempt ended earlier.
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
