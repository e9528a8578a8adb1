"""Fixtures of the operators' tests, in addition to those of all tests."""

from __future__ import annotations

import json
import os
import signal
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from fixtures import holders, new_run, quick, run, running_sandbox, sandbox, seen_twice
from label_samples import BOX

from airflow_provider_redbrick.client.operations.project import RedBrickProject
from airflow_provider_redbrick.exceptions import RedBrickError

__all__ = ["holders", "new_run", "quick", "run", "running_sandbox", "sandbox", "seen_twice"]


@pytest.fixture
def series():
    """Labels of one box in the series format."""
    return [{"boundingBoxes": [dict(BOX)]}]


# -- attempts that fail midway, and retries -------------------------------------------------------

# Faults by name: (fault, root field, number of requests that pass first, number of requests that fail). CHANGE stands
# for the operator's own mutation. In an "outage", all later requests fail until the attempt ends.
CHANGE = "CHANGE"
ASSIGN = "assignTasksMultipleUsers"
EVERY = 1000
MIDWAY = {
    "answer lost": [("drop_after", CHANGE, 3, 1)],
    "request lost": [("drop_before", CHANGE, 3, 1)],
    "http 500": [("http_500", CHANGE, 3, 1)],
    "http 503": [("http_503", CHANGE, 3, 1)],
    "graphql error": [("gql_error", CHANGE, 3, 2)],
    "graphql error, partial data": [("gql_partial", CHANGE, 3, 2)],
    "not ok": [("not_ok", CHANGE, 3, 2)],
    "html": [("html", CHANGE, 3, 2)],
    "rate limit": [("rate_limit", CHANGE, 3, 2)],
    "outage": [("http_503", CHANGE, 3, EVERY)],
    "outage that applies": [("drop_after", CHANGE, 3, EVERY)],
    "dead line": [("drop_after", CHANGE, 2, EVERY), ("http_500", "task", 1, EVERY), ("http_500", ASSIGN, 1, EVERY)],
    "answer lost, then unreadable": [("drop_after", CHANGE, 3, 1), ("http_500", "task", 1, 1)],
    "answers lost, then unreadable": [("drop_after", CHANGE, 0, 8), ("gql_error", "task", 1, 8)],
    "claim's answer lost": [("drop_after", ASSIGN, 0, 1)],
    "claim lost": [("drop_before", ASSIGN, 0, 1)],
    "claim refused": [("gql_error", ASSIGN, 0, 1)],
    "claim's answer lost, then unreadable": [("drop_after", ASSIGN, 0, 1), ("http_500", "task", 1, 1)],
    "release fails": [("gql_error", CHANGE, 3, 2), ("http_500", ASSIGN, 1, EVERY)],
    "release's answer lost": [("gql_error", CHANGE, 3, 2), ("drop_after", ASSIGN, 1, 1)],
    "tasks unreadable": [("http_500", "task", 0, 1)],
    "one task unreadable": [("gql_partial", "task", 0, 2)],
    "no identity": [("http_500", "me", 0, 1)],
    "no project": [("gql_error", "project", 0, 1)],
}


# Faults that affect an operator's own mutation most, for operators that share the rest with others.
CORE = ("answer lost", "not ok", "outage", "outage that applies", "dead line", "answers lost, then unreadable")
CORE = (*CORE, "claim's answer lost", "release fails", "one task unreadable")


def pytest_generate_tests(metafunc):
    """Parametrize ``midway_fault`` with all faults, and ``core_fault`` with the core ones."""
    for argument, names in (("midway_fault", tuple(MIDWAY)), ("core_fault", CORE)):
        if argument in metafunc.fixturenames:
            ids = [name.replace(" ", "_") for name in names]
            metafunc.parametrize(argument, names, ids=ids, indirect=True)


@pytest.fixture
def alone(sandbox, monkeypatch):
    """Send one change per request, so that a fault affects one task."""
    monkeypatch.setenv("AIRFLOW_CONN_REDBRICK_DEFAULT", f"{sandbox.airflow_conn_uri}&mutations_per_request=1")


@pytest.fixture
def one_by_one(sandbox, monkeypatch):
    """Send one request at a time, so that it is known which one a fault affects."""
    monkeypatch.setenv("AIRFLOW_CONN_REDBRICK_DEFAULT", f"{sandbox.airflow_conn_uri}&max_concurrency=1")


@pytest.fixture
def pairs(sandbox, monkeypatch):
    """Send two changes per request, so that few tasks take many requests."""
    monkeypatch.setenv("AIRFLOW_CONN_REDBRICK_DEFAULT", f"{sandbox.airflow_conn_uri}&mutations_per_request=2")


