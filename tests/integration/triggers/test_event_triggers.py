"""Event triggers, driven as the triggerer drives them: stored, built again, run in an event loop that others share."""

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
from airflow_provider_redbrick.triggers.ground_truth import RedBrickGroundTruthEventTrigger
from airflow_provider_redbrick.triggers.stage_queue import RedBrickStageQueueEventTrigger

if TYPE_CHECKING:
    from airflow_provider_redbrick.triggers.base import RedBrickWatchTrigger

ID = "00000000-0000-0000-0000-000000000001"


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """An event is stored at once, and what failed is tried again soon."""
    monkeypatch.setattr(base, "STORED_AFTER", 0.0)
    monkeypatch.setattr("airflow_provider_redbrick.engine.watching._SHORTEST_PAUSE", 0.05)
    monkeypatch.setattr("airflow_provider_redbrick.engine.watching._LONGEST_PAUSE", 0.1)


class Store(dict):
    """An asset's state store, as Airflow 3.3.2 gives it to an event trigger; JSON goes in and out."""

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
            raise RuntimeError("the API server is away")


class SharedStore(Store):
    """What Airflow gives to a trigger that watches for several assets."""

    def check(self):
        raise ValueError("Task has 2 concrete inlets and outlets")


def queue(**options: Any) -> RedBrickStageQueueEventTrigger:
    return RedBrickStageQueueEventTrigger(**{"stage_name": "Review_1", "at_least": 3, "poke_interval": 0.05, **options})


def truth(**options: Any) -> RedBrickGroundTruthEventTrigger:
    return RedBrickGroundTruthEventTrigger(**{"poke_interval": 0.05, **options})


class Watcher:
    """A trigger at work, and what it has told."""

    def __init__(self, trigger: RedBrickWatchTrigger, store: Any = None) -> None:
        self.trigger = rebuilt(trigger)
        self.trigger.asset_state_store = store
        self.told: list[dict[str, Any]] = []
        self._looks = 0

    async def __aenter__(self):
        look = self.trigger.look

        async def counted(*args):
            found = await look(*args)
            self._looks += 1
            return found

        self.trigger.look = counted
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_):
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self):
        async for event in self.trigger.run():
            self.told.append(json.loads(json.dumps(event.payload)))

    async def looked(self, times: int = 2):
        """Wait until it has looked, and has told and written down what it saw at all looks but the last."""
        enough = self._looks + times
        until = time.monotonic() + 20
        while self._looks < enough:
            assert not self._task.done(), self._task
            assert time.monotonic() < until
            await asyncio.sleep(0.01)

    @property
    def ids(self) -> list[str]:
        return [task_id for event in self.told for task_id in event["task_ids"]]


def rebuilt(trigger: Any) -> Any:
    path, kwargs = trigger.serialize()
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)(**json.loads(json.dumps(kwargs)))


def away(function, *args, **kwargs):
    return asyncio.to_thread(function, *args, **kwargs)


class TestStored:
    @pytest.mark.parametrize("trigger", [queue(), truth(), truth(org_id=ID, project_id=ID, redbrick_conn_id="other")])
    def test_what_is_stored_builds_the_same_again_and_airflow_knows_it_again(self, trigger):
        again = rebuilt(trigger)
        assert again.serialize() == trigger.serialize()
        hashes = {BaseEventTrigger.hash(*each.serialize()) for each in (trigger, again)}
        assert len(hashes) == 1

    def test_airflow_takes_them_for_watchers(self):
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
    def test_nonsense_is_refused_when_the_dag_is_read(self, bad, words):
        with pytest.raises(RedBrickInputError, match=words):
            queue(**bad)


