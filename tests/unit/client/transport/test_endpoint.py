"""Tests for the GraphQL URL of a host, and for plain HTTP."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_redbrick.client.transport.endpoint import graphql_url, is_loopback
from airflow_provider_redbrick.exceptions import RedBrickInputError

PUBLIC = "https://api.redbrickai.com/graphql/"


@pytest.mark.parametrize(
    "host",
    [
        None,
        "",
        "  ",
        "api.redbrickai.com",
        "API.RedBrickAI.com",
        "https://api.redbrickai.com",
        "https://api.redbrickai.com/",
        "https://api.redbrickai.com/graphql",
        "https://API.redbrickai.com/any/path?x=1#y",
    ],
)
def test_public_api_host_in_any_spelling_gives_the_public_url(host):
    assert graphql_url(host) == PUBLIC


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("redbrick.example.com", "https://redbrick.example.com/api/graphql/"),
        ("https://redbrick.example.com", "https://redbrick.example.com/api/graphql/"),
        ("https://redbrick.example.com/some/path/", "https://redbrick.example.com/api/graphql/"),
        ("RedBrick.Example.com:8443", "https://redbrick.example.com:8443/api/graphql/"),
        ("10.0.0.7", "https://10.0.0.7/api/graphql/"),
        ("[2001:db8::7]:8443", "https://[2001:db8::7]:8443/api/graphql/"),
        ("red_brick.internal", "https://red_brick.internal/api/graphql/"),
    ],
)
def test_private_host_uses_https_and_the_api_path(host, url):
    assert graphql_url(host) == url


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("localhost:8000", "http://localhost:8000/graphql/"),
        ("http://localhost:8000/", "http://localhost:8000/graphql/"),
        ("https://localhost", "https://localhost/graphql/"),
        ("http://localhost:8000/Dev/Stage", "http://localhost:8000/Dev/Stage/graphql/"),
        ("127.0.0.1:8000", "http://127.0.0.1:8000/graphql/"),
        ("127.1.2.3", "http://127.1.2.3/graphql/"),
        ("http://[::1]:8000", "http://[::1]:8000/graphql/"),
        ("[::1]", "http://[::1]/graphql/"),
    ],
)
def test_loopback_host_keeps_its_path_and_may_use_http(host, url):
    assert graphql_url(host) == url


def test_amazonaws_host_keeps_its_case_sensitive_path():
    host = "https://CK7.execute-api.us-east-1.amazonaws.com/Prod/"
    assert graphql_url(host) == "https://ck7.execute-api.us-east-1.amazonaws.com/Prod/graphql/"


LOOK_TRUSTED = [
    "localhost.evil.com",
    "evil-localhost",
    "sandbox.localhost",
    "localhost.",
    "127.evil.com",
    "127.0.0.1.evil.com",
    "evilamazonaws.com",
    "amazonaws.com.evil.com",
    "api.redbrickai.com.evil.com",
]


@pytest.mark.parametrize("name", LOOK_TRUSTED)
def test_host_that_resembles_a_trusted_one_is_not_trusted(name):
    assert graphql_url(name) == f"https://{name}/api/graphql/"
    assert graphql_url(f"https://{name}/x") == f"https://{name}/api/graphql/"


def test_host_with_a_trusted_host_in_its_path_is_not_trusted():
    assert graphql_url("https://evil.com/https://api.redbrickai.com") == "https://evil.com/api/graphql/"


# ------------------------------------------------------------------ plain HTTP

NOT_HERE = [
    *LOOK_TRUSTED,
    "api.redbrickai.com",
    "redbrick.example.com:8080",
    "10.0.0.7",
    "0.0.0.0",
    "[2001:db8::7]",
    "CK7.execute-api.us-east-1.amazonaws.com/Prod",
]


@pytest.mark.parametrize("host", NOT_HERE)
def test_http_to_another_machine_is_refused(host):
    for refused in (lambda: graphql_url(f"HTTP://{host}"), lambda: graphql_url(host, schema="http")):
        with pytest.raises(RedBrickInputError, match=r"travel unencrypted.*allow_http to true"):
            refused()


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("http://redbrick.example.com:8080", "http://redbrick.example.com:8080/api/graphql/"),
        ("http://10.0.0.7/", "http://10.0.0.7/api/graphql/"),
        ("http://a.amazonaws.com/Prod", "http://a.amazonaws.com/Prod/graphql/"),
        ("redbrick.example.com", "https://redbrick.example.com/api/graphql/"),
        ("https://redbrick.example.com", "https://redbrick.example.com/api/graphql/"),
        ("http://api.redbrickai.com", PUBLIC),
    ],
)
def test_allowed_http_url_is_kept(host, url):
    assert graphql_url(host, allow_http=True) == url


@pytest.mark.parametrize(
    ("host", "schema", "url"),
    [
        ("localhost:8000", "https", "https://localhost:8000/graphql/"),
        ("localhost:8000", "http", "http://localhost:8000/graphql/"),
        ("https://redbrick.example.com", "http", "https://redbrick.example.com/api/graphql/"),
        ("redbrick.example.com", "https", "https://redbrick.example.com/api/graphql/"),
        ("redbrick.example.com", "anything", "https://redbrick.example.com/api/graphql/"),
        ("redbrick.example.com", "", "https://redbrick.example.com/api/graphql/"),
        (None, "http", PUBLIC),
    ],
)
def test_connection_schema_is_used_if_the_host_has_none(host, schema, url):
    assert graphql_url(host, schema=schema) == url


# ------------------------------------------------------------------ other


def test_connection_port_is_used_if_the_host_has_none():
    assert graphql_url("localhost", port=8000) == "http://localhost:8000/graphql/"
    assert graphql_url("http://localhost:9000", port=8000) == "http://localhost:9000/graphql/"
    assert graphql_url("redbrick.example.com", port=8443) == "https://redbrick.example.com:8443/api/graphql/"


@pytest.mark.parametrize(
    "host",
    [
        "https://user:canary@redbrick.example.com",
        "https://canary@redbrick.example.com",
        "user:canary@localhost:8000",
        "https://user:canary@redbrick.example.com:notaport",
        "https://user:canary@redbrick.example.com:99999",
        "https://user:canary/more@redbrick.example.com",
        "https://user:12/canary@redbrick.example.com",
        "https://user:canary@[::1",
        "https://api.redbrickai.com:canary@evil.com",
    ],
)
def test_credentials_in_the_url_are_refused_and_not_echoed(host):
    with pytest.raises(RedBrickInputError) as raised:
        graphql_url(host)
    assert "canary" not in str(raised.value)
    assert "without credentials" in str(raised.value)


@pytest.mark.parametrize(
    "host",
    [
        "ftp://redbrick.example.com",
        "file:///etc/passwd",
        "http://",
        "https://:8000",
        "http://[::1",
        "http://localhost:notaport",
        "localhost:99999",
        "{{ var.value.redbrick_host }}",
        "red brick.example.com",
        "a..b",
        "a" * 64 + ".example.com",
        "http://localhost\\.evil.com",
    ],
)
def test_invalid_host_is_refused(host):
    with pytest.raises(RedBrickInputError, match="must be a host name"):
        graphql_url(host)


@given(st.text(max_size=40))
def test_any_host_text_gives_a_url_or_an_input_error(host):
    try:
        url = graphql_url(host)
    except RedBrickInputError:
        return
    scheme, _, rest = url.partition("://")
    name = rest.split("/")[0].rsplit(":", 1)[0] if not rest.startswith("[") else rest[1 : rest.index("]")]
    assert url.endswith("/graphql/")
    assert scheme == "https" or is_loopback(name)
