"""Messages with live queues, on a running server, delivered by Airflow's own notifiers."""

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


class Telling(BaseNotifier):
    """A notifier as Airflow's are: with a template, and a place for what it sent."""

    template_fields = ("text",)
    sent: list[str] = []  # noqa: RUF012

    def __init__(self, text="{{ redbrick_message }}"):
        super().__init__()
        self.text = text

    def notify(self, context):
        self.sent.append(self.text)


@pytest.fixture(autouse=True)
def nothing_sent():
    Telling.sent.clear()


to_the_test = Telling("alert: {{ redbrick_message }}")


@pytest.fixture
def told():
    """Let a notifier speak; answers the context that was handed on."""

    def speak(**options):
        seen = []
        RedBrickQueueNotifier(send=seen.append, **options)({"dag": None, "ds": "2026-03-14"})
        (context,) = seen
        return context

    return speak


class TestAbsentInputs:
    @pytest.mark.parametrize("name", ["project_id", "org_id", "redbrick_conn_id"])
    @pytest.mark.parametrize("template", ["{{ dag }}", "{{ '' }}"])
    def test_one_that_was_given_is_not_taken_from_the_connection(self, sandbox, told, name, template):
        context = told(message="Look.", **{name: template})
        assert context["redbrick_counts"] == {}
        assert context["redbrick_message"].startswith("Look.\nThe queues could not be read")
        # Airflow 3.0 leaves a template in place that renders to nothing.
        words = template if BEFORE_3_1 and template == "{{ '' }}" else f"{name} was given, but its value is"
        assert words in context["redbrick_message"]
        assert sandbox.stats()["requests"] == 0

    def test_a_message_may_be_empty(self, sandbox, told):
        assert "Label" in told(message="{{ '' }}")["redbrick_counts"]


class TestMessage:
    def test_it_has_the_queue_of_each_stage_and_the_address(self, sandbox, told):
        project = sandbox.add_project(name="Chest")
        sandbox.seed_tasks(3, project_id=project)
        sandbox.seed_tasks(2, project_id=project, stage="Review_1")
        context = told(project_id=project, message="On {{ ds }} it failed.")
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

    def test_all_counts_come_in_one_request(self, sandbox, told):
        told()
        assert sandbox.stats()["requests"] == 2  # the stages, and their counts

    def test_ids_and_the_connection_may_be_templates(self, sandbox, told, monkeypatch):
        monkeypatch.setenv("AIRFLOW_CONN_ANOTHER", sandbox.airflow_conn_uri)
        monkeypatch.setenv("AIRFLOW_CONN_REDBRICK_DEFAULT", "redbrick://:wrong@localhost:9/")
        project = sandbox.add_project(name="For 2026-03-14")
        seen = []
        notifier = RedBrickQueueNotifier(
            redbrick_conn_id="{{ conn }}", org_id="{{ org }}", project_id="{{ project }}", send=seen.append
        )
        notifier({"dag": None, "conn": "another", "org": sandbox.org_id, "project": project})
        assert "For 2026-03-14: Input 0" in seen[0]["redbrick_message"]


