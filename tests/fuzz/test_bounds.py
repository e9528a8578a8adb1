"""Answers without an end, and answers that never get on: neither takes memory or time without a limit."""

from __future__ import annotations

import gzip
import json
import time
import tracemalloc
import zlib

import pytest
from fuzz.asking import GOOD, MUTATION, QUERY, ask, fetch, new_transport
from tiny_server import Reply

from airflow_provider_redbrick import exceptions as err
from airflow_provider_redbrick.client.models.parsing import flat_labels
from airflow_provider_redbrick.client.transport import graphql, sessions, storage

# ------------------------------------------------------------------ answers without an end

MIB = 1 << 20


@pytest.fixture
def small(monkeypatch):
    """Four megabytes are a large answer."""
    monkeypatch.setattr(sessions, "MAX_RESPONSE_BYTES", 4 * MIB)
    monkeypatch.setattr(storage, "MAX_RESPONSE_BYTES", 4 * MIB)
    monkeypatch.setattr(storage, "LARGEST_FILE", 4 * MIB)


def endless(handler, status=200, headers=(), piece=b" " * 65536):
    """Send headers, and then the same chunk until the client disconnects."""
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
    assert "larger than 4 MiB" in str(watch.error) or "not requested" in str(watch.error)
    assert peak < 16 * MIB


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("status", [302, 401, 500])
def test_an_endless_page_of_an_error_is_that_error(server, status):
    kinds = {302: err.RedBrickNotFoundError, 401: err.RedBrickAuthError, 500: err.RedBrickServerError}
    for how in ({}, chunked(b"x" * 65536), {"headers": [("Content-Encoding", "gzip")]}):
        watch = ask(server, lambda handler, how=how: endless(handler, status, **how))
        assert type(watch.error) is kinds[status]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("how", [{}, chunked(b"{" + b" " * 65535)], ids=["plain", "in chunks"])
@pytest.mark.parametrize(("status", "kind"), [(400, err.RedBrickAnswerError), (500, err.RedBrickServerError)])
def test_an_endless_error_that_may_be_an_answer_is_not_read(server, status, kind, how):
    tracemalloc.start()
    watch = ask(server, lambda handler: endless(handler, status, **{"piece": b"{" + b" " * 65535, **how}))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert type(watch.error) is kind
    assert peak < 16 * MIB


REDIRECT = [("Location", "/graphql/again")]
ZIPPED = [("Content-Encoding", "gzip")]
REDIRECTS = {
    "a bomb": Reply(302, BOMB, dict(REDIRECT + ZIPPED)),
    "endless": lambda handler: endless(handler, 302, REDIRECT),
    "endless members of gzip": lambda handler: endless(handler, 302, REDIRECT + ZIPPED, SPACE),
}


@pytest.mark.parametrize("reply", REDIRECTS.values(), ids=REDIRECTS)
def test_what_comes_with_a_redirect_of_the_api_is_not_read(server, reply):
    """The HTTP library looks where a redirect leads, and reads all of it, also where it is not to follow any."""
    before = len(server.got)
    tracemalloc.start()
    watch = ask(server, reply, timeout=5)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert type(watch.error) is err.RedBrickNotFoundError
    assert len(server.got) == before + 1
    assert peak < 16 * MIB


def test_what_is_large_and_honest_is_read(server):
    name = "x" * (20 * MIB)
    watch = ask(
        server, Reply(200, gzip.compress(json.dumps({"data": {"me": name}}).encode()), {"Content-Encoding": "gzip"})
    )
    assert watch.error is None


MANY = {
    "empty objects": b"{}",
    "empty lists": b"[]",
    "numbers": b"1.5",
    "labels in text": rb"{\"a\": 1}",
}


def not_read(content):
    """How many bytes it takes not to read an answer."""
    tracemalloc.start()
    with pytest.raises(err.RedBrickAnswerError, match=r"has more than \d+ values") as caught:
        graphql.decode(200, {}, content)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert caught.value.maybe_applied
    return peak


@pytest.mark.parametrize("value", MANY.values(), ids=MANY)
def test_an_answer_of_very_many_small_values_is_not_parsed(monkeypatch, value):
    monkeypatch.setattr("airflow_provider_redbrick._utils.MOST_VALUES", 100_000)
    quote = b'"' if b'"' in value else b""
    content = b'{"data": {"me": %s[%s]%s}}' % (quote, b",".join([value] * 100_001), quote)
    assert not_read(content) < MIB // 4


def test_twenty_megabytes_of_them_do_not_become_five_hundred():
    assert not_read(b'{"data": {"me": [%s]}}' % b",".join([b"{}"] * (7 * MIB))) < MIB


def test_neither_are_labels_that_hide_them():
    """In escapes of text, where nothing is to be seen of them before the answer is parsed."""
    hidden = json.dumps([{}] * 5_000_001, separators=(",", ":"))
    with pytest.raises(ValueError, match="has more than 10000000 values"):
        flat_labels(hidden)


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
    monkeypatch.setattr(sessions, "MIN_BYTES_PER_S", 1000)
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


@pytest.mark.parametrize("how", [DRIPS["a header"], DRIPS["body"]])
def test_an_answer_by_a_proxy_has_the_same_limits(server, how):
    transport = new_transport(server, timeout=0.25)
    transport.url = "http://redbrick.invalid/graphql/"
    transport._session.proxies = {"http": server.origin}
    server.replies = [GOOD, how]
    assert transport.execute(QUERY, {})["me"]
    assert server.got[-1].path == transport.url
    began = time.monotonic()
    with pytest.raises(err.RedBrickConnectionError, match="did not answer in time"):
        transport.execute(QUERY, {})
    assert time.monotonic() - began < 2
    transport.close()


# ------------------------------------------------------------------ storage


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
@pytest.mark.parametrize("reply", REDIRECTS.values(), ids=REDIRECTS)
def test_what_comes_with_a_redirect_of_storage_is_not_read(server, reply):
    tracemalloc.start()
    errors = fetch(server, reply)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [type(error) for error in errors] == [err.RedBrickConnectionError] * 2
    assert peak < 16 * MIB
