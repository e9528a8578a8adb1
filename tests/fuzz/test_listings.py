"""Listings without an end: of whatever kind, they end with an error, soon, and in little memory."""

from __future__ import annotations

import json
import tracemalloc
from itertools import count, cycle, islice

import pytest
from fuzz.promises import promises
from fuzz.values import JSON, KEY, fuzzed
from hypothesis import given
from hypothesis import strategies as st
from tiny_server import json_reply

from airflow_provider_redbrick.actions.prelabel import list_waiting
from airflow_provider_redbrick.client.operations import task_reads as module
from airflow_provider_redbrick.client.operations.account import RedBrickClient
from airflow_provider_redbrick.client.operations.project import RedBrickProject
from airflow_provider_redbrick.client.operations.remote_labeling import RemoteStage
from airflow_provider_redbrick.client.operations.task_reads import BulkRead, pages
from airflow_provider_redbrick.client.transport.http import Transport
from airflow_provider_redbrick.client.transport.retry import RetryPolicy
from airflow_provider_redbrick.client.transport.sessions import Credential
from airflow_provider_redbrick.exceptions import RedBrickAnswerError

ID = "0a9c6e10-5b1d-4c8e-9f00-000000000001"


def walk(listing):
    """Walk a listing whose pages come from an iterator of (entries, cursor); answers how many entries came."""
    return sum(1 for _ in pages(lambda _cursor, _first: next(listing), page_size=200))


def tasks(*numbers):
    return [{"taskId": f"{number}"} for number in numbers]


ENDLESS = {
    "empty pages": (([], f"c{i}") for i in count()),
    "the same page": ((tasks(1, 2, 3), f"c{i}") for i in count()),
    "the same task": ((tasks(1), f"c{i}") for i in count()),
    "seven pages": ((tasks(i, i + 1), f"c{n}") for n, i in enumerate(cycle(range(7)))),
    "a page after a thousand": ((tasks(min(i, 1000)), f"c{i}") for i in count()),
    "new tasks": ((tasks(2 * i, 2 * i + 1), f"c{i}") for i in count()),
    "new tasks and nothing": ((tasks(i) if i % 3 else [], f"c{i}") for i in count()),
}


@pytest.mark.parametrize("listing", ENDLESS.values(), ids=ENDLESS)
def test_a_listing_without_an_end_is_an_error(listing, monkeypatch):
    monkeypatch.setattr(module, "MOST_PAGES", 10_000)
    monkeypatch.setattr(module, "MOST_EMPTY", 1_000)
    tracemalloc.start()
    with pytest.raises(RedBrickAnswerError, match=r"repeats a page|does not end\. Reading stopped after \d+ page"):
        walk(listing)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 << 20


def test_a_circle_is_noticed_before_it_is_walked_again():
    listing = iter([(tasks(1), "a"), (tasks(2), "b"), (tasks(3), "a")])
    seen = []
    with pytest.raises(RedBrickAnswerError, match="repeats a page"):
        seen += pages(lambda _cursor, _first: next(listing), page_size=200)
    assert next(listing, None) is None


def test_long_listings_of_honest_servers_are_walked():
    """A million tasks, nothing found for thousands of pages, and a task that is shown again while it moves."""
    assert walk(iter([*((range(200 * i, 200 * i + 200), f"{i}") for i in range(5000)), ([], None)])) == 1_000_000
    assert walk(iter([*(([], f"{i}") for i in range(9_000)), (tasks(1), None)])) == 1
    shown = [(tasks(1), "a"), (tasks(2), "b"), (tasks(1), "c"), (tasks(3), "d"), (tasks(1), "e"), (tasks(4), None)]
    assert walk(iter(shown)) == 6


@fuzzed(30)
@given(JSON.filter(bool))
def test_a_cursor_is_text(cursor):
    listing = iter([(tasks(1), cursor), (tasks(2), None)])
    try:
        assert walk(listing) == 2
    except RedBrickAnswerError:
        assert not isinstance(cursor, str)


# ------------------------------------------------------------------ over the wire


@pytest.fixture
def project(server):
    transport = Transport(server.url, Credential(KEY), timeout=5, policy=RetryPolicy(max_attempts=1))
    yield RedBrickProject(RedBrickClient(transport), ID, ID)
    transport.close()


READS = {
    "list_tasks": lambda project: project.list_tasks(),
    "find_by_name": lambda project: iter(project.find_by_name(["a"])["a"]),
    "count_by_listing": lambda project: iter([project.count_by_listing(None, unassigned=True, stop_at=10**9)]),
    "BulkRead": lambda project: BulkRead(project, None),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_no_read_goes_on_for_ever(server, project, read, monkeypatch):
    monkeypatch.setattr(module, "MOST_EMPTY", 20)
    numbers = count()

    def page(handler):
        number = next(numbers)
        entries = [{"taskId": f"{number}", "datapoint": {"name": "a"}}] if number < 30 else []
        listing = {"entries": entries, "cursor": f"c{number}", "cacheTime": None}
        body = json.dumps({"data": {"genericTasks": listing, "n0": listing, "tasksPaged": listing}}).encode()
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    server.replies = [page]
    with promises() as watch:
        for _ in islice(read(project), 100_000):
            pass
    assert isinstance(watch.error, RedBrickAnswerError)
    assert "does not end" in str(watch.error)


@fuzzed(30)
@given(st.lists(st.tuples(JSON, JSON), min_size=1, max_size=4))
def test_pages_of_anything(server, project, shown):
    server.replies = [
        json_reply(
            {"data": {name: {"entries": entries, "cursor": cursor} for name in ("genericTasks", "tasksPaged", "n0")}}
        )
        for entries, cursor in shown
    ]
    for read in READS.values():
        with promises() as watch:
            watch.tell(*islice(read(project), 1000))


@pytest.mark.parametrize("limit", [None, 3])
def test_a_queue_that_tells_the_same_task_for_ever(server, project, limit):
    """However many are asked for."""

    def same(handler):
        asked = server.got[-1].graphql["variables"]["numTasks"]
        body = json.dumps({"data": {"tasksToLabelRemote": [{"taskId": "1"}] * asked}}).encode()
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    server.replies = [same]
    with promises():
        assert list(list_waiting(RemoteStage(project, "Model"), limit=limit, page_size=2)) == ["1"]
