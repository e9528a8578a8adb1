"""The webhook's door: who gets in, and what becomes of what they bring."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time

import pytest
from fastapi.testclient import TestClient
from fixtures import eventually

SECRET = "of-no-value-but-long-enough-0123456789"


class Woken(list):
    """What woke assets, as they would have got it."""

    def __call__(self, *, session, **facts):
        assert session is not None
        self.append(facts)
        return 1


@pytest.fixture
def woken(monkeypatch):
    found = Woken()
    monkeypatch.setattr("airflow_provider_redbrick.assets.events.wake", found)
    return found


@pytest.fixture
def door(airflow, sandbox, woken, monkeypatch):
    monkeypatch.setenv("AIRFLOW__REDBRICK__WEBHOOK_SECRET", SECRET)
    from airflow_provider_redbrick.plugins.webhook import webhook_app

    app = webhook_app()
    yield TestClient(app)
    app.app.state.waking.stop()


@pytest.fixture
def message(sandbox):
    """A message as RedBrick sends it: ``message(task_id, ...)``."""
    numbers = iter(range(1000))

    def write(*task_ids, stage="Label", project=None, numbers=numbers):
        data = {"orgId": sandbox.org_id, "projectId": project or sandbox.project_id, "stageName": stage}
        events = [
            {"event": "TASK_ENTERED_STAGE", "id": f"e{next(numbers)}", "data": {**data, "taskId": task_id}}
            for task_id in task_ids
        ]
        return json.dumps({"version": "v1.0", "events": len(events), "payload": events})

    return write


def post(door, body, secret=SECRET, **options):
    return door.post(f"/{secret}", content=body, **options)


def test_it_is_shut_unless_there_is_a_secret(monkeypatch):
    from airflow_provider_redbrick.plugins.redbrick import RedBrickPlugin
    from airflow_provider_redbrick.plugins.webhook import webhook_app

    monkeypatch.delenv("AIRFLOW__REDBRICK__WEBHOOK_SECRET", raising=False)
    assert webhook_app() is None
    assert [app["url_prefix"] for app in RedBrickPlugin().fastapi_apps] == ["/redbrick"]


def test_a_secret_that_is_soon_guessed_opens_nothing(monkeypatch, caplog):
    from airflow_provider_redbrick.plugins.webhook import webhook_app

    monkeypatch.setenv("AIRFLOW__REDBRICK__WEBHOOK_SECRET", "hunter2")
    assert webhook_app() is None
    assert "shorter" in caplog.text
    assert "hunter2" not in caplog.text


@pytest.mark.parametrize("around", ["\n", "\r\n", " ", "\t\n"])
def test_white_space_around_a_secret_is_none_of_it(airflow, monkeypatch, around):
    from airflow_provider_redbrick.plugins.webhook import webhook_app

    monkeypatch.setenv("AIRFLOW__REDBRICK__WEBHOOK_SECRET", f"{around}{SECRET}{around}")
    assert post(TestClient(webhook_app()), '{"payload": []}').status_code == 202


def command(monkeypatch, line):
    monkeypatch.delenv("AIRFLOW__REDBRICK__WEBHOOK_SECRET", raising=False)
    monkeypatch.setenv("AIRFLOW__REDBRICK__WEBHOOK_SECRET_CMD", line)
    from airflow_provider_redbrick.plugins.webhook import webhook_app

    return webhook_app()


def test_a_command_prints_a_line(airflow, monkeypatch):
    assert post(TestClient(command(monkeypatch, f"echo {SECRET}")), '{"payload": []}').status_code == 202


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("echo", "is blank"),
        ("true", "is blank"),
        ("false", "cannot be read"),
        ("/there/is/no/such/command", "cannot be read"),
        (f"sh -c 'echo {SECRET}; exit 3'", "cannot be read"),
        (f"printf '{SECRET}\\n{SECRET}\\n'", "need encoding in a URL"),
    ],
)
def test_a_command_that_prints_no_secret_is_an_error_in_the_log(airflow, monkeypatch, caplog, line, words):
    assert command(monkeypatch, line) is None
    (record,) = [record for record in caplog.records if record.name.startswith("airflow_provider_redbrick")]
    assert record.levelname == "ERROR"
    assert "webhook_secret" in record.getMessage()
    assert words in record.getMessage()
    assert SECRET not in caplog.text


@pytest.mark.parametrize("odd", ["/", "?", "#", "%", " ", "\n", "é", '"', "\\"])
def test_a_secret_that_cannot_be_an_address_is_an_error_in_the_log(airflow, monkeypatch, caplog, odd):
    from airflow_provider_redbrick.plugins.redbrick import RedBrickPlugin

    monkeypatch.setenv("AIRFLOW__REDBRICK__WEBHOOK_SECRET", f"{SECRET}{odd}{SECRET}")
    assert [app["url_prefix"] for app in RedBrickPlugin().fastapi_apps] == ["/redbrick"]
    (record,) = [record for record in caplog.records if "webhook_secret" in record.getMessage()]
    assert record.levelname == "ERROR"
    assert SECRET not in caplog.text


@pytest.mark.parametrize("connection_id", ["", " ", "two words", "redbrick_default/x", '"redbrick_default"'])
def test_a_connection_id_that_is_none_is_an_error_in_the_log(airflow, monkeypatch, caplog, connection_id):
    from airflow_provider_redbrick.plugins.webhook import webhook_app

    monkeypatch.setenv("AIRFLOW__REDBRICK__WEBHOOK_SECRET", SECRET)
    monkeypatch.setenv("AIRFLOW__REDBRICK__WEBHOOK_CONN_ID", connection_id)
    assert webhook_app() is None
    assert ["webhook_conn_id" in record.getMessage() for record in caplog.records if record.levelname == "ERROR"]


def test_a_connection_id_may_have_white_space_around(door, sandbox, woken, message, monkeypatch):
    from airflow_provider_redbrick.plugins.webhook import webhook_app

    monkeypatch.setenv("AIRFLOW__REDBRICK__WEBHOOK_CONN_ID", "redbrick_default\n")
    post(TestClient(webhook_app()), message(*sandbox.seed_tasks(1)))
    eventually(lambda: woken)


def test_with_a_secret_it_is_one_of_the_plugins_applications(monkeypatch):
    from airflow_provider_redbrick.plugins.redbrick import RedBrickPlugin

    monkeypatch.setenv("AIRFLOW__REDBRICK__WEBHOOK_SECRET", SECRET)
    assert [app["url_prefix"] for app in RedBrickPlugin().fastapi_apps] == ["/redbrick", "/redbrick-webhook"]


def test_a_hint_is_confirmed_and_wakes(door, sandbox, woken, message):
    ids = sandbox.seed_tasks(3)
    assert post(door, message(*ids[:2])).status_code == 202
    eventually(lambda: woken)
    assert woken == [
        {
            "org_id": sandbox.org_id,
            "project_id": sandbox.project_id,
            "stage_name": "Label",
            "extra": {
                "schema_version": 1,
                "project_id": sandbox.project_id,
                "stage_name": "Label",
                "count": 3,
                "task_ids": ids[:2],
            },
        }
    ]


def test_ground_truth_wakes_by_its_public_name(door, sandbox, woken, message):
    (task_id,) = sandbox.seed_tasks(1, ground_truth=True)
    post(door, message(task_id, stage="END"))
    eventually(lambda: woken)
    assert woken[0]["stage_name"] == woken[0]["extra"]["stage_name"] == "Ground Truth"


def settled(door, sandbox, woken, message):
    """Whatever came before has been worked on: messages are worked on in turn."""
    (task_id,) = sandbox.seed_tasks(1)
    post(door, message(task_id))
    eventually(lambda: woken and woken[-1]["extra"]["task_ids"] == [task_id])
    woken.pop()


def test_what_the_message_says_decides_nothing(door, sandbox, woken, message):
    """Forged with the right secret, or late: RedBrick itself says that none of it is so."""
    (task_id,) = sandbox.seed_tasks(1)
    unknown_id = "99999999-9999-9999-9999-999999999999"
    for body in (
        message(task_id, stage="Review_1"),
        message(task_id, stage="Nowhere"),
        message(unknown_id),
        message(task_id, project=unknown_id),
    ):
        assert post(door, body).status_code == 202
    settled(door, sandbox, woken, message)
    assert woken == []


def test_the_same_event_twice_is_one(door, sandbox, woken, message):
    (task_id,) = sandbox.seed_tasks(1)
    body = message(task_id)
    assert [post(door, body).status_code for _ in range(3)] == [202, 202, 202]
    settled(door, sandbox, woken, message)
    assert len(woken) == 1


def test_what_came_to_nothing_may_be_sent_again(door, sandbox, woken, message):
    (task_id,) = sandbox.seed_tasks(1)
    body = message(task_id)
    sandbox.faults("http_503=1")
    before = sandbox.stats()["requests"]
    post(door, body)
    eventually(lambda: sandbox.stats()["requests"] > before)
    sandbox.faults("")

    def taken_again() -> bool:
        post(door, body)
        return bool(woken)

    eventually(taken_again)
    settled(door, sandbox, woken, message)
    assert len(woken) == 1


def test_a_message_before_the_task_is_there_counts_when_it_is_sent_again(door, sandbox, woken, message, caplog):
    caplog.set_level(logging.INFO, "airflow_provider_redbrick")
    (task_id,) = sandbox.seed_tasks(1)
    early = message(task_id, stage="Review_1")
    assert post(door, early).status_code == 202
    eventually(lambda: "No task of the webhook message" in caplog.text)
    assert woken == []
    sandbox.humans("Label")

    def woken_by_it():
        post(door, early)
        return woken

    eventually(woken_by_it)
    assert [(facts["stage_name"], facts["extra"]["task_ids"]) for facts in woken] == [("Review_1", [task_id])]
    post(door, early)
    settled(door, sandbox, woken, message)
    assert len(woken) == 1


def test_it_counts_also_when_it_is_not_sent_again(door, sandbox, woken, message):
    there, late = sandbox.seed_tasks(2)
    sandbox.settings(transition_ms=1500)
    sandbox.humans("Label", limit=1)
    moved = there if sandbox.task(there)["state"] == "COMPLETED" else late
    assert post(door, message(moved, stage="Review_1")).status_code == 202
    eventually(lambda: woken)
    assert woken[0]["extra"]["task_ids"] == [moved]


def test_of_a_message_only_what_is_confirmed_is_done(door, sandbox, woken, message):
    (there,) = sandbox.seed_tasks(1, stage="Review_1")
    (late,) = sandbox.seed_tasks(1)
    body = message(there, late, stage="Review_1")
    post(door, body)
    eventually(lambda: woken)
    assert woken.pop()["extra"]["task_ids"] == [there]
    sandbox.humans("Label", limit=1)

    def woken_again():
        post(door, body)
        return woken

    eventually(woken_again)
    assert woken[0]["extra"]["task_ids"] == [late]


def test_of_many_tasks_each_is_looked_at(door, sandbox, woken, message):
    waiting = sandbox.seed_tasks(60)
    (there,) = sandbox.seed_tasks(1, stage="Review_1")
    post(door, message(*waiting, there, stage="Review_1"))
    eventually(lambda: woken)
    assert woken[0]["extra"]["task_ids"] == [there]


@pytest.mark.parametrize("secret", ["wrong", SECRET[:-1], f"{SECRET}x", SECRET.upper(), "%00", "é", "x" * 5000])
def test_another_secret_is_no_address(door, woken, message, sandbox, secret):
    before = sandbox.stats()["requests"]
    answer = post(door, message(*sandbox.seed_tasks(1)), secret)
    assert answer.status_code == 404
    assert SECRET not in answer.text
    assert (woken, sandbox.stats()["requests"]) == ([], before)


def ask(door, path, *headers, receive=None):
    """Ask the application as a server does, with what no client of the tests would send; answer the status."""
    sent = []

    async def nothing():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(part):
        sent.append(part)

    scope = {
        "type": "http", "method": "POST", "path": path, "raw_path": b"/", "query_string": b"", "headers": headers,
        "root_path": "", "http_version": "1.1", "scheme": "http", "server": ("x", 80), "client": ("y", 1),
    }  # fmt: skip
    asyncio.run(door.app(scope, receive or nothing, send))
    return sent[0]["status"]


@pytest.mark.parametrize("secret", ["\udce9", f"{SECRET}\udcff"])
def test_neither_is_an_address_that_is_no_text(door, secret):
    assert ask(door, f"/{secret}") == 404


@pytest.mark.parametrize("length", ["²", "1²", "½", "-1", "1e9", "x"])
def test_a_length_that_is_no_number_says_nothing(door, length):
    assert ask(door, f"/{SECRET}", (b"content-length", length.encode("latin-1"))) == 400


@pytest.mark.parametrize("path", ["/", "", f"/{SECRET}/more", "/docs", "/openapi.json"])
def test_there_is_nothing_else(door, path):
    assert door.get(path).status_code in {404, 405}


@pytest.mark.parametrize("verb", ["GET", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"])
def test_it_takes_posts_alone(door, verb, woken):
    assert door.request(verb, f"/{SECRET}").status_code == 405


@pytest.mark.parametrize("body", ["", "{", "[]", '{"payload": 3}', "\x00" * 100])
def test_what_is_no_message_is_refused(door, body, woken):
    assert post(door, body).status_code == 400
    assert woken == []


def test_a_message_without_anything_for_us_is_taken(door, sandbox, woken):
    before = sandbox.stats()["requests"]
    assert post(door, '{"payload": [{"event": "TASK_CREATED", "id": "1", "data": {}}]}').status_code == 202
    assert sandbox.stats()["requests"] == before


def test_no_more_is_read_than_a_message_may_have(door):
    from airflow_provider_redbrick.plugins.webhook import LARGEST

    read = []

    def endless():
        while True:
            read.append(1 << 14)
            if sum(read) > 64 * LARGEST:
                raise AssertionError("the body is read without a limit")
            yield b" " * (1 << 14)

    # The client of the test hands a body over as a whole, so the application is asked as a server asks it.
    parts = endless()

    async def receive():
        return {"type": "http.request", "body": next(parts), "more_body": True}

    assert ask(door, f"/{SECRET}", receive=receive) == 413
    assert sum(read) <= LARGEST + 2 * (1 << 14)


def test_what_says_that_it_is_too_large_is_not_read(door):
    from airflow_provider_redbrick.plugins.webhook import LARGEST

    assert post(door, b" " * (LARGEST + 1)).status_code == 413
    assert post(door, b" " * LARGEST).status_code == 400


def test_it_answers_without_waiting_for_redbrick(door, sandbox, woken, message):
    (task_id,) = sandbox.seed_tasks(1)
    sandbox.settings(latency_ms=1500)
    began = time.monotonic()
    assert post(door, message(task_id)).status_code == 202
    assert not woken
    assert time.monotonic() - began < 1.4
    sandbox.settings(latency_ms=0)
    eventually(lambda: woken)


def test_no_more_wait_than_there_are_places(airflow, sandbox, woken, monkeypatch, message):
    from airflow_provider_redbrick.plugins import webhook

    monkeypatch.setenv("AIRFLOW__REDBRICK__WEBHOOK_SECRET", SECRET)
    monkeypatch.setattr(webhook, "_MAX_WAITING_HINTS", 2)
    door = TestClient(webhook.webhook_app())
    go_on = threading.Event()
    monkeypatch.setattr("airflow_provider_redbrick.plugins.webhook.look", lambda *_: go_on.wait(10) and None)
    ids = sandbox.seed_tasks(3)
    bodies = [message(task_id) for task_id in ids]
    assert [post(door, body).status_code for body in bodies] == [202, 202, 503]
    go_on.set()
    # It was not taken, and so it is not a repetition.
    eventually(lambda: post(door, bodies[2]).status_code == 202)


@pytest.mark.parametrize("secret", [SECRET, "x" * 40])
def test_the_address_in_the_servers_log_does_not_tell_the_secret(door, secret):
    scope = {
        "type": "http", "method": "GET", "path": f"/redbrick-webhook/{secret}", "root_path": "/redbrick-webhook",
        "headers": [], "query_string": b"", "http_version": "1.1", "scheme": "http", "server": ("x", 80),
    }  # fmt: skip

    async def send(part):
        # Some servers log when the answer begins, some when it has ended.
        assert scope["path"] == "/redbrick-webhook/***"

    asyncio.run(door.app(scope, None, send))
    assert scope["path"] == "/redbrick-webhook/***"


def test_neither_secret_nor_key_is_logged(door, sandbox, woken, message, caplog):
    caplog.set_level(logging.DEBUG, "airflow_provider_redbrick")
    (task_id,) = sandbox.seed_tasks(1)
    post(door, message(task_id))
    sandbox.faults("gql_error=1")
    post(door, message(task_id))
    eventually(lambda: "could not be verified" in caplog.text)
    sandbox.faults("")
    ours = "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("airflow_provider"))
    assert SECRET not in ours
    assert sandbox.api_key not in ours
