"""One request to a server that answers with anything: bytes, statuses, headers, as slowly and as much as it likes."""

from __future__ import annotations

import gzip
import io
import json
import time
import tracemalloc
import zlib

import pytest
from fuzz.promises import promises, refuse_secrets
from fuzz.values import ECHOES, JSON, KEY, RAW, SIGNATURE, examples, tower
from hypothesis import example, given
from hypothesis import strategies as st
from tiny_server import Reply, TinyServer, json_reply

from airflow_provider_redbrick import exceptions as err
from airflow_provider_redbrick.api import bounds, storage
from airflow_provider_redbrick.api.credential import Credential
from airflow_provider_redbrick.api.retry import RetryPolicy, retry_after_seconds, seconds_until_retry
from airflow_provider_redbrick.api.transport import Transport
from airflow_provider_redbrick.api.wire import masked

QUERY = "query me { me { userId } }"
MUTATION = "mutation moveTaskToStart($taskId: UUID!) { moveTaskToStart(taskId: $taskId) { ok } }"
GOOD = json_reply({"data": {"me": {"userId": "API:1"}}})


@pytest.fixture(scope="module")
def server():
    with TinyServer(GOOD) as server:
        yield server


def new_transport(server, *, timeout=2.0, max_attempts=1):
    policy = RetryPolicy(max_attempts=max_attempts, base=0.0, cap=0.0, retry_after_cap=0.01)
    return Transport(server.url, Credential(KEY), timeout=timeout, policy=policy)


def ask(server, reply, *, document=QUERY, **options):
    """Send one request that is answered so; answers what was told of it."""
    server.replies = [reply]
    transport = new_transport(server, **options)
    with promises(seconds=10) as watch:
        answer = transport.execute_partial(document, {"taskId": "t"}, task_ids=["t"])
        watch.tell(answer)
    watch.tell(transport)
    watch.check()
    transport.close()
    return watch


# ------------------------------------------------------------------ what is in an answer

STATUSES = st.sampled_from(
    [200, 200, 200, 201, 204, 206, 299, 301, 304, 307, 400, 401, 403, 404, 413, 418, 429, 500, 503]
)
BODIES = (
    st.binary(max_size=200)
    | RAW.map(str.encode)
    | RAW.map(lambda raw: f'{{"data": {raw}}}'.encode("utf-8", "surrogatepass"))
    | RAW.map(lambda raw: f'{{"data": {{"me": {raw}}}, "errors": [{raw}]}}'.encode("utf-8", "surrogatepass"))
    | RAW.map(lambda raw: f'{{"errors": [{{"message": {raw}, "path": [{raw}]}}]}}'.encode("utf-8", "surrogatepass"))
    | st.sampled_from([f'{{"data": {{"me": {{"userId": {echo}}}}}}}'.encode("utf-16") for echo in ECHOES])
    | st.sampled_from([b"\xef\xbb\xbf" + GOOD.body, GOOD.body.decode().encode("utf-32"), GOOD.body[:-1], b"\0" * 100])
)
WORDS = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30) | st.sampled_from(
    [
        "gzip",
        "deflate",
        "br",
        "zstd",
        "gzip, gzip",
        "identity",
        "chunked",
        "0",
        "-1",
        "5",
        "9" * 5000,
        "1e400",
        "x" * 9000,
    ]
)
NAMES = ("Content-Type", "Content-Encoding", "Content-Length", "Transfer-Encoding", "Retry-After", "Location")
HEADERS = st.dictionaries(
    st.sampled_from([*NAMES, "Set-Cookie", "Connection", "X-\xe9", "Trailer", "Upgrade"]),
    WORDS | st.sampled_from(["text/html", "http://localhost:1/", "a=b; Path=/", "Wed, 31 Feb 9999 99:99:99 GMT"]),
    max_size=3,
)
PACKINGS = st.sampled_from(["plain", "plain", "gzip", "cut gzip", "not gzip", "deflate", "twice"])


