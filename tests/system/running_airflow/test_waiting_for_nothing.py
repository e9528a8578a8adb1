"""Sensors that wait without a worker, and DAGs that RedBrick's queues start, in a running Airflow."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from sandbox_process import SandboxProcess

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(300)]

CONNECTION = "redbrick_watched"
ENDED = {"success", "failed", "skipped"}


@pytest.fixture(scope="module")
def server(airflow):
    """Start a separate server with its own Airflow connection."""
    with SandboxProcess() as sandbox:
        connection = {
            "connection_id": CONNECTION,
            "conn_type": "redbrick",
            "host": sandbox.url,
            "password": sandbox.api_key,
            "extra": json.dumps({"org_id": sandbox.org_id, "settle_seconds": 0.3}),
        }
        assert airflow.ask("connections", connection)
        yield sandbox
        airflow.ask(f"connections/{CONNECTION}", method="DELETE")


@pytest.fixture
def watching(airflow, server):
    """Let a DAG's watchers watch while a test runs; returns when they have looked for the first time."""
    let: list[str] = []

    def turn(dag_id: str, *, paused: bool) -> None:
        answers: list[dict] = []

        def turned() -> bool:
            answer = airflow.ask(f"dags/{dag_id}", {"is_paused": paused}, method="PATCH")
            answers.extend([answer] if answer else [])
            return bool(answers)

        # Under load Airflow may fail to write to its SQLite database within five seconds, and answers 500.
        airflow.wait(f"{'paused' if paused else 'active'}: {dag_id}", turned)
        # Airflow gives watchers to active DAGs alone, and looks when it reads their file.
        airflow.ask(f"parseDagFile/{answers[0]['file_token']}", method="PUT")

    def start(dag_id: str, asset_name: str) -> None:
        let.append(dag_id)
        turn(dag_id, paused=False)
        airflow.wait("watching", lambda: remembered(airflow, asset_name))

    yield start
    for dag_id in let:
        turn(dag_id, paused=True)


def asset_called(airflow, name: str) -> int:
    (asset,) = [each for each in airflow.ask("assets?limit=500")["assets"] if each["name"] == name]
    return int(asset["id"])


def remembered(airflow, asset_name: str) -> list[dict]:
    """What the one watcher of an asset has written down: ``value``, ``updated_at``, ..."""
    return list(airflow.ask(f"assets/{asset_called(airflow, asset_name)}/state-store")["asset_state_store"])


def states(airflow, dag: str, run: str, *task_ids: str) -> dict[str, str]:
    return {task_id: airflow.instance(dag, run, task_id).get("state") for task_id in task_ids}


def log(airflow, dag: str, run: str, task_id: str) -> str:
    return json.dumps(airflow.ask(f"dags/{dag}/dagRuns/{run}/taskInstances/{task_id}/logs/1?full_content=true"))


def xcom(airflow, dag: str, run: str, task_id: str):
    answer = airflow.ask(f"dags/{dag}/dagRuns/{run}/taskInstances/{task_id}/xcomEntries/return_value")
    return (answer or {}).get("value")


def runs(airflow, dag: str) -> list[str]:
    return [run["dag_run_id"] for run in (airflow.ask(f"dags/{dag}/dagRuns") or {}).get("dag_runs", [])]


def told(airflow, dag: str) -> list[dict]:
    """What a DAG's runs were started with, all of it."""
    return [extra for run in runs(airflow, dag) for extra in xcom(airflow, dag, run, "tell") or []]


def test_a_sensor_that_starts_from_its_trigger_needs_no_worker_to_wait(airflow, server):
    dag, project = "waiting_for_nothing", server.add_project()
    (task_id,) = server.seed_tasks(1, project_id=project)
    run = airflow.trigger(dag, project=project, id=task_id, at_least=1, left="Label")
    airflow.wait("deferred", lambda: set(states(airflow, dag, run, "queue", "tasks").values()) == {"deferred"})
    for name in ("queue", "tasks"):
        waits = airflow.instance(dag, run, name)
        assert (waits["pid"], waits["try_number"], waits["queued_when"]) == (None, 1, None)
        assert waits["trigger"]["classpath"].startswith("airflow_provider_redbrick.triggers.")
    server.humans("Label", project_id=project)
    names = ("queue", "tasks", "short", "shorter")
    airflow.wait("over", lambda: set(states(airflow, dag, run, *names).values()) <= ENDED)
    assert states(airflow, dag, run, *names) == {
        "queue": "success",
        "tasks": "success",
        "short": "failed",
        "shorter": "failed",
    }, airflow.words()
    assert xcom(airflow, dag, run, "queue") == 1
    assert xcom(airflow, dag, run, "tasks") == {"Review_1": 1}
    assert "AirflowSensorTimeout" in log(airflow, dag, run, "short")
    assert "AirflowTaskTimeout" in log(airflow, dag, run, "shorter")


