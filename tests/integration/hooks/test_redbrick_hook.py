"""The seam between Airflow and the client."""

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


def test_it_says_who_the_key_is(hook):
    with TinyServer(ME) as server:
        assert hook(server.origin).test_connection() == (True, "Connected to RedBrick as API:1.")
    assert [got.graphql["query"].split()[1] for got in server.got] == ["me"]


def test_it_says_which_organisation_when_the_connection_names_one(hook):
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
def test_what_is_wrong_is_one_clear_sentence_at_once(hook, reply, words):
    with TinyServer(reply) as server:
        works, said = hook(server.origin).test_connection()
    assert works is False
    assert words in said
    assert "canary" not in said
    assert len(server.got) == 1


@pytest.mark.parametrize("answer", [None, {}])
def test_an_organisation_that_is_not_there(hook, answer):
    with TinyServer(ME, organization(answer)) as server:
        works, said = hook(server.origin, org_id=ORG).test_connection()
    assert works is False
    assert said == f"There is no organization {ORG}, or this API key cannot see it."


def test_a_dead_port_is_said_at_once(hook):
    port = dead_port()
    started = time.monotonic()
    works, said = hook(f"http://127.0.0.1:{port}").test_connection()
    assert works is False
    assert f"127.0.0.1:{port} cannot be reached" in said
    assert time.monotonic() - started < 3


def test_a_server_that_never_answers_is_asked_once(hook):
    with TinyServer(hang) as server:
        works, said = hook(server.origin, timeout=1).test_connection()
    assert works is False
    assert "did not answer in time" in said
    assert len(server.got) == 1


@pytest.mark.parametrize(
    ("extra", "words"), [({"org_id": "acme"}, "org_id must be a UUID"), ({"timeout": "soon"}, "'timeout'")]
)
def test_a_mistake_in_the_connection_is_said_and_not_raised(hook, extra, words):
    with TinyServer(ME) as server:
        works, said = hook(server.origin, **extra).test_connection()
    assert works is False
    assert words in said


def test_nothing_is_asked_before_it_is_needed(hook):
    with TinyServer(ME) as server:
        made = hook(server.origin)
        made.project(PROJECT, org_id=ORG)
        assert made.get_conn() is made.client
        assert isinstance(made.client, RedBrickClient)
        made.close()
        assert server.connections == 0


def test_closing_what_was_never_opened_opens_nothing(monkeypatch):
    monkeypatch.delenv("AIRFLOW_CONN_REDBRICK_DEFAULT", raising=False)
    RedBrickHook().close()


def test_the_settings_reach_the_client(hook):
    made = hook("http://localhost:1/", timeout=7, page_size=33, max_concurrency=4, plain_json=True)
    client = made.client
    assert (client.page_size, client.max_concurrency) == (33, 4)
    assert (client.transport.timeout, client.transport.plain_json) == (7.0, True)
    assert client.transport.url == "http://localhost:1/graphql/"


@pytest.mark.parametrize("allowed", [True, False])
def test_http_that_the_connection_allows_is_allowed_for_files_too(hook, monkeypatch, allowed):
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


def test_the_user_agent_names_provider_airflow_and_python(hook):
    with TinyServer(ME) as server:
        hook(server.origin).client.me()
    agent = server.got[0].headers["User-Agent"]
    assert agent.startswith(f"airflow-provider-redbrick/{__version__} airflow/3.")
    assert " python/3." in agent


def test_who_am_i_is_asked_once(hook):
    with TinyServer(ME) as server:
        client = hook(server.origin).client
        assert [client.me(), client.me()] == ["API:1", "API:1"]
    assert len(server.got) == 1


def test_ids_come_from_the_call_or_else_from_the_connection(hook):
    made = hook(None, org_id=ORG, project_id=PROJECT)
    assert (made.project().org_id, made.project().project_id) == (ORG, PROJECT)
    other = "44444444-4444-4444-4444-444444444444"
    project = made.project(other, org_id=other)
    assert (project.org_id, project.project_id) == (other, other)


@pytest.mark.parametrize(
    ("extra", "missing"), [({}, "org_id"), ({"org_id": ORG}, "project_id"), ({"project_id": PROJECT}, "org_id")]
)
def test_a_missing_id_is_named_and_where_it_can_be_given(hook, extra, missing):
    with pytest.raises(RedBrickInputError, match=rf"No {missing}\. .*connection 'redbrick_default'"):
        hook(None, **extra).project()


def test_a_malformed_id_is_refused_before_any_request(hook):
    with pytest.raises(RedBrickInputError, match="project_id must be a UUID, not 'cases'"):
        hook(None, org_id=ORG).project("cases")


def test_an_unknown_project_is_one_clear_sentence(hook):
    with TinyServer(json_reply({"data": {"project": None}})) as server:
        project = hook(server.origin, org_id=ORG).project(PROJECT)
        with pytest.raises(RedBrickError) as raised:
            project.stage("Label")
    assert str(raised.value) == f"There is no project {PROJECT} in organization {ORG}, or this API key cannot see it."


def test_nothing_about_the_hook_shows_the_key(hook, caplog):
    with caplog.at_level(logging.DEBUG), TinyServer(ME) as server:
        made = hook(server.origin)
        made.client.me()
        shown = " ".join(map(repr, [made, made.settings, made.client, made.client.transport]))
    assert "canary" not in shown
    assert "canary" not in caplog.text
