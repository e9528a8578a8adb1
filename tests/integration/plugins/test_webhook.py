"""Tests of the webhook endpoint: options, access, verification and limits."""

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


class RegisteredEvents(list):
    """The keyword arguments of all calls of ``register_stage_events``."""

    def __call__(self, *, session, **arguments):
        assert session is not None
        self.append(arguments)
        return 1


@pytest.fixture
def registered(monkeypatch):
    calls = RegisteredEvents()
    monkeypatch.setattr("airflow_provider_redbrick.assets.stages.register_stage_events", calls)
    return calls


@pytest.fixture
def client(airflow, sandbox, registered, monkeypatch):
    monkeypatch.setenv("AIRFLOW__REDBRICK__WEBHOOK_SECRET", SECRET)
    from airflow_provider_redbrick.plugins.webhook import webhook_app

    app = webhook_app()
    yield TestClient(app)
    app.app.state.verifier.stop()


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


def post(client, body, secret=SECRET, **options):
    return client.post(f"/{secret}", content=body, **options)


def test_webhook_without_secret_is_disabled(monkeypatch):
    from airflow_provider_redbrick.plugins.redbrick import RedBrickPlugin
    from airflow_provider_redbrick.plugins.webhook import webhook_app

    monkeypatch.delenv("AIRFLOW__REDBRICK__WEBHOOK_SECRET", raising=False)
    assert webhook_app() is None
    assert [app["url_prefix"] for app in RedBrickPlugin().fastapi_apps] == ["/redbrick"]


def test_short_secret_disables_the_webhook(monkeypatch, caplog):
    from airflow_provider_redbrick.plugins.webhook import webhook_app

    monkeypatch.setenv("AIRFLOW__REDBRICK__WEBHOOK_SECRET", "hunter2")
    assert webhook_app() is None
    assert "shorter" in caplog.text
    assert "hunter2" not in caplog.text


@pytest.mark.parametrize("around", ["\n", "\r\n", " ", "\t\n"])
def test_secret_is_stripped(airflow, monkeypatch, around):
    from airflow_provider_redbrick.plugins.webhook import webhook_app

    monkeypatch.setenv("AIRFLOW__REDBRICK__WEBHOOK_SECRET", f"{around}{SECRET}{around}")
    assert post(TestClient(webhook_app()), '{"payload": []}').status_code == 202


def command(monkeypatch, line):
    monkeypatch.delenv("AIRFLOW__REDBRICK__WEBHOOK_SECRET", raising=False)
    monkeypatch.setenv("AIRFLOW__REDBRICK__WEBHOOK_SECRET_CMD", line)
    from airflow_provider_redbrick.plugins.webhook import webhook_app

    return webhook_app()


def test_secret_from_command_is_used(airflow, monkeypatch):
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
def test_command_without_valid_secret_is_logged(airflow, monkeypatch, caplog, line, words):
    assert command(monkeypatch, line) is None
    (record,) = [record for record in caplog.records if record.name.startswith("airflow_provider_redbrick")]
    assert record.levelname == "ERROR"
    assert "webhook_secret" in record.getMessage()
    assert words in record.getMessage()
    assert SECRET not in caplog.text


@pytest.mark.parametrize("odd", ["/", "?", "#", "%", " ", "\n", "é", '"', "\\"])
def test_secret_with_unsafe_characters_is_logged(airflow, monkeypatch, caplog, odd):
    from airflow_provider_redbrick.plugins.redbrick import RedBrickPlugin

    monkeypatch.setenv("AIRFLOW__REDBRICK__WEBHOOK_SECRET", f"{SECRET}{odd}{SECRET}")
    assert [app["url_prefix"] for app in RedBrickPlugin().fastapi_apps] == ["/redbrick"]
    (record,) = [record for record in caplog.records if "webhook_secret" in record.getMessage()]
    assert record.levelname == "ERROR"
    assert SECRET not in caplog.text


