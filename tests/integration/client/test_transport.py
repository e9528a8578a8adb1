"""Tests for one request over real sockets: encoding, errors, and key redaction."""

from __future__ import annotations

import contextlib
import errno
import gzip
import io
import json
import logging
import pickle
import random
import socket
import ssl
import time
import traceback
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
from tiny_server import Reply, TinyServer, Unread, dead_port, drop, hang, json_reply

from airflow_provider_redbrick import exceptions as err
from airflow_provider_redbrick.client.transport import graphql
from airflow_provider_redbrick.client.transport.graphql import describe
from airflow_provider_redbrick.client.transport.http import Transport
from airflow_provider_redbrick.client.transport.retry import RateLimiter, RetryPolicy
from airflow_provider_redbrick.client.transport.sessions import Credential

KEY = "canary-KEY/0123456789+abcdefghijklmnopqrstuvw"
QUERY = "query me { me { userId } }"
MUTATION = "mutation moveTaskToStart($taskId: UUID!) { moveTaskToStart(taskId: $taskId) { ok } }"
GOOD = json_reply({"data": {"me": {"userId": "API:1"}}})
NOW = datetime(2024, 5, 1, 12, 0, tzinfo=timezone.utc)


def new_transport(url, **options):
    """A transport that records its waits instead of sleeping."""
    waits = []
    options = {"timeout": 5.0, "clock": NOW.timestamp, "draw": lambda: 0.5, **options}
    transport = Transport(url, Credential(KEY), sleep=waits.append, **options)
    transport.waits = waits
    return transport


@pytest.fixture(params=[QUERY, MUTATION], ids=["read", "mutation"])
def document(request):
    return request.param


def fails(server, document, kind=err.RedBrickAPIError, **options):
    """Send, and return the error and how many requests arrived."""
    transport = new_transport(server.url, **options)
    with pytest.raises(kind) as raised:
        transport.execute(document, {"taskId": "t"}, task_ids=["t"])
    assert type(raised.value) is kind
    assert raised.value.operation == describe(document)[0]
    assert raised.value.task_ids == ("t",)
    return raised.value, len(server.got)


# ------------------------------------------------------------------ request


def test_request_body_is_base64_of_gzipped_json():
    with TinyServer(GOOD) as server:
        new_transport(server.url).execute(QUERY, {"name": "Zürich 肺"})
    (got,) = server.got
    assert got.method == "POST"
    assert got.path == "/graphql/"
    assert got.headers["Content-Encoding-RB"] == "gzip"
    assert got.graphql == {"query": QUERY, "variables": {"name": "Zürich 肺"}}


def test_plain_json_option_sends_plain_json():
    with TinyServer(GOOD) as server:
        new_transport(server.url, plain_json=True).execute(QUERY, {"name": "Zürich"})
    (got,) = server.got
    assert got.headers["Content-Encoding-RB"] is None
    assert json.loads(got.body) == {"query": QUERY, "variables": {"name": "Zürich"}}


def test_request_has_the_expected_headers():
    with TinyServer(GOOD) as server:
        new_transport(server.url, user_agent="the-provider/1").execute(QUERY, {})
    headers = server.got[0].headers
    assert headers["ApiKey"] == KEY
    assert headers["Authorization"] is None
    assert headers["Content-Type"] == "application/json"
    assert headers["Accept"] == "application/json"
    assert headers["Accept-Encoding"] == "gzip"
    assert headers["User-Agent"] == "the-provider/1"


def test_access_token_is_sent_raw_in_authorization():
    with TinyServer(GOOD) as server:
        Transport(server.url, Credential("token", "Authorization")).execute(QUERY, {})
    assert server.got[0].headers["Authorization"] == "token"
    assert server.got[0].headers["ApiKey"] is None


def test_gzipped_response_is_decoded():
    reply = Reply(200, gzip.compress(GOOD.body), {"Content-Encoding": "gzip", "Content-Type": "application/json"})
    with TinyServer(reply) as server:
        assert new_transport(server.url).execute(QUERY, {}) == {"me": {"userId": "API:1"}}


def test_redirect_is_not_followed(document):
    with TinyServer(GOOD) as elsewhere:
        with TinyServer(Reply(302, b"", {"Location": elsewhere.url})) as server:
            error, arrived = fails(server, document, err.RedBrickNotFoundError)
        assert elsewhere.connections == 0
    assert arrived == 1
    assert "Check the connection's host" in str(error)
    assert not error.maybe_applied


@pytest.fixture
def netrc(tmp_path, monkeypatch):
    path = tmp_path / "netrc"
    path.write_text("machine 127.0.0.1 login someone password from-netrc\n")
    path.chmod(0o600)
    monkeypatch.setenv("NETRC", str(path))


