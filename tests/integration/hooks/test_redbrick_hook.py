"""The hook: from an Airflow connection to the client."""

from __future__ import annotations

import json
import logging
import time

import pytest
from tiny_server import Reply, TinyServer, dead_port, hang, json_reply

from airflow_provider_redbrick import __version__
from airflow_provider_redbrick.client.operations.account import RedBrickClient
from airflow_provider_redbrick.exceptions import RedBrickError, RedBrickInputError
from airflow_provider_redbrick.hooks.redbrick import RedBrickHook

KEY = "canary-0123456789-abcdefghijklmnopqrstuvwxy"
ORG = "22222222-2222-2222-2222-222222222222"
PROJECT = "33333333-3333-3333-3333-333333333333"
ME = json_reply({"data": {"me": {"userId": "API:1"}}})


@pytest.fixture
def hook(monkeypatch):
    def make(host, **extra):
        connection = {"conn_type": "redbrick", "password": KEY, "host": host, "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_REDBRICK_DEFAULT", json.dumps(connection))
        return RedBrickHook()

    return make


def organization(value):
    return json_reply({"data": {"organization": value}})


def test_connection_test_names_user(hook):
    with TinyServer(ME) as server:
        assert hook(server.origin).test_connection() == (True, "Connected to RedBrick as API:1.")
    assert [got.graphql["query"].split()[1] for got in server.got] == ["me"]


def test_connection_test_with_org_names_organization(hook):
    with TinyServer(ME, organization({"orgId": ORG, "name": "Clinic"})) as server:
        assert hook(server.origin, org_id=ORG).test_connection() == (
            True,
            "Connected to RedBrick as API:1, organization 'Clinic'.",
        )
    assert server.got[1].graphql["variables"] == {"orgId": ORG}


BROKEN = {
    "a wrong key": (Reply(401, f"no key {KEY}".encode()), "the API key is wrong, revoked, or not allowed"),
    "a forbidden key": (Reply(403), "the API key is wrong, revoked, or not allowed"),
    "a wrong path": (Reply(404), "Check the connection's host"),
    "a server that fails": (Reply(503), "HTTP 503"),
    "a web page": (Reply(200, b"<html/>"), "not JSON"),
    "no user": (json_reply({"data": {"me": None}}), "does not say whose this credential is"),
    "a nameless user": (json_reply({"data": {"me": {"userId": None}}}), "does not say whose this credential is"),
    "an error": (json_reply({"errors": [{"message": "account suspended"}]}), "account suspended"),
}


@pytest.mark.parametrize(("reply", "words"), BROKEN.values(), ids=BROKEN)
def test_connection_test_failure_gives_one_message_without_retry(hook, reply, words):
    with TinyServer(reply) as server:
        works, said = hook(server.origin).test_connection()
    assert works is False
    assert words in said
    assert "canary" not in said
    assert len(server.got) == 1


@pytest.mark.parametrize("answer", [None, {}])
def test_connection_test_with_unknown_org_fails(hook, answer):
    with TinyServer(ME, organization(answer)) as server:
        works, said = hook(server.origin, org_id=ORG).test_connection()
    assert works is False
    assert said == f"There is no organization {ORG}, or this API key cannot see it."


def test_connection_test_to_closed_port_fails_without_retry(hook):
    port = dead_port()
    started = time.monotonic()
    works, said = hook(f"http://127.0.0.1:{port}").test_connection()
    assert works is False
    assert f"127.0.0.1:{port} cannot be reached" in said
    assert time.monotonic() - started < 3


def test_connection_test_timeout_is_not_retried(hook):
    with TinyServer(hang) as server:
        works, said = hook(server.origin, timeout=1).test_connection()
    assert works is False
    assert "did not answer in time" in said
    assert len(server.got) == 1


