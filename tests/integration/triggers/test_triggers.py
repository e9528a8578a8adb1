"""Triggers, driven as the triggerer drives them: in an event loop that they share with others."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from datetime import datetime, timedelta, timezone
from importlib import import_module
from typing import Any

import pytest

from airflow_provider_redbrick.client.operations.account import RedBrickClient
from airflow_provider_redbrick.client.operations.project import RedBrickProject
from airflow_provider_redbrick.engine.polling import START_BACKSTOP_S
from airflow_provider_redbrick.exceptions import RedBrickNotFoundError
from airflow_provider_redbrick.triggers.poll_group import shared_project
from airflow_provider_redbrick.triggers.stage_queue import RedBrickStageQueueTrigger
from airflow_provider_redbrick.triggers.tasks import RedBrickTasksTrigger

IDS = [str(uuid.UUID(int=number)) for number in (1, 2)]
PLAIN = (str, int, float, bool, type(None))


# As the first release writes them, word for word.
_COMMON_BEFORE = {
    "redbrick_conn_id": "redbrick_default",
    "org_id": None,
    "project_id": IDS[0],
    "poke_interval": 60.0,
    "deadline": 1_790_000_000.0,
    "deadline_name": "timeout",
}
STORED_BEFORE = [
    (
        "airflow_provider_redbrick.triggers.stage_queue.RedBrickStageQueueTrigger",
        {
            **_COMMON_BEFORE,
            "stage_name": "Review_1",
            "at_least": 1,
            "at_most": None,
            "unassigned": False,
            "count_by": "count",
        },
    ),
    (
        "airflow_provider_redbrick.triggers.tasks.RedBrickTasksTrigger",
        {**_COMMON_BEFORE, "task_ids": IDS, "left_stage": "Label", "reached_stage": None},
    ),
]


def common(**options: Any) -> dict[str, Any]:
    return {
        "redbrick_conn_id": "redbrick_default",
        "org_id": None,
        "project_id": None,
        "poke_interval": 0.02,
        "deadline": time.time() + 60,
        **options,
    }


def queue(**options: Any) -> RedBrickStageQueueTrigger:
    return RedBrickStageQueueTrigger(**common(**{"stage_name": "Review_1", "at_least": 1, **options}))


def tasks(**options: Any) -> RedBrickTasksTrigger:
    return RedBrickTasksTrigger(**common(**{"task_ids": IDS, "left_stage": "Label", **options}))


async def events(trigger: Any) -> list[dict[str, Any]]:
    """Run a trigger to its own end and collect all it says."""
    return [event.payload async for event in trigger.run()]


def only_event(trigger: Any) -> dict[str, Any]:
    (event,) = asyncio.run(events(trigger))
    return event


def rebuilt(trigger: Any) -> Any:
    path, kwargs = trigger.serialize()
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)(**json.loads(json.dumps(kwargs)))


class TestStored:
    @pytest.mark.parametrize(
        "trigger",
        [
            queue(),
            queue(at_least=None, at_most=0, unassigned=True, org_id=IDS[0], project_id=IDS[1]),
            queue(count_by="listing", deadline_name="execution_timeout", redbrick_conn_id="other", poke_interval=5),
            tasks(),
            tasks(left_stage=None, reached_stage="Ground Truth"),
            tasks(task_ids=tuple(IDS)),
            queue(deadline=None, timeout=60.0, execution_timeout=None),
            tasks(deadline=None, timeout=60.0, execution_timeout=30.0),
        ],
    )
    def test_what_is_stored_builds_the_same_again(self, trigger):
        stored = trigger.serialize()
        again = rebuilt(trigger)
        assert type(again) is type(trigger)
        assert again.serialize() == stored
        assert again.condition() == trigger.condition()
        for value in stored[1].values():
            assert isinstance(value, PLAIN) or (isinstance(value, list) and all(isinstance(v, PLAIN) for v in value))

    @pytest.mark.parametrize("stored", STORED_BEFORE, ids=lambda stored: stored[0].rpartition(".")[2])
    def test_what_was_stored_before_an_upgrade_still_waits(self, sandbox, stored):
        """A release is installed while sensors wait: what the one before has stored is built by this one."""
        path, kwargs = stored
        module, _, name = path.rpartition(".")
        trigger = getattr(import_module(module), name)(**kwargs)
        assert trigger.serialize() == (path, kwargs)
        assert only_event(trigger)["status"] == "error"  # there is no such project

    def test_airflows_own_serialization_takes_it(self):
        serde = pytest.importorskip("airflow.sdk.serde")
        for trigger in (queue(), tasks()):
            _, kwargs = trigger.serialize()
            assert serde.deserialize(serde.serialize(kwargs)) == kwargs

    def test_it_holds_no_secret_before_and_after_running(self, sandbox):
        trigger = queue(at_least=0)
        only_event(trigger)
        assert sandbox.api_key not in repr(trigger.serialize())
        assert sandbox.api_key not in repr(vars(trigger))

    def test_building_one_looks_nothing_up(self, monkeypatch):
        monkeypatch.delenv("AIRFLOW_CONN_REDBRICK_DEFAULT", raising=False)
        queue(redbrick_conn_id="there is none")
        tasks(redbrick_conn_id="there is none")


class TestStartedByAirflow:
    """Airflow itself has made the trigger, of what stands in the DAG, and no worker has seen it."""

    def started(self, **options):
        trigger = rebuilt(queue(deadline=None, **options))
        trigger.timeout_after = datetime.now(timezone.utc) + timedelta(seconds=START_BACKSTOP_S + 60)
        return trigger

    def test_what_is_met_ends_at_the_first_poll(self, sandbox):
        sandbox.seed_tasks(1, stage="Review_1")
        assert only_event(self.started(timeout=60.0)) == {"version": 1, "status": "success", "seen": 1}

    def test_rendered_text_is_read(self, sandbox):
        sandbox.seed_tasks(2, stage="Review_1")
        assert only_event(self.started(timeout=60.0, at_least="2", project_id=sandbox.project_id))["seen"] == 2

    def test_deadline_is_kept_after_trigger_moves_to_another_triggerer(self, sandbox):
        """It began 3,540 seconds ago, in a triggerer that is gone."""
        trigger = self.started(timeout=3_600.0, poke_interval=3_600.0)
        trigger.timeout_after += timedelta(seconds=-59.7)
        started = time.monotonic()
        assert only_event(trigger)["status"] == "timeout"
        assert time.monotonic() - started < 20

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"stage_name": "Gone"}, "no stage 'Gone'; its stages are: Input, Label"),
            ({"stage_name": ""}, "stage_name must not be empty"),
            ({"at_least": "few"}, "at_least must be a whole number"),
            ({"at_least": None}, "Give at_least, at_most, or both"),
            ({"project_id": ""}, "project_id must not be empty"),
        ],
    )
    def test_a_mistake_is_the_first_polls(self, sandbox, options, words):
        event = only_event(self.started(timeout=60.0, **options))
        assert (event["status"], event["error"]) == ("error", "RedBrickInputError")
        assert words in event["message"]


class TestEvents:
    def test_success_is_the_only_event_and_says_what_was_seen(self, sandbox):
        sandbox.seed_tasks(2, stage="Review_1")
        assert only_event(queue()) == {"version": 1, "status": "success", "seen": 2}
        ids = sandbox.seed_tasks(1)
        assert only_event(tasks(task_ids=ids, left_stage="Review_1")) == {
            "version": 1,
            "status": "success",
            "seen": {"Label": 1},
        }

    def test_an_event_is_json(self, sandbox):
        event = only_event(queue(at_least=0))
        assert json.loads(json.dumps(event)) == event

    @pytest.mark.parametrize("name", ["timeout", "execution_timeout"])
    def test_the_deadline_comes_in_spite_of_a_long_interval(self, sandbox, name):
        started = time.monotonic()
        event = only_event(queue(poke_interval=3600.0, deadline=time.time() + 0.3, deadline_name=name))
        assert time.monotonic() - started < 5
        assert (event["status"], event["deadline"]) == ("timeout", name)
        assert name in event["message"]

    def test_what_happens_at_the_deadline_still_counts(self, sandbox):
        """The last look is after the deadline: a triggerer that was down may have missed the moment."""
        sandbox.seed_tasks(1, stage="Review_1")
        assert only_event(queue(deadline=time.time() - 3600))["status"] == "success"

    def test_a_deadline_long_past_is_an_event_after_one_look(self, sandbox):
        assert only_event(queue(deadline=time.time() - 3600))["status"] == "timeout"
        assert sandbox.stats()["root_fields"]["tasksPaged"] == 1

    def test_it_fires_when_it_happens(self, sandbox):
        sandbox.seed_tasks(3)

        async def scene() -> tuple[list[dict[str, Any]], float]:
            waiting = asyncio.create_task(events(queue(at_least=3)))
            await asyncio.sleep(0.3)
            assert not waiting.done()
            await asyncio.to_thread(sandbox.humans, "Label")
            worked = time.monotonic()
            return await waiting, time.monotonic() - worked

        (event,), delay = asyncio.run(scene())
        assert event["seen"] == 3
        assert delay < 2

    def test_stages_are_read_once(self, sandbox):
        only_event(queue(deadline=time.time() + 0.5))
        fields = sandbox.stats()["root_fields"]
        assert fields["project"] == 1
        assert fields["tasksPaged"] > 3


class TestTrouble:
    def test_four_failed_polls_in_a_row_are_borne_again_and_again(self, sandbox, impatient):
        sandbox.fault_once("http_503", "tasksPaged", times=4)
        sandbox.fault_once("drop_before", "tasksPaged", skip=1, times=4)
        sandbox.seed_tasks(1, stage="Review_1")

        async def scene() -> list[dict[str, Any]]:
            waiting = asyncio.create_task(events(queue(at_least=2)))
            while sandbox.stats()["root_fields"].get("tasksPaged", 0) < 11:  # noqa: ASYNC110 - another process counts
                await asyncio.sleep(0.05)
            sandbox.seed_tasks(1, stage="Review_1")
            return await waiting

        (event,) = asyncio.run(scene())
        assert event["status"] == "success"

    @pytest.mark.parametrize(
        ("fault", "words"),
        [
            ("http_503", "HTTP 503"),
            ("drop_before", "dropped the connection"),
            ("gql_error", "nothing was executed"),
            ("html", "not JSON"),
        ],
    )
    def test_five_in_a_row_are_the_end_with_the_last_reason(self, sandbox, impatient, fault, words):
        sandbox.fault_once(fault, "tasksPaged", times=1000)
        event = only_event(queue())
        assert event["status"] == "error"
        assert event["message"].startswith("Gave up after 5 failed polls in a row")
        assert words in event["message"]
        assert sandbox.stats()["root_fields"]["tasksPaged"] == 5

    def test_a_server_that_is_gone(self, sandbox, impatient, monkeypatch):
        monkeypatch.setenv("AIRFLOW_CONN_REDBRICK_DEFAULT", sandbox.airflow_conn_uri.replace(sandbox.url[-5:], "9"))
        event = only_event(queue())
        assert event["status"] == "error"
        assert "cannot be reached" in event["message"]

    def test_a_deadline_amid_failures_names_the_last_one(self, sandbox, impatient):
        sandbox.fault_once("http_503", "tasksPaged", times=1000)
        event = only_event(queue(poke_interval=0.2, deadline=time.time() + 0.3))
        assert event["status"] == "timeout"
        assert "The last poll failed" in event["message"]
        assert "HTTP 503" in event["message"]

    def test_a_wrong_key_is_the_end_at_once(self, sandbox, monkeypatch):
        uri = sandbox.airflow_conn_uri.replace(sandbox.api_key, "y" * 43)
        monkeypatch.setenv("AIRFLOW_CONN_REDBRICK_DEFAULT", uri)
        event = only_event(queue())
        assert event["status"] == "error"
        assert "HTTP 401" in event["message"]
        assert "y" * 43 not in event["message"]
        assert sandbox.stats()["requests"] == 1

    @pytest.mark.parametrize(
        ("trigger", "words"),
        [
            (queue(stage_name="Gone"), "no stage 'Gone'"),
            (queue(project_id=IDS[0]), "no project"),
            (tasks(), "no such task"),
        ],
    )
    def test_what_will_never_come_is_not_waited_for(self, sandbox, trigger, words):
        event = only_event(trigger)
        assert event["status"] == "error"
        assert words in event["message"]

    def test_connections_are_closed_when_it_is_cancelled(self, sandbox, monkeypatch):
        closed = []
        close = RedBrickClient.close
        monkeypatch.setattr(RedBrickClient, "close", lambda self: (closed.append(self), close(self))[1])

        async def scene() -> None:
            waiting = asyncio.create_task(events(queue(at_least=5)))
            await asyncio.sleep(0.3)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting

        asyncio.run(scene())
        assert len(closed) == 1


class TestTogether:
    """Those who wait for the same project ask together, and do not get into each other's way."""

    def test_one_request_a_poll_will_do_for_all_stages(self, sandbox):
        stages = ("Label", "Review_1", "Ground Truth")
        deadline = time.time() + 2.2

        async def scene() -> list[list[dict[str, Any]]]:
            waiting = [
                queue(stage_name=stages[i % 3], at_least=9, poke_interval=1.0, deadline=deadline) for i in range(60)
            ]
            return await asyncio.gather(*(events(trigger) for trigger in waiting))

        ended = asyncio.run(scene())
        assert [event["status"] for (event,) in ended] == ["timeout"] * 60
        # The workflow, the first poll, one a second, and the last at the deadline.
        assert sandbox.stats()["requests"] <= 1 + 1 + 3 + 1
        assert sandbox.stats()["root_fields"]["tasksPaged"] <= 5 * 3

    def test_one_request_a_poll_will_do_for_the_tasks_of_all(self, sandbox):
        ids = sandbox.seed_tasks(30)
        deadline = time.time() + 2.2

        async def scene() -> list[list[dict[str, Any]]]:
            waiting = [tasks(task_ids=ids[i : i + 2], poke_interval=1.0, deadline=deadline) for i in range(29)]
            return await asyncio.gather(*(events(trigger) for trigger in waiting))

        ended = asyncio.run(scene())
        assert [event["status"] for (event,) in ended] == ["timeout"] * 29
        assert sandbox.stats()["requests"] <= 1 + 1 + 3 + 1

    @pytest.mark.parametrize("how", [{"unassigned": True}, {"count_by": "listing"}])
    def test_one_listing_a_poll_will_do_for_all_thresholds(self, sandbox, how):
        sandbox.seed_tasks(30)
        deadline = time.time() + 2.2

        async def scene() -> list[list[dict[str, Any]]]:
            waiting = [
                queue(stage_name="Label", at_least=31 + i, poke_interval=1.0, deadline=deadline, **how)
                for i in range(20)
            ]
            return await asyncio.gather(*(events(trigger) for trigger in waiting))

        ended = asyncio.run(scene())
        assert [event["status"] for (event,) in ended] == ["timeout"] * 20
        assert sandbox.stats()["requests"] <= 1 + 1 + 3 + 1

    def test_each_counts_as_far_as_its_own_threshold_and_in_its_own_way(self, sandbox):
        sandbox.seed_tasks(5)
        sandbox.seed_tasks(3, assignee="alice@example.com")

        async def scene() -> list[list[dict[str, Any]]]:
            ways = [
                {"at_least": 2, "unassigned": True},
                {"at_least": 5, "unassigned": True},
                {"at_most": 5, "unassigned": True},
                {"at_least": 8, "count_by": "listing"},
                {"at_least": 1, "unassigned": True, "stage_name": "Gone"},
            ]
            return await asyncio.gather(*(events(queue(**{"stage_name": "Label", **way})) for way in ways))

        *found, (gone,) = asyncio.run(scene())
        assert [(event["status"], event["seen"]) for (event,) in found] == [("success", n) for n in (2, 5, 5, 8)]
        assert gone["status"] == "error"
        assert "no stage 'Gone'" in gone["message"]

    def test_each_sees_its_own_tasks(self, sandbox):
        ids = sandbox.seed_tasks(2) + sandbox.seed_tasks(2, stage="Review_1")

        async def scene() -> list[list[dict[str, Any]]]:
            wanted = (ids[:2], ids[2:], [*ids, str(uuid.uuid4())])
            return await asyncio.gather(*(events(tasks(task_ids=some, deadline=time.time() + 0.5)) for some in wanted))

        waiting, through, lost = (event for (event,) in asyncio.run(scene()))
        assert (waiting["status"], through["status"], through["seen"]) == ("timeout", "success", {"Review_1": 2})
        assert lost["status"] == "error"

    def test_each_gets_the_count_of_its_own_stage(self, sandbox):
        sandbox.seed_tasks(2)
        sandbox.seed_tasks(3, stage="Review_1")
        sandbox.seed_tasks(4, ground_truth=True)

        async def scene() -> list[list[dict[str, Any]]]:
            names = ("Label", "Review_1", "Ground Truth")
            return await asyncio.gather(*(events(queue(stage_name=name, at_least=0)) for name in names))

        assert [event["seen"] for (event,) in asyncio.run(scene())] == [2, 3, 4]

    def test_a_stage_that_is_gone_is_the_end_for_its_own_sensor_alone(self, sandbox):
        async def scene() -> list[list[dict[str, Any]]]:
            return await asyncio.gather(*(events(queue(stage_name=name, at_least=0)) for name in ("Gone", "Label")))

        (gone,), (label,) = asyncio.run(scene())
        assert (gone["status"], label["status"]) == ("error", "success")
        assert "no stage 'Gone'" in gone["message"]

    def test_a_count_that_is_refused_is_the_failure_of_its_own_stage_alone(self, sandbox, monkeypatch):
        counts = RedBrickProject.counts

        def refuses(self, stages):
            if "Review_1" in {stage.name for stage in stages}:
                raise RedBrickNotFoundError("There is no such stage any more.")
            return counts(self, stages)

        monkeypatch.setattr(RedBrickProject, "counts", refuses)

        async def scene() -> list[list[dict[str, Any]]]:
            return await asyncio.gather(*(events(queue(stage_name=name, at_least=0)) for name in ("Label", "Review_1")))

        (label,), (review,) = asyncio.run(scene())
        assert (label["status"], review["status"]) == ("success", "error")

    def test_one_that_is_cancelled_leaves_the_others_waiting(self, sandbox):
        sandbox.settings(latency_ms=300)

        async def scene() -> list[dict[str, Any]]:
            first = asyncio.create_task(events(queue(at_least=0)))
            second = asyncio.create_task(events(queue(at_least=0)))
            await asyncio.sleep(0.2)
            first.cancel()
            return await second

        (event,) = asyncio.run(scene())
        assert event["status"] == "success"

    def test_who_comes_after_a_key_was_refused_finds_the_new_one(self, sandbox, monkeypatch):
        good, bad = sandbox.airflow_conn_uri, sandbox.airflow_conn_uri.replace(sandbox.api_key, "y" * 43)

        async def scene() -> list[str]:
            # One trigger waits all the time, so that the shared client is never closed.
            async with shared_project("redbrick_default", None, None):
                monkeypatch.setenv("AIRFLOW_CONN_REDBRICK_DEFAULT", bad)
                (refused,) = await events(queue(at_least=0))
                monkeypatch.setenv("AIRFLOW_CONN_REDBRICK_DEFAULT", good)
                (accepted,) = await events(queue(at_least=0))
            return [refused["status"], accepted["status"]]

        assert asyncio.run(scene()) == ["error", "success"]


class TestLoop:
    def test_slow_polls_never_block_it(self, sandbox):
        sandbox.settings(latency_ms=300)
        ids = sandbox.seed_tasks(60)

        async def heartbeat(gaps: list[float]) -> None:
            while True:
                before = time.monotonic()
                await asyncio.sleep(0.01)
                gaps.append(time.monotonic() - before - 0.01)

        async def scene() -> list[float]:
            # Importing and the first thread have their cost once; it is not what is measured.
            await events(queue(at_least=0))
            gaps: list[float] = []
            heart = asyncio.create_task(heartbeat(gaps))
            waiting = [queue(at_least=10), queue(at_least=10, count_by="listing"), tasks(task_ids=ids)]
            for trigger in waiting:
                trigger.deadline = time.time() + 1.5
            ended = await asyncio.gather(*(events(trigger) for trigger in waiting))
            heart.cancel()
            assert [event["status"] for (event,) in ended] == ["timeout"] * 3
            return gaps

        gaps = asyncio.run(scene())
        assert len(gaps) > 50
        assert max(gaps) < 0.2