def packed(body, how):
    """A body as it is compressed, or said to be, and the headers that say so."""
    if how == "plain":
        return body, {}
    if how == "deflate":
        return zlib.compress(body), {"Content-Encoding": "deflate"}
    if how == "twice":
        return gzip.compress(gzip.compress(body)), {"Content-Encoding": "gzip, gzip"}
    whole = body if how == "not gzip" else gzip.compress(body)
    return whole[: len(whole) // 2] if how == "cut gzip" else whole, {"Content-Encoding": "gzip"}


@pytest.mark.parametrize("document", [QUERY, MUTATION], ids=["read", "mutation"])
@examples(150)
@given(status=STATUSES, body=BODIES, headers=HEADERS, packing=PACKINGS)
def test_any_answer(server, document, status, body, headers, packing):  # noqa: PLR0917
    content, said = packed(body, packing)

    def answer(handler):
        # A length that is not so must not keep anybody waiting.
        handler.close_connection = True
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **said, **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(content)

    watch = ask(server, answer, document=document)
    if isinstance(watch.error, (err.RedBrickConnectionError, err.RedBrickAnswerError, err.RedBrickServerError)):
        assert watch.error.maybe_applied is (document == MUTATION)


@examples(100)
@given(
    st.binary(max_size=300)
    | st.builds(
        lambda line, rest: b"HTTP/1.1 200" + line + b"\r\nTransfer-Encoding: chunked\r\n\r\n" + rest,
        st.binary(max_size=10),
        st.binary(max_size=30) | st.sampled_from([b"ffffffffffff\r\nx", b"-1\r\n", b"2\r\n{}\r\n0\r\n\r\n", b"zz\r\n"]),
    )
    | st.just(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n")
    | st.just(b"HTTP/1.1 200 " + b"x" * 100_000)
)
def test_any_bytes_for_an_answer(server, content):
    def answer(handler):
        handler.close_connection = True
        handler.wfile.write(content)

    ask(server, answer)


@examples(100)
@given(JSON)
def test_any_json_for_an_answer(server, value):
    ask(server, Reply(200, json.dumps(value).encode()))
    ask(server, Reply(200, json.dumps({"data": {"me": value}, "errors": value}).encode()))


@pytest.mark.parametrize("height", [300, 900, 950, 960, 970, 980, 985, 990, 995, 1000, 100_000])
def test_towers_of_any_height(server, height):
    for text in (
        tower(height),
        tower(height, "{}"),
        f'{{"errors": [{tower(height)}]}}',
        f'{{"data": {tower(height)}}}',
    ):
        ask(server, Reply(200, text.encode()))


# ------------------------------------------------------------------ waiting as told


@examples(300)
@given(
    WORDS
    | st.text(max_size=40)
    | st.from_regex(r"[A-Z][a-z]{2}, \d{1,2} [A-Z][a-z]{2} \d{1,6} \d\d:\d\d:\d\d( GMT| [+-]\d{4})?")
)
@example("9" * 5000)
@example("٣")
def test_no_retry_after_makes_anybody_wait_long(header):
    seconds = retry_after_seconds(header, now=1e9)
    assert seconds is None or seconds >= 0
    error = err.RedBrickRateLimitError("x", retry_after=header)
    policy = RetryPolicy()
    wait = seconds_until_retry(error, mutation=False, attempt=1, now=1e9, draw=0.5, policy=policy)
    assert wait is None or 0 <= wait <= policy.retry_after_cap + policy.cap


# ------------------------------------------------------------------ the key


@pytest.mark.parametrize("echo", [*ECHOES, json.dumps(json.dumps({"a/b": KEY})), json.dumps(ECHOES[2])])
@pytest.mark.parametrize("status", [200, 400, 500])
def test_a_key_is_told_in_no_spelling(server, echo, status):
    for text in (f'{{"errors": [{{"message": {echo}}}]}}', f'{{"data": {{"me": {echo}}}}}', echo, echo * 20):
        ask(server, Reply(status, text.encode(), {"Content-Type": "application/json"}))


@examples(100)
@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=8, max_size=60), st.randoms())
def test_whatever_json_makes_of_a_key_is_masked(secret, random):
    spelled = "".join(
        random.choice([json.dumps(each)[1:-1], f"\\u{ord(each):04x}", f"\\u{ord(each):04X}"]) for each in secret
    )
    assert json.loads(f'"{spelled}"') == secret
    assert masked(f'"a{spelled}b"'.encode(), secret) == b'"a***b"'


# ------------------------------------------------------------------ answers without an end

MIB = 1 << 20


@pytest.fixture
def small(monkeypatch):
    """Four megabytes are a large answer."""
    monkeypatch.setattr(bounds, "LARGEST", 4 * MIB)
    monkeypatch.setattr(storage, "LARGEST", 4 * MIB)
    monkeypatch.setattr(storage, "LARGEST_FILE", 4 * MIB)