@pytest.mark.parametrize(
    ("extra", "words"), [({"org_id": "acme"}, "org_id must be a UUID"), ({"timeout": "soon"}, "'timeout'")]
)
def test_connection_test_with_invalid_settings_returns_message(hook, extra, words):
    with TinyServer(ME) as server:
        works, said = hook(server.origin, **extra).test_connection()
    assert works is False
    assert words in said


def test_hook_construction_sends_no_request(hook):
    with TinyServer(ME) as server:
        made = hook(server.origin)
        made.project(PROJECT, org_id=ORG)
        assert made.get_conn() is made.client
        assert isinstance(made.client, RedBrickClient)
        made.close()
        assert server.connections == 0


def test_close_without_client_creates_none(monkeypatch):
    monkeypatch.delenv("AIRFLOW_CONN_REDBRICK_DEFAULT", raising=False)
    RedBrickHook().close()


def test_client_uses_connection_settings(hook):
    made = hook("http://localhost:1/", timeout=7, page_size=33, max_concurrency=4, plain_json=True, settle_seconds=2)
    client = made.client
    assert (client.page_size, client.max_concurrency, client.settle_seconds) == (33, 4, 2.0)
    assert (client.transport.timeout, client.transport.plain_json) == (7.0, True)
    assert client.transport.url == "http://localhost:1/graphql/"


@pytest.mark.parametrize("allowed", [True, False])
def test_allow_http_applies_to_files(hook, monkeypatch, allowed):
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with TinyServer(Reply(200, b"x")) as elsewhere:
        monkeypatch.setenv("http_proxy", elsewhere.origin)
        storage = hook("https://localhost", allow_http=allowed).client.transport.storage
        try:
            storage.get("http://files.example.com/f")
        except RedBrickError:
            assert not allowed
        assert elsewhere.connections == int(allowed)


def test_user_agent_names_provider_airflow_and_python(hook):
    with TinyServer(ME) as server:
        hook(server.origin).client.me()
    agent = server.got[0].headers["User-Agent"]
    assert agent.startswith(f"airflow-provider-redbrick/{__version__} airflow/3.")
    assert " python/3." in agent


def test_user_is_read_once(hook):
    with TinyServer(ME) as server:
        client = hook(server.origin).client
        assert [client.me(), client.me()] == ["API:1", "API:1"]
    assert len(server.got) == 1


def test_project_ids_default_to_connection(hook):
    made = hook(None, org_id=ORG, project_id=PROJECT)
    assert (made.project().org_id, made.project().project_id) == (ORG, PROJECT)
    other = "44444444-4444-4444-4444-444444444444"
    project = made.project(other, org_id=other)
    assert (project.org_id, project.project_id) == (other, other)


@pytest.mark.parametrize(
    ("extra", "missing"), [({}, "org_id"), ({"org_id": ORG}, "project_id"), ({"project_id": PROJECT}, "org_id")]
)
def test_project_without_id_names_missing_id(hook, extra, missing):
    with pytest.raises(RedBrickInputError, match=rf"No {missing}\. .*connection 'redbrick_default'"):
        hook(None, **extra).project()


def test_project_with_malformed_id_sends_no_request(hook):
    with pytest.raises(RedBrickInputError, match="project_id must be a UUID, not 'cases'"):
        hook(None, org_id=ORG).project("cases")


def test_unknown_project_gives_one_message(hook):
    with TinyServer(json_reply({"data": {"project": None}})) as server:
        project = hook(server.origin, org_id=ORG).project(PROJECT)
        with pytest.raises(RedBrickError) as raised:
            project.stage("Label")
    assert str(raised.value) == f"There is no project {PROJECT} in organization {ORG}, or this API key cannot see it."


def test_hook_repr_and_state_hide_key(hook, caplog):
    with caplog.at_level(logging.DEBUG), TinyServer(ME) as server:
        made = hook(server.origin)
        made.client.me()
        shown = " ".join(map(repr, [made, made.settings, made.client, made.client.transport]))
    assert "canary" not in shown
    assert "canary" not in caplog.text
