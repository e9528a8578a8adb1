"""Tests of ``start_from_trigger`` with the serialized DAG, as the scheduler reads it."""

from __future__ import annotations

import json
from datetime import timedelta
from importlib import import_module
from typing import Any

import pendulum
import pytest
from airflow.providers.common.compat.sdk import AirflowSensorTimeout
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG
from airflow.triggers.base import BaseTrigger

from airflow_provider_redbrick.exceptions import RedBrickInputError
from airflow_provider_redbrick.sensors.stage_queue import RedBrickStageQueueSensor
from airflow_provider_redbrick.sensors.tasks import RedBrickTasksSensor

if not hasattr(BaseTrigger, "render_template_fields"):
    pytest.skip("this Airflow's triggerer renders no templates", allow_module_level=True)

ID = "00000000-0000-0000-0000-000000000001"
FROM_TRIGGER = {"task_id": "wait", "deferrable": True, "start_from_trigger": True, "timeout": 600, "poke_interval": 30}


def dag(**options) -> DAG:
    return DAG("any", schedule=None, start_date=pendulum.datetime(2026, 1, 1, tz="UTC"), **options)


def queue(**options) -> RedBrickStageQueueSensor:
    return RedBrickStageQueueSensor(**{**FROM_TRIGGER, "stage_name": "Label", "at_least": 1, **options})


def tasks(**options) -> RedBrickTasksSensor:
    return RedBrickTasksSensor(**{**FROM_TRIGGER, "task_ids": [ID], "left_stage": "Label", **options})


def scheduled(made: DAG) -> Any:
    """Return the sensor as the scheduler reads it."""
    from airflow.serialization.serialized_objects import DagSerialization

    stored = json.loads(json.dumps(DagSerialization.to_dict(made)))
    return DagSerialization.from_dict(stored).get_task("wait")


def started(task: Any) -> Any:
    """Return the trigger that the triggerer builds."""
    from airflow.serialization.decoders import smart_decode_trigger_kwargs
    from airflow.serialization.serialized_objects import BaseSerialization

    kwargs = BaseSerialization.deserialize(task.start_trigger_args.trigger_kwargs)
    module, _, name = task.start_trigger_args.trigger_cls.rpartition(".")
    return getattr(import_module(module), name)(**{k: smart_decode_trigger_kwargs(v) for k, v in kwargs.items()})


@pytest.mark.parametrize("make", [queue, tasks])
def test_trigger_has_the_sensors_condition(make):
    with dag() as made:
        sensor = make(project_id="{{ params.project }}")
    task = scheduled(made)
    assert task.start_from_trigger is True
    assert task.start_trigger_args.next_method == "execute_complete"
    trigger = started(task)
    assert trigger.waits_for() == sensor.waits_for()
    assert trigger.condition() == sensor.condition()
    assert (trigger.project_id, trigger.poke_interval) == ("{{ params.project }}", 30)
    assert (trigger.deadline, trigger.limits.timeout) == (None, 600.0)
    # The triggerer finds the fields to render by these names.
    assert all(hasattr(trigger, name) for name in sensor.template_fields)
    assert set(sensor.template_fields) <= set(sensor.start_trigger_args.trigger_kwargs)


def test_trigger_timeout_exceeds_the_limits():
    with dag() as made:
        queue(execution_timeout=timedelta(seconds=60))
    task = scheduled(made)
    assert started(task).limits.seconds == 60.0
    assert timedelta(minutes=5) < task.start_trigger_args.timeout < timedelta(minutes=30)


def test_sensors_do_not_share_start_arguments():
    with dag():
        first, second = queue(), queue(task_id="other", stage_name="Review_1", start_from_trigger=False)
        third = queue(task_id="third", stage_name="Review_1")
    assert first.start_trigger_args.trigger_kwargs["stage_name"] == "Label"
    assert third.start_trigger_args.trigger_kwargs["stage_name"] == "Review_1"
    assert (second.start_from_trigger, second.start_trigger_args) == (False, None)


@pytest.mark.parametrize(
    ("in_dag", "options"),
    [
        ({"render_template_as_native_obj": True}, {"project_id": "{{ params.project }}"}),
        ({"user_defined_macros": {"mine": "x"}}, {"project_id": "{{ mine }}"}),
        ({"user_defined_filters": {"upper": str.upper}}, {"project_id": "{{ params.project | upper }}"}),
        ({}, {"project_id": "{{ params.project }}", "render_template_as_native_obj": True}),
    ],
)
def test_templates_that_need_a_worker_start_on_a_worker(in_dag, options):
    with dag(**in_dag) as made:
        queue(**options)
    assert scheduled(made).start_from_trigger is False
    with dag(**in_dag) as made:
        queue()
    assert scheduled(made).start_from_trigger is True


@pytest.mark.parametrize(
    "template",
    [
        "{{ ti.xcom_pull(task_ids='x') }}",
        "{{ var.value.stage }}",
        "{% if conn.redbrick_default %}a{% endif %}",
        "{{ ds }}{{ prev_start_date_success }}",
        "{{ macros.ds_add(ds, 1) }}",
        "{{ params[ti.task_id] }}",
        "{% set name = params.stage %}{{ name }}",
        "{{ ds",
    ],
)
def test_templates_of_more_than_run_values_start_on_a_worker(template):
    """Airflow 3.3's triggerer blocks or waits indefinitely when a template reads an XCom."""
    with dag() as made:
        queue(stage_name=template)
    assert scheduled(made).start_from_trigger is False
    with dag() as made:
        tasks(task_ids=[ID, template])
    assert scheduled(made).start_from_trigger is False


@pytest.mark.parametrize(
    "template",
    [
        "{{ dag_run.conf['stage'] }}",
        '{{dag_run.conf["a stage"].name}}',
        "Review_{{ params.stages[0] }}",
        "{{ ds }}-{{ data_interval_end }}",
    ],
)
def test_templates_of_run_values_start_in_the_triggerer(template):
    with dag() as made:
        queue(stage_name=template)
    assert scheduled(made).start_from_trigger is True


def test_upstream_output_starts_on_a_worker():
    with dag() as made:
        tasks(task_ids=EmptyOperator(task_id="ids").output)
    assert scheduled(made).start_from_trigger is False
    with dag() as made:
        tasks(task_ids=[ID, EmptyOperator(task_id="ids").output])
    assert scheduled(made).start_from_trigger is False


def test_templates_without_a_dag_start_on_a_worker():
    assert queue(stage_name="{{ params.stage }}").start_from_trigger is False
    assert queue().start_from_trigger is True


def test_start_from_trigger_needs_deferrable():
    with pytest.raises(RedBrickInputError, match="start_from_trigger=True needs deferrable=True"):
        queue(deferrable=False)


def test_worker_logs_why_it_was_needed(sandbox, wait, monkeypatch):
    with dag(render_template_as_native_obj=True):
        sensor = queue(project_id="{{ params.project }}", timeout=0.2)
    sensor.project_id = sandbox.project_id
    logged = []
    monkeypatch.setattr(sensor.log, "info", lambda words, *values: logged.append(words % values))
    with pytest.raises(AirflowSensorTimeout):
        wait(sensor)
    assert "The wait did not start in the triggerer: only a worker can resolve project_id" in logged[0]


def test_sensor_executed_by_a_worker_defers(sandbox, wait):
    """``airflow dags test`` does not start sensors from triggers."""
    with dag(), pytest.raises(AirflowSensorTimeout):
        wait(queue(timeout=0.2))
    assert len(wait.deferred) == 1
