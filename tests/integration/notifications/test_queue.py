"""Tests of the queue notifier on a running sandbox, with Airflow's own notifiers."""

from __future__ import annotations

import asyncio
import email
import socketserver
import threading
import time

import pytest
from airflow.sdk.bases.notifier import BaseNotifier
from airflow_versions import BEFORE_3_1
from sdk_in_threads import loops_of_connections

from airflow_provider_redbrick.exceptions import RedBrickInputError
from airflow_provider_redbrick.hooks.redbrick import RedBrickHook
from airflow_provider_redbrick.notifications.queue import RedBrickQueueNotifier

KEY = "a-key-that-must-not-be-logged-0123456789abc"


class RecordingNotifier(BaseNotifier):
    """A notifier with a template field that records what it sends."""

    template_fields = ("text",)
    sent: list[str] = []  # noqa: RUF012

    def __init__(self, text="{{ redbrick_message }}"):
        super().__init__()
        self.text = text

    def notify(self, context):
        self.sent.append(self.text)


@pytest.fixture(autouse=True)
def nothing_sent():
    RecordingNotifier.sent.clear()


importable_notifier = RecordingNotifier("alert: {{ redbrick_message }}")


@pytest.fixture
def sent_context():
    """Call a notifier, and return the context that ``send`` received."""

    def send_message(**options):
        seen = []
        RedBrickQueueNotifier(send=seen.append, **options)({"dag": None, "ds": "2026-03-14"})
        (context,) = seen
        return context

    return send_message


class TestAbsentInputs:
    @pytest.mark.parametrize("name", ["project_id", "org_id", "redbrick_conn_id"])
    @pytest.mark.parametrize("template", ["{{ dag }}", "{{ '' }}"])
    def test_empty_rendered_input_is_not_replaced_by_the_connections(self, sandbox, sent_context, name, template):
        context = sent_context(message="Look.", **{name: template})
        assert context["redbrick_counts"] == {}
        assert context["redbrick_message"].startswith("Look.\nThe queues could not be read")
        # Airflow 3.0 leaves a template in place that renders to nothing.
        words = template if BEFORE_3_1 and template == "{{ '' }}" else f"{name} was given, but its value is"
        assert words in context["redbrick_message"]
        assert sandbox.stats()["requests"] == 0

    def test_empty_message_is_allowed(self, sandbox, sent_context):
        assert "Label" in sent_context(message="{{ '' }}")["redbrick_counts"]


class TestMessage:
    def test_message_has_the_queue_of_each_stage_and_the_address(self, sandbox, sent_context):
        project = sandbox.add_project(name="Chest")
        sandbox.seed_tasks(3, project_id=project)
        sandbox.seed_tasks(2, project_id=project, stage="Review_1")
        context = sent_context(project_id=project, message="On {{ ds }} it failed.")
        assert context["redbrick_counts"] == {
            "Input": 0,
            "Label": 3,
            "Review_1": 2,
            "Failed_Review_1": 0,
            "Ground Truth": 0,
        }
        assert context["redbrick_url"] == f"{sandbox.url}/?project={project}"
        assert context["redbrick_message"].splitlines() == [
            "On 2026-03-14 it failed.",
            "Chest: Input 0, Label 3, Review_1 2, Failed_Review_1 0, Ground Truth 0",
            context["redbrick_url"],
        ]
        assert context["ds"] == "2026-03-14"

    def test_all_counts_take_one_request(self, sandbox, sent_context):
        sent_context()
        assert sandbox.stats()["requests"] == 2  # the stages, and their counts

    def test_ids_and_connection_are_rendered(self, sandbox, sent_context, monkeypatch):
        monkeypatch.setenv("AIRFLOW_CONN_ANOTHER", sandbox.airflow_conn_uri)
        monkeypatch.setenv("AIRFLOW_CONN_REDBRICK_DEFAULT", "redbrick://:wrong@localhost:9/")
        project = sandbox.add_project(name="For 2026-03-14")
        seen = []
        notifier = RedBrickQueueNotifier(
            redbrick_conn_id="{{ conn }}", org_id="{{ org }}", project_id="{{ project }}", send=seen.append
        )
        notifier({"dag": None, "conn": "another", "org": sandbox.org_id, "project": project})
        assert "For 2026-03-14: Input 0" in seen[0]["redbrick_message"]