@pytest.mark.parametrize("connection_id", ["", " ", "two words", "redbrick_default/x", '"redbrick_default"'])
def test_invalid_connection_id_is_logged(airflow, monkeypatch, caplog, connection_id):
    from airflow_provider_redbrick.plugins.webhook import webhook_app

    monkeypatch.setenv("AIRFLOW__REDBRICK__WEBHOOK_SECRET", SECRET)
    monkeypatch.setenv("AIRFLOW__REDBRICK__WEBHOOK_CONN_ID", connection_id)
    assert webhook_app() is None
    assert ["webhook_conn_id" in record.getMessage() for record in caplog.records if record.levelname == "ERROR"]


def test_connection_id_is_stripped(client, sandbox, registered, message, monkeypatch):
    from airflow_provider_redbrick.plugins.webhook import webhook_app

    monkeypatch.setenv("AIRFLOW__REDBRICK__WEBHOOK_CONN_ID", "redbrick_default\n")
    post(TestClient(webhook_app()), message(*sandbox.seed_tasks(1)))
    eventually(lambda: registered)


def test_plugin_with_secret_has_the_webhook_application(monkeypatch):
    from airflow_provider_redbrick.plugins.redbrick import RedBrickPlugin

    monkeypatch.setenv("AIRFLOW__REDBRICK__WEBHOOK_SECRET", SECRET)
    assert [app["url_prefix"] for app in RedBrickPlugin().fastapi_apps] == ["/redbrick", "/redbrick-webhook"]


