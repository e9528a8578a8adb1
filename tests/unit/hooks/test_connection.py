"""Settings of a connection: each extra valid, invalid, and as text."""

from __future__ import annotations

import json
import logging
from urllib.parse import quote

import pytest
from airflow.providers.common.compat.sdk import Connection

from airflow_provider_redbrick.exceptions import RedBrickInputError
from airflow_provider_redbrick.get_provider_info import get_provider_info
from airflow_provider_redbrick.hooks.connection import read_settings
from airflow_provider_redbrick.hooks.redbrick import RedBrickHook

KEY = "canary-0123456789-abcdefghijklmnopqrstuvwxy"
ORG = "22222222-2222-2222-2222-222222222222"


def settings(extra=None, **fields):
    fields = {"conn_id": "rb", "conn_type": "redbrick", "password": KEY, **fields}
    text = extra if isinstance(extra, str) or extra is None else json.dumps(extra)
    return read_settings(Connection(**fields, extra=text))


def refusal(extra=None, **fields):
    with pytest.raises(RedBrickInputError) as raised:
        settings(extra, **fields)
    assert "canary" not in str(raised.value)
    return str(raised.value)


def test_settings_with_only_a_key_have_defaults():
    found = settings()
    assert found.url == "https://api.redbrickai.com/graphql/"
    assert (found.credential.secret, found.credential.header) == (KEY, "ApiKey")
    assert (found.org_id, found.project_id) == (None, None)
    assert (found.timeout, found.max_concurrency, found.page_size, found.plain_json) == (30.0, 10, 200, False)


@pytest.mark.parametrize("password", [None, "", "   ", "\n"])
def test_settings_with_blank_key_are_refused(password):
    assert refusal(password=password) == "The connection 'rb' has no API key. Put it into the password field."


def test_key_with_trailing_line_break_is_stripped():
    assert settings(password=f"  {KEY}\n").credential.secret == KEY


def test_key_with_inner_line_break_is_refused():
    assert "Copy it again" in refusal(password=f"{KEY}\n{KEY}")


RIGHT = [
    ("org_id", ORG, ORG),
    ("org_id", f" {ORG} ", ORG),
    ("org_id", "", None),
    ("org_id", None, None),
    ("project_id", ORG, ORG),
    ("project_id", "  ", None),
    ("web_url", "https://label.example.com:8443/app/", "https://label.example.com:8443/app"),
    ("web_url", " http://localhost:3000 ", "http://localhost:3000"),
    ("web_url", "", None),
    ("timeout", 5, 5.0),
    ("timeout", "2.5", 2.5),
    ("timeout", "", 30.0),
    ("timeout", None, 30.0),
    ("timeout", 600, 600.0),
    ("settle_seconds", 0, 0.0),
    ("settle_seconds", "2.5", 2.5),
    ("settle_seconds", "", 30.0),
    ("settle_seconds", 600, 600.0),
    ("max_concurrency", 3, 3),
    ("max_concurrency", "30", 30),
    ("max_concurrency", "4.0", 4),
    ("page_size", 1, 1),
    ("page_size", "1000", 1000),
    ("page_size", None, 200),
    ("plain_json", True, True),
    ("plain_json", "True", True),
    ("plain_json", "1", True),
    ("plain_json", 1, True),
    ("plain_json", "on", True),
    ("plain_json", False, False),
    ("plain_json", "false", False),
    ("plain_json", "0", False),
    ("plain_json", "", False),
    ("plain_json", None, False),
    ("allow_http", True, True),
    ("allow_http", "true", True),
    ("allow_http", "", False),
]


@pytest.mark.parametrize(("name", "given", "read"), RIGHT)
def test_valid_extra_is_parsed(name, given, read):
    found = getattr(settings({name: given}), name)
    assert found == read
    assert type(found) is type(read)


WRONG = [("timeout", value) for value in (0, 0.5, 601, -1, "soon", True, [], {}, "nan", "inf", 10**400, "1e999")] + [
    (name, value)
    for name, most in (("max_concurrency", 30), ("page_size", 1000))
    for value in (0, -1, most + 1, 2.5, "2.5", "many", True, False, [], "nan")
]


@pytest.mark.parametrize(
    ("name", "given"),
    [
        *WRONG,
        ("settle_seconds", -1),
        ("settle_seconds", 601),
        ("settle_seconds", "soon"),
        ("allow_http", "perhaps"),
        ("plain_json", "perhaps"),
        ("plain_json", 2),
        ("plain_json", []),
    ],
)
def test_invalid_extra_is_named(name, given):
    said = refusal({name: given})
    assert repr(name) in said
    assert "'rb'" in said


@pytest.mark.parametrize(("auth", "header"), [("api_key", "ApiKey"), ("access_token", "Authorization"), ("", "ApiKey")])
def test_auth_extra_selects_header(auth, header):
    assert settings({"auth": auth}).credential.header == header


@pytest.mark.parametrize("auth", ["bearer", "API_KEY", 5, ["api_key"]])
def test_unknown_auth_is_refused(auth):
    assert "must be one of api_key, access_token" in refusal({"auth": auth})


@pytest.mark.parametrize("name", ["auth", "org_id", "api_key", "timeout", "anything"])
def test_api_key_in_extra_is_refused_and_not_shown(name):
    assert f"contains the API key as {name!r}" in refusal({name: f" {KEY}"})