@pytest.mark.usefixtures("netrc")
def test_netrc_is_ignored():
    with TinyServer(GOOD) as server:
        transport = new_transport(server.url)
        transport.execute(QUERY, {})
        transport.storage.get(server.origin)
        transport.storage.put(server.origin, b"x", kind="text/plain")
    assert [got.headers["Authorization"] for got in server.got] == [None, None, None]


@pytest.mark.usefixtures("netrc")
def test_redirected_storage_request_has_no_credential():
    with TinyServer(Reply(200, b"file")) as other:
        moved = Reply(307, b"", {"Location": f"{other.origin}/there"})
        with TinyServer(moved) as server:
            assert new_transport(server.url).storage.get(f"{server.origin}/here") == b"file"
    assert other.got[0].path == "/there"
    assert other.got[0].headers["Authorization"] is None
    assert other.got[0].headers["ApiKey"] is None


@pytest.fixture
def proxy(monkeypatch):
    """A proxy that the environment sets for all requests."""
    with TinyServer(GOOD) as proxy:
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, proxy.origin)
        yield proxy


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_loopback_request_bypasses_the_proxy(proxy, host):
    """The request is unencrypted, so a proxy would read the key."""
    with TinyServer(GOOD) as server:
        origin = f"http://{host}:{server.port}"
        transport = new_transport(f"{origin}/graphql/")
        transport.execute(QUERY, {})
        transport.storage.get(f"{origin}/f")
        transport.storage.put(f"{origin}/f", b"x", kind="text/plain")
    assert [got.method for got in server.got] == ["POST", "GET", "PUT"]
    assert proxy.connections == 0


def test_ipv6_loopback_request_bypasses_the_proxy(proxy):
    with pytest.raises(err.RedBrickConnectionError):
        new_transport(f"http://[::1]:{dead_port()}/graphql/").execute(QUERY, {})
    assert proxy.connections == 0


def test_remote_request_uses_the_proxy(proxy):
    new_transport("http://redbrick.invalid/graphql/").execute(QUERY, {})
    assert [got.path for got in proxy.got] == ["http://redbrick.invalid/graphql/"]


# ------------------------------------------------------------------ errors

STATUSES = [
    (400, err.RedBrickRefusedError),
    (401, err.RedBrickAuthError),
    (403, err.RedBrickAuthError),
    (404, err.RedBrickNotFoundError),
    (413, err.RedBrickPayloadTooLargeError),
    (422, err.RedBrickRefusedError),
]


@pytest.mark.parametrize(("status", "kind"), STATUSES)
def test_final_status_is_not_retried(document, status, kind):
    with TinyServer(Reply(status, b"the server's words", {"Content-Type": "text/plain"})) as server:
        error, arrived = fails(server, document, kind)
    assert arrived == 1
    assert error.status == status
    assert not error.maybe_applied
    assert f"HTTP {status}" in str(error)


@pytest.mark.parametrize("status", [400, 500])
def test_server_text_is_quoted_but_not_html(status):
    with TinyServer(Reply(status, b"no such\n  field 'x'", {"Content-Type": "text/plain"})) as server:
        assert "It said: no such field 'x'" in str(fails(server, QUERY, STATUS_KIND[status])[0])
    with TinyServer(Reply(status, b"<html>no such</html>", {"Content-Type": "text/html"})) as server:
        assert "no such" not in str(fails(server, QUERY, STATUS_KIND[status])[0])


STATUS_KIND = {**dict(STATUSES), 500: err.RedBrickServerError}


def test_rate_limit_is_waited_for_in_both_forms(document):
    date = format_datetime(NOW + timedelta(seconds=20), usegmt=True)
    limited = [Reply(429, b"", {"Retry-After": "7"}), Reply(429, b"", {"Retry-After": date}), Reply(429)]
    with TinyServer(*limited, json_reply({"data": {"x": 1}})) as server:
        transport = new_transport(server.url)
        assert transport.execute(document, {}) == {"x": 1}
    assert transport.waits == [7 + 0.25, 20 + 0.5, 1.0]


def test_rate_limit_over_the_cap_gives_up():
    with TinyServer(Reply(429, b"", {"Retry-After": "3600"})) as server:
        error, arrived = fails(server, QUERY, err.RedBrickRateLimitError)
    assert arrived == 1
    assert error.retry_after == "3600"


def limited_transport(server, **options):
    """A transport whose rate limiter records its waits instead of sleeping."""
    pauses = []
    limiter = RateLimiter(clock=lambda: sum(pauses), sleep=pauses.append)
    return new_transport(server.url, rate_limiter=limiter, **options), pauses


