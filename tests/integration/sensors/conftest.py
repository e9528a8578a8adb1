"""Sensors run to their end in each of the three modes, as Airflow runs them."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pendulum
import pytest
from airflow.exceptions import AirflowRescheduleException
from airflow.providers.common.compat.sdk import AirflowTaskTimeout, TaskDeferred
from fixtures import alarm, holders, impatient, running_sandbox, sandbox, seen_twice

__all__ = ["holders", "impatient", "running_sandbox", "sandbox", "seen_twice"]

MODES = {
    "poke": {"mode": "poke", "deferrable": False},
    "reschedule": {"mode": "reschedule", "deferrable": False},
    "deferrable": {"deferrable": True},
}
POLL = {"poke_interval": 0.05}


@pytest.fixture(params=list(MODES))
def mode(request) -> dict[str, Any]:
    """A sensor's arguments for one mode after the other, polling often."""
    return {**MODES[request.param], **POLL}


@pytest.fixture(params=["poke", "deferrable"])
def steady_mode(request) -> dict[str, Any]:
    """The same without rescheduling, which leaves the time in between out of execution_timeout."""
    return {**MODES[request.param], **POLL}


class Wait:
    """Runs a sensor until it ends, and remembers how it got there."""

    def __init__(self) -> None:
        self.deferred: list[TaskDeferred] = []
        self.rescheduled = 0

    @staticmethod
    def event_of(trigger: Any) -> Any:
        """Return what ends a trigger's wait."""
        return event_of(trigger)

    def __call__(self, sensor: Any) -> Any:
        first = pendulum.now("UTC")
        context = {"ti": SimpleNamespace(try_number=1, get_first_reschedule_date=lambda _context: first)}
        while True:
            try:
                with limited(sensor.execution_timeout):
                    return sensor.execute(context)
            except AirflowRescheduleException as pause:
                self.rescheduled += 1
                time.sleep(max(0.0, (pause.reschedule_date - pendulum.now("UTC")).total_seconds()))
            except TaskDeferred as pause:
                self.deferred.append(pause)
                return sensor.resume_execution(pause.method_name, {"event": event_of(pause.trigger)}, context)


def limited(limit: Any) -> Any:
    """Let a block run for a time, as Airflow does with what has an ``execution_timeout``."""
    if limit is None:
        return nullcontext()
    return alarm(limit.total_seconds(), AirflowTaskTimeout("the execution_timeout is over"))


def event_of(trigger: Any) -> Any:
    """Run a trigger as the triggerer does: rebuilt from what was stored of it, in another event loop."""
    path, kwargs = trigger.serialize()
    module, _, name = path.rpartition(".")
    kind = getattr(__import__(module, fromlist=[name]), name)
    again = kind(**json.loads(json.dumps(kwargs)))

    async def first_event() -> Any:
        async for event in again.run():
            return event.payload
        return None

    return json.loads(json.dumps(asyncio.run(first_event())))


@pytest.fixture
def wait():
    return Wait()


@pytest.fixture
def soon():
    """Do something a moment later, while the sensor waits: ``soon(sandbox.humans, "Label", 3)``."""
    timers = []

    def later(action: Any, *args: Any, **kwargs: Any) -> None:
        timer = threading.Timer(0.3, action, args, kwargs)
        timers.append(timer)
        timer.start()

    yield later
    for timer in timers:
        timer.join(timeout=10)