class TestErrors:
    """The message is sent despite an error, and describes it."""

    def test_unreachable_server_is_reported(self, sent_context, monkeypatch):
        monkeypatch.setenv("AIRFLOW_CONN_REDBRICK_DEFAULT", connection("http%3A%2F%2Flocalhost%3A9"))
        began = time.monotonic()
        context = sent_context(message="It failed.")
        assert time.monotonic() - began < 20
        first, second, third = context["redbrick_message"].splitlines()
        assert first == "It failed."
        assert second.startswith("The queues could not be read through connection 'redbrick_default': ")
        assert third == context["redbrick_url"] != ""
        assert context["redbrick_counts"] == {}
        assert KEY not in str(context)

    @pytest.mark.parametrize("fault", ["http_503", "gql_error", "html", "rate_limit_after"])
    def test_invalid_response_is_reported(self, sandbox, sent_context, fault):
        sandbox.fault_once(fault, "tasksPaged", times=100)
        context = sent_context()
        assert "could not be read" in context["redbrick_message"]
        assert context["redbrick_counts"] == {}
        assert sandbox.stats()["requests"] == 2  # no retry

    def test_refused_key_is_reported(self, sandbox, sent_context, monkeypatch):
        monkeypatch.setenv("AIRFLOW_CONN_REDBRICK_DEFAULT", sandbox.airflow_conn_uri.replace(sandbox.api_key, KEY))
        context = sent_context()
        assert "could not be read" in context["redbrick_message"]
        assert KEY not in str(context)

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"redbrick_conn_id": "nowhere"}, "'nowhere'"),
            ({"project_id": "no id"}, "project_id"),
            ({"project_id": "{{ nothing }}"}, "project_id"),
        ],
    )
    def test_invalid_input_is_reported(self, sandbox, sent_context, options, words):
        message = sent_context(**options)["redbrick_message"]
        assert "could not be read" in message
        assert words in message

    def test_error_of_send_is_raised(self, sandbox):
        def refuse(context):
            raise ConnectionError("no mail today")

        with pytest.raises(ConnectionError):
            RedBrickQueueNotifier(send=refuse).notify({})

    @pytest.mark.parametrize("send", ["no_such_module.alert", "os.nope", "", "not a path!"])
    def test_send_that_cannot_be_imported_logs_the_message(self, sandbox, send, caplog, capsys):
        notifier = RedBrickQueueNotifier(message="It failed.", send=send)
        with pytest.raises(RedBrickInputError, match=r"send: .* cannot be imported"):
            notifier.notify({})
        assert "Not delivered: It failed." in caplog.text + "".join(capsys.readouterr())

    def test_numeric_message_is_converted_to_text(self, sent_context):
        assert sent_context(message=5)["redbrick_message"].startswith("5\n")

    def test_invalid_characters_in_message_are_replaced(self, sent_context):
        text = sent_context(message="a\0b\ud800c")["redbrick_message"]
        assert text.startswith("a\ufffdb?c\n")

    async def async_send(self): ...

    @pytest.mark.parametrize("send", [3, [RecordingNotifier()], async_send], ids=["number", "list", "async"])
    def test_invalid_send_is_refused(self, sandbox, send):
        with pytest.raises(RedBrickInputError, match="send must be a notifier"):
            RedBrickQueueNotifier(send=send).notify({})


