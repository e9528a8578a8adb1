"""Tests of the queue sensor in each mode on a running sandbox."""

from __future__ import annotations

import time
from contextlib import nullcontext
from datetime import timedelta

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
    TaskDeferred,
)

from airflow_provider_redbrick.exceptions import (
    RedBrickAuthError,
    RedBrickError,
    RedBrickInputError,
    RedBrickTriggerEventError,
)
from airflow_provider_redbrick.sensors.stage_queue import RedBrickStageQueueSensor
from airflow_provider_redbrick.triggers.redbrick import RedBrickStageQueueTrigger

HOUR = 3600.0


def sensor(**options) -> RedBrickStageQueueSensor:
    return RedBrickStageQueueSensor(task_id="wait", **{"stage_name": "Review_1", "timeout": 30, **options})


class TestThresholds:
    @pytest.mark.parametrize(
        ("limits", "number"),
        [({"at_least": 3}, 3), ({"at_least": "2"}, 3), ({"at_most": 3}, 3), ({"at_least": 2, "at_most": 4}, 3)],
    )
    def test_met_threshold_returns_the_count_without_waiting(self, sandbox, wait, mode, limits, number):
        sandbox.seed_tasks(number, stage="Review_1")
        assert wait(sensor(**limits, **mode)) == number
        assert (wait.deferred, wait.rescheduled) == ([], 0)

    @pytest.mark.parametrize("limits", [{"at_least": 3}, {"at_least": 3, "at_most": 5}])
    def test_growing_queue_reaches_the_threshold(self, sandbox, wait, soon, mode, limits):
        sandbox.seed_tasks(1, stage="Review_1")
        sandbox.seed_tasks(9)
        soon(sandbox.humans, "Label", 3)
        # Tasks are finished one by one, so the poll may see three or more.
        assert wait(sensor(**limits, **mode)) in (3, 4)
        assert len(wait.deferred) == ("deferrable" in mode and mode["deferrable"])

    @pytest.mark.parametrize("limits", [{"at_most": 0}, {"at_least": 0, "at_most": 0}])
    def test_emptying_queue_reaches_the_threshold(self, sandbox, wait, soon, mode, limits):
        sandbox.seed_tasks(2, stage="Review_1")
        soon(sandbox.humans, "Review_1")
        assert wait(sensor(**limits, **mode)) == 0

    def test_queue_above_the_range_times_out(self, sandbox, wait, mode):
        sandbox.seed_tasks(6, stage="Review_1")
        with pytest.raises(AirflowSensorTimeout):
            wait(sensor(at_least=2, at_most=4, **{**mode, "timeout": 0.2}))

    @pytest.mark.parametrize("name", ["Ground Truth", "Output", "END"])
    def test_all_names_of_ground_truth_are_accepted(self, sandbox, wait, soon, mode, name):
        sandbox.seed_tasks(2, ground_truth=True)
        sandbox.seed_tasks(1, stage="Review_1")
        soon(sandbox.humans, "Review_1")
        assert wait(sensor(stage_name=name, at_least=3, **mode)) == 3

    def test_other_project_is_counted(self, sandbox, wait, mode):
        project = sandbox.add_project()
        sandbox.seed_tasks(2, stage="Review_1", project_id=project)
        assert wait(sensor(at_least=2, project_id=project, **mode)) == 2


