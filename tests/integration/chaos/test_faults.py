"""Every task is changed exactly once under every fault of the sandbox, as counted on the server.

At full size:

    REDBRICK_CHAOS_TASKS=1000 REDBRICK_CHAOS_SEEDS=1,2,3,4,5,6,7,8,9,10 python -m pytest tests/integration/chaos

A failure names its seed. `REDBRICK_CHAOS_SEEDS=7 python -m pytest tests/integration/chaos -k "seed7 and balance"`
repeats it with the faults in the same order. Which of several concurrent requests meets which fault depends on
the threads.
"""

from __future__ import annotations

import random

import pytest
from chaos.scale import TIMEOUT_S
from chaos.works import WORKS

pytestmark = pytest.mark.timeout(TIMEOUT_S)

KILLS = 5


@pytest.mark.parametrize("kind", list(WORKS))
def test_all_operators_under_faults_change_every_task_once(kind, seed, storm, attempts, caplog):
    work = storm(kind, seed)
    about = f"{kind}, {work.count} tasks, seed {seed}"
    _check_results(work, attempts(kept=seed % 2 == 1).finish(work.operator, about=about), caplog.text, about)


@pytest.mark.parametrize("kind", list(WORKS))
def test_all_operators_killed_under_faults_change_every_task_once(kind, seed, storm, attempts, caplog):
    # No request is slow here: one of a killed process could be applied after the next attempt has read the task.
    work, run = storm(kind, seed, slow=0), attempts(kept=seed % 2 == 0)
    draw = random.Random(f"{kind} {seed}")
    kills = []
    while len(kills) < KILLS:
        at, how = draw.randint(1, work.reach()), draw.choice(("before", "during", "after"))
        ended = run.killed(work.operator(), request=at, how=how, delay=draw.uniform(0, 0.01))
        if ended == "killed":
            kills.append((how, at, work.untouched()))
        elif ended == "done":
            break
    about = f"{kind}, {work.count} tasks, seed {seed}, killed (how, at which request, tasks left then): {kills}"
    assert len(kills) >= 3, f"{about}: too few kills"
    _check_results(work, run.finish(work.operator, about=about), caplog.text, about)


def _check_results(work, manifests, log_text, about):
    work.sandbox.faults("")
    work.excuse(log_text)
    counts = [manifest["counts"] for manifest in manifests]
    print(f"{about}: {work.sandbox.stats()['requests']} requests, {len(work.excused)} not released, {counts}")
    assert counts[-1]["failed"] + counts[-1]["unknown"] == 0, about
    assert sum(each["done"] for each in counts) <= work.count, f"{about}: some tasks are reported done twice: {counts}"
    complaints = work.complaints()
    assert not complaints, f"{about}: {len(complaints)} complaints, the first: {complaints[:10]}"
