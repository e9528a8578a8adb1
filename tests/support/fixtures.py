"""Fixtures for tests with a running sandbox, imported by each folder's conftest."""

from __future__ import annotations

import signal
import time
import uuid
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pendulum
import pytest
from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook
from sandbox_process import SandboxProcess

from airflow_provider_redbrick.client.operations.project import RedBrickProject
from airflow_provider_redbrick.client.transport.retry import RetryPolicy
from airflow_provider_redbrick.hooks.redbrick import RedBrickHook

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def running_sandbox():
    with SandboxProcess() as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(running_sandbox, monkeypatch):
    """Reset the sandbox, and set it as Airflow's default connection."""
    running_sandbox.reset()
    monkeypatch.setenv("AIRFLOW_CONN_REDBRICK_DEFAULT", running_sandbox.airflow_conn_uri)
    return running_sandbox


def eventually(is_so):
    """Wait until a condition is true."""
    until = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.01)


def still(number, *, seconds):
    """Return whether a number stays constant for a while."""
    before = number()
    time.sleep(seconds)
    return number() == before


@contextmanager
def alarm(seconds: float, error: BaseException) -> Iterator[None]:
    """Raise an error in the main thread if a block exceeds its time limit."""

    def over(*_: Any) -> None:
        raise error

    before = signal.signal(signal.SIGALRM, over)
    # The whole test has a limit by the same clock.
    limit = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, *limit)


def counts(**given: int) -> dict[str, int]:
    """Return a manifest's counts, with 0 for statuses that are not given."""
    return {**dict.fromkeys(("done", "already_done", "skipped", "failed", "unknown"), 0), **given}


class StateStore(dict):
    """The state that Airflow 3.3 keeps across a task's attempts."""

    def set(self, key: str, value: Any) -> None:
        self[key] = value


class Run:
    """One Airflow task in one DAG run. Its attempts share the run's start, as in Airflow.

    Without ``task_state_store`` it is a run of an Airflow below 3.3.
    """

    def __init__(self, **context: Any) -> None:
        self.tries = 0
        self.run_id = uuid.uuid4().hex
        self.xcoms: dict[str, Any] = {}
        self.started = pendulum.now("UTC")
        self.context = context

    def try_once(self, operator: Any) -> Any:
        """Execute an operator as this run's next attempt."""
        self.tries += 1
        self.xcoms.clear()
        task_instance = SimpleNamespace(
            dag_id="dag",
            run_id=self.run_id,
            task_id=operator.task_id,
            map_index=-1,
            try_number=self.tries,
            xcom_push=lambda key, value: self.xcoms.update({key: value}),
        )
        dag_run = SimpleNamespace(start_date=self.started)
        return operator.execute({"ti": task_instance, "dag_run": dag_run, **self.context})


@pytest.fixture
def run():
    return Run()


@pytest.fixture
def new_run():
    """Create further runs with context values: ``new_run(data_interval_start=...)``."""
    return Run


@pytest.fixture
def quick(monkeypatch):
    """Back off for milliseconds instead of seconds."""
    policy = RetryPolicy(base=0.002, cap=0.02)
    monkeypatch.setattr("airflow_provider_redbrick.client.transport.retry.RetryPolicy", lambda **_: policy)


@pytest.fixture
def impatient(monkeypatch):
    """Create a client without retries."""
    monkeypatch.setattr(
        "airflow_provider_redbrick.client.transport.retry.RetryPolicy", lambda **_: RetryPolicy(max_attempts=1)
    )


_PRIORITY = """mutation ($o: UUID!, $p: UUID!, $t: UUID!) {
    updateTasksPriorities(orgId: $o, projectId: $p, tasks: [{taskId: $t, priority: 0}]) { ok } }"""


@pytest.fixture
def seen_twice(sandbox, monkeypatch):
    """Pages of 25, and the first task of each list goes further back once the first page was read; answers such tasks.

    It comes behind all tasks of the same priority, which must be above 0, and before those without one.
    """
    monkeypatch.setenv("AIRFLOW_CONN_REDBRICK_DEFAULT", f"{sandbox.airflow_conn_uri}&page_size=25")
    page, moved = RedBrickProject._page, []

    def then_moved(self: Any, variables: Any, cursor: Any, first: int) -> Any:
        entries, following = page(self, variables, cursor, first)
        if cursor is None and following is not None:
            moved.append(entries[0]["taskId"])
            ids = {"o": self.org_id, "p": self.project_id, "t": moved[-1]}
            assert sandbox.graphql(_PRIORITY, ids)["updateTasksPriorities"]["ok"]
        return entries, following

    monkeypatch.setattr(RedBrickProject, "_page", then_moved)
    return moved


_WHO_HOLDS = """query ($o: UUID!, $p: UUID!, $s: String, $after: String) {
    genericTasks(orgId: $o, projectId: $p, stageName: $s, first: 500, after: $after) { cursor entries { taskId
        currentStageSubTask { ... on LabelingTask { assignedTo { userId email } } } } } }"""


@pytest.fixture
def holders(sandbox):
    """Read a stage's assignments from the server: ``holders("Label") == {task_id: "bob@example.com", ...}``."""

    def ask(stage: str, *, project_id: str | None = None) -> dict[str, str | None]:
        ids = {"o": sandbox.org_id, "p": project_id or sandbox.project_id, "s": stage}
        found: dict[str, str | None] = {}
        after = None
        while True:
            page = sandbox.graphql(_WHO_HOLDS, {**ids, "after": after})["genericTasks"]
            for entry in page["entries"]:
                owner = (entry["currentStageSubTask"] or {}).get("assignedTo") or {}
                found[entry["taskId"]] = owner.get("email") or owner.get("userId")
            after = page["cursor"]
            if after is None:
                return found

    return ask


@pytest.fixture
def failing(monkeypatch) -> dict[str, Any]:
    """Fail the next ``times`` reads of a connection with ``error``."""
    state: dict[str, Any] = {"times": 0, "error": AirflowNotFoundException("The conn_id `x` isn't defined")}
    get = BaseHook.get_connection.__func__

    def fails(cls, conn_id):
        if state["times"]:
            state["times"] -= 1
            raise state["error"]
        return get(cls, conn_id)

    monkeypatch.setattr(RedBrickHook, "get_connection", classmethod(fails))
    return state