class TestTrouble:
    """The message goes out whatever is wrong with RedBrick, and says what."""

    def test_the_server_is_down(self, told, monkeypatch):
        monkeypatch.setenv("AIRFLOW_CONN_REDBRICK_DEFAULT", connection("http%3A%2F%2Flocalhost%3A9"))
        began = time.monotonic()
        context = told(message="It failed.")
        assert time.monotonic() - began < 20
        first, second, third = context["redbrick_message"].splitlines()
        assert first == "It failed."
        assert second.startswith("The queues could not be read through connection 'redbrick_default': ")
        assert third == context["redbrick_url"] != ""
        assert context["redbrick_counts"] == {}
        assert KEY not in str(context)

    @pytest.mark.parametrize("fault", ["http_503", "gql_error", "html", "rate_limit_after"])
    def test_the_server_answers_nonsense(self, sandbox, told, fault):
        sandbox.fault_once(fault, "tasksPaged", times=100)
        context = told()
        assert "could not be read" in context["redbrick_message"]
        assert context["redbrick_counts"] == {}
        assert sandbox.stats()["requests"] == 2  # asked once

    def test_a_wrong_key(self, sandbox, told, monkeypatch):
        monkeypatch.setenv("AIRFLOW_CONN_REDBRICK_DEFAULT", sandbox.airflow_conn_uri.replace(sandbox.api_key, KEY))
        context = told()
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
    def test_what_is_given_makes_no_sense(self, sandbox, told, options, words):
        message = told(**options)["redbrick_message"]
        assert "could not be read" in message
        assert words in message

    def test_what_fails_to_deliver_fails(self, sandbox):
        def refuse(context):
            raise ConnectionError("no mail today")

        with pytest.raises(ConnectionError):
            RedBrickQueueNotifier(send=refuse).notify({})

    @pytest.mark.parametrize("send", ["no_such_module.alert", "os.nope", "", "not a path!"])
    def test_what_cannot_be_imported_is_named_and_the_message_is_not_lost(self, sandbox, send, caplog, capsys):
        notifier = RedBrickQueueNotifier(message="It failed.", send=send)
        with pytest.raises(RedBrickInputError, match=r"send: .* cannot be imported"):
            notifier.notify({})
        assert "Not delivered: It failed." in caplog.text + "".join(capsys.readouterr())

    def test_a_message_that_was_rendered_to_a_number(self, told):
        assert told(message=5)["redbrick_message"].startswith("5\n")

    def test_a_message_that_cannot_be_stored_goes_out_without_what_is_wrong_with_it(self, told):
        text = told(message="a\0b\ud800c")["redbrick_message"]
        assert text.startswith("a\ufffdb?c\n")

    async def nobody_waits_for(self): ...

    @pytest.mark.parametrize("send", [3, [Telling()], nobody_waits_for], ids=["number", "list", "async"])
    def test_what_cannot_deliver(self, sandbox, send):
        with pytest.raises(RedBrickInputError, match="send must be a notifier"):
            RedBrickQueueNotifier(send=send).notify({})


