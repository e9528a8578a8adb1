"""Tests of event triggers: serialized, rebuilt and run as the triggerer does."""

from __future__ import annotations

import asyncio
import json
import time
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import AssetWatcher
from airflow.triggers.base import BaseEventTrigger
from sandbox_calls import REOPEN

from airflow_provider_redbrick.exceptions import RedBrickInputError
from airflow_provider_redbrick.triggers import base
from airflow_provider_redbrick.triggers.base import EventState
from airflow_provider_redbrick.triggers.redbrick import RedBrickGroundTruthEventTrigger, RedBrickStageQueueEventTrigger

if TYPE_CHECKING:
    from airflow_provider_redbrick.triggers.base import RedBrickWatchTrigger

ID = "00000000-0000-0000-0000-000000000001"


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    """Shorten the pauses after events and errors."""
    monkeypatch.setattr(base, "STORED_AFTER_S", 0.0)
    monkeypatch.setattr("airflow_provider_redbrick.engine.watching._SHORTEST_PAUSE", 0.05)
    monkeypatch.setattr("airflow_provider_redbrick.engine.watching._LONGEST_PAUSE", 0.1)


class Store(dict):
    """An asset's state store as in Airflow 3.3.2, which stores JSON."""

    failing = 0

    async def aget(self, key, default=None):
        self.check()
        return json.loads(self[key]) if key in self else default

    async def aset(self, key, value):
        self.check()
        self[key] = json.dumps(value)

    def check(self):
        if self.failing:
            self.failing -= 1
            raise RuntimeError("the API server does not answer")


class SharedStore(Store):
    """The state store of a trigger that watches for several assets."""

    def check(self):
        raise ValueError("Task has 2 concrete inlets and outlets")


def queue(**options: Any) -> RedBrickStageQueueEventTrigger:
    return RedBrickStageQueueEventTrigger(**{"stage_name": "Review_1", "at_least": 3, "poke_interval": 0.05, **options})


def truth(**options: Any) -> RedBrickGroundTruthEventTrigger:
    return RedBrickGroundTruthEventTrigger(**{"poke_interval": 0.05, **options})


class Watcher:
    """A running trigger and the events that it has sent."""

    def __init__(self, trigger: RedBrickWatchTrigger, store: Any = None) -> None:
        self.trigger = rebuilt(trigger)
        self.trigger.asset_state_store = store
        self.sent: list[dict[str, Any]] = []
        self._polls = 0

    async def __aenter__(self):
        poll = self.trigger.poll

        async def counted(*args):
            found = await poll(*args)
            self._polls += 1
            return found

        self.trigger.poll = counted
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_):
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self):
        async for event in self.trigger.run():
            self.sent.append(json.loads(json.dumps(event.payload)))

    async def polled(self, times: int = 2):
        """Wait for more polls. The events and the state of all but the last one are then processed.

        :param times: the number of polls to wait for.
        """
        enough = self._polls + times
        until = time.monotonic() + 20
        while self._polls < enough:
            assert not self._task.done(), self._task
            assert time.monotonic() < until
            await asyncio.sleep(0.01)

    @property
    def ids(self) -> list[str]:
        return [task_id for event in self.sent for task_id in event["task_ids"]]


def rebuilt(trigger: Any) -> Any:
    path, kwargs = trigger.serialize()
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)(**json.loads(json.dumps(kwargs)))


def in_thread(function, *args, **kwargs):
    return asyncio.to_thread(function, *args, **kwargs)


