"""Airflow's own scheduler, executor and triggerer, while parts of them are killed."""

from __future__ import annotations

import os
import random
import signal

import pytest
from chaos.scale import SEEDS
from chaos.works import PrelabelSubmit

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(300)]

TASKS = 300
KILLS = 3


@pytest.mark.parametrize("seed", SEEDS)
def test_killed_tasks_are_retried_and_every_task_is_done_once(airflow, seed):
    airflow.sandbox.reset()
    given = PrelabelSubmit(airflow.sandbox, TASKS)
    draw = random.Random(seed)
    dag, task = "killed_again_and_again", "prelabel"
    run = airflow.trigger(dag)
    pids: list[int] = []
    left: list[int] = []
    for _ in range(KILLS):
        enough = given.untouched() - draw.randint(1, TASKS // (KILLS + 1))

        def at_work(enough=enough) -> bool:
            now = airflow.instance(dag, run, task)
            return given.untouched() <= enough and now.get("state") == "running" and now["pid"] not in pids

        airflow.wait(f"at work again, after kills with {left} tasks left", at_work)
        pids.append(airflow.instance(dag, run, task)["pid"])
        assert airflow.is_mine(pids[-1])
        os.kill(pids[-1], signal.SIGKILL)
        left.append(given.untouched())
    about = f"{TASKS} tasks, seed {seed}, killed with so many left: {left}"
    print(about)
    airflow.wait(f"done: {about}", lambda: airflow.instance(dag, run, task).get("state") in {"success", "failed"})
    ended = airflow.instance(dag, run, task)
    assert (ended["state"], ended["try_number"]) == ("success", KILLS + 1), f"{about}\n{airflow.words()}"
    complaints = given.complaints()
    assert not complaints, f"{about}: {len(complaints)} complaints, the first: {complaints[:10]}"


def test_sensors_wait_on_when_the_triggerer_is_killed(airflow):
    server = airflow.sandbox
    project = server.add_project()
    ids = server.seed_tasks(3, project_id=project)
    run = airflow.trigger("waiting", project=project, ids=ids)
    sensors = ("long", "left")

    def states() -> set[str]:
        return {airflow.instance("waiting", run, sensor).get("state") for sensor in sensors}

    airflow.wait("deferred", lambda: states() == {"deferred"})
    airflow.kill("triggerer")
    # It happens while the triggerer is down.
    server.humans("Label", project_id=project)
    assert states() == {"deferred"}
    airflow.start("triggerer")
    airflow.wait("over", lambda: states() <= {"success", "failed", "skipped"})
    assert states() == {"success"}, airflow.words()