class TestCounting:
    def test_poll_takes_one_request(self, sandbox, wait):
        sandbox.seed_tasks(500, stage="Review_1")
        assert not sensor(at_least=501).poke({}).is_done
        assert sandbox.stats()["root_fields"] == {"project": 1, "tasksPaged": 1}

    def test_unassigned_counts_only_unassigned_tasks(self, sandbox, wait, soon, mode):
        sandbox.seed_tasks(5, assignee="alice@example.com")
        sandbox.seed_tasks(1)
        soon(sandbox.seed_tasks, 2)
        assert wait(sensor(stage_name="Label", unassigned=True, at_least=3, **mode)) == 3

    @pytest.mark.parametrize(
        ("limits", "seen"),
        [
            ({"at_least": 10}, 10),
            ({"at_least": 250}, 250),
        ],
    )
    def test_listing_stops_at_the_threshold(self, sandbox, wait, limits, seen):
        sandbox.seed_tasks(500)
        assert wait(sensor(stage_name="Label", unassigned=True, poke_interval=0.05, **limits)) == seen
        # The first look and its confirmation.
        assert sandbox.stats()["root_fields"]["genericTasks"] == 2 * -(-seen // 200)

    def test_listing_stops_above_at_most(self, sandbox, wait):
        sandbox.seed_tasks(500)
        with pytest.raises(AirflowSensorTimeout):
            wait(sensor(stage_name="Label", unassigned=True, at_most=3, timeout=0))
        assert sandbox.stats()["root_fields"]["genericTasks"] == 1

    def test_count_by_listing_counts_all_tasks(self, sandbox, wait, mode):
        sandbox.seed_tasks(2)
        sandbox.seed_tasks(2, assignee="alice@example.com")
        assert wait(sensor(stage_name="Label", count_by="listing", at_least=4, **mode)) == 4
        assert "tasksPaged" not in sandbox.stats()["root_fields"]

    @pytest.mark.parametrize("how", [{"count_by": "listing"}, {"unassigned": True}])
    def test_task_that_moves_during_the_listing_counts_once(self, sandbox, wait, mode, how, seen_twice):
        sandbox.seed_tasks(30, stage="Review_1", priority=0.5)
        assert wait(sensor(at_least=30, **how, **mode)) == 30
        with pytest.raises(AirflowSensorTimeout):
            wait(sensor(at_least=31, **how, **{**mode, "timeout": 0.3}))
        assert len(seen_twice) >= 2

    def test_listing_omits_tasks_in_transition(self, sandbox, wait):
        sandbox.seed_tasks(3)
        sandbox.settings(transition_ms=60_000)
        sandbox.humans("Label", 2)
        assert wait(sensor(stage_name="Label", count_by="listing", at_most=1)) == 1

    def test_ground_truth_can_be_listed(self, sandbox, wait):
        sandbox.seed_tasks(3, ground_truth=True)
        assert wait(sensor(stage_name="Ground Truth", count_by="listing", at_least=3)) == 3


class TestStaleReads:
    """Reads show the state before a write that preceded the sensor, until a replica catches up."""

    @pytest.fixture
    def catches_up(self, sandbox, soon):
        """Let reads lag, and catch up between the sensor's first look and its confirmation."""
        sandbox.behavior(read_lag=60)
        return lambda: soon(sandbox.behavior, read_lag=0)

    def test_met_first_look_is_confirmed(self, sandbox, wait, mode, catches_up):
        sandbox.seed_tasks(2, stage="Review_1")
        catches_up()
        with pytest.raises(AirflowSensorTimeout):
            wait(sensor(at_most=0, **{**mode, "poke_interval": 0.8, "timeout": 1}))

    def test_trigger_confirms_its_first_look(self, sandbox, wait, catches_up):
        options = {"redbrick_conn_id": "redbrick_default", "org_id": None, "project_id": None, "poke_interval": 0.8}
        sandbox.seed_tasks(2, stage="Review_1")
        catches_up()
        event = wait.event_of(RedBrickStageQueueTrigger(stage_name="Review_1", at_most=0, timeout=1.0, **options))
        assert event["status"] == "timeout"
        assert "the queue of 'Review_1' to have at most 0 tasks. Last seen: 2 tasks." in event["message"]

    def test_consistent_server_needs_no_confirmation(self, sandbox, wait, mode, monkeypatch):
        monkeypatch.setenv("AIRFLOW_CONN_REDBRICK_DEFAULT", f"{sandbox.airflow_conn_uri}&settle_seconds=0")
        wait(sensor(at_most=0, **mode))
        assert sandbox.stats()["root_fields"]["tasksPaged"] == 1


class TestRefusals:
    @pytest.mark.parametrize("name", ["Review", "review_1", "Review_1 "])
    def test_missing_stage_fails_at_once(self, sandbox, wait, mode, name):
        started = time.monotonic()
        with pytest.raises(RedBrickInputError, match="its stages are: Input, Label, Review_1, Failed_Review_1, Ground"):
            wait(sensor(stage_name=name, at_least=1, **{**mode, "poke_interval": HOUR}))
        assert time.monotonic() - started < 5
        assert wait.deferred == []

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({}, "Give at_least, at_most, or both"),
            ({"at_least": 5, "at_most": 4}, "No count is at least 5 and at most 4"),
            ({"at_least": -1}, "at_least must be a whole number"),
            ({"at_most": "few"}, "at_most must be a whole number"),
            ({"at_most": 2.5}, "at_most must be a whole number"),
            ({"at_least": ""}, "at_least must be a whole number"),
            ({"at_least": True}, "at_least must be a whole number"),
            ({"at_least": 1, "stage_name": " "}, "stage_name must not be empty"),
            ({"at_least": 1, "stage_name": None}, "stage_name must not be empty"),
            ({"at_least": 1, "project_id": ""}, "project_id must not be empty"),
            ({"at_least": 1, "count_by": "counting"}, "count_by must be one of"),
        ],
    )
    def test_invalid_parameters_are_refused_before_any_request(self, sandbox, wait, mode, options, words):
        with pytest.raises(RedBrickInputError, match=words):
            wait(sensor(**{**mode, **options}))
        assert sandbox.stats()["requests"] == 0
        assert wait.deferred == []

    def test_refused_key_fails_at_once(self, sandbox, wait, mode, monkeypatch):
        uri = sandbox.airflow_conn_uri.replace(sandbox.api_key, "x" * 43)
        monkeypatch.setenv("AIRFLOW_CONN_REDBRICK_DEFAULT", uri)
        with pytest.raises(RedBrickAuthError):
            wait(sensor(at_least=1, **mode))
        assert wait.deferred == []