class TestDelivery:
    def test_into_the_log_when_nobody_else_does(self, sandbox, capsys):
        RedBrickQueueNotifier(message="It failed.")({"dag": None})
        logged = "".join(capsys.readouterr())
        assert "It failed.\nSandbox Demo: Input 0, " in logged
        assert sandbox.api_key not in logged

    def test_by_another_notifier_again_and_again(self, sandbox):
        other = Telling("{{ redbrick_counts['Label'] }} in Label, run {{ run }}")
        for number in (1, 2):
            sandbox.seed_tasks(1)
            RedBrickQueueNotifier(send=other)({"dag": None, "run": number})
        assert Telling.sent == ["1 in Label, run 1", "2 in Label, run 2"]
        assert "redbrick" in other.text

    def test_one_notifier_for_several_callbacks_says_what_each_is_about(self, sandbox, monkeypatch):
        monkeypatch.setenv("AIRFLOW_CONN_OTHER", sandbox.airflow_conn_uri)
        notifier = RedBrickQueueNotifier(
            message="{{ ti }} failed.", redbrick_conn_id="{{ conn }}", project_id="{{ project }}", send=Telling()
        )
        first, second = (sandbox.add_project(name=name) for name in ("First", "Second"))
        notifier({"dag": None, "ti": "train", "conn": "redbrick_default", "project": first})
        notifier({"dag": None, "ti": "export", "conn": "other", "project": second})
        assert [text.splitlines()[0] for text in Telling.sent] == ["train failed.", "export failed."]
        assert [text.splitlines()[1].partition(":")[0] for text in Telling.sent] == ["First", "Second"]
        assert (notifier.message, notifier.project_id) == ("{{ ti }} failed.", "{{ project }}")

    def test_what_is_deep_in_the_other_notifier_is_rendered_anew_too(self, sandbox):
        class Block:
            template_fields = ("words",)
            words = "run {{ run }}"

        class Blocks(Telling):
            def notify(self, context):
                self.sent.append(self.text[0].words)

        notifier = RedBrickQueueNotifier(send=Blocks([Block()]))
        for number in (1, 2):
            notifier({"dag": None, "run": number})
        assert Telling.sent == ["run 1", "run 2"]

    @pytest.mark.skipif(BEFORE_3_1, reason="this Airflow awaits no notifiers")
    def test_awaited_twice(self, sandbox):
        notifier = RedBrickQueueNotifier(message="Late: {{ ds }}", send=Telling(), context={"ds": "2026-03-14"})

        async def speak():
            await notifier

        asyncio.run(speak())
        notifier.context = {"ds": "2026-03-15"}
        asyncio.run(speak())
        assert [text.splitlines()[0] for text in Telling.sent] == ["Late: 2026-03-14", "Late: 2026-03-15"]

    def test_by_what_can_be_imported(self, sandbox):
        RedBrickQueueNotifier(message="It failed.", send=f"{__name__}.to_the_test")({"dag": None})
        assert Telling.sent[0].startswith("alert: It failed.\n")

    def test_the_context_is_not_touched(self, sandbox):
        context = {"dag": None, "ds": "2026-03-14"}
        RedBrickQueueNotifier(send=Telling())(context)
        assert not {"redbrick_message", "text"} & context.keys()

    @pytest.mark.skipif(BEFORE_3_1, reason="this Airflow awaits no notifiers")
    def test_awaited_as_for_deadlines(self, sandbox):
        async def speak():
            await RedBrickQueueNotifier(message="Late: {{ ds }}", send=Telling(), context={"ds": "2026-03-14"})

        asyncio.run(speak())
        assert Telling.sent[0].startswith("Late: 2026-03-14\n")

    @pytest.mark.skipif(BEFORE_3_1, reason="this Airflow awaits no notifiers")
    def test_the_event_loop_goes_on_meanwhile(self, sandbox):
        sandbox.settings(latency_ms=500)
        gaps = []

        async def tick():
            while True:
                began = time.monotonic()
                await asyncio.sleep(0.01)
                gaps.append(time.monotonic() - began)

        async def speak():
            ticking = asyncio.create_task(tick())
            await RedBrickQueueNotifier(send=Telling(), context={"ds": ""})
            ticking.cancel()

        asyncio.run(speak())
        assert len(gaps) > 5

    @pytest.mark.skipif(BEFORE_3_1, reason="Airflow below 3.1 awaits no notifiers")
    def test_connections_are_read_in_the_event_loop_that_awaits_it(self, sandbox, monkeypatch):
        loops = loops_of_connections(monkeypatch)

        def send(context):
            RedBrickHook.get_connection("redbrick_default")  # as another notifier does

        async def speak():
            await RedBrickQueueNotifier(send=send, context={"ds": ""})
            return asyncio.get_running_loop()

        loop = asyncio.run(speak())
        assert loops == [loop, loop]

    def test_by_mail(self, sandbox, monkeypatch, mailbox):
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
        (letter,) = mailbox.letters
        assert letter["Subject"] == "2 tasks wait"
        (part,) = [each for each in letter.walk() if each.get_content_type() == "text/html"]
        assert part.get_payload(decode=True).decode().startswith("<pre>&lt;It&gt; failed.\n")


def connection(host: str) -> str:
    ids = "org_id=00000000-0000-4000-8000-000000000001&project_id=00000000-0000-4000-8000-000000000002"
    return f"redbrick://:{KEY}@{host}/?{ids}"


class _Mail(socketserver.StreamRequestHandler):
    """Takes letters, in as much of SMTP as that needs."""

    def handle(self):
        self.say("220 here")
        while line := self.rfile.readline().decode().strip():
            if line.upper() == "DATA":
                self.say("354 go on")
                lines = iter(self.rfile.readline, b".\r\n")
                self.server.letters.append(email.message_from_bytes(b"".join(lines)))
            self.say("221 bye" if line.upper() == "QUIT" else "250 ok")

    def say(self, words):
        self.wfile.write(f"{words}\r\n".encode())


@pytest.fixture
def mailbox():
    with socketserver.TCPServer(("127.0.0.1", 0), _Mail) as server:
        server.letters = []
        port = server.server_address[1]
        server.connection = f"smtp://127.0.0.1:{port}/?disable_ssl=true&disable_tls=true"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join(timeout=10)
