"""Airflow's backfills and mapped tasks: every date and every chunk does its own, once."""

from __future__ import annotations

import json

import pendulum
import pytest
from chaos.works import PUT, REOPEN, WRONG

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(300)]

DAG = "reopened_by_date"
DAY = pendulum.datetime(2026, 3, 2)
DAYS = 7
TASKS = 2000
CHUNKS = 20


def backfill(airflow, project: str, *how: str) -> list[str]:
    """Backfill all dates of the week from the command line, and return the completed runs."""
    dates = ["--from-date", DAY.isoformat(), "--to-date", DAY.add(days=DAYS - 1).isoformat()]
    conf = ["--dag-run-conf", json.dumps({"project": project}), "--max-active-runs", "4"]
    airflow.wait("known: the DAG", lambda: airflow.ask(f"dags/{DAG}"))
    airflow.command("backfill", "create", "--dag-id", DAG, *dates, *conf, *how)
    latest = max(one["id"] for one in airflow.ask(f"backfills?dag_id={DAG}")["backfills"])

    def runs() -> list[dict[str, str]]:
        return (airflow.ask(f"dags/{DAG}/dagRuns?run_type=backfill&limit=100") or {}).get("dag_runs", [])

    def over() -> bool:
        return [run["state"] in {"success", "failed"} for run in runs()] == [True] * DAYS

    airflow.wait("over: the backfill", over)
    assert {run["state"] for run in runs()} == {"success"}, airflow.words()

    def closed() -> bool:
        # Airflow itself looks every 30 s whether it is over, and begins no other one before: that may be just now.
        cancelled = airflow.ask(f"backfills/{latest}/cancel", method="PUT")
        return bool(cancelled or (airflow.ask(f"backfills/{latest}") or {}).get("completed_at"))

    airflow.wait("closed: the backfill", closed)
    return [run["dag_run_id"] for run in runs()]


def test_every_date_of_a_backfill_reopens_its_own_once(airflow):
    server = airflow.sandbox
    project = server.add_project()

    def of(day: pendulum.DateTime, count: int = 3) -> set[str]:
        noon = day.at(12).isoformat()
        return set(
            server.seed_tasks(
                count, project_id=project, ground_truth=True, updated_at=noon, labels=WRONG, prefix=day.format("DD")
            )
        )

    due = {day.format("YYYY-MM-DD"): of(day) for day in [DAY.add(days=n) for n in range(DAYS)]}
    others = of(DAY.subtract(days=1)) | of(DAY.add(days=DAYS))
    runs = backfill(airflow, project)
    reopened = {}
    for run in runs:
        path = f"dags/{DAG}/dagRuns/{run}"
        manifest = airflow.ask(f"{path}/taskInstances/reopen/xcomEntries/return_value")["value"]
        reopened[airflow.ask(path)["logical_date"][:10]] = set(manifest["task_ids"])
    assert reopened == due
    # Half of them are corrected and ground truth again before the week is backfilled a second time.
    server.humans("Label", 10, project_id=project)
    server.humans("Review_1", project_id=project)
    assert set(backfill(airflow, project, "--reprocess-behavior", "completed", "--run-backwards")) == set(runs)
    applied = server.applied(REOPEN)
    assert {i: applied.get(i) for ids in due.values() for i in ids} == dict.fromkeys(set().union(*due.values()), 1)
    assert not others & applied.keys()


def test_a_queue_in_chunks_is_prelabelled_once(airflow):
    server = airflow.sandbox
    project = server.add_project()
    ids = server.seed_tasks(TASKS, project_id=project)
    dag, run = "prelabelled_in_chunks", airflow.trigger("prelabelled_in_chunks", project=project)
    over = {"success", "failed"}
    airflow.wait("over", lambda: (airflow.ask(f"dags/{dag}/dagRuns/{run}") or {}).get("state") in over, seconds=200)
    mapped = airflow.ask(f"dags/{dag}/dagRuns/{run}/taskInstances/prelabel/listMapped")["task_instances"]
    assert [instance["state"] for instance in mapped] == ["success"] * CHUNKS, airflow.words()
    assert server.count("Review_1", project_id=project) == TASKS
    applied = server.applied(PUT)
    assert {i: applied.get(i) for i in ids} == dict.fromkeys(ids, 1)
