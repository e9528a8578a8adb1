"""Sensors wait for weeks: meanwhile the connection is edited, its key is rotated, and stages are added and renamed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowNotFoundException,
    AirflowSensorTimeout,
    BaseHook,
    TaskDeferred,
)

from airflow_provider_redbrick.engine.polling import MAX_FAILED_POLLS
from airflow_provider_redbrick.exceptions import (
    RedBrickAuthError,
    RedBrickConnectionLookupError,
    RedBrickInputError,
    RedBrickTriggerEventError,
)
from airflow_provider_redbrick.hooks.redbrick import RedBrickHook
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
def impatient_for_edits(monkeypatch):
    """Each look reads the connection again."""
    for module in ("sensors.base", "triggers.poll_group"):
        monkeypatch.setattr(f"airflow_provider_redbrick.{module}.STALE_AFTER_S", 0.0)


@pytest.fixture
def failing(monkeypatch) -> dict[str, Any]:
    """Fail the next ``times`` readings of a connection with ``error``."""
    state: dict[str, Any] = {"times": 0, "error": AirflowNotFoundException("The conn_id `x` isn't defined")}
    get = BaseHook.get_connection.__func__

    def fails(cls, conn_id):
        if state["times"]:
            state["times"] -= 1
            raise state["error"]
        return get(cls, conn_id)

    monkeypatch.setattr(RedBrickHook, "get_connection", classmethod(fails))
    return state


def sensor(**options) -> RedBrickStageQueueSensor:
    return RedBrickStageQueueSensor(task_id="wait", **{"stage_name": "Review_1", "timeout": 30, **options})


def renamed() -> list[dict[str, Any]]:
    return json.loads(json.dumps(DEMO_STAGES).replace("Review_1", "Review_2"))


class TestRotatedKey:
    def test_a_sensor_goes_on(self, sandbox, wait, soon, mode, edit):
        def rotate():
            sandbox.accept_keys(sandbox.api_key, NEW_KEY)
            edit(key=NEW_KEY)
            sandbox.accept_keys(NEW_KEY)
            sandbox.seed_tasks(2, stage="Review_1")

        soon(rotate)
        assert wait(sensor(at_least=2, **mode)) == 2

    def test_a_key_that_stays_wrong_is_an_error(self, sandbox, wait, soon, mode):
        soon(sandbox.accept_keys, NEW_KEY)
        with pytest.raises(RedBrickAuthError):
            wait(sensor(at_least=2, **mode))

    def test_a_key_that_is_wrong_from_the_start_is_asked_with_once(self, sandbox, wait, mode, edit):
        edit(key=NEW_KEY)
        with pytest.raises(RedBrickAuthError):
            wait(sensor(at_least=1, **mode))
        assert sandbox.stats()["requests"] == 1


class TestAnotherProject:
    @pytest.mark.usefixtures("impatient_for_edits")
    def test_a_sensor_keeps_the_project_that_it_began_with(self, sandbox, wait, soon, mode, edit):
        other = sandbox.add_project()
        sandbox.seed_tasks(9, stage="Review_1", project_id=other)

        def change():
            edit(project=other)
            sandbox.seed_tasks(2, stage="Review_1")

        soon(change)
        assert wait(sensor(at_least=2, **mode)) == 2

    def test_a_deferred_wait_names_its_project(self, sandbox):
        with pytest.raises(TaskDeferred) as deferred:
            sensor(at_least=2, deferrable=True).execute({})
        _, kwargs = deferred.value.trigger.serialize()
        assert (kwargs["org_id"], kwargs["project_id"]) == (sandbox.org_id, sandbox.project_id)

    def test_the_connection_is_read_again_now_and_then(self, sandbox, wait, soon, edit, impatient_for_edits):
        """Nothing is refused: the old key is good for something else."""
        sandbox.accept_keys(sandbox.api_key, NEW_KEY)
        soon(edit, key=NEW_KEY)
        waiting = sensor(at_least=2, poke_interval=0.05, timeout=1)
        with pytest.raises(AirflowSensorTimeout):
            wait(waiting)
        assert waiting.hook.settings.credential.secret == NEW_KEY


class TestStages:
    def test_a_stage_that_was_added_while_a_sensor_pokes(self, sandbox, wait, soon):
        """The tasks go on to a stage that was not there when the sensor began."""
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

    def test_a_stage_that_was_renamed_is_an_error_when_it_is_read_again(
        self, sandbox, wait, soon, mode, impatient_for_edits
    ):
        soon(sandbox.change_stages, renamed())
        with pytest.raises(RedBrickInputError, match="no stage 'Review_1'; its stages are: Input, Label, Review_2"):
            wait(sensor(at_least=2, **mode))


class TestMissingConnection:
    """A secrets backend that fails for a moment looks like a connection that is missing."""

    @pytest.mark.parametrize(
        "error", [AirflowNotFoundException("no such conn_id"), ConnectionError("vault"), OSError()]
    )
    def test_it_may_pass(self, sandbox, wait, mode, failing, error):
        sandbox.seed_tasks(1, stage="Review_1")
        failing.update(times=MAX_FAILED_POLLS - 1, error=error)
        assert wait(sensor(at_least=1, **mode)) == 1
        assert failing["times"] == 0

    def test_five_polls_in_a_row_are_the_end(self, sandbox, wait, steady_mode):
        with pytest.raises(
            (RedBrickConnectionLookupError, RedBrickTriggerEventError), match="cannot find connection 'there_is_none'"
        ):
            wait(sensor(at_least=1, redbrick_conn_id="there_is_none", **steady_mode))

    def test_a_sensor_that_pokes_goes_on_with_what_it_has(self, sandbox, wait, soon, failing, impatient_for_edits):
        def fail():
            failing["times"] = 999
            sandbox.seed_tasks(1)

        soon(fail)
        assert wait(sensor(stage_name="Label", at_least=1, poke_interval=0.05)) == 1
