"""Tests for bulk reads: all pages, each task once, and the watermark."""

from __future__ import annotations

import time

import pendulum
import pytest
from tiny_server import TinyServer, json_reply

from airflow_provider_redbrick import exceptions as err
from airflow_provider_redbrick.client.models.workflow import Stage
from airflow_provider_redbrick.client.operations.account import RedBrickClient, Scope
from airflow_provider_redbrick.client.operations.task_reads import MARGIN, BulkRead, read_again
from airflow_provider_redbrick.client.transport.http import Transport
from airflow_provider_redbrick.client.transport.retry import RetryPolicy
from airflow_provider_redbrick.client.transport.sessions import Credential

ORG, PROJECT = "0a9c6e10-0000-4000-8000-000000000001", "0a9c6e10-0000-4000-8000-000000000002"
LATER, EARLIER = "2999-01-01T00:00:00.000000+00:00", "2020-01-01T12:00:00.250000+02:00"
TRUTH = Stage("Output", "labelset-output")


def task_id(number):
    return f"0a9c6e10-0000-4000-8000-00000000a{number:03d}"


def entry(number, **saved):
    return {
        "taskId": task_id(number).upper(),
        "currentStageName": "END",
        "datapoint": {"name": f"study {number}", "items": ["a.dcm"], "storageMethod": {"storageId": "st"}},
        "latestTaskData": {"tdId": "v1", "labelsData": "[]", **saved},
    }


def page(*entries, cursor=None, at=LATER):
    return json_reply({"data": {"tasksPaged": {"entries": list(entries), "cursor": cursor, "cacheTime": at}}})


def scope_on(server, **options):
    policy = RetryPolicy(max_attempts=1)
    return Scope(RedBrickClient(Transport(server.url, Credential("key"), policy=policy), **options), ORG, PROJECT)


def read(*replies, stage=TRUTH, updated_after=None, **options):
    """Run a bulk read against these answers; return it, the tasks, and the requests."""
    with TinyServer(*replies) as server:
        bulk = BulkRead(scope_on(server, **options), stage, updated_after=updated_after)
        found = list(bulk)
    return bulk, found, [got.graphql["variables"] for got in server.got]


def refused(*replies):
    with TinyServer(*replies) as server, pytest.raises(err.RedBrickAPIError) as raised:
        list(BulkRead(scope_on(server), TRUTH))
    return raised.value


def test_bulk_read_sends_the_stage_name_of_its_operation():
    asked = [read(page(), stage=stage)[2][0]["stageName"] for stage in (TRUTH, Stage("QA", "expert-review"), None)]
    assert asked == ["END", "QA", None]


def test_bulk_read_continues_after_an_empty_page():
    _, found, asked = read(page(entry(1), cursor="a"), page(cursor="b"), page(entry(2)))
    assert [each.task.task_id for each in found] == [task_id(1), task_id(2)]
    assert [(each["first"], each["after"]) for each in asked] == [(50, None), (50, "a"), (50, "b")]


@pytest.mark.parametrize(("page_size", "first"), [(200, 50), (50, 50), (7, 7)])
def test_bulk_read_limits_the_page_size(page_size, first):
    assert read(page(), page_size=page_size)[2][0]["first"] == first


def test_bulk_read_yields_a_repeated_task_once():
    moved = page(entry(2), entry(1, tdId="v2"), entry(3))
    _, found, _ = read(page(entry(1), entry(2), cursor="a"), moved)
    assert [(each.task.task_id, each.task.labels_id) for each in found] == [(task_id(i), "v1") for i in (1, 2, 3)]


# ------------------------------------------------------------------ watermark


def test_bulk_read_sends_updated_after_in_utc():
    after = pendulum.datetime(2024, 5, 1, 12, 0, 0, 5, tz="Europe/Zurich")
    assert read(page(), updated_after=after)[2][0]["cacheTime"] == "2024-05-01T10:00:00.000005+00:00"
    assert read(page())[2][0]["cacheTime"] is None


def reading_at(server, clock=time.time, **options):
    """Return a bulk read by a worker with this clock, and the real time before it."""
    transport = Transport(server.url, Credential("key"), policy=RetryPolicy(max_attempts=1), clock=clock)
    bulk = BulkRead(Scope(RedBrickClient(transport), ORG, PROJECT), TRUTH, **options)
    before = pendulum.now("UTC")
    list(bulk)
    return bulk, before


