"""Test that web pages of other sites cannot control the sandbox, nor read it under a name of their own."""

from __future__ import annotations

from datetime import datetime
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import pytest
import requests

ME = {"query": "query { me { userId } }"}


def control(sandbox, *, method="POST", **headers):
    headers = {"Content-Type": "application/json", **headers}
    return requests.request(method, f"{sandbox.url}/_sandbox/faults", data="{}", headers=headers, timeout=30)


@pytest.fixture
def port(sandbox):
    return urlsplit(sandbox.url).port


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "localhost", "127.0.0.1:1", "localhost.:{port}"]
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_control_with_foreign_host_is_refused(sandbox, port, host, method):
    assert control(sandbox, method=method, Host=host.format(port=port)).status_code == 403


@pytest.mark.parametrize("path", ["/", "/board.json", "/graphql/", "/storage/x"])
def test_every_path_with_foreign_host_is_refused(sandbox, path):
    # The key is public: under another name, a page could read all of the API.
    headers = {"ApiKey": sandbox.api_key, "Host": "evil.example"}
    response = requests.post(f"{sandbox.url}{path}", json=ME, headers=headers, timeout=30)
    assert (response.status_code, "no other host" in response.text) == (403, True)


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "[::1]", "LOCALHOST"])
def test_own_names_are_accepted(sandbox, port, name):
    assert control(sandbox, Host=f"{name}:{port}").status_code == 200
    assert control(sandbox, Origin=f"http://{name}:{port}").status_code == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://localhost:{port}", "http://localhost"])
def test_control_from_foreign_origin_is_refused(sandbox, port, origin):
    assert control(sandbox, Origin=origin.format(port=port)).status_code == 403
    assert control(sandbox, method="GET", Origin=origin.format(port=port)).status_code == 403


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "", "text/json"])
def test_control_body_that_is_not_json_is_refused(sandbox, kind):
    assert control(sandbox, **{"Content-Type": kind}).status_code == 415
    assert control(sandbox, **{"Content-Type": "application/json; charset=utf-8"}).status_code == 200


def test_date_header_has_the_clock_of_the_server(sandbox):
    sandbox.behavior(clock_offset=-3600)
    (task_id,) = sandbox.seed_tasks(1)
    response = requests.get(f"{sandbox.url}/_sandbox/stats", timeout=30)
    updated_at = datetime.fromisoformat(sandbox.task(task_id)["updatedAt"])
    assert abs((parsedate_to_datetime(response.headers["Date"]) - updated_at).total_seconds()) < 60
    assert abs((datetime.now(updated_at.tzinfo) - updated_at).total_seconds() - 3600) < 60