class TestStored:
    @pytest.mark.parametrize("trigger", [queue(), truth(), truth(org_id=ID, project_id=ID, redbrick_conn_id="other")])
    def test_serialized_trigger_is_rebuilt_with_the_same_hash(self, trigger):
        again = rebuilt(trigger)
        assert again.serialize() == trigger.serialize()
        hashes = {BaseEventTrigger.hash(*each.serialize()) for each in (trigger, again)}
        assert len(hashes) == 1

    def test_asset_watcher_accepts_the_triggers(self):
        for trigger in (queue(), truth()):
            assert AssetWatcher(name="watcher", trigger=trigger).trigger is trigger

    @pytest.mark.parametrize(
        ("bad", "words"),
        [
            ({"stage_name": " "}, "stage_name must not be empty"),
            ({"at_least": 0}, "at_least must be a whole number of at least 1"),
            ({"at_least": None}, "at_least must be a whole number of at least 1"),
            ({"at_least": "many"}, "at_least must be a whole number"),
            ({"project_id": "{{ var.value.project }}"}, "project_id must be a UUID"),
            ({"org_id": ""}, "org_id must be a UUID"),
            ({"redbrick_conn_id": ""}, "redbrick_conn_id must not be empty"),
            ({"poke_interval": 0}, "poke_interval must be a number of seconds"),
            ({"poke_interval": "60"}, "poke_interval must be a number of seconds"),
        ],
    )
    def test_invalid_arguments_are_refused_when_the_dag_is_parsed(self, bad, words):
        with pytest.raises(RedBrickInputError, match=words):
            queue(**bad)


class TestQueue:
    def test_event_is_sent_once_per_crossing(self, sandbox, monkeypatch):
        # Otherwise a second crossing within 30 seconds may be a stale read.
        monkeypatch.setenv("AIRFLOW_CONN_REDBRICK_DEFAULT", f"{sandbox.airflow_conn_uri}&settle_seconds=0")

        async def scene():
            async with Watcher(queue()) as watcher:
                await watcher.polled()
                assert watcher.sent == []
                await in_thread(sandbox.seed_tasks, 4, stage="Review_1")
                await watcher.polled()
                assert [event["count"] for event in watcher.sent] == [4]
                await in_thread(sandbox.seed_tasks, 2, stage="Review_1")
                await watcher.polled()
                assert len(watcher.sent) == 1
                await in_thread(sandbox.humans, "Review_1")
                await watcher.polled()
                await in_thread(sandbox.seed_tasks, 3, stage="Review_1")
                await watcher.polled()
            return watcher.sent

        first, second = asyncio.run(scene())
        assert first == {
            "schema_version": 1,
            "org_id": sandbox.org_id,
            "project_id": sandbox.project_id,
            "stage_name": "Review_1",
            "count": 4,
            "at_least": 3,
        }
        assert second["count"] == 3

    def test_restart_with_state_sends_no_event_again(self, sandbox):
        sandbox.seed_tasks(3, stage="Review_1")
        store = Store()

        async def scene():
            async with Watcher(queue(), store) as first:
                await first.polled()
            async with Watcher(queue(), store) as second:
                await second.polled()
            async with Watcher(queue(at_least=2), store) as another:
                await another.polled()
            return [len(watcher.sent) for watcher in (first, second, another)]

        assert asyncio.run(scene()) == [1, 0, 1]
        assert sandbox.api_key not in repr(store)

    def test_ground_truth_event_has_the_public_name(self, sandbox):
        sandbox.seed_tasks(3, ground_truth=True)

        async def scene():
            async with Watcher(queue(stage_name="END")) as watcher:
                await watcher.polled()
            return watcher.sent

        assert [event["stage_name"] for event in asyncio.run(scene())] == ["Ground Truth"]

    def test_watchers_of_a_project_share_requests(self, sandbox):
        async def scene():
            watchers = [
                Watcher(queue(stage_name=name, at_least=1_000 + i, poke_interval=1.0))
                for i in range(10)
                for name in ("Label", "Review_1", "Ground Truth")
            ]
            for watcher in watchers:
                await watcher.__aenter__()
            await watchers[0].polled(3)
            for watcher in watchers:
                await watcher.__aexit__()

        asyncio.run(scene())
        # The workflow, and one request per poll for all: 4 to 6. A busy machine spreads a poll over several requests.
        # Without sharing there would be 90.
        assert sandbox.stats()["requests"] < 30