def test_a_mistake_that_no_worker_saw_is_told_as_clearly(airflow, server):
    dag, project = "waiting_in_vain", server.add_project()
    run = airflow.trigger(dag, project=project, stage="Labell")
    names = ("wrong_stage", "nonsense", "no_connection")
    airflow.wait("over", lambda: set(states(airflow, dag, run, *names).values()) <= ENDED)
    assert Counter(states(airflow, dag, run, *names).values()) == {"failed": 3}
    said = log(airflow, dag, run, "wrong_stage")
    assert "RedBrickInputError" in said
    assert "no stage 'Labell'; its stages are: Input, Label, Review_1" in said
    assert "at_least must be a whole number" in log(airflow, dag, run, "nonsense")
    assert "there_is_none" in log(airflow, dag, run, "no_connection")


def test_a_mapped_sensor_begins_on_a_worker(airflow, server):
    dag, project = "waiting_mapped", server.add_project()
    server.seed_tasks(1, project_id=project)
    run = airflow.trigger(dag, project=project)
    path = f"dags/{dag}/dagRuns/{run}/taskInstances/mapped/listMapped"

    def mapped() -> list[str]:
        return sorted(each["state"] or "" for each in (airflow.ask(path) or {}).get("task_instances", []))

    airflow.wait("waiting", lambda: mapped() == ["deferred", "success"])
    server.humans("Label", project_id=project)
    airflow.wait("over", lambda: set(mapped()) <= ENDED)
    assert mapped() == ["success", "success"], airflow.words()


def test_a_queue_that_rises_through_a_threshold_starts_one_run(airflow, server, watching):
    dag = "started_by_a_queue"
    base = f"redbrick://{server.org_id}/{server.project_id}"
    server.reset()
    server.seed_tasks(2)
    watching(dag, f"{base}/Label")
    (first,) = remembered(airflow, f"{base}/Label")
    assert first["value"] == {"above": False}
    assert runs(airflow, dag) == []
    server.seed_tasks(2)
    airflow.wait(
        "started", lambda: states(airflow, dag, (runs(airflow, dag) or [""])[0], "prelabel")["prelabel"] in ENDED
    )
    (run,) = runs(airflow, dag)
    assert states(airflow, dag, run, "prelabel") == {"prelabel": "success"}, airflow.words()
    (extra,) = told(airflow, dag)
    assert extra["from_trigger"] is True
    assert extra["payload"] == {
        "schema_version": 1,
        "org_id": server.org_id,
        "project_id": server.project_id,
        "stage_name": "Label",
        "count": 4,
        "at_least": 3,
    }
    # What the run has done is the next one's news.
    reviews = asset_called(airflow, f"{base}/Review_1")
    (event,) = airflow.ask(f"assets/events?asset_id={reviews}")["asset_events"]
    assert event["source_task_id"] == "prelabel"
    assert event["extra"]["operation"] == "prelabel"
    assert event["extra"]["counts"]["done"] == 4
    assert event["extra"]["stage_name"] == "Label"
    assert server.api_key not in json.dumps(event)

    # The queue is short again, as the watcher has seen and written down, and may rise.
    def is_short() -> bool:
        (now,) = remembered(airflow, f"{base}/Label")
        return now["value"]["above"] is False and now["updated_at"] != first["updated_at"]

    airflow.wait("short", is_short)
    server.seed_tasks(4)
    airflow.wait("started again", lambda: len(told(airflow, dag)) == 2)


def test_ground_truth_that_arrives_while_the_triggerer_is_down_is_told_when_it_is_back(airflow, server, watching):
    dag = "started_by_ground_truth"
    server.reset()
    server.seed_tasks(2, ground_truth=True)
    watching(dag, "watched_ground_truth")
    (first,) = server.seed_tasks(1, stage="Review_1")
    server.humans("Review_1")
    airflow.wait("told", lambda: [each["payload"]["task_ids"] for each in told(airflow, dag)] == [[first]])
    airflow.kill("triggerer")
    missed = server.seed_tasks(2, stage="Review_1")
    server.humans("Review_1")
    airflow.start("triggerer")

    def ids() -> Counter:
        return Counter(task_id for each in told(airflow, dag) for task_id in each["payload"]["task_ids"])

    airflow.wait("told all", lambda: set(missed) <= set(ids()))
    # At least once. Ground truth from before the watcher started is not reported.
    assert set(ids()) == {first, *missed}
    assert sum(each["payload"]["count"] for each in told(airflow, dag)) == ids().total()
