"""Tests of ``exponential_backoff``, ``max_wait`` and ``silent_fail`` in each mode."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from airflow.providers.common.compat.sdk import AirflowSensorTimeout, AirflowSkipException
from airflow.sdk import DAG

from airflow_provider_redbrick.exceptions import RedBrickError, RedBrickInputError
from airflow_provider_redbrick.sensors.stage_queue import RedBrickStageQueueSensor
from airflow_provider_redbrick.sensors.tasks import RedBrickTasksSensor
from airflow_provider_redbrick.triggers.redbrick import RedBrickStageQueueTrigger

A_TASK = "00000000-0000-4000-8000-000000000001"


def sensor(**options) -> RedBrickStageQueueSensor:
    return RedBrickStageQueueSensor(task_id="wait", **{"stage_name": "Review_1", "at_least": 1, **options})


class TestSilentFail:
    def test_missing_stage_with_silent_fail_times_out(self, sandbox, wait, mode):
        options = {**mode, "timeout": 1, "stage_name": "Nowhere"}
        with pytest.raises(RedBrickInputError, match="Nowhere"):
            wait(sensor(**options))
        with pytest.raises(AirflowSensorTimeout):
            wait(sensor(**options, silent_fail=True))

    def test_missing_tasks_with_silent_fail_time_out(self, sandbox, wait, mode):
        options = {"task_id": "wait", "task_ids": [A_TASK], "left_stage": "Label", **mode, "timeout": 1}
        with pytest.raises(RedBrickError):
            wait(RedBrickTasksSensor(**options))
        with pytest.raises(AirflowSensorTimeout):
            wait(RedBrickTasksSensor(**options, silent_fail=True))

    @pytest.mark.usefixtures("impatient")
    def test_silent_fail_tolerates_more_failed_polls(self, sandbox, wait, steady_mode):
        sandbox.seed_tasks(1, stage="Review_1")
        sandbox.fault_once("http_500", "tasksPaged", times=8)
        assert wait(sensor(**steady_mode, timeout=30, silent_fail=True)) == 1

    def test_invalid_parameters_fail_despite_silent_fail(self, sandbox, wait, mode):
        for options in ({"at_least": "many"}, {"at_least": None}, {"at_least": 3, "at_most": 2}):
            with pytest.raises(RedBrickInputError):
                wait(sensor(**mode, **options, timeout=1, silent_fail=True))
        with pytest.raises(AirflowSkipException):
            wait(sensor(**mode, at_least="many", timeout=1, never_fail=True))
        assert sandbox.stats()["requests"] == 0

    def test_soft_fail_with_silent_fail_skips_at_the_timeout(self, sandbox, wait, mode):
        with pytest.raises(AirflowSkipException):
            wait(sensor(**mode, timeout=0.5, stage_name="Nowhere", silent_fail=True, soft_fail=True))


class TestBackoff:
    def polls(self, sandbox, wait, **options) -> int:
        before = sandbox.stats()["root_fields"].get("tasksPaged", 0)
        with pytest.raises(AirflowSensorTimeout):
            wait(sensor(deferrable=True, poke_interval=0.1, timeout=3, **options))
        return sandbox.stats()["root_fields"]["tasksPaged"] - before

    def test_backoff_is_limited_by_max_wait(self, sandbox, wait):
        all_of_them = self.polls(sandbox, wait)
        rarer = self.polls(sandbox, wait, exponential_backoff=True)
        bounded = self.polls(sandbox, wait, exponential_backoff=True, max_wait=timedelta(seconds=0.3))
        # 0.1 s + 0.2 s + 0.4 s + 0.8 s + 1.6 s, and the last one at the timeout.
        assert 4 <= rarer <= 8
        assert rarer < bounded < all_of_them

    @pytest.mark.parametrize("max_wait", [None, 0, timedelta(0)])
    def test_backoff_without_max_wait_doubles_the_pause(self, max_wait):
        trigger = deferred(sensor(exponential_backoff=True, max_wait=max_wait, poke_interval=60, deferrable=True))
        assert trigger.max_wait is None
        assert [trigger._backoff_extra(polls) for polls in range(4)] == [0, 60, 180, 420]
        assert trigger._backoff_extra(10**6) < 10**12

    def test_max_wait_without_backoff_has_no_effect(self):
        assert deferred(sensor(max_wait=5, poke_interval=60, deferrable=True))._backoff_extra(7) == 0


def deferred(made) -> RedBrickStageQueueTrigger:
    """Return the trigger that the sensor defers to, as rebuilt by the triggerer."""
    kwargs = {"redbrick_conn_id": "x", "org_id": None, "project_id": None, **made._polling(), **made.waits_for()}
    _, stored = RedBrickStageQueueTrigger(**kwargs, deadline=1.0).serialize()
    return RedBrickStageQueueTrigger(**json.loads(json.dumps(stored)))


def test_only_set_options_are_passed_to_the_trigger(sandbox, wait):
    options = {"exponential_backoff": True, "max_wait": 0.2, "silent_fail": True}
    with pytest.raises(AirflowSensorTimeout):
        wait(sensor(deferrable=True, poke_interval=timedelta(seconds=0.1), timeout=timedelta(seconds=0.3), **options))
    (pause,) = wait.deferred
    _, stored = pause.trigger.serialize()
    assert {name: stored[name] for name in options} == options
    assert stored["poke_interval"] == 0.1
    with pytest.raises(AirflowSensorTimeout):
        wait(sensor(deferrable=True, poke_interval=0.1, timeout=0.3))
    assert not options.keys() & wait.deferred[-1].trigger.serialize()[1].keys()


def test_start_from_trigger_passes_the_options():
    pytest.importorskip("airflow.triggers.base")
    from airflow.triggers.base import BaseTrigger

    if not hasattr(BaseTrigger, "render_template_fields"):
        pytest.skip("this Airflow's triggerer renders no templates")
    with DAG("any", schedule=None):
        made = sensor(
            deferrable=True, start_from_trigger=True, exponential_backoff=True, max_wait=600, silent_fail=True
        )
    given = made.start_trigger_args.trigger_kwargs
    assert {name: given[name] for name in ("exponential_backoff", "max_wait", "silent_fail")} == {
        "exponential_backoff": True,
        "max_wait": 600.0,
        "silent_fail": True,
    }
    RedBrickStageQueueTrigger(**given)