class TestGroundTruth:
    def test_arrivals_are_sent_once(self, sandbox):
        old = sandbox.seed_tasks(2, ground_truth=True)

        async def scene():
            async with Watcher(truth(), Store()) as watcher:
                await watcher.polled()
                ids = await in_thread(sandbox.seed_tasks, 3, stage="Review_1")
                await in_thread(sandbox.humans, "Review_1", 2)
                await watcher.polled()
                await in_thread(sandbox.humans, "Review_1", 1)
                await watcher.polled(4)
                return watcher, ids

        watcher, ids = asyncio.run(scene())
        assert sorted(watcher.ids) == sorted(ids)
        assert not set(watcher.ids) & set(old)
        assert sum(event["count"] for event in watcher.sent) == 3
        assert {event["stage_name"] for event in watcher.sent} == {"Ground Truth"}

    def test_arrivals_during_downtime_are_sent(self, sandbox):
        store = Store()
        ids = sandbox.seed_tasks(3, stage="Review_1")

        async def scene():
            async with Watcher(truth(), store) as first:
                await first.polled()
                await in_thread(sandbox.humans, "Review_1", 1)
                await first.polled()
            await in_thread(sandbox.humans, "Review_1", 2)
            async with Watcher(truth(), store) as second:
                await second.polled()
            return first.ids, second.ids

        before, after = asyncio.run(scene())
        assert (len(before), len(after)) == (1, 2)
        assert sorted(before + after) == sorted(ids)

    def test_corrected_task_is_not_sent_again_and_reopened_one_is(self, sandbox):
        (task_id,) = sandbox.seed_tasks(1, stage="Review_1")
        ids = {"o": sandbox.org_id, "p": sandbox.project_id, "t": task_id}
        correct = """mutation ($o: UUID!, $p: UUID!, $t: UUID!) { putLabels(orgId: $o, projectId: $p, taskId: $t,
            labelsData: "[]", finalize: false, timeSpentMs: 0) { ok } }"""

        async def scene():
            async with Watcher(truth(), Store()) as watcher:
                await watcher.polled()
                await in_thread(sandbox.humans, "Review_1")
                await watcher.polled()
                assert watcher.ids == [task_id]
                await in_thread(sandbox.graphql, correct, ids)
                await watcher.polled(3)
                assert watcher.ids == [task_id]
                await in_thread(sandbox.graphql, REOPEN, ids)
                await watcher.polled()
                await in_thread(sandbox.humans, "Label")
                await in_thread(sandbox.humans, "Review_1")
                await watcher.polled(3)
            return watcher.ids

        assert asyncio.run(scene()) == [task_id, task_id]

    def test_poll_without_arrivals_takes_one_request(self, sandbox):
        sandbox.seed_tasks(500, ground_truth=True, updated_at="2026-01-01T00:00:00Z")

        async def scene():
            async with Watcher(truth(), Store()) as watcher:
                await watcher.polled()
                before = (await in_thread(sandbox.stats))["requests"]
                polls = watcher._polls
                await watcher.polled(5)
                return (await in_thread(sandbox.stats))["requests"] - before, watcher._polls - polls

        requests, polls = asyncio.run(scene())
        assert requests <= polls + 1


