"""Tests of the page's application: access, responses, number of requests, errors."""

from __future__ import annotations

import json

import pendulum
import pytest
from airflow_versions import BEFORE_3_1
from fastapi.testclient import TestClient

CANARY = "canary-0123456789-abcdefghijklmnopqrstuvwxy"
PATHS = ["/", "/static/page.js", "/boards", "/boards/redbrick_default"]


@pytest.fixture
def client(airflow, sandbox):
    from airflow_provider_redbrick.plugins.page import page_app

    return TestClient(page_app())


@pytest.fixture
def signed_in(client, airflow):
    """Return a client that is signed in with a role: ``signed_in("op").get("/boards")``."""
    if BEFORE_3_1:
        pytest.skip("Airflow 3.0 has no user for plugin applications, so that the page refuses every request")
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser

    def sign_in(role: str, **claims) -> TestClient:
        token = airflow.generate_jwt(SimpleAuthManagerUser(username=role, role=role), **claims)
        client.cookies.set("_token", token)
        return client

    return sign_in


# ------------------------------------------------------------------------------------- access


@pytest.mark.parametrize("path", PATHS)
def test_request_without_session_is_refused(client, sandbox, path):
    before = sandbox.stats()["requests"]
    answer = client.get(path)
    assert answer.status_code == 401
    assert "Sandbox" not in answer.text
    assert sandbox.stats()["requests"] == before


@pytest.mark.parametrize("path", PATHS)
def test_forged_token_is_refused(client, path):
    client.cookies.set("_token", "not.a.token")
    assert client.get(path).status_code in {401, 403}


@pytest.mark.parametrize("path", PATHS)
def test_expired_session_is_refused(signed_in, path):
    assert signed_in("admin", expiration_time_in_seconds=-10).get(path).status_code == 401


def test_user_without_connection_access_sees_no_projects(signed_in, sandbox):
    before = sandbox.stats()["requests"]
    viewer = signed_in("viewer")
    assert viewer.get("/").status_code == 200
    assert viewer.get("/boards").json() == []
    assert viewer.get("/boards/redbrick_default").status_code == 403
    assert sandbox.stats()["requests"] == before


@pytest.mark.parametrize("role", ["op", "admin"])
def test_user_with_connection_access_sees_projects(signed_in, sandbox, role):
    sandbox.seed_tasks(3)
    client = signed_in(role)
    assert {"connection": "redbrick_default", "project": ""} in client.get("/boards").json()
    board = client.get("/boards/redbrick_default").json()
    assert board["state"] == "ok"
    assert {stage["title"]: stage["count"] for stage in board["stages"]}["Label"] == 3


def test_bearer_token_is_accepted(client, airflow, signed_in):
    signed_in("op")
    token = client.cookies.get("_token")
    client.cookies.clear()
    assert client.get("/boards", headers={"Authorization": f"Bearer {token}"}).status_code == 200


@pytest.fixture
def limited_access(airflow, sandbox, monkeypatch):
    """A user with access to some connections and DAGs only. An admin sees all."""
    monkeypatch.setenv("AIRFLOW__REDBRICK__BOARDS", "redbrick_default, other")
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", sandbox.airflow_conn_uri)

    def connection(*, details, user, **_):
        return user.username == "admin" or details.conn_id == "redbrick_default"

    def dags(*, user, **_):
        return {"seen", "hidden"} if user.username == "admin" else {"seen"}

    monkeypatch.setattr(airflow, "is_authorized_connection", connection)
    monkeypatch.setattr(airflow, "get_authorized_dag_ids", dags)


def connections(client):
    return {board["connection"] for board in client.get("/boards").json()} & {"redbrick_default", "other"}


@pytest.mark.usefixtures("limited_access")
def test_boards_user_without_access_to_connection_hides_it(signed_in, sandbox):
    assert connections(signed_in("admin")) == {"redbrick_default", "other"}
    assert signed_in("admin").get("/boards/other").json()["state"] == "ok"
    client = signed_in("op")
    assert connections(client) == {"redbrick_default"}
    assert client.get("/boards/redbrick_default").json()["state"] == "ok"
    # Also while the result is cached.
    before = sandbox.stats()["requests"]
    answer = client.get("/boards/other")
    assert (answer.status_code, "Sandbox" in answer.text) == (403, False)
    assert sandbox.stats()["requests"] == before


