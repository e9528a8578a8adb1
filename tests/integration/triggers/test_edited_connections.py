"""Triggers wait for weeks: meanwhile the connection is edited, its key is rotated, and stages are added and renamed."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook
from sandbox_process import SandboxProcess

from airflow_provider_redbrick.client.operations.account import RedBrickClient
from airflow_provider_redbrick.engine.polling import MAX_FAILED_POLLS
from airflow_provider_redbrick.hooks.redbrick import RedBrickHook
from airflow_provider_redbrick.triggers import base, poll_group
from airflow_provider_redbrick.triggers.ground_truth import RedBrickGroundTruthEventTrigger
from airflow_provider_redbrick.triggers.stage_queue import RedBrickStageQueueEventTrigger, RedBrickStageQueueTrigger
from airflow_provider_redbrick.triggers.tasks import RedBrickTasksTrigger
from redbrick_sandbox.demo_project import DEMO_STAGES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

NEW_KEY = "rotated-0123456789-abcdefghijklmnopqrstuvwxy"
VARIABLE = "AIRFLOW_CONN_REDBRICK_DEFAULT"


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """What failed is tried again soon."""
    monkeypatch.setattr(base, "STORED_AFTER", 0.0)
    monkeypatch.setattr("airflow_provider_redbrick.engine.watching._SHORTEST_PAUSE", 0.05)


@pytest.fixture
def edit(sandbox, monkeypatch) -> Callable[..., None]:
    """Edit the connection: ``edit(project=..., key=..., **extra)``."""

    def change(*, project: str | None = None, key: str | None = None, url: str | None = None, **extra: Any) -> None:
        connection = {
            "conn_type": "redbrick",
            "host": url or sandbox.url,
            "password": key or sandbox.api_key,
            "extra": {"org_id": sandbox.org_id, "project_id": project or sandbox.project_id, **extra},
        }
        monkeypatch.setenv(VARIABLE, json.dumps(connection))

    return change


@pytest.fixture
def impatient_for_edits(monkeypatch):
    """Each look reads the connection again."""
    monkeypatch.setattr(poll_group, "STALE_AFTER_S", 0.0)


@pytest.fixture
def connections_read(monkeypatch) -> list[str]:
    """The ids of the connections that were read, one by one."""
    read: list[str] = []
    get = BaseHook.get_connection.__func__

    def counted(cls, conn_id):
        read.append(conn_id)
        return get(cls, conn_id)

    monkeypatch.setattr(RedBrickHook, "get_connection", classmethod(counted))
    return read


def common(**options: Any) -> dict[str, Any]:
    return {
        "redbrick_conn_id": "redbrick_default",
        "org_id": None,
        "project_id": None,
        "poke_interval": 0.05,
        "deadline": time.time() + 20,
        **options,
    }


def queue(**options: Any) -> RedBrickStageQueueTrigger:
    return RedBrickStageQueueTrigger(**common(**{"stage_name": "Review_1", "at_least": 99, **options}))


def tasks(task_ids: list[str], **options: Any) -> RedBrickTasksTrigger:
    return RedBrickTasksTrigger(**common(task_ids=task_ids, left_stage="Label", **options))


async def only_event(trigger: Any) -> dict[str, Any]:
    (event,) = [event.payload async for event in trigger.run()]
    return event


@asynccontextmanager
async def waiting(trigger: Any, sandbox: SandboxProcess) -> AsyncIterator[asyncio.Task[dict[str, Any]]]:
    """Let a trigger wait, and go on when it has looked."""
    before = sandbox.stats()["requests"]
    task = asyncio.create_task(only_event(trigger))
    while sandbox.stats()["requests"] < before + 3:
        assert not task.done(), task.result()
        await asyncio.sleep(0.02)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class TestAnotherProject:
    def test_a_new_sensor_looks_at_the_project_that_the_connection_has_now(self, sandbox, edit):
        """The old project's queue is long enough, and the new one's is not."""
        sandbox.seed_tasks(12)
        other = sandbox.add_project()
        sandbox.seed_tasks(5, project_id=other)

        async def scene() -> dict[str, Any]:
            async with waiting(queue(stage_name="Label", at_least=99), sandbox):
                edit(project=other)
                return await only_event(queue(stage_name="Label", at_least=5, deadline=time.time() + 5))

        found = asyncio.run(scene())
        assert (found["status"], found["seen"]) == ("success", 5)

    @pytest.mark.parametrize("how", [{}, {"unassigned": True}, {"count_by": "listing"}])
    def test_it_is_not_met_by_the_old_projects_tasks(self, sandbox, edit, how):
        sandbox.seed_tasks(12)
        other = sandbox.add_project()
        sandbox.seed_tasks(5, project_id=other)

        async def scene() -> dict[str, Any]:
            async with waiting(queue(stage_name="Label", at_least=99), sandbox):
                edit(project=other)
                return await only_event(queue(stage_name="Label", at_least=8, deadline=time.time() + 1, **how))

        assert asyncio.run(scene())["status"] == "timeout"

    def test_two_that_wait_at_once_each_see_their_own(self, sandbox, edit):
        sandbox.seed_tasks(3)
        other = sandbox.add_project()
        sandbox.seed_tasks(7, project_id=other)

        async def scene() -> tuple[dict[str, Any], dict[str, Any]]:
            async with waiting(queue(stage_name="Label", at_least=4), sandbox) as first:
                edit(project=other)
                second = await only_event(queue(stage_name="Label", at_least=4))
                await asyncio.sleep(0.3)
                assert not first.done()
                await asyncio.to_thread(sandbox.seed_tasks, 1)
                return await first, second

        first, second = asyncio.run(scene())
        assert (first["seen"], second["seen"]) == (4, 7)

    def test_tasks_are_looked_for_in_the_project_of_now(self, sandbox, edit):
        old = sandbox.seed_tasks(2)
        other = sandbox.add_project()
        new = sandbox.seed_tasks(2, project_id=other, stage="Review_1")

        async def scene() -> dict[str, Any]:
            async with waiting(tasks(old), sandbox):
                edit(project=other)
                return await only_event(tasks(new))

        assert asyncio.run(scene())["seen"] == {"Review_1": 2}

    def test_a_sensor_that_waits_keeps_its_project(self, sandbox, edit, impatient_for_edits):
        sandbox.seed_tasks(1)
        other = sandbox.add_project()
        sandbox.seed_tasks(12, project_id=other)

        async def scene() -> dict[str, Any]:
            async with waiting(queue(stage_name="Label", at_least=2), sandbox) as wait:
                edit(project=other)
                await asyncio.sleep(0.5)
                assert not wait.done()
                await asyncio.to_thread(sandbox.seed_tasks, 2)
                return await wait

        assert asyncio.run(scene())["seen"] == 3

    def test_a_watcher_follows_its_connection_and_remembers_each_project_by_itself(
        self, sandbox, edit, impatient_for_edits
    ):
        sandbox.seed_tasks(3)
        other = sandbox.add_project()
        sandbox.seed_tasks(4, project_id=other)
        trigger = RedBrickStageQueueEventTrigger(stage_name="Label", at_least=3, poke_interval=0.05)

        async def scene() -> list[dict[str, Any]]:
            events = trigger.run()
            first = await anext(events)
            edit(project=other)
            second = await anext(events)
            await events.aclose()
            return [first.payload, second.payload]

        first, second = asyncio.run(scene())
        assert (first["project_id"], first["count"]) == (sandbox.project_id, 3)
        assert (second["project_id"], second["count"]) == (other, 4)

    def test_what_was_ground_truth_in_another_project_is_no_news(self, sandbox, edit, impatient_for_edits):
        other = sandbox.add_project()
        trigger = RedBrickGroundTruthEventTrigger(poke_interval=0.05)

        async def scene() -> list[str]:
            told: list[str] = []

            async def watch() -> None:
                async for event in trigger.run():
                    told.extend(event.payload["task_ids"])

            task = asyncio.create_task(watch())
            await asyncio.sleep(0.5)
            await asyncio.to_thread(sandbox.seed_tasks, 3, project_id=other, ground_truth=True)
            edit(project=other)
            await asyncio.sleep(0.7)
            assert told == []
            new = await asyncio.to_thread(sandbox.seed_tasks, 1, project_id=other, stage="Review_1")
            await asyncio.to_thread(sandbox.humans, "Review_1", project_id=other)
            until = time.monotonic() + 10
            while not told and time.monotonic() < until:  # noqa: ASYNC110 - another task tells
                await asyncio.sleep(0.02)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert told == new
            return told

        assert len(asyncio.run(scene())) == 1

    def test_a_project_that_is_named_is_that_of_the_connection(self, sandbox, connections_read):
        """One names the project, another leaves it to the connection: they share their polls."""
        deadline = time.time() + 2.2
        same = {"stage_name": "Label", "at_least": 9, "poke_interval": 1.0, "deadline": deadline}

        async def scene() -> None:
            named = queue(org_id=sandbox.org_id, project_id=sandbox.project_id, **same)
            await asyncio.gather(*(only_event(trigger) for trigger in (named, queue(**same))))

        asyncio.run(scene())
        assert sandbox.stats()["requests"] <= 1 + 1 + 3 + 1
        assert connections_read == ["redbrick_default"]

    @pytest.mark.parametrize("limits", [{"page_size": 50}, {"timeout": 5}, {"max_concurrency": 2}])
    def test_a_new_sensor_has_the_limits_of_now(self, sandbox, edit, limits, monkeypatch):
        seen: list[Any] = []
        look = poll_group.SharedProject.look

        async def noticed(self, condition):
            seen.append(self._hook.settings)
            return await look(self, condition)

        monkeypatch.setattr(poll_group.SharedProject, "look", noticed)

        async def scene() -> None:
            async with waiting(queue(), sandbox):
                edit(**limits)
                await only_event(queue(at_least=0))

        asyncio.run(scene())
        ((name, value),) = limits.items()
        assert value in {getattr(settings, name) for settings in seen}

    def test_a_new_sensor_asks_the_server_of_now(self, sandbox, edit):
        with SandboxProcess() as other:
            other.seed_tasks(4, stage="Review_1")

            async def scene() -> dict[str, Any]:
                async with waiting(queue(), sandbox):
                    edit(url=other.url)
                    return await only_event(queue(at_least=4))

            assert asyncio.run(scene())["seen"] == 4

    def test_one_that_waits_follows_to_another_server(self, sandbox, edit, impatient_for_edits):
        with SandboxProcess() as other:
            other.seed_tasks(4, stage="Review_1")

            async def scene() -> dict[str, Any]:
                async with waiting(queue(at_least=4), sandbox) as wait:
                    edit(url=other.url)
                    return await wait

            assert asyncio.run(scene())["seen"] == 4


class TestRotatedKey:
    def rotate(self, sandbox: SandboxProcess, edit: Callable[..., None]) -> None:
        """Issue a new key, put it into the connection, and revoke the old one: the correct order."""
        sandbox.accept_keys(sandbox.api_key, NEW_KEY)
        edit(key=NEW_KEY)
        sandbox.accept_keys(NEW_KEY)

    @pytest.mark.parametrize("how", [{}, {"unassigned": True}, {"count_by": "listing"}])
    def test_a_sensor_that_waits_goes_on(self, sandbox, edit, how):
        async def scene() -> dict[str, Any]:
            async with waiting(queue(stage_name="Label", at_least=2, **how), sandbox) as wait:
                await asyncio.to_thread(self.rotate, sandbox, edit)
                await asyncio.sleep(0.3)
                assert not wait.done(), wait.result()
                await asyncio.to_thread(sandbox.seed_tasks, 2)
                return await wait

        found = asyncio.run(scene())
        assert (found["status"], found["seen"]) == ("success", 2)

    def test_one_that_waits_for_tasks_goes_on(self, sandbox, edit):
        ids = sandbox.seed_tasks(2)

        async def scene() -> dict[str, Any]:
            async with waiting(tasks(ids), sandbox) as wait:
                await asyncio.to_thread(self.rotate, sandbox, edit)
                await asyncio.sleep(0.3)
                assert not wait.done(), wait.result()
                await asyncio.to_thread(sandbox.humans, "Label")
                return await wait

        assert asyncio.run(scene())["seen"] == {"Review_1": 2}

    def test_many_that_wait_read_the_connection_once(self, sandbox, edit, connections_read):
        async def scene() -> list[dict[str, Any]]:
            triggers = [queue(stage_name="Label", at_least=2, poke_interval=1.0) for _ in range(50)]
            waits = [asyncio.create_task(only_event(trigger)) for trigger in triggers]
            await asyncio.sleep(1.5)
            assert connections_read == ["redbrick_default"]
            before = sandbox.stats()["requests"]
            await asyncio.to_thread(self.rotate, sandbox, edit)
            await asyncio.to_thread(sandbox.seed_tasks, 2)
            events = await asyncio.gather(*waits)
            # A request that is refused counts nowhere. Then the project is read, and its queue counted, by all at once.
            assert sandbox.stats()["requests"] - before <= 5
            return events

        assert {event["seen"] for event in asyncio.run(scene())} == {2}
        assert len(connections_read) <= 3

    @pytest.mark.parametrize("kind", ["queue", "truth"])
    def test_a_watcher_is_not_silent(self, sandbox, edit, monkeypatch, kind):
        """The pause after an error is the real one, of a quarter of an hour."""
        triggers = {
            "queue": RedBrickStageQueueEventTrigger(stage_name="Review_1", at_least=2, poke_interval=0.05),
            "truth": RedBrickGroundTruthEventTrigger(poke_interval=0.05),
        }
        trigger = triggers[kind]
        logged: list[Any] = []
        monkeypatch.setattr(trigger.log, "error", lambda *words: logged.append(words))

        async def scene() -> dict[str, Any]:
            event = asyncio.create_task(anext(trigger.run()))
            await asyncio.sleep(0.5)
            await asyncio.to_thread(self.rotate, sandbox, edit)
            await asyncio.sleep(0.2)
            await asyncio.to_thread(sandbox.seed_tasks, 2, stage="Review_1")
            if kind == "truth":
                await asyncio.to_thread(sandbox.humans, "Review_1")
            return (await asyncio.wait_for(event, 20)).payload

        assert asyncio.run(scene())["count"] in (1, 2)
        assert logged == []

    def test_a_key_that_stays_wrong_is_an_error_after_one_more_reading(self, sandbox, connections_read):
        async def scene() -> dict[str, Any]:
            async with waiting(queue(), sandbox) as wait:
                await asyncio.to_thread(sandbox.accept_keys, NEW_KEY)
                return await wait

        found = asyncio.run(scene())
        assert (found["status"], found["error"]) == ("error", "RedBrickAuthError")
        assert connections_read == ["redbrick_default"] * 2

    def test_what_was_given_up_is_closed(self, sandbox, edit, monkeypatch):
        closed = []
        close = RedBrickClient.close
        monkeypatch.setattr(RedBrickClient, "close", lambda self: (closed.append(self), close(self))[1])

        async def scene() -> None:
            async with waiting(queue(at_least=1), sandbox) as wait:
                await asyncio.to_thread(self.rotate, sandbox, edit)
                await asyncio.sleep(0.4)
                assert len(closed) == 1
                await asyncio.to_thread(sandbox.seed_tasks, 1, stage="Review_1")
                await wait

        asyncio.run(scene())
        assert len(set(map(id, closed))) == 2


class TestStages:
    def renamed(self) -> list[dict[str, Any]]:
        return json.loads(json.dumps(DEMO_STAGES).replace("Review_1", "Review_2"))

    @pytest.mark.parametrize("how", [{}, {"unassigned": True}, {"count_by": "listing"}])
    def test_a_stage_that_was_renamed_is_known_to_a_new_sensor(self, sandbox, how):
        async def scene() -> dict[str, Any]:
            async with waiting(queue(stage_name="Label"), sandbox):
                await asyncio.to_thread(sandbox.change_stages, self.renamed())
                await asyncio.to_thread(sandbox.seed_tasks, 2, stage="Review_2")
                return await only_event(queue(stage_name="Review_2", at_least=2, **how))

        assert asyncio.run(scene())["seen"] == 2

    def test_one_that_waits_for_tasks_knows_it_too(self, sandbox):
        ids = sandbox.seed_tasks(2)

        async def scene() -> dict[str, Any]:
            async with waiting(tasks(ids), sandbox):
                await asyncio.to_thread(sandbox.change_stages, self.renamed())
                new = RedBrickTasksTrigger(**common(task_ids=ids, reached_stage="Review_2"))
                wait = asyncio.create_task(only_event(new))
                await asyncio.to_thread(sandbox.humans, "Label")
                return await wait

        assert asyncio.run(scene())["seen"] == {"Review_2": 2}

    def test_a_task_in_a_stage_that_was_added_is_past_those_before_it(self, sandbox):
        stages = json.loads(json.dumps(DEMO_STAGES))
        stages[2]["routing"]["passed"] = "Review_2"
        second = {**stages[2], "stageName": "Review_2", "routing": {"passed": "Output", "failed": "Failed_Review_1"}}

        async def scene() -> dict[str, Any]:
            async with waiting(queue(stage_name="Label"), sandbox):
                await asyncio.to_thread(sandbox.change_stages, [*stages[:3], second, *stages[3:]])
                ids = await asyncio.to_thread(sandbox.seed_tasks, 1, stage="Review_2")
                return await only_event(RedBrickTasksTrigger(**common(task_ids=ids, reached_stage="Review_1")))

        assert asyncio.run(scene())["seen"] == {"Review_2": 1}

    def test_a_stage_that_was_renamed_while_a_sensor_waits_for_it_is_an_error_in_time(
        self, sandbox, impatient_for_edits
    ):
        async def scene() -> dict[str, Any]:
            async with waiting(queue(), sandbox) as wait:
                await asyncio.to_thread(sandbox.change_stages, self.renamed())
                return await wait

        found = asyncio.run(scene())
        assert (found["status"], found["error"]) == ("error", "RedBrickInputError")
        assert "no stage 'Review_1'; its stages are: Input, Label, Review_2" in found["message"]

    def test_a_watcher_knows_a_stage_that_was_added(self, sandbox, monkeypatch):
        sandbox.change_stages(self.renamed())
        trigger = RedBrickStageQueueEventTrigger(stage_name="Review_1", at_least=1, poke_interval=0.05)
        monkeypatch.setattr("airflow_provider_redbrick.engine.watching._LONGEST_PAUSE", 0.1)
        logged: list[Any] = []
        monkeypatch.setattr(trigger.log, "error", lambda *words: logged.append(words))

        async def scene() -> dict[str, Any]:
            async with waiting(queue(stage_name="Label"), sandbox):
                event = asyncio.create_task(anext(trigger.run()))
                while not logged:  # noqa: ASYNC110 - a log has no event
                    await asyncio.sleep(0.02)
                await asyncio.to_thread(sandbox.change_stages, list(DEMO_STAGES))
                await asyncio.to_thread(sandbox.seed_tasks, 1, stage="Review_1")
                return (await asyncio.wait_for(event, 20)).payload

        assert asyncio.run(scene())["count"] == 1
        assert "no stage 'Review_1'" in str(logged[0])

    @pytest.mark.parametrize("stage", ["Input", "Failed_Review_1"])
    def test_a_watcher_of_a_stage_that_tasks_only_pass_through_is_refused(self, sandbox, monkeypatch, stage):
        trigger = RedBrickStageQueueEventTrigger(stage_name=stage, at_least=1, poke_interval=0.05)
        logged: list[Any] = []
        monkeypatch.setattr(trigger.log, "error", lambda *words: logged.append(words))

        async def scene() -> None:
            event = asyncio.create_task(anext(trigger.run()))
            until = time.monotonic() + 10
            while not logged:
                assert time.monotonic() < until
                await asyncio.sleep(0.02)
            event.cancel()
            await asyncio.gather(event, return_exceptions=True)

        asyncio.run(scene())
        assert f"only pass through {stage}, so its queue never reaches 1" in str(logged[0][-1])


class TestMissingConnection:
    """A secrets backend that fails for a moment looks like a connection that is missing."""

    @pytest.fixture
    def failing(self, monkeypatch) -> dict[str, Any]:
        """Fail the next ``times`` readings of a connection with ``error``."""
        state: dict[str, Any] = {"times": 0, "error": AirflowNotFoundException("The conn_id `x` isn't defined")}
        get = BaseHook.get_connection.__func__

        def fails(cls, conn_id):
            if state["times"]:
                state["times"] -= 1
                raise state["error"]
            return get(cls, conn_id)

        monkeypatch.setattr(RedBrickHook, "get_connection", classmethod(fails))
        return state

    @pytest.mark.parametrize(
        "error", [AirflowNotFoundException("no such conn_id"), ConnectionError("vault"), OSError()]
    )
    def test_it_may_pass(self, sandbox, failing, error):
        failing.update(times=MAX_FAILED_POLLS - 1, error=error)
        sandbox.seed_tasks(1, stage="Review_1")
        assert asyncio.run(only_event(queue(at_least=1)))["status"] == "success"
        assert failing["times"] == 0

    def test_five_polls_in_a_row_are_the_end_and_a_retry_may_help(self, sandbox):
        event = asyncio.run(only_event(queue(redbrick_conn_id="there_is_none")))
        assert event["status"] == "error"
        assert "error" not in event
        assert event["message"].startswith("Gave up after 5 failed polls in a row")
        assert "'there_is_none'" in event["message"]
        assert "a secrets backend that fails for a moment" in event["message"].lower()

    def test_what_others_errors_say_is_not_told(self, sandbox, failing):
        failing.update(times=99, error=RuntimeError("password=canary"))
        assert "canary" not in str(asyncio.run(only_event(queue())))

    def test_one_that_waits_goes_on_with_what_it_has(self, sandbox, failing, impatient_for_edits):
        async def scene() -> dict[str, Any]:
            async with waiting(queue(at_least=1), sandbox) as wait:
                failing["times"] = 999
                await asyncio.sleep(0.6)
                assert not wait.done(), wait.result()
                await asyncio.to_thread(sandbox.seed_tasks, 1, stage="Review_1")
                return await wait

        assert asyncio.run(scene())["status"] == "success"

    def test_a_refused_key_is_no_error_while_the_new_one_cannot_be_read(self, sandbox, edit, failing):
        async def scene() -> dict[str, Any]:
            async with waiting(queue(at_least=1, poke_interval=0.1), sandbox) as wait:
                failing["times"] = 3
                sandbox.accept_keys(NEW_KEY)
                edit(key=NEW_KEY)
                while failing["times"]:  # noqa: ASYNC110 - a counter has no event
                    await asyncio.sleep(0.02)
                await asyncio.to_thread(sandbox.seed_tasks, 1, stage="Review_1")
                return await wait

        assert asyncio.run(scene())["status"] == "success"

    def test_a_watcher_tries_again_soon(self, sandbox, failing):
        failing["times"] = 2
        sandbox.seed_tasks(1, stage="Review_1")
        trigger = RedBrickStageQueueEventTrigger(stage_name="Review_1", at_least=1, poke_interval=0.05)

        async def scene() -> dict[str, Any]:
            return (await asyncio.wait_for(anext(trigger.run()), 20)).payload

        assert asyncio.run(scene())["count"] == 1


def test_a_connection_is_read_where_airflow_can_answer(sandbox, monkeypatch):
    """Below Airflow 3.2.2 reading it in a thread without asgiref's context opens a second loop on the same stream."""
    from asgiref.sync import async_to_sync

    loops: list[asyncio.AbstractEventLoop] = []
    get = BaseHook.get_connection.__func__

    async def asked_by_airflow() -> None:
        loops.append(asyncio.get_running_loop())

    def reads(cls, conn_id):
        async_to_sync(asked_by_airflow)()
        return get(cls, conn_id)

    monkeypatch.setattr(RedBrickHook, "get_connection", classmethod(reads))

    async def scene() -> bool:
        await asyncio.gather(only_event(queue(at_least=0)), only_event(queue(at_least=0)))
        return all(loop is asyncio.get_running_loop() for loop in loops)

    assert asyncio.run(scene())
    assert loops