class TestErrors:
    @pytest.mark.parametrize("fault", ["http_503", "drop_before", "gql_error", "html", "http_500"])
    def test_watcher_survives_an_outage(self, sandbox, impatient, fault):
        sandbox.fault_once(fault, "tasksPaged", skip=1, times=12)

        async def scene():
            async with Watcher(queue()) as watcher:
                await watcher.polled(1)
                await in_thread(sandbox.seed_tasks, 3, stage="Review_1")
                await watcher.polled()
            return watcher.sent

        assert len(asyncio.run(scene())) == 1

    def test_refused_key_is_logged_until_it_is_replaced(self, sandbox, monkeypatch, caplog):
        good, bad = sandbox.airflow_conn_uri, sandbox.airflow_conn_uri.replace(sandbox.api_key, "y" * 43)
        sandbox.seed_tasks(3, stage="Review_1")
        monkeypatch.setenv("AIRFLOW_CONN_REDBRICK_DEFAULT", bad)
        logged: list[tuple] = []

        async def scene():
            async with Watcher(queue()) as watcher:
                monkeypatch.setattr(watcher.trigger.log, "error", lambda *words: logged.append(words))
                while not logged:  # noqa: ASYNC110 - a log has no event
                    await asyncio.sleep(0.01)
                monkeypatch.setenv("AIRFLOW_CONN_REDBRICK_DEFAULT", good)
                await watcher.polled()
            return watcher.sent

        assert len(asyncio.run(scene())) == 1
        assert "HTTP 401" in str(logged[0][-1])
        assert "y" * 43 not in str(logged)

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"stage_name": "Gone"}, "no stage 'Gone'; its stages are"),
            ({"redbrick_conn_id": "there_is_none"}, "there_is_none"),
            ({"project_id": ID}, "no project"),
        ],
    )
    def test_permanent_error_is_logged_and_polling_continues(self, sandbox, monkeypatch, options, words):
        logged: list[tuple] = []

        async def scene():
            async with Watcher(queue(**options)) as watcher:
                monkeypatch.setattr(watcher.trigger.log, "error", lambda *words: logged.append(words))
                while len(logged) < 3:
                    assert not watcher._task.done()
                    await asyncio.sleep(0.01)

        asyncio.run(scene())
        assert words in str(logged[-1][-1])

    def test_unreadable_state_is_read_again(self, sandbox):
        """A watcher that started without state would repeat or lose events."""
        sandbox.seed_tasks(3, stage="Review_1")
        store = Store()

        async def scene():
            async with Watcher(queue(), store) as first:
                await first.polled()
            store.failing = 3
            async with Watcher(queue(), store) as second:
                await second.polled()
            return len(first.sent), len(second.sent), store.failing

        assert asyncio.run(scene()) == (1, 0, 0)

    def test_unwritten_state_is_saved_the_next_time(self):
        store = Store()
        event_state = EventState(store, "any")

        async def scene():
            assert await event_state.load() is None
            store.failing = 1
            with pytest.raises(RuntimeError):
                await event_state.save({"above": True})
            assert await event_state.load() == {"above": True}
            await event_state.save({"above": True})
            return await EventState(store, "any").load()

        assert asyncio.run(scene()) == {"above": True}

    def test_trigger_of_several_assets_keeps_state_in_the_process(self, sandbox):
        sandbox.seed_tasks(3, stage="Review_1")

        async def scene():
            async with Watcher(queue(), SharedStore()) as watcher:
                await watcher.polled(3)
            return watcher.sent

        assert len(asyncio.run(scene())) == 1

    def test_event_without_saved_state_is_sent_again(self, sandbox, monkeypatch):
        """The triggerer is killed after it sent the event and before it saved the state."""
        sandbox.seed_tasks(3, stage="Review_1")
        store = Store()
        monkeypatch.setattr(base, "STORED_AFTER_S", 60.0)

        async def scene():
            async with Watcher(queue(), store) as first:
                while not first.sent:  # noqa: ASYNC110 - all events belong to one poll
                    await asyncio.sleep(0.01)
            monkeypatch.setattr(base, "STORED_AFTER_S", 0.0)
            async with Watcher(queue(), store) as second:
                await second.polled()
            return len(first.sent), len(second.sent)

        assert asyncio.run(scene()) == (1, 1)


def test_slow_polls_do_not_block_the_event_loop(sandbox):
    ids = sandbox.seed_tasks(60, stage="Review_1")

    async def heartbeat(gaps):
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.01)
            gaps.append(time.monotonic() - before - 0.01)

    async def scene():
        async with Watcher(queue(at_least=1_000)) as first, Watcher(truth(), Store()) as second:
            await first.polled()
            await second.polled()
            await in_thread(sandbox.settings, latency_ms=1_000)
            gaps: list[float] = []
            heart = asyncio.create_task(heartbeat(gaps))
            await in_thread(sandbox.humans, "Review_1")
            await first.polled()
            await second.polled()
            heart.cancel()
            return gaps, second.ids

    gaps, sent = asyncio.run(scene())
    assert sorted(sent) == sorted(ids)
    assert len(gaps) > 50
    assert max(gaps) < 0.6