class TestLimits:
    """Timeouts, soft_fail and never_fail have the same effect in each mode."""

    def test_timeout_raises_sensor_timeout(self, sandbox, wait, mode):
        started = time.monotonic()
        words = "the queue of 'Review_1' to have at least 1 task. Last seen: 0 tasks"
        with pytest.raises(AirflowSensorTimeout, match=words):
            wait(sensor(at_least=1, **{**mode, "timeout": 0.4}))
        assert 0.3 < time.monotonic() - started < 5

    def test_timeout_with_soft_fail_skips(self, sandbox, wait, mode):
        with pytest.raises(AirflowSkipException):
            wait(sensor(at_least=1, soft_fail=True, **{**mode, "timeout": 0.2}))

    def test_execution_timeout_raises_task_timeout(self, sandbox, wait, steady_mode):
        started = time.monotonic()
        with pytest.raises(AirflowTaskTimeout):
            wait(sensor(at_least=1, execution_timeout=timedelta(seconds=1), **steady_mode))
        assert 0.9 < time.monotonic() - started < 5

    def test_execution_timeout_is_a_failure_even_with_soft_fail(self, sandbox, wait, steady_mode):
        # A long interval, so that the timeout interrupts the pause and not a poll.
        options = {**steady_mode, "poke_interval": 30, "soft_fail": True}
        with pytest.raises(AirflowTaskTimeout):
            wait(sensor(at_least=1, execution_timeout=timedelta(seconds=1), **options))

    def test_shorter_limit_applies(self, sandbox, wait, steady_mode):
        options = {**steady_mode, "timeout": 0.3}
        with pytest.raises(AirflowSensorTimeout):
            wait(sensor(at_least=1, execution_timeout=timedelta(seconds=20), **options))

    def test_deferred_timeout_is_kept_with_a_long_interval(self, sandbox, wait):
        started = time.monotonic()
        with pytest.raises(AirflowSensorTimeout, match="within the sensor's timeout"):
            wait(sensor(at_least=1, deferrable=True, poke_interval=HOUR, timeout=0.4))
        assert time.monotonic() - started < 5

    def test_never_fail_skips_an_error_of_a_poll(self, sandbox, wait, mode):
        with pytest.raises(AirflowSkipException):
            wait(sensor(stage_name="Nowhere", at_least=1, never_fail=True, **mode))

    def test_never_fail_skips_at_the_timeout(self, sandbox, wait, mode):
        with pytest.raises(AirflowSkipException):
            wait(sensor(at_least=1, never_fail=True, **{**mode, "timeout": 0.2}))

    @pytest.mark.parametrize("stage", ["Input", "Failed_Review_1"])
    def test_condition_that_cannot_be_met_is_refused(self, sandbox, wait, mode, stage):
        with pytest.raises(RedBrickInputError, match=f"only pass through {stage}, so its queue never reaches 1"):
            wait(sensor(stage_name=stage, at_least=1, **mode))
        with pytest.raises(RedBrickInputError, match="none of them counts as unassigned"):
            wait(sensor(stage_name="Ground Truth", at_least=1, unassigned=True, **mode))
        assert wait(sensor(stage_name=stage, at_most=0, **mode)) == 0

    def test_trigger_refuses_a_condition_that_cannot_be_met(self, sandbox, wait):
        options = {"redbrick_conn_id": "redbrick_default", "org_id": None, "project_id": None, "poke_interval": 0.05}
        event = wait.event_of(RedBrickStageQueueTrigger(stage_name="Input", at_least=1, timeout=5.0, **options))
        assert (event["status"], event["error"]) == ("error", "RedBrickInputError")

    def test_soft_fail_does_not_skip_invalid_parameters(self, sandbox, wait, mode):
        with pytest.raises(RedBrickInputError):
            wait(sensor(stage_name="Nowhere", at_least=1, soft_fail=True, **mode))

    def test_airflows_trigger_timeout_is_longer_than_the_sensors(self, sandbox, wait):
        with pytest.raises(AirflowSensorTimeout):
            wait(sensor(at_least=1, deferrable=True, timeout=0.2))
        assert timedelta(seconds=30) < wait.deferred[0].timeout < timedelta(minutes=5)