def test_confirmed_hint_registers_events(client, sandbox, registered, message):
    ids = sandbox.seed_tasks(3)
    assert post(client, message(*ids[:2])).status_code == 202
    eventually(lambda: registered)
    assert registered == [
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


def test_ground_truth_event_has_the_public_name(client, sandbox, registered, message):
    (task_id,) = sandbox.seed_tasks(1, ground_truth=True)
    post(client, message(task_id, stage="END"))
    eventually(lambda: registered)
    assert registered[0]["stage_name"] == registered[0]["extra"]["stage_name"] == "Ground Truth"


def wait_for_earlier_messages(client, sandbox, registered, message):
    """Wait until all earlier messages have been processed. Messages are processed in order."""
    (task_id,) = sandbox.seed_tasks(1)
    post(client, message(task_id))
    eventually(lambda: registered and registered[-1]["extra"]["task_ids"] == [task_id])
    registered.pop()


def test_unconfirmed_message_registers_no_events(client, sandbox, registered, message):
    """The message is forged with the right secret, or late. RedBrick confirms none of it."""
    (task_id,) = sandbox.seed_tasks(1)
    unknown_id = "99999999-9999-9999-9999-999999999999"
    for body in (
        message(task_id, stage="Review_1"),
        message(task_id, stage="Nowhere"),
        message(unknown_id),
        message(task_id, project=unknown_id),
    ):
        assert post(client, body).status_code == 202
    wait_for_earlier_messages(client, sandbox, registered, message)
    assert registered == []


def test_repeated_event_registers_once(client, sandbox, registered, message):
    (task_id,) = sandbox.seed_tasks(1)
    body = message(task_id)
    assert [post(client, body).status_code for _ in range(3)] == [202, 202, 202]
    wait_for_earlier_messages(client, sandbox, registered, message)
    assert len(registered) == 1


def test_event_is_accepted_again_after_failed_verification(client, sandbox, registered, message):
    (task_id,) = sandbox.seed_tasks(1)
    body = message(task_id)
    sandbox.faults("http_503=1")
    before = sandbox.stats()["requests"]
    post(client, body)
    eventually(lambda: sandbox.stats()["requests"] > before)
    sandbox.faults("")

    def resend() -> bool:
        post(client, body)
        return bool(registered)

    eventually(resend)
    wait_for_earlier_messages(client, sandbox, registered, message)
    assert len(registered) == 1


def test_early_message_registers_when_sent_again(client, sandbox, registered, message, caplog):
    caplog.set_level(logging.INFO, "airflow_provider_redbrick")
    (task_id,) = sandbox.seed_tasks(1)
    early = message(task_id, stage="Review_1")
    assert post(client, early).status_code == 202
    eventually(lambda: "No task of the webhook message" in caplog.text)
    assert registered == []
    sandbox.humans("Label")

    def resend():
        post(client, early)
        return registered

    eventually(resend)
    assert [(event["stage_name"], event["extra"]["task_ids"]) for event in registered] == [("Review_1", [task_id])]
    post(client, early)
    wait_for_earlier_messages(client, sandbox, registered, message)
    assert len(registered) == 1


def test_early_message_is_verified_again_without_being_resent(client, sandbox, registered, message):
    there, late = sandbox.seed_tasks(2)
    sandbox.settings(transition_ms=1500)
    sandbox.humans("Label", limit=1)
    moved = there if sandbox.task(there)["state"] == "COMPLETED" else late
    assert post(client, message(moved, stage="Review_1")).status_code == 202
    eventually(lambda: registered)
    assert registered[0]["extra"]["task_ids"] == [moved]


def test_partly_confirmed_message_registers_the_rest_later(client, sandbox, registered, message):
    (there,) = sandbox.seed_tasks(1, stage="Review_1")
    (late,) = sandbox.seed_tasks(1)
    body = message(there, late, stage="Review_1")
    post(client, body)
    eventually(lambda: registered)
    assert registered.pop()["extra"]["task_ids"] == [there]
    sandbox.humans("Label", limit=1)

    def resend():
        post(client, body)
        return registered

    eventually(resend)
    assert registered[0]["extra"]["task_ids"] == [late]


def test_message_with_many_tasks_verifies_each(client, sandbox, registered, message):
    waiting = sandbox.seed_tasks(60)
    (there,) = sandbox.seed_tasks(1, stage="Review_1")
    post(client, message(*waiting, there, stage="Review_1"))
    eventually(lambda: registered)
    assert registered[0]["extra"]["task_ids"] == [there]


@pytest.mark.parametrize("secret", ["wrong", SECRET[:-1], f"{SECRET}x", SECRET.upper(), "%00", "é", "x" * 5000])
def test_wrong_secret_is_not_found(client, registered, message, sandbox, secret):
    before = sandbox.stats()["requests"]
    answer = post(client, message(*sandbox.seed_tasks(1)), secret)
    assert answer.status_code == 404
    assert SECRET not in answer.text
    assert (registered, sandbox.stats()["requests"]) == ([], before)


def send_request(client, path, *headers, receive=None):
    """Send an ASGI request that test clients cannot send, and return the status."""
    sent = []

    async def nothing():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(part):
        sent.append(part)

    scope = {
        "type": "http", "method": "POST", "path": path, "raw_path": b"/", "query_string": b"", "headers": headers,
        "root_path": "", "http_version": "1.1", "scheme": "http", "server": ("x", 80), "client": ("y", 1),
    }  # fmt: skip
    asyncio.run(client.app(scope, receive or nothing, send))
    return sent[0]["status"]


@pytest.mark.parametrize("secret", ["\udce9", f"{SECRET}\udcff"])
def test_secret_with_surrogates_is_not_found(client, secret):
    assert send_request(client, f"/{secret}") == 404


@pytest.mark.parametrize("length", ["²", "1²", "½", "-1", "1e9", "x"])
def test_invalid_content_length_is_ignored(client, length):
    assert send_request(client, f"/{SECRET}", (b"content-length", length.encode("latin-1"))) == 400


@pytest.mark.parametrize("path", ["/", "", f"/{SECRET}/more", "/docs", "/openapi.json"])
def test_other_paths_are_not_found(client, path):
    assert client.get(path).status_code in {404, 405}


@pytest.mark.parametrize("verb", ["GET", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"])
def test_only_post_is_allowed(client, verb, registered):
    assert client.request(verb, f"/{SECRET}").status_code == 405


@pytest.mark.parametrize("body", ["", "{", "[]", '{"payload": 3}', "\x00" * 100])
def test_invalid_message_is_refused(client, body, registered):
    assert post(client, body).status_code == 400
    assert registered == []


def test_message_without_stage_events_is_accepted(client, sandbox, registered):
    before = sandbox.stats()["requests"]
    assert post(client, '{"payload": [{"event": "TASK_CREATED", "id": "1", "data": {}}]}').status_code == 202
    assert sandbox.stats()["requests"] == before


def test_body_without_length_is_read_up_to_the_limit(client):
    from airflow_provider_redbrick.plugins.webhook import MAX_MESSAGE_BYTES

    read = []

    def endless():
        while True:
            read.append(1 << 14)
            if sum(read) > 64 * MAX_MESSAGE_BYTES:
                raise AssertionError("the body is read without a limit")
            yield b" " * (1 << 14)

    # The test client sends a body as a whole, so the ASGI application is called directly.
    parts = endless()

    async def receive():
        return {"type": "http.request", "body": next(parts), "more_body": True}

    assert send_request(client, f"/{SECRET}", receive=receive) == 413
    assert sum(read) <= MAX_MESSAGE_BYTES + 2 * (1 << 14)


def test_message_over_the_size_limit_is_refused(client):
    from airflow_provider_redbrick.plugins.webhook import MAX_MESSAGE_BYTES

    assert post(client, b" " * (MAX_MESSAGE_BYTES + 1)).status_code == 413
    assert post(client, b" " * MAX_MESSAGE_BYTES).status_code == 400


def test_response_does_not_wait_for_verification(client, sandbox, registered, message):
    (task_id,) = sandbox.seed_tasks(1)
    sandbox.settings(latency_ms=1500)
    began = time.monotonic()
    assert post(client, message(task_id)).status_code == 202
    assert not registered
    assert time.monotonic() - began < 1.4
    sandbox.settings(latency_ms=0)
    eventually(lambda: registered)


def test_full_queue_refuses_messages_until_there_is_room(airflow, sandbox, registered, monkeypatch, message):
    from airflow_provider_redbrick.plugins import webhook

    monkeypatch.setenv("AIRFLOW__REDBRICK__WEBHOOK_SECRET", SECRET)
    app = webhook.webhook_app(max_waiting_hints=2)
    client = TestClient(app)
    release = threading.Event()
    monkeypatch.setattr("airflow_provider_redbrick.plugins.webhook.confirm_hints", lambda *_: release.wait(10) and None)
    ids = sandbox.seed_tasks(3)
    bodies = [message(task_id) for task_id in ids]
    assert [post(client, body).status_code for body in bodies] == [202, 202, 503]
    release.set()
    # The refused message was not recorded, so it is no repetition.
    eventually(lambda: post(client, bodies[2]).status_code == 202)
    app.app.state.verifier.stop()


@pytest.mark.parametrize("secret", [SECRET, "x" * 40])
def test_access_log_path_hides_the_secret(client, secret):
    scope = {
        "type": "http", "method": "GET", "path": f"/redbrick-webhook/{secret}", "root_path": "/redbrick-webhook",
        "headers": [], "query_string": b"", "http_version": "1.1", "scheme": "http", "server": ("x", 80),
    }  # fmt: skip

    async def send(part):
        # Some servers log when the response begins, some when it has ended.
        assert scope["path"] == "/redbrick-webhook/***"

    asyncio.run(client.app(scope, None, send))
    assert scope["path"] == "/redbrick-webhook/***"


def test_secret_and_key_are_not_logged(client, sandbox, registered, message, caplog):
    caplog.set_level(logging.DEBUG, "airflow_provider_redbrick")
    (task_id,) = sandbox.seed_tasks(1)
    post(client, message(task_id))
    sandbox.faults("gql_error=1")
    post(client, message(task_id))
    eventually(lambda: "could not be verified" in caplog.text)
    sandbox.faults("")
    messages = "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("airflow_provider"))
    assert SECRET not in messages
    assert sandbox.api_key not in messages
