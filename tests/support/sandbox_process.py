"""Run and control a sandbox in a process of its own, for tests.

with SandboxProcess(transition_ms=200) as sandbox:
    ids = sandbox.seed_tasks(50)
    sandbox.fault_once("drop_after", "putManualLabelingTaskAndLabels", skip=3)
    ...
    assert sandbox.applied("moveTaskToStart") == {ids[0]: 1}
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import requests

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

START_SECONDS = 60
STOP_SECONDS = 10
SETTLE_SECONDS = 0.3


class SandboxError(RuntimeError):
    """The sandbox did not start, or refused a request. The message has its output."""


class SandboxProcess:
    """A sandbox process, used as a context manager.

    Options are the command line's, as keywords: ``port``, ``db``, ``demo_tasks``, ``latency_ms``,
    ``transition_ms``, ``fault``, ``behavior``, ``seed``.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        db: str | None = None,
        demo_tasks: int = 0,
        latency_ms: int = 0,
        transition_ms: int = 0,
        fault: str | None = None,
        behavior: str | None = None,
        seed: int = 0,
        python: str = sys.executable,
    ) -> None:
        self.command = [python, "-m", "redbrick_sandbox", "serve", "--port", str(port)]
        self.command += ["--demo-tasks", str(demo_tasks), "--latency-ms", str(latency_ms)]
        self.command += ["--transition-ms", str(transition_ms)]
        self.command += ["--seed", str(seed)]
        if db is not None:
            self.command += ["--db", db]
        if fault is not None:
            self.command += ["--fault", fault]
        if behavior is not None:
            self.command += ["--behavior", behavior]
        self.process: subprocess.Popen[str] | None = None
        self.ready: dict[str, Any] = {}
        self.url = ""
        self.org_id = ""
        self.project_id = ""
        self.api_key = ""
        self.airflow_conn_uri = ""
        self.stages: list[str] = []
        self.members: list[str] = []
        self.http = requests.Session()
        self.http.trust_env = False  # requests to loopback must not go through a proxy

    # -- process -------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> Self:
        """Start the process and wait for its ready line."""
        self.process = subprocess.Popen(
            self.command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ}
        )
        self._take(json.loads(self._first_line()))
        return self

    def _take(self, ready: dict[str, Any]) -> None:
        self.ready = ready
        for name in ("url", "org_id", "project_id", "api_key", "airflow_conn_uri", "stages", "members"):
            setattr(self, name, ready[name])
        # By default the sandbox neither lags nor applies requests late, so that nothing needs half a minute to settle.
        self.airflow_conn_uri += f"&settle_seconds={SETTLE_SECONDS}"

    def stop(self) -> int:
        """Stop the process with SIGTERM and return its exit code."""
        self.http.close()
        if self.process is None:
            return 0
        self.process.terminate()
        try:
            self.process.communicate(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
        code = self.process.returncode
        self.process = None
        return code

    def _first_line(self) -> str:
        assert self.process is not None
        assert self.process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            deadline = time.monotonic() + START_SECONDS
            while time.monotonic() < deadline:
                if selector.select(timeout=0.2):
                    line = self.process.stdout.readline()
                    if line:
                        return line
                if self.process.poll() is not None:
                    break
        self.process.kill()
        _, stderr = self.process.communicate()
        raise SandboxError(f"the sandbox did not start: {stderr.strip()[-2000:]}")

    # -- control routes ------------------------------------------------------------------------

    def control(self, path: str, body: dict[str, Any] | None = None, *, method: str | None = None) -> Any:
        """Call a `/_sandbox/` route: GET without a body, else POST.

        :raises SandboxError: if the request is refused.
        """
        verb = method or ("GET" if body is None else "POST")
        response = self.http.request(verb, f"{self.url}/_sandbox/{path.lstrip('/')}", json=body, timeout=300)
        if not response.ok:
            raise SandboxError(f"{verb} {path}: {response.status_code} {response.text[:1000]}")
        return response.json()

    def stats(self) -> dict[str, Any]:
        """Return ``{"requests": n, "root_fields": {...}, "applied": {task_id: {mutation: n}}}``."""
        return dict(self.control("stats"))

    def reset(self) -> None:
        """Restore the initial data, counters, faults and settings."""
        self.control("reset", {})

    def board(self) -> dict[str, Any]:
        """Return the stages with counts and cards."""
        return dict(self.control("board"))

    def settings(self, **changes: Any) -> dict[str, Any]:
        """Return the settings, after changes to latency_ms or transition_ms."""
        return dict(self.control("settings", changes or None))

    def faults(self, spec: str) -> dict[str, Any]:
        """Replace the fault specification. Empty text disables all faults, including one-shot faults."""
        return dict(self.control("faults", {"spec": spec}))

    def fault_once(self, fault: str, root_field: str, *, skip: int = 0, times: int = 1) -> dict[str, Any]:
        """Inject a fault into the next `times` requests with this root field, after `skip` others."""
        shot = {"fault": fault, "root_field": root_field, "skip": skip, "times": times}
        return dict(self.control("faults", {"once": [shot]}))

    def behavior(self, **changes: str | float | None) -> dict[str, str]:
        """Return the behaviors, after changes such as ``conversion="omit", read_lag=2``."""
        return dict(self.control("behavior", changes or None))

    def humans(
        self,
        stage: str,
        limit: int = 100,
        *,
        accept_ratio: float = 1.0,
        project_id: str | None = None,
        labels: list[dict[str, Any]] | None = None,
    ) -> dict[str, Any]:
        """Let the simulated people work, and return ``{"done", "accepted", "rejected", "task_ids"}``."""
        body: dict[str, Any] = {"stage": stage, "limit": limit, "accept_ratio": accept_ratio}
        body |= {"project_id": project_id} if project_id else {}
        body |= {"labels": labels} if labels is not None else {}
        return dict(self.control("humans", body))

    def seed_tasks(self, count: int, **options: Any) -> list[str]:
        """Create tasks with options of the sandbox's documentation, and return their ids in order."""
        return list(self.control("tasks", {"count": count, **options})["task_ids"])

    def add_project(
        self, stages: list[dict[str, Any]] | None = None, *, name: str | None = None, consensus: bool = False
    ) -> str:
        """Create a project, with the demo project's stages by default, and return its id."""
        body: dict[str, Any] = {"consensus": consensus}
        body |= {"stages": stages} if stages is not None else {}
        body |= {"name": name} if name is not None else {}
        return str(self.control("projects", body)["project_id"])

    def change_stages(self, stages: list[dict[str, Any]], *, project_id: str | None = None) -> None:
        """Replace the stages of a project. Stages that contain tasks must remain."""
        self.control("stages", {"stages": stages, "project_id": project_id})

    def accept_keys(self, *keys: str) -> None:
        """Replace the API keys that the API accepts."""
        self.control("keys", {"keys": list(keys)})

    def applied(self, mutation: str) -> dict[str, int]:
        """Return how often a mutation was applied, by task id. Other tasks are absent."""
        return {task_id: counts[mutation] for task_id, counts in self.stats()["applied"].items() if mutation in counts}

    # -- GraphQL -------------------------------------------------------------------------------

    def graphql(self, query: str, variables: dict[str, Any] | None = None, *, strict: bool = True) -> dict[str, Any]:
        """Send a document and return `data`, or with `strict=False` the whole response."""
        response = self.http.post(
            f"{self.url}/graphql/",
            json={"query": query, "variables": variables or {}},
            headers={"ApiKey": self.api_key},
            timeout=60,
        )
        response.raise_for_status()
        answer = dict(response.json())
        if not strict:
            return answer
        if answer.get("errors"):
            raise SandboxError("; ".join(error["message"] for error in answer["errors"]))
        return dict(answer["data"])

    def task(self, task_id: str, *, project_id: str | None = None) -> dict[str, Any] | None:
        """Return stage, state, owner and flat labels of a task, or None."""
        query = """query ($o: UUID!, $p: UUID!, $t: UUID!) { task(orgId: $o, projectId: $p, taskId: $t) {
            taskId currentStageName updatedAt priority datapoint { name }
            currentStageSubTask { ... on LabelingTask {
                state assignedTo { userId email } subTasks { state assignedTo { userId email } } } }
            latestTaskData { tdId stageName createdBy labelsData labelsDataPath
                labelsMap { seriesIndex imageIndex labelName } } } }"""
        ids = {"o": self.org_id, "p": project_id or self.project_id, "t": task_id}
        task = self.graphql(query, ids)["task"]
        if task is None:
            return None
        work = task.pop("currentStageSubTask") or {}
        owner = work.get("assignedTo") or {}
        latest = task["latestTaskData"] or {}
        return {
            **task,
            "name": task["datapoint"]["name"],
            "stage": task["currentStageName"],
            "state": work.get("state"),
            "owner": owner.get("email") or owner.get("userId"),
            "owners": [
                (sub.get("assignedTo") or {}).get("email") or (sub.get("assignedTo") or {}).get("userId")
                for sub in [work, *(work.get("subTasks") or [])]
                if sub.get("assignedTo")
            ],
            "labels": json.loads(latest.get("labelsData") or "[]"),
        }

    def stage_of(self, task_id: str, *, project_id: str | None = None) -> str | None:
        """Return the stage of a task: its name, "END" for ground truth, None for an unknown task."""
        task = self.task(task_id, project_id=project_id)
        return None if task is None else str(task["stage"])

    def count(self, stage: str | None = None, *, project_id: str | None = None) -> int:
        """Return the number of tasks in a stage ("END": ground truth, None: the whole project)."""
        query = """query ($o: UUID!, $p: UUID!, $s: String) {
            tasksPaged(orgId: $o, projectId: $p, stageName: $s, first: 0) { count } }"""
        ids = {"o": self.org_id, "p": project_id or self.project_id, "s": stage}
        return int(self.graphql(query, ids)["tasksPaged"]["count"])