def test_rate_limit_that_is_given_up_pauses_the_next_requests(caplog):
    with TinyServer(*[Reply(429, b"", {"Retry-After": "3600"})] * 2, GOOD) as server:
        transport, pauses = limited_transport(server)
        for _ in range(2):
            with pytest.raises(err.RedBrickRateLimitError):
                transport.execute(QUERY, {})
        transport.execute(QUERY, {})
    assert pauses == [120, 120]
    assert transport.retry_after_s == 3600 - 120
    assert caplog.text.count("asks to wait 3600 s. The next requests wait up to 120 s") == 2


def test_rate_limit_after_the_last_attempt_pauses_the_next_requests():
    with TinyServer(*[Reply(429, b"", {"Retry-After": "20"})] * 6, GOOD) as server:
        transport, pauses = limited_transport(server)
        with pytest.raises(err.RedBrickRateLimitError):
            transport.execute(QUERY, {})
        transport.execute(QUERY, {})
    assert pauses == [20]


def test_client_without_retries_is_not_paused():
    """A user waits for it."""
    with TinyServer(Reply(429, b"", {"Retry-After": "20"}), GOOD) as server:
        transport, pauses = limited_transport(server, policy=RetryPolicy(max_attempts=1))
        with pytest.raises(err.RedBrickRateLimitError):
            transport.execute(QUERY, {})
        transport.execute(QUERY, {})
    assert pauses == []


@pytest.mark.parametrize("status", [502, 503, 504])
def test_gateway_error_retries_reads_only(status):
    with TinyServer(Reply(status), GOOD) as server:
        assert new_transport(server.url).execute(QUERY, {})["me"]
    assert len(server.got) == 2
    with TinyServer(Reply(status), GOOD) as server:
        error, arrived = fails(server, MUTATION, err.RedBrickServerError)
    assert arrived == 1
    assert error.maybe_applied


def test_status_500_is_not_retried_and_may_have_been_applied(document):
    with TinyServer(Reply(500)) as server:
        error, arrived = fails(server, document, err.RedBrickServerError)
    assert arrived == 1
    assert error.maybe_applied is (document == MUTATION)


def test_transport_limits_the_attempts():
    with TinyServer(Reply(503)) as server:
        transport = new_transport(server.url)
        with pytest.raises(err.RedBrickServerError):
            transport.execute(QUERY, {})
    assert len(server.got) == 6
    assert transport.waits == [0.25, 0.5, 1.0, 2.0, 4.0]


NOT_THE_API = {
    "a web page": Reply(200, b"<html>Please log in</html>", {"Content-Type": "text/html"}),
    "nothing": Reply(200),
    "accepted, and nothing": Reply(202),
    "no content": Reply(204),
    "cut short": Reply(200, b'{"data": {"me": {"userId"'),
    "a list": json_reply([1]),
    "a number": json_reply(5),
    "null": json_reply(None),
    "another object": json_reply({"message": "hello"}),
    "no data": json_reply({"data": None}),
    "no data, no errors": json_reply({"data": None, "errors": []}),
    "data that is a list": json_reply({"data": [1]}),
    "not UTF-8": Reply(200, b'{"data": {"x": "\xff"}}'),
    "a tower": Reply(200, b"[" * 100_000),
}


@pytest.mark.parametrize("reply", NOT_THE_API.values(), ids=NOT_THE_API)
def test_answer_of_another_shape_is_an_error(document, reply):
    with TinyServer(reply) as server:
        error, arrived = fails(server, document, err.RedBrickAnswerError)
    assert arrived == 1
    assert error.maybe_applied is (document == MUTATION)
    assert "RedBrick answered" in str(error)


ERRORS = {
    "null field": {"data": {"me": None}, "errors": [{"message": "not assigned to you", "path": ["me"]}]},
    "null data": {"data": None, "errors": [{"message": "not assigned to you"}]},
    "no data": {"errors": [{"message": "not assigned to you"}]},
    "a bare object": {"data": {"me": {}}, "errors": {"message": "not assigned to you"}},
    "bare words": {"data": {"me": {}}, "errors": "not assigned to you"},
    "words in a list": {"data": {"me": {}}, "errors": ["not assigned to you"]},
    "two": {"data": None, "errors": [{"message": "not assigned"}, {"message": "to you", "path": None}]},
}


@pytest.mark.parametrize("body", ERRORS.values(), ids=ERRORS)
def test_graphql_errors_are_raised_despite_partial_data(document, body):
    with TinyServer(json_reply(body)) as server:
        error, arrived = fails(server, document, err.RedBrickRefusedError)
    assert arrived == 1
    assert error.maybe_applied is (document == MUTATION)
    assert "not assigned" in str(error)
    assert "to you" in str(error)


PARTIAL = {"data": {"me": {"userId": "x"}}, "errors": [{"message": "not readable", "path": ["me", "email"]}]}


