"""One request to a server that answers with anything: bytes, statuses, headers; and what it echoes."""

from __future__ import annotations

import gzip
import html
import io
import json
import logging
import zlib
from urllib.parse import quote

import pytest
from fuzz.asking import GOOD, MUTATION, QUERY, ask, fetch, new_transport
from fuzz.promises import promises, refuse_secrets
from fuzz.values import ECHOES, JSON, KEY, RAW, SIGNATURE, any_text, fuzzed, of_a_secret, tower
from hypothesis import example, given
from hypothesis import strategies as st
from tiny_server import Reply

from airflow_provider_redbrick import exceptions as err
from airflow_provider_redbrick.client.transport.redaction import mask_secret
from airflow_provider_redbrick.client.transport.retry import RetryPolicy, retry_after_seconds, seconds_until_retry

# ------------------------------------------------------------------ what is in an answer

STATUSES = st.sampled_from(
    [200, 200, 200, 201, 204, 206, 299, 301, 304, 307, 400, 401, 403, 404, 413, 418, 429, 500, 503]
)
BYTES = st.binary(max_size=300).filter(lambda content: not of_a_secret(content.decode("latin-1")))
BODIES = (
    BYTES
    | RAW.map(str.encode)
    | RAW.map(lambda raw: f'{{"data": {raw}}}'.encode("utf-8", "surrogatepass"))
    | RAW.map(lambda raw: f'{{"data": {{"me": {raw}}}, "errors": [{raw}]}}'.encode("utf-8", "surrogatepass"))
    | RAW.map(lambda raw: f'{{"errors": [{{"message": {raw}, "path": [{raw}]}}]}}'.encode("utf-8", "surrogatepass"))
    | st.sampled_from([f'{{"data": {{"me": {{"userId": {echo}}}}}}}'.encode("utf-16") for echo in ECHOES])
    | st.sampled_from([b"\xef\xbb\xbf" + GOOD.body, GOOD.body.decode().encode("utf-32"), GOOD.body[:-1], b"\0" * 100])
)
WORDS = any_text(30, min_codepoint=32, max_codepoint=126) | st.sampled_from(
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
NAMES = ("Content-Type", "Content-Encoding", "Content-Length", "Transfer-Encoding", "Retry-After", "Location", "Date")
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


def answering(status, headers, content):
    """Give one answer, whatever its length is said to be."""

    def answer(handler):
        # A wrong length must not block the reader.
        handler.close_connection = True
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(content)

    return answer


NO_URLS = ("http://x/\xff", "http://[::1/x", "\xff", "//[", "http://x:y/", "http://\0/", "mailto:x", "\xc3")


@pytest.mark.parametrize("document", [QUERY, MUTATION], ids=["read", "mutation"])
@fuzzed(50)
@given(status=STATUSES, body=BODIES, headers=HEADERS, packing=PACKINGS)
@example(status=302, body=b"", headers={"Location": NO_URLS[0]}, packing="plain")
@example(status=307, body=b"", headers={"Location": NO_URLS[1]}, packing="plain")
def test_any_answer(server, document, status, body, headers, packing):  # noqa: PLR0917
    content, said = packed(body, packing)
    watch = ask(server, answering(status, {**said, **headers}, content), document=document)
    if isinstance(watch.error, (err.RedBrickConnectionError, err.RedBrickAnswerError, err.RedBrickServerError)):
        assert watch.error.maybe_applied is (document == MUTATION)


@fuzzed(40)
@given(
    BYTES
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


@fuzzed(40)
@given(JSON)
def test_any_json_for_an_answer(server, value):
    for status in (200, 400):
        ask(server, Reply(status, json.dumps(value).encode()))
        ask(server, Reply(status, json.dumps({"data": {"me": value}, "errors": value}).encode()))


@pytest.mark.parametrize("height", [300, 900, 950, 960, 970, 980, 985, 990, 995, 1000, 100_000])
def test_towers_of_any_height(server, height):
    for text in (
        tower(height),
        tower(height, "{}"),
        f'{{"errors": [{tower(height)}]}}',
        f'{{"data": {tower(height)}}}',
    ):
        for status in (200, 400):
            ask(server, Reply(status, text.encode()))


# ------------------------------------------------------------------ waiting as told


@fuzzed(100)
@given(
    WORDS
    | any_text(40)
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


@fuzzed(40)
@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=8, max_size=60), st.randoms())
def test_whatever_json_makes_of_a_key_is_masked(secret, random):
    spelled = "".join(
        random.choice([json.dumps(each)[1:-1], f"\\u{ord(each):04x}", f"\\u{ord(each):04X}"]) for each in secret
    )
    assert json.loads(f'"{spelled}"') == secret
    assert mask_secret(f'"a{spelled}b"'.encode(), secret) == b'"a***b"'


@pytest.mark.parametrize("echo", [*ECHOES, json.dumps(json.dumps({"a/b": KEY})), quote(KEY), html.escape(KEY)])
def test_the_beginning_of_a_key_is_not_told_by_an_answer_that_was_cut_short(server, echo):
    for length in range(len(echo)):
        refuse_secrets(mask_secret(f"{'x' * 1000} {echo[:length]}".encode(), KEY).decode())
    ask(server, Reply(500, echo[: len(echo) // 2].encode()))


def test_an_answer_that_was_cut_short_elsewhere_is_told():
    for said in ("Bad gateway", "<html>It is down</html>\n", '{"errors": [{"message": "It is d', "", KEY[:3]):
        assert mask_secret(said.encode(), KEY) == said.encode()


# ------------------------------------------------------------------ storage


@fuzzed(25)
@given(status=STATUSES, body=BYTES, headers=HEADERS, packing=PACKINGS)
def test_any_answer_of_storage(server, status, body, headers, packing):
    content, said = packed(body, packing)
    fetch(server, answering(status, {**said, **headers}, content))


@pytest.mark.parametrize(
    "answers",
    [
        [],
        [Reply(503)],
        [Reply(302, b"", {"Location": f"/g?X-Sig={SIGNATURE}"})],
        [Reply(200, b"x", {"X-\xe9": ""})],
    ],
    ids=["good", "tried again", "elsewhere", "a header that is none"],
)
def test_nobody_logs_a_signature(server, caplog, answers):
    """Not the HTTP library either, which logs each request at DEBUG, and odd answers as warnings."""
    with caplog.at_level(logging.DEBUG):
        for way in ("get", "fetch", "put"):
            server.replies = [*answers, Reply(200, b"x")]
            transport = new_transport(server, max_attempts=2)
            url = f"{server.origin}/f?X-Sig={SIGNATURE}&y"
            with promises(err.RedBrickRefusedError):
                more = {"get": (), "fetch": (io.BytesIO(),), "put": (b"x",)}[way]
                getattr(transport.storage, way)(url, *more, **({"kind": "text/plain"} if way == "put" else {}))
            assert SIGNATURE in server.got[-1].path
            transport.close()
    assert "GET /f?*** HTTP" in caplog.text
    assert "PUT /f?*** HTTP" in caplog.text
    refuse_secrets(caplog.text)


@pytest.mark.parametrize("location", NO_URLS, ids=ascii)
@pytest.mark.parametrize("status", [301, 307])
def test_a_redirect_to_what_is_no_url(server, status, location):
    """Of the API it is one like any other; of storage, whose redirects are followed, it leads nowhere."""
    reply = answering(status, {"Location": location}, b"")
    assert type(ask(server, reply).error) is err.RedBrickNotFoundError
    for error in fetch(server, reply):
        assert type(error) is err.RedBrickAnswerError


NOWHERE = (
    "",
    "x",
    "file:///etc/hostname",
    "http://[::1",
    "http://\ud800/",
    "http://a..b/",
    "http://*/",
    "http://\0/",
    "x://[",
)


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
    """Its cookies would be stored, sent back, and logged by proxies."""
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
        Reply(200, b"<html>" + b"x" * 1_000_000),
        Reply(500, b"x" * 1_000_000),
        lambda handler: handler.connection.close(),
    ):
        watch = ask(server, reply)
        assert watch.error.__context__ is None
        refuse_secrets(repr(vars(watch.error)))
        assert len(repr(vars(watch.error))) < 2000
