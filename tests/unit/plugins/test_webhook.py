"""Tests of parsing webhook messages and of recording their events."""

from __future__ import annotations

import json
import threading

import pytest

from airflow_provider_redbrick.exceptions import RedBrickInputError
from airflow_provider_redbrick.plugins.webhook import EventDeduplicator, Hint, read_hints

ORG = "22222222-2222-2222-2222-222222222222"
PROJECT = "33333333-3333-3333-3333-333333333333"
TASK = "44444444-4444-4444-4444-444444444444"


def event(number=1, kind="TASK_ENTERED_STAGE", **data):
    given = {"orgId": ORG, "projectId": PROJECT, "taskId": TASK, "stageName": "Label", "updatedBy": "x", **data}
    return {"event": kind, "id": f"event-{number}", "timestamp": 1_800_000_000, "data": given}


def message(*events):
    return json.dumps({"version": "v1.0", "events": len(events), "payload": list(events)}).encode()


def test_read_hints_of_stage_event():
    assert read_hints(message(event())) == [Hint("event-1", ORG, PROJECT, "Label", TASK)]


def test_read_hints_uses_the_public_stage_name():
    assert [hint.stage_name for hint in read_hints(message(event(stageName="END")))] == ["Ground Truth"]


def test_read_hints_skips_other_events():
    kinds = ("TASK_CREATED", "TASK_DELETED", "SOMETHING_NEW", None)
    events = [event(i, kind=kind) for i, kind in enumerate(kinds)]
    assert [hint.event_id for hint in read_hints(message(*events, event(9)))] == ["event-9"]


@pytest.mark.parametrize(
    "bad",
    [
        {**event(), "id": None},
        {**event(), "id": ""},
        {**event(), "id": "x" * 300},
        {**event(), "id": 7},
        {**event(), "data": None},
        {**event(), "data": "text"},
        event(orgId="../../etc"),
        event(projectId=None),
        event(taskId=["x"]),
        event(stageName=""),
        event(stageName={"a": 1}),
        event(stageName="\ud800"),
        event(stageName="x" * 300),
        event(stageName="Label\nINFO: all is well"),
        event(stageName="Label\rINFO"),
        event(stageName="\x1b[2JLabel"),
        event(stageName="Label\x9b2J"),
        event(stageName="Label\x85INFO"),
        event(stageName="Label\u2028INFO"),
        {**event(), "id": "event\nINFO"},
        "text",
        None,
        [],
    ],
)
def test_read_hints_skips_invalid_events(bad):
    assert [hint.event_id for hint in read_hints(message(bad, event(2)))] == ["event-2"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"3",
        b'"x"',
        b"{}",
        b'{"payload": {}}',
        b'{"payload": null}',
        b"\xff\xfe",
        b"[" * 200_000,
    ],
)
def test_read_hints_refuses_invalid_messages(body):
    with pytest.raises(RedBrickInputError):
        read_hints(body)


def test_read_hints_refuses_too_many_events():
    with pytest.raises(RedBrickInputError, match="too many"):
        read_hints(message(*map(event, range(501))))


def hints(*numbers):
    return [Hint(str(number), ORG, PROJECT, "Label", TASK) for number in numbers]


def test_add_returns_each_event_once():
    events = EventDeduplicator(10)
    assert events.add(hints(1, 2, 1)) == hints(1, 2)
    assert events.add(hints(2, 3)) == hints(3)


def test_add_returns_released_events_again():
    events = EventDeduplicator(10)
    events.release(events.add(hints(1)))
    assert events.add(hints(1)) == hints(1)


def test_oldest_events_are_forgotten():
    events = EventDeduplicator(3)
    events.add(hints(1, 2, 3, 4))
    assert events.add(hints(2, 3, 4)) == []
    assert events.add(hints(1)) == hints(1)


def test_add_returns_an_event_to_one_thread_only():
    events, found = EventDeduplicator(10), []
    threads = [threading.Thread(target=lambda: found.extend(events.add(hints(1)))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 1
