"""Tests of sensors whose connection, key or stages change while they wait."""

from __future__ import annotations

import json
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowNotFoundException,
    AirflowSensorTimeout,
    TaskDeferred,
)

from airflow_provider_redbrick.engine.polling import MAX_FAILED_POLLS
from airflow_provider_redbrick.exceptions import (
    RedBrickAuthError,
    RedBrickConnectionLookupError,
    RedBrickInputError,
    RedBrickTriggerEventError,
)
from airflow_provider_redbrick.sensors.stage_queue import RedBrickStageQueueSensor
from airflow_provider_redbrick.sensors.tasks import RedBrickTasksSensor
from redbrick_sandbox.demo_project import DEMO_STAGES

NEW_KEY = "rotated-0123456789-abcdefghijklmnopqrstuvwxy"
VARIABLE = "AIRFLOW_CONN_REDBRICK_DEFAULT"


@pytest.fixture
def edit(sandbox, monkeypatch):
    """Edit the connection: ``edit(project=..., key=...)``."""

    def change(*, project: str | None = None, key: str | None = None) -> None:
        extra = {"org_id": sandbox.org_id, "project_id": project or sandbox.project_id}
        connection = {"conn_type": "redbrick", "host": sandbox.url, "password": key or sandbox.api_key, "extra": extra}
        monkeypatch.setenv(VARIABLE, json.dumps(connection))

    return change


@pytest.fixture
def no_stale_connections(monkeypatch):
    """Let each poll read the connection again."""
    for module in ("sensors.base", "triggers.poll_group"):
        monkeypatch.setattr(f"airflow_provider_redbrick.{module}.STALE_AFTER_S", 0.0)


def sensor(**options) -> RedBrickStageQueueSensor:
    return RedBrickStageQueueSensor(task_id="wait", **{"stage_name": "Review_1", "timeout": 30, **options})


def renamed() -> list[dict[str, Any]]:
    return json.loads(json.dumps(DEMO_STAGES).replace("Review_1", "Review_2"))


class TestRotatedKey:
    def test_sensor_continues_with_the_new_key(self, sandbox, wait, soon, mode, edit):
        def rotate():
            sandbox.accept_keys(sandbox.api_key, NEW_KEY)
            edit(key=NEW_KEY)
            sandbox.accept_keys(NEW_KEY)
            sandbox.seed_tasks(2, stage="Review_1")

        soon(rotate)
        assert wait(sensor(at_least=2, **mode)) == 2

    def test_refused_key_is_an_error(self, sandbox, wait, soon, mode):
        soon(sandbox.accept_keys, NEW_KEY)
        with pytest.raises(RedBrickAuthError):
            wait(sensor(at_least=2, **mode))

    def test_key_refused_from_the_start_is_used_once(self, sandbox, wait, mode, edit):
        edit(key=NEW_KEY)
        with pytest.raises(RedBrickAuthError):
            wait(sensor(at_least=1, **mode))
        assert sandbox.stats()["requests"] == 1


class TestAnotherProject:
    @pytest.mark.usefixtures("no_stale_connections")
    def test_sensor_keeps_the_project_of_its_first_poll(self, sandbox, wait, soon, mode, edit):
        other = sandbox.add_project()
        sandbox.seed_tasks(9, stage="Review_1", project_id=other)

        def change():
            edit(project=other)
            sandbox.seed_tasks(2, stage="Review_1")

        soon(change)
        assert wait(sensor(at_least=2, **mode)) == 2

    def test_deferred_trigger_has_the_project(self, sandbox):
        with pytest.raises(TaskDeferred) as deferred:
            sensor(at_least=2, deferrable=True).execute({})
        _, kwargs = deferred.value.trigger.serialize()
        assert (kwargs["org_id"], kwargs["project_id"]) == (sandbox.org_id, sandbox.project_id)

    def test_stale_connection_is_read_again(self, sandbox, wait, soon, edit, no_stale_connections):
        """The old key stays valid, so no refusal causes the read."""
        sandbox.accept_keys(sandbox.api_key, NEW_KEY)
        soon(edit, key=NEW_KEY)
        waiting = sensor(at_least=2, poke_interval=0.05, timeout=1)
        with pytest.raises(AirflowSensorTimeout):
            wait(waiting)
        assert waiting.hook.settings.credential.secret == NEW_KEY


class TestStages:
    def test_poking_sensor_finds_an_added_stage(self, sandbox, wait, soon):
        """The tasks move to a stage that did not exist when the sensor started."""
        ids = sandbox.seed_tasks(2)

        def change():
            sandbox.change_stages(renamed())
            sandbox.humans("Label")

        soon(change)
        waiting = RedBrickTasksSensor(
            task_id="wait", task_ids=ids, reached_stage="Ground Truth", timeout=3, poke_interval=0.05
        )
        with pytest.raises(AirflowSensorTimeout):
            wait(waiting)
        assert "Review_2" in [stage.name for stage in waiting._opened[0].info.workflow.stages]

    def test_renamed_stage_is_an_error(self, sandbox, wait, soon, mode, no_stale_connections):
        soon(sandbox.change_stages, renamed())
        with pytest.raises(RedBrickInputError, match="no stage 'Review_1'; its stages are: Input, Label, Review_2"):
            wait(sensor(at_least=2, **mode))


class TestMissingConnection:
    """A temporary failure of a secrets backend looks like a missing connection."""

    @pytest.mark.parametrize(
        "error", [AirflowNotFoundException("no such conn_id"), ConnectionError("vault"), OSError()]
    )
    def test_temporary_lookup_error_is_tolerated(self, sandbox, wait, mode, failing, error):
        sandbox.seed_tasks(1, stage="Review_1")
        failing.update(times=MAX_FAILED_POLLS - 1, error=error)
        assert wait(sensor(at_least=1, **mode)) == 1
        assert failing["times"] == 0

    def test_five_failed_lookups_end_the_wait(self, sandbox, wait, steady_mode):
        with pytest.raises(
            (RedBrickConnectionLookupError, RedBrickTriggerEventError), match="cannot find connection 'there_is_none'"
        ):
            wait(sensor(at_least=1, redbrick_conn_id="there_is_none", **steady_mode))

    def test_poking_sensor_keeps_its_settings(self, sandbox, wait, soon, failing, no_stale_connections):
        def fail():
            failing["times"] = 999
            sandbox.seed_tasks(1)

        soon(fail)
        assert wait(sensor(stage_name="Label", at_least=1, poke_interval=0.05)) == 1