@pytest.fixture
def midway_fault(request, sandbox, quick, pairs):
    """A fault that affects an attempt midway: ``midway_fault(mutation)`` arms it."""

    def arm(mutation: str) -> None:
        for fault, root_field, skip, times in MIDWAY[request.param]:
            sandbox.fault_once(fault, mutation if root_field == CHANGE else root_field, skip=skip, times=times)

    return arm


core_fault = midway_fault


@pytest.fixture
def finish(sandbox, run):
    """Make attempts until one succeeds, as Airflow does, with a new operator each time.

    ``finish(make)`` returns the manifest of each attempt; None for one that ended without. Faults end with the first
    attempt unless ``faults_stay``.
    """

    def until_done(make, *, tries: int = 6, faults_stay: bool = False) -> list[dict[str, Any] | None]:
        manifests: list[dict[str, Any] | None] = []
        while True:
            try:
                manifests.append(run.try_once(make()))
            except RedBrickError:
                if len(manifests) >= tries:
                    raise
                manifests.append(run.xcoms.get("manifest"))
            else:
                return manifests
            if not faults_stay:
                sandbox.faults("")

    return until_done


@pytest.fixture
def killed_attempt(run):
    """Make an attempt in a separate process that is killed midway, as by the kernel when memory runs out.

    ``killed_attempt(operator, after_change=3)`` kills it right after its third change. Without ``after_change``, a
    callable of the operator must kill the process.
    """

    def attempt(operator, *, after_change: int | None = None) -> None:
        pid = os.fork()
        if pid == 0:  # pragma: no cover - the process is killed
            try:
                if after_change is not None:
                    _die_after(after_change)
                run.try_once(operator)
            finally:
                os._exit(0)
        _, status = os.waitpid(pid, 0)
        assert os.WIFSIGNALED(status), f"the process was not killed: status {status}"
        run.tries += 1

    return attempt


def _die_after(changes: int) -> None:
    lock, left = threading.Lock(), [changes]

    send = RedBrickProject.send

    def dying(self: Any, calls: Any) -> Any:
        with lock:
            now = calls[: left[0]]
            left[0] -= len(now)
            if left[0]:
                return send(self, calls)
            send(self, now)
            os.kill(os.getpid(), signal.SIGKILL)
            return None

    RedBrickProject.send = dying  # type: ignore[method-assign]


@pytest.fixture
def give(sandbox):
    """Assign a task to a person or unassign it, as an admin in the web application."""
    document = """mutation ($o: UUID!, $p: UUID!, $t: [UUID!]!, $e: [String!]) { assignTasksMultipleUsers(
        orgId: $o, projectId: $p, taskIds: $t, emails: $e, currentUser: false, refresh: true) { taskId } }"""

    def assign(task_id: str, email: str | None) -> None:
        ids = {"o": sandbox.org_id, "p": sandbox.project_id, "t": [task_id], "e": [email] if email else None}
        sandbox.graphql(document, ids)

    return assign


@pytest.fixture
def whereabouts(sandbox):
    """Return the state of all tasks by id, with stage, state, owner (an email, "key" or None) and labels."""
    document = """query ($o: UUID!, $p: UUID!) { genericTasks(orgId: $o, projectId: $p, first: 500) { entries {
        taskId currentStageName latestTaskData { labelsData }
        currentStageSubTask { ... on LabelingTask { state assignedTo { userId email } } } } } }"""

    def ask() -> dict[str, SimpleNamespace]:
        ids = {"o": sandbox.org_id, "p": sandbox.project_id}
        found = {}
        for entry in sandbox.graphql(document, ids)["genericTasks"]["entries"]:
            work = entry["currentStageSubTask"] or {}
            user = work.get("assignedTo") or {}
            key = "key" if str(user.get("userId")).startswith("API:") else None
            found[entry["taskId"]] = SimpleNamespace(
                stage=entry["currentStageName"],
                state=work.get("state"),
                owner=user.get("email") or key,
                labels=json.loads((entry["latestTaskData"] or {}).get("labelsData") or "[]"),
            )
        return found

    return ask


@pytest.fixture
def trail(sandbox):
    """Return a task's events: outputs as (stage, accepted, by), and visible comments."""
    document = """query ($o: UUID!, $p: UUID!, $t: UUID!) { task(orgId: $o, projectId: $p, taskId: $t) { genericEvents {
        ... on TaskEvent { updatedBy outputEvent { currentStageName outputBool } }
        ... on Comment { textVal stageName issueComment } } } }"""

    def ask(task_id: str) -> SimpleNamespace:
        ids = {"o": sandbox.org_id, "p": sandbox.project_id, "t": task_id}
        events = sandbox.graphql(document, ids)["task"]["genericEvents"]
        outputs = [(e["outputEvent"], e["updatedBy"]) for e in events if e.get("outputEvent")]
        return SimpleNamespace(
            outputs=[(o["currentStageName"], o["outputBool"], by) for o, by in outputs],
            comments=[e["textVal"] for e in events if "textVal" in e],
        )

    return ask