class TestQueue:
    def test_the_crossing_is_told_once_and_again_after_the_queue_was_below(self, sandbox):
        async def scene():
            async with Watcher(queue()) as watcher:
                await watcher.looked()
                assert watcher.told == []
                await away(sandbox.seed_tasks, 4, stage="Review_1")
                await watcher.looked()
                assert [event["count"] for event in watcher.told] == [4]
                await away(sandbox.seed_tasks, 2, stage="Review_1")
                await watcher.looked()
                assert len(watcher.told) == 1
                await away(sandbox.humans, "Review_1")
                await watcher.looked()
                await away(sandbox.seed_tasks, 3, stage="Review_1")
                await watcher.looked()
            return watcher.told

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

    def test_what_was_told_is_known_after_a_restart(self, sandbox):
        sandbox.seed_tasks(3, stage="Review_1")
        store = Store()

        async def scene():
            async with Watcher(queue(), store) as first:
                await first.looked()
            async with Watcher(queue(), store) as second:
                await second.looked()
            async with Watcher(queue(at_least=2), store) as another:
                await another.looked()
            return [len(watcher.told) for watcher in (first, second, another)]

        assert asyncio.run(scene()) == [1, 0, 1]
        assert sandbox.api_key not in repr(store)

    def test_ground_truth_has_one_name(self, sandbox):
        sandbox.seed_tasks(3, ground_truth=True)

        async def scene():
            async with Watcher(queue(stage_name="END")) as watcher:
                await watcher.looked()
            return watcher.told

        assert [event["stage_name"] for event in asyncio.run(scene())] == ["Ground Truth"]

    def test_many_watchers_of_a_project_ask_together(self, sandbox):
        async def scene():
            watchers = [
                Watcher(queue(stage_name=name, at_least=1_000 + i, poke_interval=1.0))
                for i in range(10)
                for name in ("Label", "Review_1", "Ground Truth")
            ]
            for watcher in watchers:
                await watcher.__aenter__()
            await watchers[0].looked(3)
            for watcher in watchers:
                await watcher.__aexit__()

        asyncio.run(scene())
        # The workflow, and a request a look for all.
        assert sandbox.stats()["requests"] <= 6


class TestGroundTruth:
    def test_arrivals_are_told_once(self, sandbox):
        old = sandbox.seed_tasks(2, ground_truth=True)

        async def scene():
            async with Watcher(truth(), Store()) as watcher:
                await watcher.looked()
                ids = await away(sandbox.seed_tasks, 3, stage="Review_1")
                await away(sandbox.humans, "Review_1", 2)
                await watcher.looked()
                await away(sandbox.humans, "Review_1", 1)
                await watcher.looked(4)
                return watcher, ids

        watcher, ids = asyncio.run(scene())
        assert sorted(watcher.ids) == sorted(ids)
        assert not set(watcher.ids) & set(old)
        assert sum(event["count"] for event in watcher.told) == 3
        assert {event["stage_name"] for event in watcher.told} == {"Ground Truth"}

    def test_what_arrives_while_the_triggerer_is_down_is_told(self, sandbox):
        store = Store()
        ids = sandbox.seed_tasks(3, stage="Review_1")

        async def scene():
            async with Watcher(truth(), store) as first:
                await first.looked()
                await away(sandbox.humans, "Review_1", 1)
                await first.looked()
            await away(sandbox.humans, "Review_1", 2)
            async with Watcher(truth(), store) as second:
                await second.looked()
            return first.ids, second.ids

        before, after = asyncio.run(scene())
        assert (len(before), len(after)) == (1, 2)
        assert sorted(before + after) == sorted(ids)

    def test_a_corrected_task_is_no_news_and_a_reopened_one_is(self, sandbox):
        (task_id,) = sandbox.seed_tasks(1, stage="Review_1")
        ids = {"o": sandbox.org_id, "p": sandbox.project_id, "t": task_id}
        correct = """mutation ($o: UUID!, $p: UUID!, $t: UUID!) { putLabels(orgId: $o, projectId: $p, taskId: $t,
            labelsData: "[]", finalize: false, timeSpentMs: 0) { ok } }"""

        async def scene():
            async with Watcher(truth(), Store()) as watcher:
                await watcher.looked()
                await away(sandbox.humans, "Review_1")
                await watcher.looked()
                assert watcher.ids == [task_id]
                await away(sandbox.graphql, correct, ids)
                await watcher.looked(3)
                assert watcher.ids == [task_id]
                await away(sandbox.graphql, REOPEN, ids)
                await watcher.looked()
                await away(sandbox.humans, "Label")
                await away(sandbox.humans, "Review_1")
                await watcher.looked(3)
            return watcher.ids

        assert asyncio.run(scene()) == [task_id, task_id]

    def test_a_look_without_news_is_one_small_request(self, sandbox):
        sandbox.seed_tasks(500, ground_truth=True, updated_at="2026-01-01T00:00:00Z")

        async def scene():
            async with Watcher(truth(), Store()) as watcher:
                await watcher.looked()
                before = (await away(sandbox.stats))["requests"]
                looks = watcher._looks
                await watcher.looked(5)
                return (await away(sandbox.stats))["requests"] - before, watcher._looks - looks

        requests, looks = asyncio.run(scene())
        assert requests <= looks + 1


