"""A queue of thousands, dynamic task mapping, two Celery workers, one of which is killed."""

from __future__ import annotations

from collections import Counter

import pytest
from chaos.works import PrelabelSubmit

TASKS = 5_000
CHUNKS = 20
DAG = "huge_queue"


@pytest.mark.timeout(900)
def test_a_worker_is_killed_and_every_task_is_done_once(airflow):
    given = PrelabelSubmit(airflow.sandbox, TASKS)
    run = airflow.trigger(DAG)

    def instances() -> list[dict]:
        answer = airflow.ask(f"dags/{DAG}/dagRuns/{run}/taskInstances?limit=100") or {"task_instances": []}
        return [one for one in answer["task_instances"] if one["task_id"] == "prelabel"]

    def done() -> int:
        return TASKS - given.untouched()

    airflow.wait("at work", lambda: done() > TASKS // 4, seconds=300)
    airflow.kill("worker-1")
    left = given.untouched()
    assert left, "all was done before the kill"
    print(f"\n{TASKS} tasks in {CHUNKS} chunks; worker-1 killed with {left} left")

    def over() -> bool:
        return (airflow.ask(f"dags/{DAG}/dagRuns/{run}") or {}).get("state") in {"success", "failed"}

    airflow.wait("over", over, seconds=420)
    ended = instances()
    tries = Counter(one["try_number"] for one in ended)
    print(f"tries: {dict(tries)}; states: {dict(Counter(one['state'] for one in ended))}")
    assert Counter(one["state"] for one in ended) == {"success": CHUNKS}, airflow.words()
    assert max(tries) > 1, "no Airflow task was hit by the kill"
    complaints = given.complaints()
    assert not complaints, f"{len(complaints)} complaints, the first: {complaints[:10]}"
    print(f"every one of {TASKS} tasks was submitted once")