def endless(handler, status=200, headers=(), piece=b" " * 65536):
    """Send headers, and then the same for as long as anybody listens."""
    handler.close_connection = True
    handler.send_response(status)
    for name, value in headers:
        handler.send_header(name, value)
    handler.end_headers()
    while True:
        handler.wfile.write(piece)


def chunked(piece):
    return {"headers": [("Transfer-Encoding", "chunked")], "piece": b"%x\r\n%s\r\n" % (len(piece), piece)}


SPACE = gzip.compress(b" " * MIB)
BOMB = gzip.compress(b" " * (60 * MIB))
LARGE = {
    "endless": endless,
    "endless in chunks": lambda handler: endless(handler, **chunked(b" " * 65536)),
    "endless members of gzip": lambda handler: endless(handler, headers=[("Content-Encoding", "gzip")], piece=SPACE),
    "much in a length": Reply(200, b" " * (5 * MIB)),
    "a bomb": Reply(200, BOMB, {"Content-Encoding": "gzip"}),
    "a bomb in a bomb": Reply(200, gzip.compress(BOMB), {"Content-Encoding": "gzip, gzip"}),
    "a bomb of another kind": Reply(200, zlib.compress(b" " * (60 * MIB)), {"Content-Encoding": "deflate"}),
}


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("reply", LARGE.values(), ids=LARGE)
def test_an_answer_larger_than_anything_sensible_is_not_read(server, reply):
    tracemalloc.start()
    watch = ask(server, reply, document=MUTATION, timeout=5)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert type(watch.error) is err.RedBrickAnswerError
    assert watch.error.maybe_applied
    assert "larger than 4 MiB" in str(watch.error) or "not asked for" in str(watch.error)
    assert peak < 16 * MIB


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("status", [302, 401, 500])
def test_an_endless_page_of_an_error_is_that_error(server, status):
    kinds = {302: err.RedBrickNotFoundError, 401: err.RedBrickAuthError, 500: err.RedBrickServerError}
    for how in ({}, chunked(b"x" * 65536), {"headers": [("Content-Encoding", "gzip")]}):
        watch = ask(server, lambda handler, how=how: endless(handler, status, **how))
        assert type(watch.error) is kinds[status]


def test_what_is_large_and_honest_is_read(server):
    name = "x" * (20 * MIB)
    watch = ask(
        server, Reply(200, gzip.compress(json.dumps({"data": {"me": name}}).encode()), {"Content-Encoding": "gzip"})
    )
    assert watch.error is None


# ------------------------------------------------------------------ answers that never get on


def drip(head, piece, pause=0.02):
    """Send something at once, and then a little now and then."""

    def answer(handler):
        handler.close_connection = True
        handler.wfile.write(head)
        while True:
            handler.wfile.write(piece)
            time.sleep(pause)

    return answer