class TestTrouble:
    @pytest.mark.parametrize("fault", ["http_503", "drop_before", "gql_error", "html", "http_500"])
    def test_an_outage_is_outlived(self, sandbox, impatient, fault):
        sandbox.fault_once(fault, "tasksPaged", skip=1, times=12)

        async def scene():
            async with Watcher(queue()) as watcher:
                await watcher.looked(1)
                await away(sandbox.seed_tasks, 3, stage="Review_1")
                await watcher.looked()
            return watcher.told

        assert len(asyncio.run(scene())) == 1

    def test_a_wrong_key_is_said_and_a_new_one_found(self, sandbox, monkeypatch, caplog):
        good, bad = sandbox.airflow_conn_uri, sandbox.airflow_conn_uri.replace(sandbox.api_key, "y" * 43)
        sandbox.seed_tasks(3, stage="Review_1")
        monkeypatch.setenv("AIRFLOW_CONN_REDBRICK_DEFAULT", bad)
        said: list[tuple] = []

        async def scene():
            async with Watcher(queue()) as watcher:
                monkeypatch.setattr(watcher.trigger.log, "error", lambda *words: said.append(words))
                while not said:  # noqa: ASYNC110 - a log has no event
                    await asyncio.sleep(0.01)
                monkeypatch.setenv("AIRFLOW_CONN_REDBRICK_DEFAULT", good)
                await watcher.looked()
            return watcher.told

        assert len(asyncio.run(scene())) == 1
        assert "HTTP 401" in str(said[0][-1])
        assert "y" * 43 not in str(said)

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"stage_name": "Gone"}, "no stage 'Gone'; its stages are"),
            ({"redbrick_conn_id": "there_is_none"}, "there_is_none"),
            ({"project_id": ID}, "no project"),
        ],
    )
    def test_a_mistake_is_said_and_the_watcher_lives(self, sandbox, monkeypatch, options, words):
        said: list[tuple] = []

        async def scene():
            async with Watcher(queue(**options)) as watcher:
                monkeypatch.setattr(watcher.trigger.log, "error", lambda *words: said.append(words))
                while len(said) < 3:
                    assert not watcher._task.done()
                    await asyncio.sleep(0.01)

        asyncio.run(scene())
        assert words in str(said[-1][-1])

    def test_what_cannot_be_recalled_is_not_forgotten(self, sandbox):
        """A watcher that began anew because Airflow could not be asked would tell everything again, or miss it."""
        sandbox.seed_tasks(3, stage="Review_1")
        store = Store()

        async def scene():
            async with Watcher(queue(), store) as first:
                await first.looked()
            store.failing = 3
            async with Watcher(queue(), store) as second:
                await second.looked()
            return len(first.told), len(second.told), store.failing

        assert asyncio.run(scene()) == (1, 0, 0)

    def test_what_cannot_be_written_down_is_written_the_next_time(self):
        store = Store()
        memory = EventState(store, "any")

        async def scene():
            assert await memory.recall() is None
            store.failing = 1
            with pytest.raises(RuntimeError):
                await memory.keep({"above": True})
            assert await memory.recall() == {"above": True}
            await memory.keep({"above": True})
            return await EventState(store, "any").recall()

        assert asyncio.run(scene()) == {"above": True}

    def test_a_trigger_of_several_assets_remembers_in_its_process(self, sandbox):
        sandbox.seed_tasks(3, stage="Review_1")

        async def scene():
            async with Watcher(queue(), SharedStore()) as watcher:
                await watcher.looked(3)
            return watcher.told

        assert len(asyncio.run(scene())) == 1

    def test_an_event_that_was_sent_and_not_written_down_is_sent_again(self, sandbox, monkeypatch):
        """The triggerer is killed between sending an event and storing it: two are better than none."""
        sandbox.seed_tasks(3, stage="Review_1")
        store = Store()
        monkeypatch.setattr(base, "STORED_AFTER", 60.0)

        async def scene():
            async with Watcher(queue(), store) as first:
                while not first.told:  # noqa: ASYNC110 - it stays within the one look
                    await asyncio.sleep(0.01)
            monkeypatch.setattr(base, "STORED_AFTER", 0.0)
            async with Watcher(queue(), store) as second:
                await second.looked()
            return len(first.told), len(second.told)

        assert asyncio.run(scene()) == (1, 1)


def test_slow_looks_never_block_the_loop(sandbox):
    ids = sandbox.seed_tasks(60, stage="Review_1")

    async def heartbeat(gaps):
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.01)
            gaps.append(time.monotonic() - before - 0.01)

    async def scene():
        async with Watcher(queue(at_least=1_000)) as first, Watcher(truth(), Store()) as second:
            await first.looked()
            await second.looked()
            await away(sandbox.settings, latency_ms=1_000)
            gaps: list[float] = []
            heart = asyncio.create_task(heartbeat(gaps))
            await away(sandbox.humans, "Review_1")
            await first.looked()
            await second.looked()
            heart.cancel()
            return gaps, second.ids

    gaps, told = asyncio.run(scene())
    assert sorted(told) == sorted(ids)
    assert len(gaps) > 50
    assert max(gaps) < 0.6