def test_partial_data_of_a_read_is_an_error():
    with TinyServer(json_reply(PARTIAL)) as server:
        error, _ = fails(server, QUERY, err.RedBrickRefusedError)
    assert "not readable" in str(error)


def test_mutation_with_a_value_is_acknowledged_despite_an_error_in_its_selection(caplog):
    with TinyServer(json_reply(PARTIAL)) as server:
        assert new_transport(server.url).execute(MUTATION, {}) == PARTIAL["data"]
    assert len(server.got) == 1
    assert "was acknowledged, with an error in its answer: not readable" in caplog.text


def test_execute_partial_returns_partial_data():
    body = {
        "data": {"t0": None, "t1": {"taskId": "b"}},
        "errors": [{"message": None, "path": ["t0", "x"]}, {"path": [0]}],
    }
    with TinyServer(json_reply(body)) as server:
        answer = new_transport(server.url).execute_partial(QUERY, {})
    assert answer.data == body["data"]
    assert [(issue.message, issue.root) for issue in answer.issues] == [("no message", "t0"), ("no message", None)]


HALF = {
    "data": {"m0": {"ok": True}, "m1": None},
    "errors": [{"message": "not assigned to you", "path": ["m1"]}],
}


@pytest.mark.parametrize("status", [200, 301, 400, 401, 403, 404, 413, 422, 429, 500, 502, 503, 504])
def test_body_with_data_is_an_answer_whatever_the_status(document, status):
    """The status proves nothing: half of the mutations were applied."""
    with TinyServer(json_reply(HALF, status, {"Retry-After": "1"})) as server:
        transport = new_transport(server.url)
        answer = transport.execute_partial(document, {})
    assert answer.data == HALF["data"]
    assert [(issue.message, issue.root) for issue in answer.issues] == [("not assigned to you", "m1")]
    assert (len(server.got), transport.waits) == (1, [])


def test_answer_with_an_error_status_is_read_to_its_end():
    body = {"data": {"t0": {"labelsData": "x" * 300_000}}, "errors": [{"message": "no", "path": ["t1"]}]}
    with TinyServer(json_reply(body, 400)) as server:
        assert new_transport(server.url).execute_partial(QUERY, {}).data == body["data"]


NO_VALUE = {"data": {"me": None}, "errors": [{"message": "refused", "path": ["me"]}]}
NULL_DATA = {"data": None, "errors": [{"message": "refused"}]}
LOCATED = {"errors": [{"message": "refused", "path": ["me"]}]}


@pytest.mark.parametrize("body", [NO_VALUE, NULL_DATA, LOCATED], ids=["no value", "null data", "an error with a path"])
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (200, err.RedBrickRefusedError),
        (400, err.RedBrickRefusedError),
        (401, err.RedBrickAuthError),
        (422, err.RedBrickRefusedError),
        (429, err.RedBrickRateLimitError),
        (503, err.RedBrickServerError),
    ],
)
def test_execution_that_began_may_have_been_applied(status, kind, body):
    with TinyServer(json_reply(body, status)) as server:
        error, arrived = fails(server, MUTATION, kind)
    assert arrived == 1
    assert error.maybe_applied


@pytest.mark.parametrize("status", [429, 503])
def test_read_without_a_value_is_retried_as_its_status_says(status):
    with TinyServer(json_reply(NO_VALUE, status), GOOD) as server:
        assert new_transport(server.url).execute(QUERY, {})["me"]


def test_request_error_excludes_that_anything_was_executed():
    """Without data and without a path, execution did not begin (GraphQL specification, 7.1)."""
    with TinyServer(json_reply({"errors": [{"message": "Cannot query field 'x'"}]}, 400)) as server:
        error, _ = fails(server, MUTATION, err.RedBrickRefusedError)
    assert not error.maybe_applied


@pytest.mark.parametrize("body", [b'{"data": {"m0": {"ok": tr', b'\xef\xbb\xbf {"data": {"name": "Jane Doe"}'])
@pytest.mark.parametrize("status", [400, 422])
def test_answer_that_was_cut_short_may_have_been_applied(status, body):
    with TinyServer(Reply(status, body)) as server:
        error, arrived = fails(server, MUTATION, err.RedBrickAnswerError)
    assert arrived == 1
    assert error.maybe_applied
    assert "Jane" not in str(error)


LIMITED = {
    "in a successful answer": json_reply({"errors": [{"message": "Rate limit exceeded"}]}),
    "of a field": json_reply({"data": {"me": None}, "errors": [{"message": "Too Many Requests", "path": ["me"]}]}),
    "of one field of several": json_reply(
        {"data": {"me": None, "x": 1}, "errors": [{"message": "throttled", "path": ["me"]}]}
    ),
    "with another status": json_reply({"errors": [{"message": "Rate limit exceeded"}]}, 403),
    "as text": Reply(403, b"Too Many Requests", {"Content-Type": "text/plain"}),
}