@pytest.mark.usefixtures("limited_access")
@pytest.mark.parametrize("first", ["admin", "op"])
def test_runs_user_without_access_to_dag_hides_them(signed_in, monkeypatch, first):
    from airflow_provider_redbrick.plugins.project_view import TaskActivity

    def run(dag_id):
        return TaskActivity(dag_id, "r", "t", False, pendulum.now("UTC"), "success", "prelabel", "Label", {"done": 1})

    read = []

    def list_activity(project_id):
        read.append(project_id)
        return [run("seen"), run("hidden")]

    monkeypatch.setattr("airflow_provider_redbrick.plugins.records.list_activity", list_activity)
    shown = {"admin": {"seen", "hidden"}, "op": {"seen"}}
    for role in (first, *(shown.keys() - {first}), first):
        runs = signed_in(role).get("/boards/redbrick_default").json()["runs"]
        assert {entry["dag_id"] for entry in runs} == shown[role]
    # All three responses come from one read.
    assert len(read) == 1


# ------------------------------------------------------------------------------------- responses


@pytest.mark.parametrize("path", [*PATHS, "/nothing", "/static/nothing"])
def test_every_response_has_security_headers(signed_in, path):
    answer = signed_in("op").get(path)
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "no-store"


def test_static_files_refer_to_no_other_host(signed_in):
    client = signed_in("op")
    for path in ("/", "/static/page.js", "/static/page.css"):
        text = client.get(path).text.replace("http://www.w3.org/2000/svg", "")
        assert "://" not in text
        assert "innerHTML" not in text
        assert " style=" not in text


@pytest.mark.parametrize("path", ["/static/../page.py", "/static/%2e%2e%2fpage.py", "/static/page.py"])
def test_static_serves_only_the_page_files(signed_in, path):
    assert signed_in("op").get(path).status_code == 404


def test_write_methods_are_not_allowed(signed_in):
    client = signed_in("admin")
    for verb in ("post", "put", "patch", "delete"):
        assert getattr(client, verb)("/boards/redbrick_default").status_code == 405


def test_recorded_queues_are_drawn(signed_in, sandbox, record_queues):
    project = sandbox.add_project()
    sandbox.seed_tasks(2, project_id=project)
    record_queues(project, {"Label": 4, "Review_1": 1}, hours_ago=2)
    record_queues(project, {"Label": 9}, hours_ago=1)
    board = signed_in("op").get("/boards/redbrick_default", params={"project": project}).json()
    courses = {stage["title"]: stage["course"] for stage in board["stages"]}
    assert (courses["Label"]["low"], courses["Label"]["high"]) == (2, 9)
    assert courses["Label"]["path"] == "M0 13.33H100V0.00H200V18.67"
    assert (courses["Review_1"]["low"], courses["Review_1"]["high"], courses["Ground Truth"]) == (0, 1, None)


def test_project_name_with_markup_is_sent_as_json(signed_in, sandbox):
    name = "<script>alert(1)</script>"
    project = sandbox.add_project(name=name)
    answer = signed_in("op").get("/boards/redbrick_default", params={"project": project})
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json()["project"]["name"] == name


# ------------------------------------------------------------------------------------- number of requests


def test_repeated_views_share_one_read(signed_in, sandbox):
    client = signed_in("op")
    client.get("/boards/redbrick_default")
    before = sandbox.stats()["requests"]
    for _ in range(20):
        assert client.get("/boards/redbrick_default").json()["state"] == "ok"
    assert sandbox.stats()["requests"] == before


def test_board_takes_at_most_four_requests(signed_in, sandbox):
    sandbox.seed_tasks(300)
    before = sandbox.stats()["requests"]
    signed_in("op").get("/boards/redbrick_default")
    assert sandbox.stats()["requests"] - before <= 4


def test_board_counts_tasks_by_assignee(signed_in, sandbox):
    ids = sandbox.seed_tasks(5)
    from airflow_provider_redbrick.hooks.redbrick import RedBrickHook

    project = RedBrickHook().project()
    project.assign(ids[:3], sandbox.members[0])
    project.claim(ids[3:4])
    board = signed_in("op").get("/boards/redbrick_default").json()
    label = next(stage for stage in board["stages"] if stage["title"] == "Label")
    assert {entry["name"]: entry["count"] for entry in label["held"]} == {
        sandbox.members[0]: 3,
        "an API key": 1,
        "unassigned": 1,
    }


# ------------------------------------------------------------------------------------- errors


@pytest.fixture
def connection(monkeypatch):
    def put(**fields):
        given = {"conn_type": "redbrick", "password": CANARY, **fields}
        monkeypatch.setenv("AIRFLOW_CONN_ODD", json.dumps(given))

    return put


