"""What people, or a limit, stop in a running Airflow ends between two requests, and leaves things in order."""

from __future__ import annotations

import pytest
from chaos.works import PUT
from fixtures import still
from sandbox_process import SandboxProcess

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(300)]

TASKS = 150
FIRST = 50
THEIRS = 5
CONNECTION = "redbrick_to_stop"
HOLDERS = """query ($o: UUID!, $p: UUID!) { genericTasks(orgId: $o, projectId: $p, first: 500) { entries { taskId
    currentStageSubTask { ... on LabelingTask { assignedTo { userId email } } } } } }"""


@pytest.fixture(scope="module")
def server(airflow):
    """Start a separate slow server with its own Airflow connection."""
    with SandboxProcess(latency_ms=300) as sandbox:
        connection = {
            "connection_id": CONNECTION,
            "conn_type": "redbrick",
            "host": sandbox.url,
            "password": sandbox.api_key,
            "extra": f'{{"org_id": "{sandbox.org_id}"}}',
        }
        assert airflow.ask("connections", connection)
        yield sandbox
        airflow.ask(f"connections/{CONNECTION}", method="DELETE")


class Work:
    """A run at work on a project of its own, in which a person has tasks too."""

    def __init__(self, airflow, server, dag: str) -> None:
        self.airflow, self.server, self.dag = airflow, server, dag
        self.project = server.add_project()
        self.ids = set(server.seed_tasks(TASKS, project_id=self.project))
        server.seed_tasks(THEIRS, project_id=self.project, assignee="alice@example.com", prefix="theirs")
        self.run = airflow.trigger(dag, project=self.project)
        self.path = f"dags/{dag}/dagRuns/{self.run}"

    def state(self) -> str | None:
        return self.airflow.instance(self.dag, self.run, "work").get("state")

    def applied(self) -> dict[str, int]:
        """How often labels were submitted, by task."""
        return {task_id: often for task_id, often in self.server.applied(PUT).items() if task_id in self.ids}

    def log(self, number: int = 1) -> str:
        return self.airflow.log(self.dag, self.run, "work", number)

    def held(self) -> dict[str, int]:
        """How many tasks who holds."""
        ids = {"o": self.server.org_id, "p": self.project}
        found: dict[str, int] = {}
        for entry in self.server.graphql(HOLDERS, ids)["genericTasks"]["entries"]:
            holder = (entry["currentStageSubTask"] or {}).get("assignedTo")
            if holder:
                name = holder["email"] or holder["userId"]
                found[name] = found.get(name, 0) + 1
        return found

    def is_stuck(self) -> bool:
        """Whether it has submitted the first tasks and holds the next, which it will not finish."""
        return len(self.applied()) == FIRST and sum(self.held().values()) > THEIRS

    def check(self, submitted: dict[str, int]) -> None:
        """Nothing is held but what people held, and what was submitted is where it belongs, once."""
        assert self.held() == {"alice@example.com": THEIRS}
        assert set(submitted.values()) <= {1}
        assert self.server.count("Review_1", project_id=self.project) == len(submitted)


def mark_task(work: Work) -> object:
    return work.airflow.ask(f"{work.path}/taskInstances/work", {"new_state": "failed"}, method="PATCH")


def mark_run(work: Work) -> object:
    return work.airflow.ask(work.path, {"state": "failed"}, method="PATCH")


@pytest.mark.parametrize("mark", [mark_task, mark_run])
def test_what_is_marked_failed_ends_and_gives_back(airflow, server, mark):
    work = Work(airflow, server, "stopped_by_people")
    airflow.wait("stuck", work.is_stuck)
    assert mark(work)
    # What Airflow itself says at last, when the process is gone.
    airflow.wait("ended", lambda: "Task killed!" in work.log())
    submitted = work.applied()
    assert len(submitted) == FIRST
    work.check(submitted)
    assert work.state() == "failed"
    said = work.log()
    assert "Stopping: nothing more is sent, and claimed tasks that are not finished are released." in said
    assert "no longer assigned to the API key." in said
    assert "prelabel was stopped." in said


def test_what_is_cleared_ends_and_its_next_try_does_the_rest(airflow, server):
    work = Work(airflow, server, "stopped_by_people")
    airflow.wait("stuck", work.is_stuck)
    cleared = {"dry_run": False, "dag_run_id": work.run, "task_ids": ["work"], "only_failed": False}
    assert airflow.ask(f"dags/{work.dag}/clearTaskInstances", cleared)
    airflow.wait("over", lambda: work.state() in {"success", "failed"})
    assert work.state() == "success", work.log(2)
    assert "prelabel was stopped." in work.log(1)
    submitted = work.applied()
    assert submitted.keys() == work.ids
    work.check(submitted)


def test_what_takes_longer_than_it_may_ends_and_gives_back(airflow, server):
    work = Work(airflow, server, "stopped_by_a_limit")
    airflow.wait("over", lambda: work.state() in {"success", "failed"})
    assert work.state() == "failed"
    submitted = work.applied()
    assert len(submitted) <= FIRST
    work.check(submitted)
    said = work.log()
    assert "Process timed out" in said
    assert "no longer assigned to the API key." in said
    assert "prelabel was stopped." in said


def test_a_deferred_sensor_that_is_marked_failed_asks_no_more(airflow, server):
    run = airflow.trigger("given_up", project=server.add_project())

    def asked() -> int:
        return int(server.stats()["requests"])

    airflow.wait("deferred", lambda: airflow.instance("given_up", run, "wait").get("state") == "deferred")
    before = asked()
    airflow.wait("asking", lambda: asked() > before + 2)
    path = f"dags/given_up/dagRuns/{run}/taskInstances/wait"
    assert airflow.ask(path, {"new_state": "failed"}, method="PATCH")
    airflow.wait("quiet", lambda: still(asked, seconds=3))
    assert airflow.instance("given_up", run, "wait")["state"] == "failed"