class TestDelivery:
    def test_message_without_send_is_logged(self, sandbox, capsys):
        RedBrickQueueNotifier(message="It failed.")({"dag": None})
        logged = "".join(capsys.readouterr())
        assert "It failed.\nSandbox Demo: Input 0, " in logged
        assert sandbox.api_key not in logged

    def test_notifier_is_rendered_for_each_message(self, sandbox):
        other = RecordingNotifier("{{ redbrick_counts['Label'] }} in Label, run {{ run }}")
        for number in (1, 2):
            sandbox.seed_tasks(1)
            RedBrickQueueNotifier(send=other)({"dag": None, "run": number})
        assert RecordingNotifier.sent == ["1 in Label, run 1", "2 in Label, run 2"]
        assert "redbrick" in other.text

    def test_shared_notifier_renders_each_callback(self, sandbox, monkeypatch):
        monkeypatch.setenv("AIRFLOW_CONN_OTHER", sandbox.airflow_conn_uri)
        notifier = RedBrickQueueNotifier(
            message="{{ ti }} failed.",
            redbrick_conn_id="{{ conn }}",
            project_id="{{ project }}",
            send=RecordingNotifier(),
        )
        first, second = (sandbox.add_project(name=name) for name in ("First", "Second"))
        notifier({"dag": None, "ti": "train", "conn": "redbrick_default", "project": first})
        notifier({"dag": None, "ti": "export", "conn": "other", "project": second})
        assert [text.splitlines()[0] for text in RecordingNotifier.sent] == ["train failed.", "export failed."]
        assert [text.splitlines()[1].partition(":")[0] for text in RecordingNotifier.sent] == ["First", "Second"]
        assert (notifier.message, notifier.project_id) == ("{{ ti }} failed.", "{{ project }}")

    def test_nested_fields_of_the_notifier_are_rendered_again(self, sandbox):
        class Block:
            template_fields = ("words",)
            words = "run {{ run }}"

        class Blocks(RecordingNotifier):
            def notify(self, context):
                self.sent.append(self.text[0].words)

        notifier = RedBrickQueueNotifier(send=Blocks([Block()]))
        for number in (1, 2):
            notifier({"dag": None, "run": number})
        assert RecordingNotifier.sent == ["run 1", "run 2"]

    @pytest.mark.skipif(BEFORE_3_1, reason="this Airflow awaits no notifiers")
    def test_awaiting_twice_renders_each_time(self, sandbox):
        notifier = RedBrickQueueNotifier(
            message="Late: {{ ds }}", send=RecordingNotifier(), context={"ds": "2026-03-14"}
        )

        async def send_message():
            await notifier

        asyncio.run(send_message())
        notifier.context = {"ds": "2026-03-15"}
        asyncio.run(send_message())
        assert [text.splitlines()[0] for text in RecordingNotifier.sent] == ["Late: 2026-03-14", "Late: 2026-03-15"]

    def test_send_by_import_path(self, sandbox):
        RedBrickQueueNotifier(message="It failed.", send=f"{__name__}.importable_notifier")({"dag": None})
        assert RecordingNotifier.sent[0].startswith("alert: It failed.\n")

    def test_context_is_not_modified(self, sandbox):
        context = {"dag": None, "ds": "2026-03-14"}
        RedBrickQueueNotifier(send=RecordingNotifier())(context)
        assert not {"redbrick_message", "text"} & context.keys()

    @pytest.mark.skipif(BEFORE_3_1, reason="this Airflow awaits no notifiers")
    def test_awaiting_sends_the_message(self, sandbox):
        async def send_message():
            await RedBrickQueueNotifier(
                message="Late: {{ ds }}", send=RecordingNotifier(), context={"ds": "2026-03-14"}
            )

        asyncio.run(send_message())
        assert RecordingNotifier.sent[0].startswith("Late: 2026-03-14\n")

    @pytest.mark.skipif(BEFORE_3_1, reason="this Airflow awaits no notifiers")
    def test_awaiting_does_not_block_the_event_loop(self, sandbox):
        sandbox.settings(latency_ms=500)
        gaps = []

        async def tick():
            while True:
                began = time.monotonic()
                await asyncio.sleep(0.01)
                gaps.append(time.monotonic() - began)

        async def send_message():
            ticking = asyncio.create_task(tick())
            await RedBrickQueueNotifier(send=RecordingNotifier(), context={"ds": ""})
            ticking.cancel()

        asyncio.run(send_message())
        assert len(gaps) > 5

    @pytest.mark.skipif(BEFORE_3_1, reason="Airflow below 3.1 awaits no notifiers")
    def test_connections_are_read_in_the_awaiting_event_loop(self, sandbox, monkeypatch):
        loops = loops_of_connections(monkeypatch)

        def send(context):
            RedBrickHook.get_connection("redbrick_default")  # as another notifier does

        async def send_message():
            await RedBrickQueueNotifier(send=send, context={"ds": ""})
            return asyncio.get_running_loop()

        loop = asyncio.run(send_message())
        assert loops == [loop, loop]

    def test_send_by_mail(self, sandbox, monkeypatch, mailbox):
        smtp = pytest.importorskip("airflow.providers.smtp.notifications.smtp")
        monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", mailbox.connection)
        sandbox.seed_tasks(2)
        mail = smtp.SmtpNotifier(
            from_email="airflow@example.com",
            to="night@example.com",
            subject="{{ redbrick_counts['Label'] }} tasks wait",
            html_content="<pre>{{ redbrick_message | e }}</pre>",
        )
        RedBrickQueueNotifier(message="<It> failed.", send=mail)({"dag": None})
        (message,) = mailbox.messages
        assert message["Subject"] == "2 tasks wait"
        (part,) = [part for part in message.walk() if part.get_content_type() == "text/html"]
        assert part.get_payload(decode=True).decode().startswith("<pre>&lt;It&gt; failed.\n")


def connection(host: str) -> str:
    ids = "org_id=00000000-0000-4000-8000-000000000001&project_id=00000000-0000-4000-8000-000000000002"
    return f"redbrick://:{KEY}@{host}/?{ids}"


class _Mail(socketserver.StreamRequestHandler):
    """Minimal SMTP server that records messages."""

    def handle(self):
        self.reply("220 here")
        while line := self.rfile.readline().decode().strip():
            if line.upper() == "DATA":
                self.reply("354 go on")
                lines = iter(self.rfile.readline, b".\r\n")
                self.server.messages.append(email.message_from_bytes(b"".join(lines)))
            self.reply("221 bye" if line.upper() == "QUIT" else "250 ok")

    def reply(self, words):
        self.wfile.write(f"{words}\r\n".encode())


@pytest.fixture
def mailbox():
    with socketserver.TCPServer(("127.0.0.1", 0), _Mail) as server:
        server.messages = []
        port = server.server_address[1]
        server.connection = f"smtp://127.0.0.1:{port}/?disable_ssl=true&disable_tls=true"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join(timeout=10)