class TestErrorsWhileDeferred:
    def test_four_failed_polls_are_tolerated(self, sandbox, wait, soon, impatient):
        sandbox.seed_tasks(1)
        sandbox.fault_once("http_503", "tasksPaged", skip=1, times=4)
        soon(sandbox.humans, "Label")
        assert wait(sensor(at_least=1, deferrable=True, poke_interval=0.05)) == 1

    def test_five_failed_polls_end_the_wait(self, sandbox, wait, impatient):
        sandbox.fault_once("http_503", "tasksPaged", skip=1, times=50)
        with pytest.raises(RedBrickTriggerEventError, match=r"Gave up after 5 failed polls in a row.*HTTP 503"):
            wait(sensor(at_least=1, deferrable=True, poke_interval=0.01))

    def test_never_fail_skips_after_failed_polls_and_soft_fail_does_not(self, sandbox, wait, impatient):
        options = {"at_least": 1, "deferrable": True, "poke_interval": 0.01}
        for extra, ending in (({"never_fail": True}, AirflowSkipException), ({"soft_fail": True}, RedBrickError)):
            sandbox.faults("")
            sandbox.fault_once("http_503", "tasksPaged", skip=1, times=50)
            with pytest.raises(ending):
                wait(sensor(**options, **extra))

    @pytest.mark.parametrize(
        "event", [None, {}, {"status": "done"}, "success", {"version": 1}, ["success"], {"status": None}]
    )
    def test_invalid_event_is_an_error(self, sandbox, event):
        with pytest.raises(RedBrickTriggerEventError, match="not understood"):
            sensor(at_least=1).resume_execution("execute_complete", {"event": event}, {})

    def test_event_of_an_earlier_release_is_accepted(self, sandbox):
        assert (
            sensor(at_least=1).resume_execution("execute_complete", {"event": {"status": "success", "seen": 4}}, {})
            == 4
        )
        with pytest.raises(AirflowSensorTimeout):
            sensor(at_least=1).resume_execution("execute_complete", {"event": {"status": "timeout"}}, {})

    @pytest.mark.parametrize(
        ("event", "ending", "words"),
        [
            ({"version": 1, "status": "success", "seen": 7}, None, ""),
            (
                {"version": 1, "status": "timeout", "message": "late", "deadline": "timeout"},
                AirflowSensorTimeout,
                "late",
            ),
            (
                {"version": 1, "status": "timeout", "message": "late", "deadline": "execution_timeout"},
                AirflowTaskTimeout,
                "late",
            ),
            ({"version": 1, "status": "error", "message": "gone"}, RedBrickTriggerEventError, "gone"),
            (
                {"version": 1, "status": "error", "message": "gone", "error": "RedBrickInputError"},
                RedBrickInputError,
                "gone",
            ),
            # An error with unknown fields of a later release is still an error.
            (
                {"version": 9, "status": "error", "message": "gone", "error": "Exception"},
                RedBrickTriggerEventError,
                "gone",
            ),
            ({"version": 9, "status": "success", "seen": 7, "more": [1]}, None, ""),
        ],
    )
    def test_events_of_all_releases_are_accepted(self, sandbox, event, ending, words):
        with nullcontext() if ending is None else pytest.raises(ending, match=words):
            assert sensor(at_least=1).resume_execution("execute_complete", {"event": event}, {}) == 7

    def test_missing_event_is_an_error(self, sandbox):
        with pytest.raises(RedBrickTriggerEventError):
            sensor(at_least=1).resume_execution("execute_complete", None, {})

    def test_airflows_trigger_timeout_raises_sensor_timeout(self, sandbox):
        reason = {"error": "Trigger timeout"}
        with pytest.raises(AirflowSensorTimeout):
            sensor(at_least=1).resume_execution("__fail__", reason, {})

    def test_airflows_trigger_timeout_raises_the_shorter_limits_error(self, sandbox):
        reason = {"error": "Trigger timeout"}
        with pytest.raises(AirflowTaskTimeout):
            sensor(at_least=1, execution_timeout=timedelta(seconds=9)).resume_execution("__fail__", reason, {})
        with pytest.raises(AirflowSensorTimeout):
            sensor(at_least=1, execution_timeout=timedelta(hours=9)).resume_execution("__fail__", reason, {})

    @pytest.mark.parametrize("leniently", ["soft_fail", "never_fail"])
    def test_execution_timeout_fails_from_worker_and_from_triggerer(self, sandbox, leniently):
        reason = {"error": "Trigger timeout"}
        late = sensor(at_least=1, execution_timeout=timedelta(seconds=9), **{leniently: True})
        with pytest.raises(AirflowTaskTimeout):
            late.resume_execution("__fail__", reason, {})
        with pytest.raises((AirflowSkipException, AirflowSensorTimeout)):
            sensor(at_least=1, **{leniently: True}).resume_execution("__fail__", reason, {})

    def test_serialized_trigger_has_no_secret(self, sandbox):
        sandbox.seed_tasks(1)
        with pytest.raises(TaskDeferred) as deferred:
            sensor(at_least=5, deferrable=True).execute({})
        assert sandbox.api_key not in repr(deferred.value.trigger.serialize())
        assert sandbox.url not in repr(deferred.value.trigger.serialize())