DRIPS = {
    "body": drip(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b" "),
    "body without a length": drip(b"HTTP/1.1 200 OK\r\n\r\n", b" "),
    "chunks": drip(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "one chunk": drip(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffff\r\n", b" "),
    "a chunk's size": drip(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"0"),
    "status": drip(b"HTTP/1.1 200 ", b"x"),
    "a header": drip(b"HTTP/1.1 200 OK\r\nX: ", b"y"),
    "headers": drip(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n", pause=0.05),
    "promises": drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n", pause=0.0),
    "error": drip(b"HTTP/1.1 500 Oh\r\nContent-Length: 100000\r\n\r\n", b" "),
}


@pytest.mark.parametrize("how", DRIPS.values(), ids=DRIPS)
def test_an_answer_that_never_gets_on_is_given_up(server, how):
    began = time.monotonic()
    watch = ask(server, how, document=MUTATION, timeout=0.25)
    assert time.monotonic() - began < 2
    assert isinstance(watch.error, (err.RedBrickConnectionError, err.RedBrickServerError))
    assert watch.error.maybe_applied
    if isinstance(watch.error, err.RedBrickConnectionError):
        assert "did not answer in time" in str(watch.error)


def test_an_answer_that_is_slow_and_gets_on_is_read(server, monkeypatch):
    monkeypatch.setattr(bounds, "SLOWEST", 1000)
    body = GOOD.body + b" " * 1000

    def answer(handler):
        handler.close_connection = True
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
        for at in range(0, len(body), 40):
            handler.wfile.write(body[at : at + 40])
            time.sleep(0.02)

    began = time.monotonic()
    assert ask(server, answer, timeout=0.1).error is None
    assert time.monotonic() - began > 0.2


def test_a_connection_is_used_again_with_its_whole_time(server):
    """What was left of one answer's time is not what the next one gets."""

    def late(handler):
        time.sleep(0.3)
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(GOOD.body)))
        handler.end_headers()
        handler.wfile.write(GOOD.body)

    before = server.connections
    server.replies = [late]
    transport = new_transport(server, timeout=0.4)
    for _ in range(4):
        assert transport.execute(QUERY, {})["me"]
    transport.close()
    assert server.connections - before <= 4


# ------------------------------------------------------------------ storage


def fetch(server, reply, path="/f", **options):
    """Fetch a file in both ways."""
    server.replies = [reply]
    transport = new_transport(server, **options)
    url = f"{server.origin}{path}?signature={SIGNATURE}"
    errors = []
    for receive in (transport.storage.get, lambda url: transport.storage.fetch(url, io.BytesIO())):
        with promises(seconds=10) as watch:
            watch.tell(receive(url))
        errors.append(watch.error)
    with promises(seconds=10) as watch:
        transport.storage.put(url, b"x", kind="text/plain")
    transport.close()
    return errors


@examples(60)
@given(status=STATUSES, body=st.binary(max_size=200), headers=HEADERS, packing=PACKINGS)
def test_any_answer_of_storage(server, status, body, headers, packing):
    content, said = packed(body, packing)

    def answer(handler):
        handler.close_connection = True
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **said, **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(content)

    fetch(server, answer)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("reply", [reply for name, reply in LARGE.items() if "bomb" not in name])
def test_a_file_larger_than_anything_sensible_is_not_read(server, reply):
    for error in fetch(server, reply):
        assert type(error) is err.RedBrickAnswerError
        assert "larger than 4 MiB" in str(error)


@pytest.mark.usefixtures("small")
def test_a_bomb_in_storage_does_not_go_off(server):
    server.replies = [Reply(200, BOMB)]
    transport = new_transport(server)
    tracemalloc.start()
    with pytest.raises(err.RedBrickAnswerError, match="larger than 4 MiB"):
        transport.storage.get(server.origin)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 * MIB
    transport.close()


@pytest.mark.parametrize("how", [DRIPS["body"], DRIPS["headers"]])
def test_a_file_that_never_gets_on_is_given_up(server, how):
    began = time.monotonic()
    for error in fetch(server, how, timeout=0.25):
        assert type(error) is err.RedBrickConnectionError
    assert time.monotonic() - began < 4


@pytest.mark.usefixtures("small")
def test_what_comes_with_a_redirect_is_not_read(server):
    tracemalloc.start()
    errors = fetch(server, lambda handler: endless(handler, 302, [("Location", f"{server.origin}/again")]))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [type(error) for error in errors] == [err.RedBrickConnectionError] * 2
    assert peak < 16 * MIB


NOWHERE = ("", "x", "file:///etc/hostname", "http://[::1", "http://\ud800/", "http://a..b/", "http://*/", "http://\0/")


@pytest.mark.parametrize(
    "url",
    [*NOWHERE, f"http://{'a' * 300}/", "http://localhost:99999/", {"a": 1}, 5, ["http://localhost/"], True],
    ids=lambda url: ascii(url)[:20],
)
def test_a_url_that_leads_nowhere_is_not_tried_again(server, url):
    transport = new_transport(server, max_attempts=5)
    with promises(seconds=10) as watch:
        transport.storage.get(url)
    assert isinstance(watch.error, err.RedBrickAnswerError)
    transport.close()


# ------------------------------------------------------------------ what stays


def test_a_server_leaves_nothing_behind(server):
    """Its cookies would be kept, sent back and logged by whoever stands between."""
    server.replies = [Reply(200, GOOD.body, {"Set-Cookie": f"a={'x' * 1000}; Path=/"})]
    transport = new_transport(server)
    server.got.clear()
    for _ in range(2):
        transport.execute(QUERY, {})
        transport.storage.get(server.origin)
    assert [got.headers["Cookie"] for got in server.got] == [None] * 4
    transport.close()


def test_an_error_does_not_keep_what_it_is_about(server):
    """Errors are kept for the end of a long run; requests have the key in them, and answers may be large."""
    for reply in (
        Reply(200, b"<html>" + b"x" * MIB),
        Reply(500, b"x" * MIB),
        lambda handler: handler.connection.close(),
    ):
        watch = ask(server, reply)
        assert watch.error.__context__ is None
        refuse_secrets(repr(vars(watch.error)))
        assert len(repr(vars(watch.error))) < 2000
