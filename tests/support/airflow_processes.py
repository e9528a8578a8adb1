"""Run Airflow's components as processes that tests can kill and restart."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import psutil
import requests

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from sandbox_process import SandboxProcess
    from typing_extensions import Self

TESTS = Path(__file__).resolve().parent
# Each waits until there is a database, and then becomes the component: its process id stays the same.
WHEN_MIGRATED = 'while [ ! -e "$AIRFLOW_HOME/migrated" ]; do sleep 0.1; done; exec "$@"'
MIGRATE = '"$@" && touch "$AIRFLOW_HOME/migrated"'
START_SECONDS = 120.0
WEBHOOK_SECRET = "test-secret-that-is-longer-than-20-characters"
STOP_SECONDS = 2.0


class AirflowProcesses:
    """A running Airflow with its own home, SQLite database and ports (context manager).

    It starts in the background: ``wait_until_ready`` before anything is asked of it.

    :param home: a directory that may be filled.
    :param sandbox: the server that its default connection leads to.
    :param dags: the folder of its DAGs.
    :param settings: further environment variables.
    """

    components: ClassVar[dict[str, list[str]]] = {
        "api-server": ["api-server"],
        "scheduler": ["scheduler", "--skip-serve-logs"],
        "dag-processor": ["dag-processor"],
        "triggerer": ["triggerer", "--skip-serve-logs"],
    }

    def __init__(self, home: Path, sandbox: SandboxProcess, dags: Path, **settings: str) -> None:
        self.home = home
        self.sandbox = sandbox
        self.dags = dags
        self.url = f"http://localhost:{free_port()}"
        self.environment = self._environment(sandbox.airflow_conn_uri) | settings
        self.processes: dict[str, psutil.Popen] = {}
        self.http = requests.Session()
        self.http.trust_env = False  # a proxy of the environment must not stand between us and loopback

    def _environment(self, connection: str) -> dict[str, str]:
        kept = {
            name: value
            for name, value in os.environ.items()
            # Without compiled modules every process takes twice as long to start.
            if not name.startswith("AIRFLOW") and name != "PYTHONDONTWRITEBYTECODE"
        }
        path = [str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])]
        return {
            **kept,
            "PYTHONPATH": os.pathsep.join(path),
            "NO_PROXY": "*",
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW_CONN_REDBRICK_DEFAULT": connection,
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.dags),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__PARALLELISM": "4",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": self.url.rpartition(":")[2],
            "AIRFLOW__API__BASE_URL": self.url,
            # Airflow 3.0.0 does not take it from the base URL.
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__API__SECRET_KEY": "of no value",
            "AIRFLOW__API_AUTH__JWT_SECRET": "of no value, but long enough to be taken for a secret by everybody",
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
            # Workers that linger after deferring make the scheduler believe a task was lost.
            "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
            "AIRFLOW__REDBRICK__WEBHOOK_SECRET": WEBHOOK_SECRET,
            # A triggerer that is gone is noticed after seconds.
            "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "1",
            "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "4",
        }

    # -- life ----------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        try:
            self._run("migrate", MIGRATE, ["db", "migrate"])
            for component in self.components:
                self.start(component)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, component: str) -> None:
        """Start a component."""
        self._run(component, WHEN_MIGRATED, self.components[component])

    def _run(self, name: str, script: str, words: list[str]) -> None:
        """Run an Airflow command, with its output in a separate log."""
        with self._log(name).open("ab") as log:
            self.processes[name] = psutil.Popen(
                ["/bin/sh", "-c", script, name, sys.executable, "-m", "airflow", *words],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait_until_ready(self) -> None:
        """Wait until all components are running."""
        self.wait("ready", self._is_ready, seconds=START_SECONDS)

    def _is_ready(self) -> bool:
        for name, process in self.processes.items():
            ended = process.poll()
            assert ended is None or (name, ended) == ("migrate", 0), f"{name} ended with {ended}\n{self.words()}"
        health = self.ask("monitor/health") or {}
        parts = ("scheduler", "triggerer", "dag_processor")
        return all((health.get(part) or {}).get("status") == "healthy" for part in parts)

    def kill(self, component: str) -> None:
        """Kill a component with all its processes, as when its machine fails."""
        process = self.processes.pop(component)
        _send(_family(process), signal.SIGKILL)
        process.wait(timeout=STOP_SECONDS)

    def command(self, *words: str) -> str:
        """Run an Airflow command in its own terminal, and return its output.

        All components stand still meanwhile: SQLite takes one writer at a time, and a command that writes much, such
        as a backfill's, gives up where it would have to wait for its turn.
        """
        with self._at_rest():
            done = subprocess.run(
                [sys.executable, "-m", "airflow", *words],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
        assert done.returncode == 0, f"airflow {' '.join(words)}:\n{done.stdout}\n{done.stderr}"
        return done.stdout

    @contextlib.contextmanager
    def _at_rest(self) -> Iterator[None]:
        others = [one for process in self.processes.values() for one in _family(process)]
        try:
            _send(others, signal.SIGSTOP)
            for _ in range(100):
                if self._is_writable():
                    break
                _send(others, signal.SIGCONT)
                time.sleep(0.05)
                _send(others, signal.SIGSTOP)
            yield
        finally:
            _send(others, signal.SIGCONT)

    def _is_writable(self) -> bool:
        """Return whether no stopped process holds a database lock."""
        with contextlib.closing(sqlite3.connect(self.home / "airflow.db", timeout=0.1)) as database:
            try:
                database.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return False
            database.rollback()
            return True

    def stop(self) -> None:
        """Stop all processes. Repeated calls have no effect."""
        self.http.close()
        everything = [one for process in self.processes.values() for one in _family(process)]
        _send(everything, signal.SIGTERM)
        _, alive = psutil.wait_procs(everything, timeout=STOP_SECONDS)
        late = [one for process in self.processes.values() for one in _family(process)]
        _send([*alive, *late], signal.SIGKILL)
        psutil.wait_procs([*self.processes.values(), *alive, *late], timeout=STOP_SECONDS)
        self.processes.clear()

    def _log(self, component: str) -> Path:
        return self.home / f"{component}.log"

    def words(self) -> str:
        """Return the last output of each component."""
        said = {name: self._log(name).read_text(errors="replace")[-1500:] for name in self.processes}
        logs = "\n".join(f"-- {name}:\n{words}" for name, words in said.items())
        return f"{logs}\n-- DAG files: {self.ask('importErrors')}"

    def wait(
        self, what: str, ready: Callable[[], Any], *, seconds: float = 60.0, more: Callable[[], str] = str
    ) -> None:
        """Wait until a condition is true."""
        deadline = time.monotonic() + seconds
        while not ready():
            assert time.monotonic() < deadline, f"not {what} after {seconds:.0f} s\n{self.words()}\n{more()}"
            time.sleep(0.1)

    # -- what one asks it ----------------------------------------------------------------------

    def ask(self, path: str, body: dict[str, Any] | None = None, *, method: str | None = None) -> Any:
        """Call the REST API (GET without a body, else POST). Return None on failure."""
        verb = method or ("GET" if body is None else "POST")
        try:
            response = self.http.request(verb, f"{self.url}/api/v2/{path}", json=body, timeout=20)
            if response.status_code == requests.codes.unauthorized and self._sign_in():  # some releases want a token
                response = self.http.request(verb, f"{self.url}/api/v2/{path}", json=body, timeout=20)
        except (requests.ConnectionError, requests.Timeout):
            return None
        return (response.json() if response.content else {}) if response.ok else None

    def _sign_in(self) -> bool:
        answer = self.http.get(f"{self.url}/auth/token", timeout=20)
        if answer.ok:
            self.http.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
        return answer.ok

    def trigger(self, dag_id: str, **conf: Any) -> str:
        """Start a DAG run when the DAG is parsed, and return the run's id."""
        runs: list[str] = []

        def started() -> bool:
            answer = self.ask(f"dags/{dag_id}/dagRuns", {"logical_date": None, "conf": conf})
            runs.extend([answer["dag_run_id"]] if answer else [])
            return bool(runs)

        self.wait(f"started: {dag_id}", started)
        return runs[0]

    def instance(self, dag_id: str, run_id: str, task_id: str) -> dict[str, Any]:
        """Return Airflow's record of a task: ``state``, ``try_number``, ``pid``, ..."""
        return dict(self.ask(f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}") or {})

    def log(self, dag_id: str, run_id: str, task_id: str, number: int = 1) -> str:
        """Return the log of one attempt of a task."""
        path = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/logs/{number}?full_content=true"
        lines = (self.ask(path) or {}).get("content", [])
        return "\n".join(f"{line['event']} {line.get('error_detail', '')}".strip() for line in lines)

    def is_mine(self, pid: int) -> bool:
        """Return whether the scheduler started a process."""
        return pid in {process.pid for process in _family(self.processes["scheduler"])}


def _family(leader: psutil.Process) -> list[psutil.Process]:
    """Return a process of its own session, and all its child processes."""
    if psutil.pid_exists(leader.pid) and not leader.is_running():
        return []  # the number is another's by now
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(OSError):
            found += [process] if os.getsid(process.pid) == leader.pid else []
    return found


def _send(processes: list[psutil.Process], number: int) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
