"""Run a complete Airflow of the installed release with the example DAGs (`make compat`)."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from airflow_processes import AirflowProcesses
from fixtures import still
from sandbox_process import SandboxProcess

HERE = Path(__file__).resolve().parent
EXAMPLES = HERE.parents[2] / "example_dags"


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Where the example DAGs have their files instead of in /data."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="session")
def airflow(tmp_path_factory, folder):
    """An Airflow at work, each component a process of its own, connected with a sandbox (``airflow.sandbox``)."""
    dags = tmp_path_factory.mktemp("dags")
    for file in [*EXAMPLES.glob("*.py"), *(HERE / "dags").glob("*.py")]:
        shutil.copy(file, dags)
        if file.parent == EXAMPLES:
            text = file.read_text().replace('"/data/', f'"{folder}/')
            (dags / file.name).write_text(re.sub(r"poke_interval=\d+", "poke_interval=1", text))
    # An example begins when its test lets it, as often as its own schedule says.
    settings = {"AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "True"}
    with (
        SandboxProcess() as sandbox,
        AirflowProcesses(tmp_path_factory.mktemp("airflow"), sandbox, dags, **settings) as processes,
    ):
        processes.wait_until_ready()
        yield processes


@pytest.fixture
def sandbox(airflow):
    """The server, as if it had just begun."""
    airflow.sandbox.reset()
    return airflow.sandbox


class DagRun:
    """A DAG run of the running Airflow."""

    def __init__(self, airflow, dag_id: str, run_id: str) -> None:
        self.airflow, self.dag_id, self.run_id = airflow, dag_id, run_id
        self._path = f"dags/{dag_id}/dagRuns/{run_id}"

    @property
    def state(self) -> str:
        return (self.airflow.ask(self._path) or {}).get("state", "")

    def states(self) -> dict[str, str]:
        """The state of each task; of a mapped one, all that there are."""
        found: dict[str, set[str]] = {}
        for instance in self.airflow.ask(f"{self._path}/taskInstances?limit=100")["task_instances"]:
            found.setdefault(instance["task_id"], set()).add(instance["state"] or "none")
        return {task_id: " ".join(sorted(states)) for task_id, states in found.items()}

    def wait(self, *, seconds: float = 120.0) -> DagRun:
        """Wait until it is over."""
        self.airflow.wait(
            f"over: {self.dag_id}", lambda: self.state in {"success", "failed"}, seconds=seconds, more=self.told
        )
        return self

    def told(self) -> str:
        """Return the logs of tasks that did not succeed."""
        bad = [task_id for task_id, state in self.states().items() if state not in {"success", "skipped"}]
        logs = {task_id: self.airflow.log(self.dag_id, self.run_id, task_id)[-3000:] for task_id in bad}
        return f"{self.states()}\n" + "\n".join(f"-- {task_id}:\n{log}" for task_id, log in logs.items())

    def returned(self, task_id: str, map_index: int = -1):
        """Return the XCom result of a task."""
        path = f"{self._path}/taskInstances/{task_id}/xcomEntries/return_value?map_index={map_index}"
        return (self.airflow.ask(path) or {}).get("value")


@pytest.fixture
def running(airflow, runs):
    """Let a DAG run: ``running("share_the_queue")`` answers the run by its schedule, with ``conf`` one by hand."""
    begun: list[str] = []

    def pause(dag_id: str, *, paused: bool) -> None:
        set_paused(airflow, dag_id, paused=paused)

    def begin(dag_id: str, conf: dict | None = None) -> DagRun:
        begun.append(dag_id)
        pause(dag_id, paused=False)
        if conf is not None:
            return DagRun(airflow, dag_id, airflow.trigger(dag_id, **conf))
        return runs(dag_id, at_least=1)[0]

    yield begin
    for dag_id in begun:
        pause(dag_id, paused=True)


@pytest.fixture
def watching(airflow, sandbox):
    """Let the watchers of a DAG watch while a test runs; returns when they have looked."""
    let: list[str] = []

    def turn(dag_id: str, *, paused: bool) -> None:
        set_paused(airflow, dag_id, paused=paused)
        # Airflow gives watchers to active DAGs alone, and looks when it reads their file.
        token = airflow.ask(f"dags/{dag_id}")["file_token"]
        airflow.ask(f"parseDagFile/{token}", method="PUT")

    def looks() -> int:
        return sandbox.stats()["root_fields"].get("tasksPaged", 0)

    def start(dag_id: str) -> None:
        let.append(dag_id)
        before = looks()
        turn(dag_id, paused=False)
        airflow.wait("watching", lambda: looks() >= before + 3)

    yield start
    for dag_id in let:
        turn(dag_id, paused=True)
    # The next test counts the looks of its own watchers.
    airflow.wait("no longer watching", lambda: still(looks, seconds=2.5))


def set_paused(airflow, dag_id: str, *, paused: bool) -> None:
    """Pause a DAG or let it run, once it is known."""
    airflow.wait(
        f"known: {dag_id}", lambda: airflow.ask(f"dags/{dag_id}", {"is_paused": paused}, method="PATCH"), seconds=120
    )


@pytest.fixture
def runs(airflow):
    """List a DAG's runs, the oldest first; wait until there are ``at_least`` so many."""

    def listed(dag_id: str, *, at_least: int = 0) -> list[DagRun]:
        found: list[str] = []

        def are_there() -> bool:
            answer = airflow.ask(f"dags/{dag_id}/dagRuns?order_by=run_after") or {}
            found[:] = [run["dag_run_id"] for run in answer.get("dag_runs", [])]
            return len(found) >= at_least

        airflow.wait(f"{at_least} runs: {dag_id}", are_there)
        return [DagRun(airflow, dag_id, run_id) for run_id in found]

    return listed