def is_shortly_before(moment, real):
    """Return whether a time is before another one by no more than the header's resolution."""
    return pendulum.duration(seconds=-0.1) <= real - moment <= pendulum.duration(seconds=4)


@pytest.mark.parametrize("ahead", [0, 300, -300])
@pytest.mark.parametrize("at", [LATER, None, "soon"])
def test_read_at_is_the_servers_time_whatever_the_workers_clock(ahead, at):
    with TinyServer(page(at=at)) as server:
        bulk, before = reading_at(server, lambda: time.time() + ahead)
    assert is_shortly_before(bulk.read_at, before)


def test_read_at_is_the_servers_cache_time_if_that_is_earlier():
    bulk, _, _ = read(page(cursor="a", at=EARLIER), page(at="2010-01-01T00:00:00+00:00"))
    assert bulk.read_at == pendulum.parse(EARLIER)


def test_read_at_ignores_a_cache_time_that_repeats_the_request():
    with TinyServer(page(at=EARLIER)) as server:
        bulk, before = reading_at(server, updated_after=pendulum.parse(EARLIER))
    assert is_shortly_before(bulk.read_at, before)


def test_watermark_is_behind_by_the_settle_time_and_a_margin():
    with TinyServer(page()) as server:
        bulk, _ = reading_at(server)
    assert bulk.watermark == bulk.read_at.subtract(seconds=30) - MARGIN


def test_watermark_does_not_change_with_later_pages():
    with TinyServer(page(entry(1), cursor="a"), page(entry(2))) as server:
        bulk = BulkRead(scope_on(server), TRUTH)
        tasks = iter(bulk)
        next(tasks)
        watermark = bulk.watermark
        next(tasks)
        assert bulk.watermark == watermark


# ------------------------------------------------------------------ masks


def test_stored_task_has_a_path_and_url_for_each_mask():
    paths = [{"seriesIndex": 0, "labelName": "p/0"}, None, {"seriesIndex": 2, "labelName": "p/2"}]
    urls = [{"labelName": "http://0"}, None, {"labelName": None}]
    _, (found,), _ = read(page(entry(1, labelsMap=paths, labelsMapPresigned=urls)))
    assert found.mask_urls == {"p/0": "http://0", "p/2": None}
    assert found.task.masks == {0: "p/0", 2: "p/2"}
    assert found.storage_id == "st"
    assert "http" not in repr(found)


def test_stored_task_with_fewer_urls_than_paths_is_an_error():
    error = refused(page(entry(1, labelsMap=[{"seriesIndex": 0, "labelName": "p/0"}], labelsMapPresigned=[])))
    assert type(error) is err.RedBrickAnswerError
    assert task_id(1).upper() in str(error)


# ------------------------------------------------------------------ errors


@pytest.mark.parametrize("labels", ["{", '{"a": 1}', "nothing", 5, '"text"'])
def test_malformed_labels_are_an_error_that_names_the_task(labels):
    error = refused(page(entry(1), entry(2, labelsData=labels)))
    assert type(error) is err.RedBrickAnswerError
    assert task_id(2).upper() in str(error)


@pytest.mark.parametrize(
    "broken",
    [
        json_reply({"data": {"tasksPaged": None}}),
        json_reply({"data": {"tasksPaged": {"entries": None, "cursor": None}}}),
        json_reply({"data": {"tasksPaged": {"entries": [], "cacheTime": LATER}}}),
        json_reply({"data": {"tasksPaged": {"entries": [entry(9)], "cursor": None}}, "errors": [{"message": "no"}]}),
        page(None),
        page({"taskId": None}),
    ],
    ids=["null", "no entries", "no cursor", "errors beside data", "a null task", "a task without an id"],
)
def test_incomplete_page_is_an_error(broken):
    refused(page(entry(1), cursor="a"), broken)


def test_read_again_returns_the_task():
    fresh = entry(1, labelsMap=[{"seriesIndex": 0, "labelName": "p"}], labelsMapPresigned=[{"labelName": "http://new"}])
    with TinyServer(json_reply({"data": {"t0": fresh}})) as server:
        assert read_again(scope_on(server), task_id(1)).mask_urls == {"p": "http://new"}


@pytest.mark.parametrize(
    "answer", [{"data": {"t0": None}}, {"data": {"t0": None}, "errors": [{"message": "no", "path": ["t0"]}]}]
)
def test_read_again_of_a_deleted_task_is_an_error(answer):
    with TinyServer(json_reply(answer)) as server, pytest.raises(err.RedBrickAPIError, match=task_id(1)):
        read_again(scope_on(server), task_id(1))