@pytest.mark.parametrize("reply", LIMITED.values(), ids=LIMITED)
def test_rate_limit_in_the_body_is_waited_for(reply):
    with TinyServer(reply, GOOD) as server:
        transport = new_transport(server.url)
        assert transport.execute(QUERY, {})["me"]
    assert transport.waits == [0.25]


def test_mutation_whose_execution_was_rate_limited_is_not_sent_again():
    with TinyServer(LIMITED["of a field"]) as server:
        error, arrived = fails(server, MUTATION, err.RedBrickRateLimitError)
    assert arrived == 1
    assert error.maybe_applied


def test_server_text_cannot_forge_log_lines(caplog):
    words = "no\nINFO: all is done\x1b[2J\x9b2J\x85INFO\u2028INFO"
    with TinyServer(json_reply({"errors": [{"message": words}]})) as server:
        said = str(fails(server, QUERY, err.RedBrickRefusedError)[0])
    assert "no INFO: all is done" in said
    with TinyServer(Reply(503, words.encode())) as server, caplog.at_level(logging.INFO):
        fails(server, QUERY, err.RedBrickServerError)
    (line, *_) = [record.message for record in caplog.records if "Retrying in" in record.message]
    for text in (said, line, str(err.RedBrickInputError(words))):
        assert len(text.splitlines()) == 1
        assert not {"\x1b", "\x9b"} & set(text)


# ------------------------------------------------------------------ the server's clock


