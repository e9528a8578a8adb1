"""The API key is in no local variable of this provider's frames, since error trackers store those."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING
from urllib.parse import quote

import attrs
import pytest
from airflow.providers.common.compat.sdk import Connection
from airflow_versions import BEFORE_3_1
from tiny_server import Reply, TinyServer, dead_port, drop, json_reply

from airflow_provider_redbrick.client.transport.retry import RetryPolicy
from airflow_provider_redbrick.client.transport.sessions import Credential
from airflow_provider_redbrick.exceptions import RedBrickError
from airflow_provider_redbrick.hooks.connection import read_settings
from airflow_provider_redbrick.hooks.redbrick import RedBrickHook, RedBrickQuickHook
from airflow_provider_redbrick.operators.list_tasks import RedBrickListTasksOperator
from airflow_provider_redbrick.plugins.project_view import PageHook
from airflow_provider_redbrick.sensors.stage_queue import RedBrickStageQueueSensor

if TYPE_CHECKING:
    from types import TracebackType

KEY = "canary/0123456789+abcdefghijklmnopqrstuvwx=="
ORG = "22222222-2222-2222-2222-222222222222"
PROJECT = "33333333-3333-3333-3333-333333333333"
IDS = {"org_id": ORG, "project_id": PROJECT}
SPELLINGS = {KEY, quote(KEY, safe=""), base64.b64encode(KEY.encode()).decode(), json.dumps(KEY)[1:-1], "canary"}


def own_locals(error: BaseException | None) -> Iterator[tuple[str, object]]:
    """Yield the local variables of this provider's frames, for an error and all its causes and contexts."""
    seen: set[int] = set()
    errors = [error]
    while errors:
        one = errors.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        errors += [one.__cause__, one.__context__]
        trace: TracebackType | None = one.__traceback__
        while trace is not None:
            frame = trace.tb_frame
            module = str(frame.f_globals.get("__name__"))
            if module.startswith("airflow_provider_redbrick."):
                for name, value in frame.f_locals.items():
                    yield f"{name} of {module}.{frame.f_code.co_name}", value
            trace = trace.tb_next


def shown(value: object, depth: int = 4) -> Iterator[str]:
    """Yield a value as error trackers store it: its repr, and those of its parts."""
    yield repr(value)
    yield str(value)
    if depth == 0:
        return
    if isinstance(value, Mapping):
        for pair in value.items():
            yield from shown(pair, depth - 1)
    elif isinstance(value, (list, tuple, set, frozenset)):
        for each in value:
            yield from shown(each, depth - 1)
    elif attrs.has(type(value)):
        yield from shown([getattr(value, each.name, None) for each in attrs.fields(type(value))], depth - 1)
    elif isinstance(value, BaseException):
        yield from shown(value.args, depth - 1)


def check(error: BaseException) -> None:
    own = list(own_locals(error))
    assert own
    for name, value in own:
        for text in shown(value):
            assert not any(spelled in text for spelled in SPELLINGS), name
    for text in shown(error):
        assert not any(spelled in text for spelled in SPELLINGS)


@pytest.fixture
def connect(monkeypatch):
    """Define the default connection."""

    def define(extra: object = None, **fields: object) -> None:
        text = extra if isinstance(extra, str) else json.dumps({**IDS, **(extra or {})})
        monkeypatch.setenv(
            "AIRFLOW_CONN_REDBRICK_DEFAULT",
            json.dumps({"conn_type": "redbrick", "password": KEY, **fields, "extra": text}),
        )

    return define