@pytest.mark.parametrize("name", ["auth", "timeout", "page_size", "plain_json"])
def test_long_invalid_extra_is_not_shown(name):
    assert "not a long str" in refusal({name: KEY[:-1]})


@pytest.mark.parametrize("name", ["org_id", "project_id"])
@pytest.mark.parametrize("value", [5, [], {"a": 1}, True])
def test_id_that_is_not_text_is_refused(name, value):
    assert f"{name!r} of connection 'rb' must be text" in refusal({name: value})


@pytest.mark.parametrize(
    "address",
    [
        "javascript:alert(1)",
        "label.example.com",
        "https://me:secret@label.example.com",
        "https://x/?a",
        "https://",
        "//x",
    ],
)
def test_web_url_without_http_address_is_refused(address):
    assert "'web_url' of connection 'rb' must be an address" in refusal({"web_url": address})


@pytest.mark.parametrize("extra", ["{", "[1]", '"text"', "5", "null", "[" * 100_000], ids=lambda text: text[:9])
def test_extra_that_is_not_an_object_is_refused(extra):
    # A stub, because Airflow's own class refuses some of these.
    connection = type("Made", (), {"conn_id": "rb", "password": KEY, "host": None, "port": None, "extra": extra})
    with pytest.raises(RedBrickInputError, match="The extra of connection 'rb'"):
        read_settings(connection)


def test_repeated_extra_is_refused():
    with pytest.raises(RedBrickInputError, match="has the key 'project_id' twice"):
        settings(f'{{"project_id": "{ORG}", "page_size": 5, "project_id": "other"}}')


def test_unknown_extras_warn_with_names_without_values(caplog):
    with caplog.at_level(logging.WARNING):
        found = settings({"verify": False, "session": "canary", "timeout": 5})
    assert found.timeout == 5.0
    assert "session, verify" in caplog.text
    assert "canary" not in caplog.text


def test_known_extras_log_no_warning(caplog):
    settings(dict.fromkeys(CONNECTION_TYPE["conn-fields"]))
    assert caplog.text == ""


def test_settings_repr_hides_key():
    found = settings()
    assert "canary" not in repr(found) + str(found)
    assert found.url in repr(found)


def test_host_and_port_form_url():
    assert settings(host="localhost", port=8000).url == "http://localhost:8000/graphql/"
    assert "must be a host name" in refusal(host="https://user:canary@example.com")


@pytest.mark.parametrize("fields", [{"host": "http://rb.example.com"}, {"host": "rb.example.com", "schema": "http"}])
def test_remote_http_is_refused_unless_allow_http(fields):
    assert "set the connection's extra allow_http to true" in refusal(**fields)
    assert "set the connection's extra allow_http to true" in refusal({"allow_http": "no"}, **fields)
    assert settings({"allow_http": True}, **fields).url == "http://rb.example.com/api/graphql/"
    assert settings({"allow_http": True}, host="rb.example.com").url == "https://rb.example.com/api/graphql/"


(CONNECTION_TYPE,) = get_provider_info()["connection-types"]


@pytest.mark.parametrize("name", CONNECTION_TYPE["conn-fields"])
def test_connection_form_matches_defaults_and_limits(name):
    schema = CONNECTION_TYPE["conn-fields"][name]["schema"]
    if "default" in schema:
        default = getattr(settings(), name) if name != "auth" else "api_key"
        assert default == schema["default"]
    for limit, beyond in (("minimum", -1), ("maximum", 1)):
        if limit in schema:
            assert getattr(settings({name: schema[limit]}), name) == schema[limit]
            assert repr(name) in refusal({name: schema[limit] + beyond})
    for word in schema.get("enum", ()):
        settings({name: word})


# ------------------------------------------------------------------ connections as users write them


def from_environment(monkeypatch, text):
    monkeypatch.setenv("AIRFLOW_CONN_RB", text)
    return RedBrickHook("rb").settings


def test_json_connection_is_parsed(monkeypatch):
    extra = {"org_id": ORG, "page_size": "50", "plain_json": True}
    found = from_environment(
        monkeypatch,
        json.dumps({"conn_type": "redbrick", "password": KEY, "host": "http://localhost:8000/", "extra": extra}),
    )
    assert (found.url, found.org_id, found.page_size, found.plain_json) == (
        "http://localhost:8000/graphql/",
        ORG,
        50,
        True,
    )
    assert found.credential.secret == KEY


def test_uri_connection_is_parsed(monkeypatch):
    key = "a/b+c:" + KEY
    uri = f"redbrick://:{quote(key, safe='')}@localhost:8000/?org_id={ORG}&timeout=5&plain_json=true&max_concurrency=4"
    found = from_environment(monkeypatch, uri)
    assert found.credential.secret == key
    assert found.url == "http://localhost:8000/graphql/"
    assert (found.org_id, found.timeout, found.plain_json, found.max_concurrency) == (ORG, 5.0, True, 4)


def test_uri_connection_with_url_as_host_is_parsed(monkeypatch):
    host = quote("https://localhost:8443", safe="")
    assert from_environment(monkeypatch, f"redbrick://:{KEY}@{host}").url == "https://localhost:8443/graphql/"


def test_uri_connection_without_host_uses_public_api(monkeypatch):
    assert (
        from_environment(monkeypatch, f"redbrick://:{KEY}@/?page_size=7").url == "https://api.redbrickai.com/graphql/"
    )
