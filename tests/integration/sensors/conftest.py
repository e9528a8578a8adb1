"""Fixtures that run sensors to their end in each mode, as Airflow does."""

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
from fixtures import alarm, failing, holders, impatient, running_sandbox, sandbox, seen_twice

__all__ = ["failing", "holders", "impatient", "running_sandbox", "sandbox", "seen_twice"]

MODES = {
    "poke": {"mode": "poke", "deferrable": False},
    "reschedule": {"mode": "reschedule", "deferrable": False},
    "deferrable": {"deferrable": True},
}
POLL = {"poke_interval": 0.05}


@pytest.fixture(params=list(MODES))
def mode(request) -> dict[str, Any]:
    """A sensor's arguments for each mode, with a short poke interval."""
    return {**MODES[request.param], **POLL}


@pytest.fixture(params=["poke", "deferrable"])
def steady_mode(request) -> dict[str, Any]:
    """The modes without rescheduling, whose pauses do not count towards execution_timeout."""
    return {**MODES[request.param], **POLL}


class Wait:
    """Run a sensor until it ends, and record deferrals and reschedules."""

    def __init__(self) -> None:
        self.deferred: list[TaskDeferred] = []
        self.rescheduled = 0

    @staticmethod
    def event_of(trigger: Any) -> Any:
        """Return the first event of a trigger."""
        return event_of(trigger)

    def __call__(self, sensor: Any) -> Any:
        first = pendulum.now("UTC")
        context = {"ti": SimpleNamespace(try_number=1, get_first_reschedule_date=lambda _context: first)}
        while True:
            try:
                with execution_limit(sensor.execution_timeout):
                    return sensor.execute(context)
            except AirflowRescheduleException as pause:
                self.rescheduled += 1
                time.sleep(max(0.0, (pause.reschedule_date - pendulum.now("UTC")).total_seconds()))
            except TaskDeferred as pause:
                self.deferred.append(pause)
                return sensor.resume_execution(pause.method_name, {"event": event_of(pause.trigger)}, context)


def execution_limit(limit: Any) -> Any:
    """Enforce an ``execution_timeout`` as Airflow does."""
    if limit is None:
        return nullcontext()
    return alarm(limit.total_seconds(), AirflowTaskTimeout("the execution_timeout is over"))


def event_of(trigger: Any) -> Any:
    """Serialize, rebuild and run a trigger as the triggerer does; return its first event."""
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
    """Call a function shortly, while the sensor waits: ``soon(sandbox.humans, "Label", 3)``."""
    timers = []

    def later(action: Any, *args: Any, **kwargs: Any) -> None:
        timer = threading.Timer(0.3, action, args, kwargs)
        timers.append(timer)
        timer.start()

    yield later
    for timer in timers:
        timer.join(timeout=10)