WRONG = {
    "a key with a line break": {"password": f"{KEY}\n{KEY}"},
    "a key with a strange character": {"password": f"{KEY}\u00e9"},
    "the key in an extra": {"extra": {"auth": KEY}},
    "the key in another extra": {"extra": {"org_id": f" {KEY} "}},
    "the key within an extra": {"extra": {"web_url": f"no address {KEY[:-1]} "}},
    "extra that is no JSON": {"extra": '{"org_id": "' + KEY},
    "extra that is no object": {"extra": json.dumps([KEY])},
    "auth": {"extra": {"auth": "bearer"}},
    "timeout": {"extra": {"timeout": "soon"}},
    "timeout that is text with the key": {"extra": {"timeout": f"x{KEY}"}},
    "page_size": {"extra": {"page_size": 2.5}},
    "plain_json": {"extra": {"plain_json": "perhaps"}},
    "org_id": {"extra": {"org_id": 5}},
    "web_url": {"extra": {"web_url": "javascript:"}},
    "host": {"host": "not a host"},
    "host with a password": {"host": f"https://me:{KEY}@example.com"},
    "host that is http": {"host": "http://example.com"},
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_invalid_setting_error_hides_key(connect, wrong):
    fields = {"conn_id": "rb", "conn_type": "redbrick", "password": KEY, **wrong}
    extra = fields.pop("extra", None)
    connection = Connection(**fields, extra=extra if isinstance(extra, str) else json.dumps(extra))
    with pytest.raises(RedBrickError) as raised:
        read_settings(connection)
    check(raised.value)
    if BEFORE_3_1 and isinstance(extra, str):
        return  # Airflow 3.0 itself does not find such a connection.
    connect(**wrong)
    for kind in (RedBrickHook, RedBrickQuickHook, PageHook):
        with pytest.raises(RedBrickError) as raised:
            kind().project()
        check(raised.value)
    with pytest.raises(RedBrickError) as raised:
        RedBrickListTasksOperator(task_id="list", stage_name="Label").execute({})
    check(raised.value)
    with pytest.raises(RedBrickError) as raised:
        RedBrickStageQueueSensor(task_id="wait", stage_name="Label", at_least=1).poke({})
    check(raised.value)


@pytest.mark.parametrize("bad", ["", f"{KEY}\n", f"{KEY}\u2028"])
def test_invalid_credential_error_hides_key(bad):
    with pytest.raises(RedBrickError) as raised:
        Credential(bad)
    check(raised.value)


def test_invalid_id_error_hides_key(connect):
    connect(json.dumps({}))
    with pytest.raises(RedBrickError) as raised:
        RedBrickHook().project()
    check(raised.value)
    connect({"project_id": "{{ var.value.project }}"})
    with pytest.raises(RedBrickError) as raised:
        RedBrickHook().project()
    check(raised.value)


def test_connection_of_other_type_error_hides_key(connect):
    connect(conn_type="postgres")
    with pytest.raises(RedBrickError, match="must be of type 'redbrick'") as raised:
        PageHook().project()
    check(raised.value)


ECHO = KEY.encode()
ANSWERS = {
    "refused": Reply(401, b"no such key: " + ECHO),
    "forbidden": Reply(403, ECHO),
    "not found": Reply(404, ECHO),
    "limited": Reply(429, ECHO, {"Retry-After": KEY}),
    "failed": Reply(500, ECHO),
    "unavailable": Reply(503, ECHO),
    "bad request": Reply(400, ECHO),
    "a web page": Reply(200, b"<html>" + ECHO),
    "an error": json_reply({"errors": [{"message": f"the key {KEY} is suspended"}]}),
    "half an answer": Reply(200, b'{"data": {"project": "' + ECHO),
    "another shape": json_reply({"data": {"project": {"name": KEY, "stages": 5}}}),
    "another encoding": Reply(200, ECHO, {"Content-Encoding": "br"}),
    "damaged": Reply(200, ECHO, {"Content-Encoding": "gzip"}),
    "a redirect": Reply(302, ECHO, {"Location": f"https://example.com/{quote(KEY)}"}),
    "no project": json_reply({"data": {"project": None}}),
    "dropped": drop,
}


@pytest.mark.parametrize("auth", ["api_key", "access_token"])
@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_failed_response_error_hides_key(connect, monkeypatch, answer, auth):
    monkeypatch.setattr(
        "airflow_provider_redbrick.client.transport.retry.RetryPolicy", lambda **_: RetryPolicy(max_attempts=1)
    )
    with TinyServer(*[answer] * 4) as server:
        connect({"auth": auth}, host=server.origin)
        with pytest.raises(RedBrickError) as raised:
            _ = RedBrickHook().project().info
        check(raised.value)
        with pytest.raises(RedBrickError) as raised:
            RedBrickListTasksOperator(task_id="list", stage_name="Label").execute({})
        check(raised.value)


def test_unreachable_server_error_hides_key(connect, monkeypatch):
    monkeypatch.setattr(
        "airflow_provider_redbrick.client.transport.retry.RetryPolicy", lambda **_: RetryPolicy(max_attempts=1)
    )
    connect(host=f"http://127.0.0.1:{dead_port()}")
    with pytest.raises(RedBrickError) as raised:
        _ = RedBrickHook().project().info
    check(raised.value)
