"""Tests of the sensors' triggers, run in one event loop as the triggerer does."""

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
from airflow_provider_redbrick.triggers.redbrick import RedBrickStageQueueTrigger, RedBrickTasksTrigger

IDS = [str(uuid.UUID(int=number)) for number in (1, 2)]
JSON_TYPES = (str, int, float, bool, type(None))


# Serialized triggers exactly as the first release wrote them.
_FIRST_RELEASE_COMMON = {
    "redbrick_conn_id": "redbrick_default",
    "org_id": None,
    "project_id": IDS[0],
    "poke_interval": 60.0,
    "deadline": 1_790_000_000.0,
    "deadline_name": "timeout",
}
FIRST_RELEASE_TRIGGERS = [
    (
        "airflow_provider_redbrick.triggers.redbrick.RedBrickStageQueueTrigger",
        {
            **_FIRST_RELEASE_COMMON,
            "stage_name": "Review_1",
            "at_least": 1,
            "at_most": None,
            "unassigned": False,
            "count_by": "count",
        },
    ),
    (
        "airflow_provider_redbrick.triggers.redbrick.RedBrickTasksTrigger",
        {**_FIRST_RELEASE_COMMON, "task_ids": IDS, "left_stage": "Label", "reached_stage": None},
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
    """Run a trigger to its end and return all its events."""
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
    def test_serialized_trigger_is_rebuilt(self, trigger):
        stored = trigger.serialize()
        again = rebuilt(trigger)
        assert type(again) is type(trigger)
        assert again.serialize() == stored
        assert again.condition() == trigger.condition()
        for value in stored[1].values():
            assert isinstance(value, JSON_TYPES) or (
                isinstance(value, list) and all(isinstance(v, JSON_TYPES) for v in value)
            )

    @pytest.mark.parametrize("stored", FIRST_RELEASE_TRIGGERS, ids=lambda stored: stored[0].rpartition(".")[2])
    def test_trigger_of_an_earlier_release_is_rebuilt(self, sandbox, stored):
        """A release is installed while sensors wait, so it loads triggers of the earlier one."""
        path, kwargs = stored
        module, _, name = path.rpartition(".")
        trigger = getattr(import_module(module), name)(**kwargs)
        assert trigger.serialize() == (path, kwargs)
        assert only_event(trigger)["status"] == "error"  # there is no such project

    def test_arguments_survive_airflows_serialization(self):
        serde = pytest.importorskip("airflow.sdk.serde")
        for trigger in (queue(), tasks()):
            _, kwargs = trigger.serialize()
            assert serde.deserialize(serde.serialize(kwargs)) == kwargs

    def test_trigger_holds_no_secret(self, sandbox):
        trigger = queue(at_least=0)
        only_event(trigger)
        assert sandbox.api_key not in repr(trigger.serialize())
        assert sandbox.api_key not in repr(vars(trigger))

    def test_init_does_not_read_the_connection(self, monkeypatch):
        monkeypatch.delenv("AIRFLOW_CONN_REDBRICK_DEFAULT", raising=False)
        queue(redbrick_conn_id="there is none")
        tasks(redbrick_conn_id="there is none")


class TestStartedByAirflow:
    """Airflow creates the trigger from the serialized DAG, without a worker."""

    def started(self, **options):
        trigger = rebuilt(queue(deadline=None, **options))
        trigger.timeout_after = datetime.now(timezone.utc) + timedelta(seconds=START_BACKSTOP_S + 60)
        return trigger

    def test_met_condition_ends_at_the_first_poll(self, sandbox):
        sandbox.seed_tasks(1, stage="Review_1")
        assert only_event(self.started(timeout=60.0)) == {"version": 1, "status": "success", "seen": 1}

    def test_rendered_text_is_converted(self, sandbox):
        sandbox.seed_tasks(2, stage="Review_1")
        assert only_event(self.started(timeout=60.0, at_least="2", project_id=sandbox.project_id))["seen"] == 2

    def test_deadline_is_kept_after_trigger_moves_to_another_triggerer(self, sandbox):
        """The wait began 3,540 seconds ago in another triggerer."""
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
    def test_invalid_arguments_are_an_error_at_the_first_poll(self, sandbox, options, words):
        event = only_event(self.started(timeout=60.0, **options))
        assert (event["status"], event["error"]) == ("error", "RedBrickInputError")
        assert words in event["message"]


class TestEvents:
    def test_success_event_has_the_observed_state(self, sandbox):
        sandbox.seed_tasks(2, stage="Review_1")
        assert only_event(queue()) == {"version": 1, "status": "success", "seen": 2}
        ids = sandbox.seed_tasks(1)
        assert only_event(tasks(task_ids=ids, left_stage="Review_1")) == {
            "version": 1,
            "status": "success",
            "seen": {"Label": 1},
        }

    def test_event_is_json(self, sandbox):
        event = only_event(queue(at_least=0))
        assert json.loads(json.dumps(event)) == event

    @pytest.mark.parametrize("name", ["timeout", "execution_timeout"])
    def test_deadline_is_kept_with_a_long_interval(self, sandbox, name):
        started = time.monotonic()
        event = only_event(queue(poke_interval=3600.0, deadline=time.time() + 0.3, deadline_name=name))
        assert time.monotonic() - started < 5
        assert (event["status"], event["deadline"]) == ("timeout", name)
        assert name in event["message"]

    def test_last_poll_after_the_deadline_counts(self, sandbox):
        """One poll follows the deadline, because the triggerer may have been down."""
        sandbox.seed_tasks(1, stage="Review_1")
        assert only_event(queue(deadline=time.time() - 3600))["status"] == "success"

    def test_past_deadline_polls_once(self, sandbox):
        assert only_event(queue(deadline=time.time() - 3600))["status"] == "timeout"
        assert sandbox.stats()["root_fields"]["tasksPaged"] == 1

    def test_event_is_sent_when_the_condition_is_met(self, sandbox):
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

    def test_workflow_is_read_once(self, sandbox):
        only_event(queue(deadline=time.time() + 0.5))
        fields = sandbox.stats()["root_fields"]
        assert fields["project"] == 1
        assert fields["tasksPaged"] > 3


class TestErrors:
    def test_four_failed_polls_in_a_row_are_tolerated_repeatedly(self, sandbox, impatient):
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
    def test_five_failed_polls_end_with_the_last_error(self, sandbox, impatient, fault, words):
        sandbox.fault_once(fault, "tasksPaged", times=1000)
        event = only_event(queue())
        assert event["status"] == "error"
        assert event["message"].startswith("Gave up after 5 failed polls in a row")
        assert words in event["message"]
        assert sandbox.stats()["root_fields"]["tasksPaged"] == 5

    def test_unreachable_server_is_an_error(self, sandbox, impatient, monkeypatch):
        monkeypatch.setenv("AIRFLOW_CONN_REDBRICK_DEFAULT", sandbox.airflow_conn_uri.replace(sandbox.url[-5:], "9"))
        event = only_event(queue())
        assert event["status"] == "error"
        assert "cannot be reached" in event["message"]

    def test_timeout_message_names_the_last_error(self, sandbox, impatient):
        sandbox.fault_once("http_503", "tasksPaged", times=1000)
        event = only_event(queue(poke_interval=0.2, deadline=time.time() + 0.3))
        assert event["status"] == "timeout"
        assert "The last poll failed" in event["message"]
        assert "HTTP 503" in event["message"]

    def test_refused_key_is_an_error_at_once(self, sandbox, monkeypatch):
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
    def test_missing_stage_project_or_task_is_an_error(self, sandbox, trigger, words):
        event = only_event(trigger)
        assert event["status"] == "error"
        assert words in event["message"]

    @pytest.mark.parametrize("error", [TypeError("y" * 43), KeyError("x")], ids=lambda error: type(error).__name__)
    def test_unexpected_error_is_one_event_without_its_text(self, sandbox, monkeypatch, error):
        """An error that is not RedBrick's could name anything, and would leave the wait without an event."""

        def fails(*_):
            raise error

        monkeypatch.setattr(RedBrickProject, "counts", fails)
        event = only_event(queue())
        assert (event["status"], event["error"]) == ("error", type(error).__name__)
        assert f"unexpected {type(error).__name__}. The triggerer's log" in event["message"]
        assert "y" * 43 not in event["message"]

    def test_canceled_trigger_closes_its_client(self, sandbox, monkeypatch):
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


class TestSharedPolls:
    """Triggers of the same project share requests and stay independent."""

    def test_one_request_per_poll_counts_all_stages(self, sandbox):
        stages = ("Label", "Review_1", "Ground Truth")
        deadline = time.time() + 2.2

        async def scene() -> list[list[dict[str, Any]]]:
            waiting = [
                queue(stage_name=stages[i % 3], at_least=9, poke_interval=1.0, deadline=deadline) for i in range(60)
            ]
            return await asyncio.gather(*(events(trigger) for trigger in waiting))

        results = asyncio.run(scene())
        assert [event["status"] for (event,) in results] == ["timeout"] * 60
        # The workflow, the first poll, one poll per second, and the last one at the deadline. A busy machine may spread
        # a poll over several requests. Without sharing there would be 180 and more.
        assert sandbox.stats()["requests"] <= 3 * (1 + 1 + 3 + 1)
        assert sandbox.stats()["root_fields"]["tasksPaged"] <= 5 * 3

    def test_one_request_per_poll_reads_all_tasks(self, sandbox):
        ids = sandbox.seed_tasks(30)
        deadline = time.time() + 2.2

        async def scene() -> list[list[dict[str, Any]]]:
            waiting = [tasks(task_ids=ids[i : i + 2], poke_interval=1.0, deadline=deadline) for i in range(29)]
            return await asyncio.gather(*(events(trigger) for trigger in waiting))

        results = asyncio.run(scene())
        assert [event["status"] for (event,) in results] == ["timeout"] * 29
        assert sandbox.stats()["requests"] <= 3 * (1 + 1 + 3 + 1)

    @pytest.mark.parametrize("how", [{"unassigned": True}, {"count_by": "listing"}])
    def test_one_listing_per_poll_serves_all_thresholds(self, sandbox, how):
        sandbox.seed_tasks(30)
        deadline = time.time() + 2.2

        async def scene() -> list[list[dict[str, Any]]]:
            waiting = [
                queue(stage_name="Label", at_least=31 + i, poke_interval=1.0, deadline=deadline, **how)
                for i in range(20)
            ]
            return await asyncio.gather(*(events(trigger) for trigger in waiting))

        results = asyncio.run(scene())
        assert [event["status"] for (event,) in results] == ["timeout"] * 20
        assert sandbox.stats()["requests"] <= 3 * (1 + 1 + 3 + 1)

    def test_shared_listing_respects_each_threshold(self, sandbox):
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

    def test_shared_read_returns_each_triggers_tasks(self, sandbox):
        ids = sandbox.seed_tasks(2) + sandbox.seed_tasks(2, stage="Review_1")

        async def scene() -> list[list[dict[str, Any]]]:
            wanted = (ids[:2], ids[2:], [*ids, str(uuid.uuid4())])
            return await asyncio.gather(*(events(tasks(task_ids=some, deadline=time.time() + 0.5)) for some in wanted))

        waiting, through, lost = (event for (event,) in asyncio.run(scene()))
        assert (waiting["status"], through["status"], through["seen"]) == ("timeout", "success", {"Review_1": 2})
        assert lost["status"] == "error"

    def test_shared_count_returns_each_triggers_stage(self, sandbox):
        sandbox.seed_tasks(2)
        sandbox.seed_tasks(3, stage="Review_1")
        sandbox.seed_tasks(4, ground_truth=True)

        async def scene() -> list[list[dict[str, Any]]]:
            names = ("Label", "Review_1", "Ground Truth")
            return await asyncio.gather(*(events(queue(stage_name=name, at_least=0)) for name in names))

        assert [event["seen"] for (event,) in asyncio.run(scene())] == [2, 3, 4]

    def test_missing_stage_fails_its_own_trigger_only(self, sandbox):
        async def scene() -> list[list[dict[str, Any]]]:
            return await asyncio.gather(*(events(queue(stage_name=name, at_least=0)) for name in ("Gone", "Label")))

        (gone,), (label,) = asyncio.run(scene())
        assert (gone["status"], label["status"]) == ("error", "success")
        assert "no stage 'Gone'" in gone["message"]

    def test_refused_count_fails_its_own_trigger_only(self, sandbox, monkeypatch):
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

    def test_canceled_trigger_leaves_the_others_waiting(self, sandbox):
        sandbox.settings(latency_ms=300)

        async def scene() -> list[dict[str, Any]]:
            first = asyncio.create_task(events(queue(at_least=0)))
            second = asyncio.create_task(events(queue(at_least=0)))
            await asyncio.sleep(0.2)
            first.cancel()
            return await second

        (event,) = asyncio.run(scene())
        assert event["status"] == "success"

    def test_trigger_after_a_refused_key_uses_the_new_one(self, sandbox, monkeypatch):
        good, bad = sandbox.airflow_conn_uri, sandbox.airflow_conn_uri.replace(sandbox.api_key, "y" * 43)

        async def scene() -> list[str]:
            # One trigger waits throughout, so that the shared client is never closed.
            async with shared_project("redbrick_default", None, None):
                monkeypatch.setenv("AIRFLOW_CONN_REDBRICK_DEFAULT", bad)
                (refused,) = await events(queue(at_least=0))
                monkeypatch.setenv("AIRFLOW_CONN_REDBRICK_DEFAULT", good)
                (accepted,) = await events(queue(at_least=0))
            return [refused["status"], accepted["status"]]

        assert asyncio.run(scene()) == ["error", "success"]


class TestEventLoop:
    def test_slow_polls_do_not_block_the_event_loop(self, sandbox):
        sandbox.settings(latency_ms=300)
        ids = sandbox.seed_tasks(60)

        async def heartbeat(gaps: list[float]) -> None:
            while True:
                before = time.monotonic()
                await asyncio.sleep(0.01)
                gaps.append(time.monotonic() - before - 0.01)

        async def scene() -> list[float]:
            # Warm up: imports and the first thread are not measured.
            await events(queue(at_least=0))
            gaps: list[float] = []
            heartbeat_task = asyncio.create_task(heartbeat(gaps))
            waiting = [queue(at_least=10), queue(at_least=10, count_by="listing"), tasks(task_ids=ids)]
            for trigger in waiting:
                trigger.deadline = time.time() + 1.5
            results = await asyncio.gather(*(events(trigger) for trigger in waiting))
            heartbeat_task.cancel()
            assert [event["status"] for (event,) in results] == ["timeout"] * 3
            return gaps

        gaps = asyncio.run(scene())
        assert len(gaps) > 50
        assert max(gaps) < 0.2
