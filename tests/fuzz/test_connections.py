"""Connections of anything, and what of them gets to be seen: reprs, triggers, and the test of a connection."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred
from fixtures import Run
from fuzz.meddler import Meddling
from fuzz.promises import promises
from fuzz.replies import REPLIES
from fuzz.values import CHANGES, JSON, KEY, RAW, TEXTS, any_text, fuzzed, spoiled, tower
from hypothesis import given
from hypothesis import strategies as st
from tiny_server import Reply

from airflow_provider_redbrick.client.transport.endpoint import graphql_url
from airflow_provider_redbrick.client.transport.http import Transport
from airflow_provider_redbrick.client.transport.retry import RetryPolicy
from airflow_provider_redbrick.client.transport.sessions import Credential
from airflow_provider_redbrick.exceptions import RedBrickInputError
from airflow_provider_redbrick.hooks.connection import read_settings
from airflow_provider_redbrick.hooks.redbrick import RedBrickHook
from airflow_provider_redbrick.sensors.stage_queue import RedBrickStageQueueSensor
from airflow_provider_redbrick.sensors.tasks import RedBrickTasksSensor

EXTRA = {
    "org_id": "0a9c6e10-5b1d-4c8e-9f00-000000000001",
    "project_id": "0a9c6e10-5b1d-4c8e-9f00-000000000002",
    "auth": "api_key",
    "timeout": 30,
    "max_concurrency": 5,
    "mutations_per_request": 10,
    "requests_per_second": 2.5,
    "page_size": 100,
    "settle_seconds": 30,
    "plain_json": "false",
    "allow_http": False,
}
EXTRAS = (
    spoiled(EXTRA, JSON).map(json.dumps)
    | RAW
    | RAW.map(lambda raw: f'{{"timeout": {raw}, "auth": {raw}, "org_id": {raw}}}')
    | st.sampled_from([None, "", "{", tower(5000), tower(5000, "{}")])
)
PLACES = (
    "localhost",
    "localhost:1",
    "http://localhost:99999",
    "https://",
    "//",
    "http://[",
    "http://[::1]:1/a b",
    "ftp://x",
)
PLACES = (
    *PLACES,
    "x" * 300,
    "a..b",
    "ß" * 60,
    "http://a:b@localhost",
    "127.0.0.1:0",
    "::1",
    "localhost/%",
    "localhost:1\\@x",
)
HOSTS = st.none() | TEXTS | st.sampled_from(PLACES)


@fuzzed(60)
@given(
    host=HOSTS,
    port=st.none() | st.integers(),
    schema=st.none() | TEXTS | st.just("http"),
    extra=EXTRAS,
    key=st.just(KEY) | st.just(f" {KEY}\n") | TEXTS,
)
def test_any_connection(host, port, schema, extra, key):
    given_one = SimpleNamespace(conn_id="c", host=host, port=port, schema=schema, extra=extra, password=key)
    with promises(seconds=10) as watch:
        settings = read_settings(given_one)
        watch.tell(settings, str(settings), settings.url)
        assert 1 <= settings.timeout <= 600
    assert watch.error is None or isinstance(watch.error, RedBrickInputError)


@fuzzed(40)
@given(
    any_text(30) | st.sampled_from(["/a b", "/%", "/\r\nX: y", "/\ud800", "?q", "#f", "/..", "/é", "/" + "x" * 70_000])
)
def test_any_path_of_a_host(server, path):
    """Wherever a request goes then: what comes of it is an error of ours."""
    server.replies = [Reply(404)]
    with promises(seconds=10) as watch:
        url = graphql_url(f"{server.origin}/{path}")
        transport = Transport(url, Credential(KEY), timeout=2, policy=RetryPolicy(max_attempts=1))
        transport.execute("query me { me { userId } }", {})
    assert watch.error is not None


# ------------------------------------------------------------------ what is seen of one


@fuzzed(25)
@given(st.lists(st.builds(Meddling, st.integers(0, 1), CHANGES | REPLIES), max_size=2))
def test_the_test_of_a_connection(meddler, meddlings):
    meddler.begin(meddlings)
    with promises(seconds=10) as watch:
        good, words = RedBrickHook().test_connection()
        watch.tell(words)
    assert watch.error is None
    assert good is (not meddlings) or meddlings


def test_nothing_that_is_shown_shows_the_key(meddler):
    meddler.begin()
    hook = RedBrickHook()
    project = hook.project()
    seen = [hook, hook.settings, hook.client, project, project.files, project.imports, hook.client.transport]
    seen += [hook.client.transport.storage, hook.settings.credential, project.info, hook.stage("Label")]
    with promises() as watch:
        for each in seen:
            watch.tell(each, str(each), f"{each}")
        watch.tell(RedBrickHook.get_ui_field_behaviour() if hasattr(RedBrickHook, "get_ui_field_behaviour") else "")
    assert watch.error is None


def event_of(trigger: Any) -> Any:
    """Run a trigger as the triggerer does, rebuilt from what was stored of it."""
    path, kwargs = trigger.serialize()
    module, _, name = path.rpartition(".")
    again = getattr(__import__(module, fromlist=[name]), name)(**json.loads(json.dumps(kwargs)))

    async def first() -> Any:
        async for event in again.run():
            return event.payload
        return None

    return json.loads(json.dumps(asyncio.run(first()), allow_nan=False))


@pytest.mark.parametrize("kind", ["queue", "tasks"])
@fuzzed(8)
@given(st.lists(st.builds(Meddling, st.integers(2, 12), CHANGES | REPLIES), max_size=3))
def test_whatever_a_trigger_is_answered(meddler, kind, meddlings):
    """A trigger ends with an event; neither it nor what is stored of it tells the key."""
    meddler.sandbox.reset()
    ids = meddler.sandbox.seed_tasks(1, stage="Label")
    wait = {"task_id": "t", "deferrable": True, "poke_interval": 0.01, "timeout": 0.1}
    sensor = (
        RedBrickStageQueueSensor(stage_name="Label", at_least=5, **wait)
        if kind == "queue"
        else RedBrickTasksSensor(task_ids=ids, left_stage="Label", **wait)
    )
    meddler.begin()
    with pytest.raises(TaskDeferred) as deferred:
        Run().try_once(sensor)
    meddler.begin(meddlings)
    with promises(seconds=10) as watch:
        trigger = deferred.value.trigger
        watch.tell(trigger, trigger.serialize(), deferred.value, vars(deferred.value), vars(trigger))
        event = event_of(trigger)
        watch.tell(event)
        assert event["status"] in {"success", "timeout", "error"}
    assert watch.error is None


@fuzzed(25)
@given(JSON | st.builds(lambda status, rest: {"status": status, **rest}, JSON, st.dictionaries(TEXTS, JSON)))
def test_any_event_for_a_sensor(event):
    sensor = RedBrickStageQueueSensor(task_id="t", stage_name="Label", at_least=1, deferrable=True)
    with promises(Exception, seconds=10) as watch:
        sensor.execute_complete({}, event)
    names = {None, "RedBrickTriggerEventError", "AirflowSensorTimeout", "AirflowTaskTimeout"}
    assert (watch.error and type(watch.error).__name__) in names


def test_a_trigger_that_polls_without_a_pause(meddler):
    meddler.begin()
    sensor = RedBrickStageQueueSensor(
        task_id="t", stage_name="Label", at_least=5, deferrable=True, poke_interval=0, timeout=0.1
    )
    with pytest.raises(TaskDeferred) as deferred:
        Run().try_once(sensor)
    assert event_of(deferred.value.trigger)["status"] == "timeout"