def ids(sandbox, **extra):
    return {"org_id": sandbox.org_id, "project_id": sandbox.project_id, **extra}


@pytest.mark.parametrize("kind", ["wrong_key", "no_answer", "bad_settings", "no_project", "another_type"])
def test_connection_problem_is_shown_without_the_key(signed_in, sandbox, connection, caplog, kind):
    fields = {
        "wrong_key": {"host": sandbox.url, "extra": ids(sandbox)},
        "no_answer": {"host": "http://localhost:9", "extra": ids(sandbox)},
        "bad_settings": {"host": sandbox.url, "extra": {"org_id": sandbox.org_id}},
        "no_project": {
            "host": sandbox.url,
            "password": sandbox.api_key,
            "extra": ids(sandbox, project_id="99999999-9999-9999-9999-999999999999"),
        },
        # Its password must not be sent to a server as a key.
        "another_type": {"conn_type": "postgres", "host": sandbox.url, "extra": ids(sandbox)},
    }
    connection(**fields[kind])
    before = sandbox.stats()["requests"]
    answer = signed_in("op").get("/boards/odd")
    assert answer.status_code == 200
    board = answer.json()
    assert board["state"] == {"another_type": "bad_settings"}.get(kind, kind)
    assert board["message"]
    for text in (answer.text, caplog.text):
        assert CANARY not in text
        assert sandbox.api_key not in text
        assert "Traceback" not in text
    if kind == "another_type":
        assert sandbox.stats()["requests"] == before


def test_missing_connection_is_shown_and_not_logged(signed_in, caplog):
    board = signed_in("op").get("/boards/not_there").json()
    assert (board["state"], board["runs"]) == ("no_connection", [])
    assert "not_there" in board["message"]
    assert [record for record in caplog.records if record.levelname != "INFO"] == []


def test_unexpected_error_is_logged_and_not_shown(signed_in, monkeypatch, caplog):
    def broken(*_):
        raise KeyError(CANARY)

    monkeypatch.setattr("airflow_provider_redbrick.plugins.page.read_project", broken)
    answer = signed_in("op").get("/boards/redbrick_default")
    assert answer.json()["state"] == "broken"
    assert CANARY not in answer.text
    assert "could not be read" in caplog.text


def test_database_error_still_shows_the_project(signed_in, sandbox, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("no database")

    monkeypatch.setattr("airflow_provider_redbrick.plugins.records.list_activity", broken)
    assert signed_in("op").get("/boards/redbrick_default").json()["state"] == "ok"


def test_failing_server_is_requested_once(signed_in, sandbox):
    sandbox.faults("http_503=1")
    before = sandbox.stats()["requests"]
    assert signed_in("op").get("/boards/redbrick_default").json()["state"] == "no_answer"
    assert sandbox.stats()["requests"] - before == 1


def test_page_hook_limits_the_request_timeout(sandbox, connection):
    from airflow_provider_redbrick.plugins import project_view

    connection(host=sandbox.url, extra=ids(sandbox, timeout=300))
    assert project_view.PageHook("odd").settings.timeout < 10


def test_invalid_board_is_logged_and_skipped(signed_in, monkeypatch, caplog):
    from airflow_provider_redbrick.plugins import page

    monkeypatch.setenv("AIRFLOW__REDBRICK__BOARDS", "redbrick_default/not-an-id, redbrick_default")
    page.page_app()
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert "[redbrick] boards" in record.getMessage()
    assert "not-an-id" in record.getMessage()
    caplog.clear()
    assert {"connection": "redbrick_default", "project": ""} in signed_in("op").get("/boards").json()
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


@pytest.mark.parametrize("option", ["boards", "webhook_secret", "webhook_conn_id"])
def test_unreadable_option_is_logged_and_default_is_used(monkeypatch, caplog, option):
    from airflow.providers.common.compat.sdk import conf

    from airflow_provider_redbrick.plugins.redbrick import RedBrickPlugin

    real = conf.get

    def get(section, key, **options):
        if key == option:
            raise ValueError("a secrets backend that does not answer: swordfish")
        return real(section, key, **options)

    monkeypatch.setenv("AIRFLOW__REDBRICK__WEBHOOK_SECRET", "of-no-value-but-long-enough-0123456789")
    monkeypatch.setattr(conf, "get", get)
    assert RedBrickPlugin().fastapi_apps
    assert f"[redbrick] {option}" in caplog.text
    assert "swordfish" not in caplog.text
