"""Tests of calling Airflow's Task SDK from threads of the triggerer."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from sdk_in_threads import loops_of_connections

from airflow_provider_redbrick._utils import in_thread
from airflow_provider_redbrick.triggers.redbrick import (
    RedBrickGroundTruthEventTrigger,
    RedBrickStageQueueEventTrigger,
    RedBrickStageQueueTrigger,
    RedBrickTasksTrigger,
)


def poll(kind: Any, **options: Any) -> Any:
    common = {"redbrick_conn_id": "redbrick_default", "org_id": None, "project_id": None, "poke_interval": 0.02}
    return kind(**common, deadline=time.time() + 60, **options)


@pytest.fixture(params=["count", "listing", "tasks", "ground truth event", "queue event"])
def trigger(request, sandbox):
    """One trigger of each kind, whose condition is met or whose first event is due."""
    (task_id,) = sandbox.seed_tasks(1, stage="Review_1")
    if request.param == "tasks":
        return poll(RedBrickTasksTrigger, task_ids=[task_id], left_stage="Label")
    if request.param == "ground truth event":
        return RedBrickGroundTruthEventTrigger(poke_interval=0.02)
    if request.param == "queue event":
        return RedBrickStageQueueEventTrigger(stage_name="Review_1", at_least=1, poke_interval=0.02)
    return poll(RedBrickStageQueueTrigger, stage_name="Review_1", at_least=1, count_by=request.param)


def test_connection_is_read_in_the_triggerers_event_loop(trigger, sandbox, monkeypatch):
    loops = loops_of_connections(monkeypatch)

    async def scene() -> asyncio.AbstractEventLoop:
        run = trigger.run()
        waiting = asyncio.ensure_future(run.__anext__())
        while not (loops or waiting.done()):  # noqa: ASYNC110 - a thread fills it
            await asyncio.sleep(0.01)
        if isinstance(trigger, RedBrickGroundTruthEventTrigger):
            waiting.cancel()  # earlier ground truth sends no event
        await asyncio.gather(waiting, return_exceptions=True)
        await run.aclose()
        return asyncio.get_running_loop()

    loop = asyncio.run(scene())
    assert loops == [loop]


def test_in_thread_keeps_the_event_loop_free_and_passes_arguments():
    async def scene() -> tuple[str, float]:
        blocked = asyncio.ensure_future(in_thread(lambda word, *, pause: time.sleep(pause) or word, "done", pause=0.3))
        began = time.monotonic()
        await asyncio.sleep(0.01)
        return await asyncio.gather(blocked, asyncio.sleep(0, time.monotonic() - began))

    word, pause = asyncio.run(scene())
    assert word == "done"
    assert pause < 0.3


def test_in_thread_raises_the_functions_error():
    with pytest.raises(ZeroDivisionError):
        asyncio.run(in_thread(lambda: 1 / 0))