def dated(offset, reply):
    """Answer with a ``Date`` header that is off by a time."""

    def answer(handler):
        handler.send_response_only(reply.status)
        headers = {"Content-Length": str(len(reply.body)), **(reply.headers or {})}
        for name, value in {"Date": format_datetime(NOW + offset, usegmt=True), **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(reply.body)

    return answer


@pytest.mark.parametrize("minutes", [-5, 5])
@pytest.mark.parametrize("reply", [GOOD, Reply(400)], ids=["answer", "error"])
def test_server_clock_is_learned_from_any_answer(minutes, reply):
    offset = timedelta(minutes=minutes)
    with TinyServer(dated(offset, reply)) as server:
        transport = new_transport(server.url)
        assert transport.clock.error_s is None
        with contextlib.suppress(err.RedBrickRefusedError):
            transport.execute(QUERY, {})
    assert abs(transport.clock.offset_s - offset.total_seconds()) <= transport.clock.error_s <= 1


def test_server_clock_is_not_learned_from_storage():
    with TinyServer(dated(timedelta(minutes=5), Reply(200, b"file"))) as server:
        transport = new_transport(server.url)
        transport.storage.get(server.origin)
    assert transport.clock.error_s is None


def test_retry_after_date_is_compared_with_the_server_clock():
    offset = timedelta(minutes=5)
    date = format_datetime(NOW + offset + timedelta(seconds=20), usegmt=True)
    with TinyServer(dated(offset, Reply(429, b"", {"Retry-After": date})), GOOD) as server:
        transport = new_transport(server.url)
        transport.execute(QUERY, {})
    assert transport.waits == [pytest.approx(20, abs=2)]


# ------------------------------------------------------------------ lost connections


@pytest.mark.parametrize("how", [Unread(), drop], ids=["before reading", "after reading"])
def test_dropped_mutation_is_sent_once_and_may_have_been_applied(how):
    with TinyServer(how, GOOD) as server:
        error, _ = fails(server, MUTATION, err.RedBrickConnectionError)
        assert server.connections == 1
    assert error.maybe_applied
    assert f"127.0.0.1:{server.port} dropped the connection" in str(error)


@pytest.mark.parametrize("how", [Unread(), drop], ids=["before reading", "after reading"])
def test_dropped_read_is_retried(how):
    with TinyServer(how, GOOD) as server:
        assert new_transport(server.url).execute(QUERY, {})["me"]
        assert server.connections == 2


def test_truncated_body_counts_as_dropped():
    short = Reply(200, b'{"data"', {"Content-Length": "100"})
    with TinyServer(short) as server:
        error, arrived = fails(server, MUTATION, err.RedBrickConnectionError)
    assert arrived == 1
    assert error.maybe_applied


def test_refused_port_is_retried_because_nothing_was_applied(document):
    port = dead_port()
    transport = new_transport(f"http://127.0.0.1:{port}/graphql/")
    with pytest.raises(err.RedBrickConnectionError) as raised:
        transport.execute(document, {})
    assert not raised.value.maybe_applied
    assert len(transport.waits) == 5
    assert str(raised.value).endswith(
        f"127.0.0.1:{port} cannot be reached. Check the connection's host and the network."
    )


def test_unknown_host_cannot_be_reached():
    transport = new_transport("https://redbrick.invalid/api/graphql/")
    with pytest.raises(err.RedBrickConnectionError, match=r"redbrick\.invalid cannot be reached") as raised:
        transport.execute(MUTATION, {})
    assert not raised.value.maybe_applied


def test_timeout_of_a_mutation_may_have_been_applied():
    with TinyServer(hang) as server:
        started = time.monotonic()
        error, arrived = fails(server, MUTATION, err.RedBrickConnectionError, timeout=0.2)
        assert time.monotonic() - started < 5
    assert arrived == 1
    assert error.maybe_applied
    assert "did not answer in time" in str(error)


def test_timeout_of_a_read_is_retried():
    with TinyServer(hang, GOOD) as server:
        assert new_transport(server.url, timeout=0.2).execute(QUERY, {})["me"]
        assert len(server.got) == 2


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A self-signed certificate for 127.0.0.1."""
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    today = datetime.now(timezone.utc)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(today - timedelta(days=1))
        .not_valid_after(today + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(secret + made.public_bytes(serialization.Encoding.PEM))
    return path


@pytest.fixture
def tls(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


def test_untrusted_certificate_receives_no_request(tls):
    with TinyServer(GOOD, tls=tls) as server:
        transport = new_transport(server.url)
        with pytest.raises(err.RedBrickConnectionError, match="has no trusted TLS certificate") as raised:
            transport.execute(MUTATION, {})
    assert server.got == []
    assert not raised.value.maybe_applied


def test_tls_error_after_the_request_may_have_been_applied(tls, certificate, monkeypatch):
    """An error while the response is read does not show whether the mutation was applied."""

    def garbage(handler):
        raw = handler.connection.detach()
        with socket.socket(fileno=raw) as naked:
            naked.sendall(b"\x17\x03\x03\x00\x20" + b"x" * 32)

    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    with TinyServer(garbage, tls=tls) as server:
        error, arrived = fails(server, MUTATION, err.RedBrickConnectionError)
    assert arrived == 1
    assert error.maybe_applied


# ------------------------------------------------------------------ API key


def everything_about(error):
    shown = traceback.format_exception(error)
    return " ".join([str(error), repr(error), repr(error.__dict__), *shown])


LEAKS = {
    "in plain words": Reply(401, f"unknown key {KEY}".encode(), {"Content-Type": "text/plain"}),
    "in a bad request": json_reply({"headers": {"ApiKey": KEY}}, status=400),
    "in a server error": Reply(500, KEY.encode()),
    "in a message": json_reply({"data": None, "errors": [{"message": f"bad key {KEY}"}]}),
    "spelled otherwise": Reply(200, json.dumps({"errors": [{"message": f"bad {KEY}"}]}).replace("/", "\\/").encode()),
    "cut in two": Reply(400, b"x" * 490 + KEY.encode()),
    "over and over": Reply(503, KEY.encode()),
}


@pytest.mark.parametrize("reply", LEAKS.values(), ids=LEAKS)
def test_echoed_key_is_masked_everywhere(reply, caplog):
    with TinyServer(reply) as server, caplog.at_level(logging.DEBUG):
        transport = new_transport(server.url)
        with pytest.raises(err.RedBrickAPIError) as raised:
            transport.execute(QUERY, {})
    for text in (everything_about(raised.value), caplog.text):
        assert "canary" not in text
    assert server.got[0].headers["ApiKey"] == KEY


@pytest.mark.parametrize("how", [Unread(), drop], ids=["unread", "dropped"])
def test_lost_connection_does_not_show_the_key(how, caplog):
    with TinyServer(how) as server, caplog.at_level(logging.DEBUG):
        error, _ = fails(server, QUERY, err.RedBrickConnectionError)
    assert "canary" not in everything_about(error)
    assert "Retrying in" in caplog.text
    assert "canary" not in caplog.text


def test_reprs_do_not_show_the_key():
    transport = new_transport("http://localhost/graphql/")
    assert "canary" not in repr(transport) + str(transport) + repr(transport._credential) + str(transport._credential)
    assert "ApiKey" in repr(transport._credential)


@pytest.mark.parametrize("key", ["canary\nkey", "canary\r\nX-Evil: 1", "canary-schlüssel", "canary-鍵", ""])
def test_invalid_key_is_refused_and_not_echoed(key):
    with pytest.raises(err.RedBrickInputError) as raised:
        Credential(key)
    assert "canary" not in repr(raised.value)


def test_errors_survive_pickling():
    error = err.RedBrickServerError("x", operation="me", task_ids=["a"], status=503, maybe_applied=True)
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.status, again.maybe_applied, again.transient) == (str(error), 503, True, True)


def test_error_about_many_tasks_names_a_few():
    error = err.RedBrickRefusedError("no", operation="assign", task_ids=["a", "b", "c", "d", "e"])
    assert str(error) == "assign of task a, b, c and 2 more: no"


# ------------------------------------------------------------------ storage


def test_upload_has_no_api_key():
    with TinyServer(Reply(201)) as server:
        storage = new_transport("http://localhost/graphql/").storage
        storage.put(f"{server.origin}/a?sig=s", b"bytes", kind="application/json", encoding="gzip")
    (got,) = server.got
    assert (got.method, got.path, got.body) == ("PUT", "/a?sig=s", b"bytes")
    assert (got.headers["Content-Type"], got.headers["Content-Encoding"]) == ("application/json", "gzip")
    assert got.headers["ApiKey"] is None
    assert got.headers["Authorization"] is None
    assert "canary" not in str(got.headers)


@pytest.mark.parametrize(
    "reply",
    [
        Reply(200, b"[1, 2]"),
        Reply(200, gzip.compress(b"[1, 2]")),
        Reply(200, gzip.compress(b"[1, 2]"), {"Content-Encoding": "gzip"}),
        Reply(200, gzip.compress(gzip.compress(b"[1, 2]")), {"Content-Encoding": "gzip"}),
    ],
    ids=["plain", "gzip", "gzip and a header", "both"],
)
def test_download_is_decompressed(reply):
    with TinyServer(reply) as server:
        assert new_transport(server.url).storage.get(server.origin) == b"[1, 2]"
    assert server.got[0].headers["ApiKey"] is None


def test_truncated_download_is_an_answer_error():
    whole = gzip.compress(b"[1, 2]" * 100)
    for broken in (whole[:-9], whole[:12] + b"\x00" * 9 + whole[20:]):
        with TinyServer(Reply(200, broken)) as server, pytest.raises(err.RedBrickAnswerError, match="cut short"):
            new_transport(server.url).storage.get(server.origin)


@pytest.mark.parametrize(
    "first",
    [Reply(500), Reply(503), Reply(429, b"", {"Retry-After": "3"}), drop],
    ids=["500", "503", "429", "dropped"],
)
def test_storage_request_is_retried(first):
    with TinyServer(first, Reply(200, b"x")) as server:
        transport = new_transport(server.url)
        transport.storage.put(server.origin, b"again", kind="text/plain")
    assert [got.body for got in server.got] == [b"again", b"again"]
    assert transport.waits == [3.25 if isinstance(first, Reply) and first.status == 429 else 0.25]


class Pieces(io.BytesIO):
    """A file that records the size of each write, and may be on a full disk."""

    def __init__(self, room=1 << 30):
        super().__init__()
        self.room = room
        self.largest = 0

    def write(self, piece):
        self.largest = max(self.largest, len(piece))
        if self.tell() + len(piece) > self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(piece)

    def writelines(self, pieces):
        for piece in pieces:
            self.write(piece)


def test_fetch_streams_the_stored_bytes():
    stored = gzip.compress(random.Random(1).randbytes(3_000_000))
    with TinyServer(Reply(200, stored)) as server:
        file = Pieces()
        file.write(b"what was there before" * 1_000_000)
        file.largest = 0
        new_transport(server.url).storage.fetch(server.origin, file)
    assert file.getvalue() == stored
    assert 0 < file.largest < 1_000_000
    assert server.got[0].headers["ApiKey"] is None


def test_interrupted_fetch_restarts_at_the_beginning():
    whole = random.Random(2).randbytes(200_000)
    broken = Reply(200, b"x" * 150_000, {"Content-Length": "200000"})
    with TinyServer(broken, Reply(503), Reply(200, whole)) as server:
        transport, file = new_transport(server.url), io.BytesIO()
        transport.storage.fetch(server.origin, file)
    assert file.getvalue() == whole
    assert len(transport.waits) == 2


def test_full_disk_is_not_reported_as_a_storage_error():
    with TinyServer(Reply(200, b"x" * 200_000)) as server, pytest.raises(OSError, match="No space left"):
        new_transport(server.url).storage.fetch(server.origin, Pieces(room=100_000))
    assert len(server.got) == 1


def signed(origin):
    return f"{origin}/file?signature=canary"


@pytest.mark.parametrize("status", [304, 400, 403, 404])
def test_storage_refusal_is_final_and_hides_the_signed_url(status):
    with TinyServer(Reply(status)) as server:
        url = signed(server.origin)
        with pytest.raises(err.RedBrickAPIError) as raised:
            new_transport(server.url).storage.get(url)
    assert len(server.got) == 1
    assert f"HTTP {status}" in str(raised.value)
    assert "canary" not in everything_about(raised.value)


def test_unreachable_storage_hides_the_signed_url():
    url = signed(f"http://127.0.0.1:{dead_port()}")
    with pytest.raises(err.RedBrickConnectionError, match="Storage did not answer") as raised:
        new_transport("http://localhost/graphql/").storage.get(url)
    assert "canary" not in everything_about(raised.value)


# ------------------------------------------------------------------ storage over plain HTTP

HTTPS_API = "https://localhost/graphql/"


@pytest.fixture
def elsewhere(monkeypatch):
    """Another machine as far as URLs show: a proxy answers all http requests."""
    with TinyServer(Reply(200, b"x")) as there:
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("http_proxy", there.origin)
        yield there


WAYS = {
    "get": lambda storage, url: storage.get(url),
    "fetch": lambda storage, url: storage.fetch(url, io.BytesIO()),
    "put": lambda storage, url: storage.put(url, b"x", kind="text/plain"),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("url", ["http://files.example.com/f?sig=canary", " HTTP://sandbox.localhost/f?sig=canary"])
@pytest.mark.parametrize("api", [HTTPS_API, "https://redbrick.example.com/graphql/", "http://localhost/graphql/"])
def test_remote_storage_over_http_is_refused(elsewhere, way, url, api):
    with pytest.raises(err.RedBrickAnswerError, match=r"unencrypted.*allow_http") as raised:
        way(new_transport(api).storage, url)
    assert elsewhere.connections == 0
    assert "canary" not in everything_about(raised.value)


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize(
    ("api", "options"), [(HTTPS_API, {"allow_http": True}), ("http://redbrick.example.com/graphql/", {})]
)
def test_remote_storage_over_http_is_used_if_allowed(elsewhere, way, api, options):
    way(new_transport(api, **options).storage, "http://files.example.com/f")
    assert [got.path for got in elsewhere.got] == ["http://files.example.com/f"]


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_loopback_storage_may_use_http(way):
    with TinyServer(Reply(200, b"x")) as server:
        way(new_transport(HTTPS_API).storage, f"{server.origin}/f")
    assert len(server.got) == 1


@pytest.mark.parametrize("way", [WAYS["get"], WAYS["fetch"]])
def test_storage_redirect_to_remote_http_is_not_followed(elsewhere, way):
    moved = Reply(302, b"", {"Location": "http://files.example.com/f?sig=canary"})
    with TinyServer(moved) as server, pytest.raises(err.RedBrickAnswerError, match="unencrypted") as raised:
        way(new_transport(HTTPS_API).storage, f"{server.origin}/f")
    assert elsewhere.connections == 0
    assert "canary" not in everything_about(raised.value)


@pytest.mark.parametrize("way", [WAYS["get"], WAYS["fetch"]])
def test_storage_redirect_from_https_to_http_is_not_followed(tls, certificate, monkeypatch, way):
    """Also if http is allowed, and to a loopback host."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    with TinyServer(Reply(200, b"x")) as other:
        moved = Reply(302, b"", {"Location": f"{other.origin}/f?sig=canary"})
        refused = pytest.raises(err.RedBrickAnswerError, match="from https to http")
        with TinyServer(moved, tls=tls) as server, refused as raised:
            way(new_transport(server.url, allow_http=True).storage, f"{server.origin}/f")
        assert other.connections == 0
    assert "canary" not in everything_about(raised.value)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_upload_redirect_is_not_followed(status):
    with TinyServer(Reply(200)) as other:
        moved = Reply(status, b"", {"Location": f"{other.origin}/f"})
        with TinyServer(moved) as server, pytest.raises(err.RedBrickRefusedError, match=f"HTTP {status}"):
            new_transport(server.url).storage.put(f"{server.origin}/f", b"x", kind="text/plain")
        assert other.connections == 0


# ------------------------------------------------------------------ other


@pytest.mark.parametrize(
    ("document", "described"),
    [("query a { x }", ("a", False)), ("\n  mutation b($x: Int) { x }", ("b", True)), ("query c{x}", ("c", False))],
)
def test_describe_returns_name_and_kind(document, described):
    assert describe(document) == described


@pytest.mark.parametrize("document", ["{ me { userId } }", "subscription x { y }", "query { me }", ""])
def test_describe_of_an_unnamed_document_is_an_error(document):
    with pytest.raises(ValueError, match="starts with"):
        describe(document)


def test_equal_requests_are_equal_bytes():
    encoded = {graphql.encode(QUERY, {"a": 1}, plain_json=False)[0] for _ in range(3)}
    assert len(encoded) == 1
