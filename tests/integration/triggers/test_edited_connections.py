"""Tests of triggers whose connection, key or stages change while they wait."""

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
from airflow_provider_redbrick.triggers.redbrick import (
    RedBrickGroundTruthEventTrigger,
    RedBrickStageQueueEventTrigger,
    RedBrickStageQueueTrigger,
    RedBrickTasksTrigger,
)
from redbrick_sandbox.demo_project import DEMO_STAGES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

NEW_KEY = "rotated-0123456789-abcdefghijklmnopqrstuvwxy"
VARIABLE = "AIRFLOW_CONN_REDBRICK_DEFAULT"


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    """Shorten the pauses after events and errors."""
    monkeypatch.setattr(base, "STORED_AFTER_S", 0.0)
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
def no_stale_connections(monkeypatch):
    """Let each poll read the connection again."""
    monkeypatch.setattr(poll_group, "STALE_AFTER_S", 0.0)


@pytest.fixture
def connections_read(monkeypatch) -> list[str]:
    """The id of each connection that was read, in order."""
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
    """Run a trigger in the background, and continue after its first polls."""
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
    def test_new_sensor_polls_the_new_project(self, sandbox, edit):
        """Both projects' queues are long enough, so the count shows which one was read."""
        sandbox.seed_tasks(12)
        other = sandbox.add_project()
        sandbox.seed_tasks(5, project_id=other)

        async def scene() -> dict[str, Any]:
            async with waiting(queue(stage_name="Label", at_least=99), sandbox):
                edit(project=other)
                return await only_event(queue(stage_name="Label", at_least=5, deadline=time.time() + 5))

        event = asyncio.run(scene())
        assert (event["status"], event["seen"]) == ("success", 5)

    @pytest.mark.parametrize("how", [{}, {"unassigned": True}, {"count_by": "listing"}])
    def test_new_sensor_ignores_the_old_projects_tasks(self, sandbox, edit, how):
        sandbox.seed_tasks(12)
        other = sandbox.add_project()
        sandbox.seed_tasks(5, project_id=other)

        async def scene() -> dict[str, Any]:
            async with waiting(queue(stage_name="Label", at_least=99), sandbox):
                edit(project=other)
                return await only_event(queue(stage_name="Label", at_least=8, deadline=time.time() + 1, **how))

        assert asyncio.run(scene())["status"] == "timeout"

    def test_waiting_sensors_keep_their_own_projects(self, sandbox, edit):
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

    def test_new_tasks_sensor_reads_the_new_project(self, sandbox, edit):
        old = sandbox.seed_tasks(2)
        other = sandbox.add_project()
        new = sandbox.seed_tasks(2, project_id=other, stage="Review_1")

        async def scene() -> dict[str, Any]:
            async with waiting(tasks(old), sandbox):
                edit(project=other)
                return await only_event(tasks(new))

        assert asyncio.run(scene())["seen"] == {"Review_1": 2}

    def test_waiting_sensor_keeps_its_project(self, sandbox, edit, no_stale_connections):
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

    def test_watcher_follows_its_connection_with_separate_state(self, sandbox, edit, no_stale_connections):
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

    def test_watcher_ignores_existing_ground_truth_of_the_new_project(self, sandbox, edit, no_stale_connections):
        other = sandbox.add_project()
        trigger = RedBrickGroundTruthEventTrigger(poke_interval=0.05)

        async def scene() -> list[str]:
            sent: list[str] = []

            async def watch() -> None:
                async for event in trigger.run():
                    sent.extend(event.payload["task_ids"])

            task = asyncio.create_task(watch())
            await asyncio.sleep(0.5)
            await asyncio.to_thread(sandbox.seed_tasks, 3, project_id=other, ground_truth=True)
            edit(project=other)
            await asyncio.sleep(0.7)
            assert sent == []
            new = await asyncio.to_thread(sandbox.seed_tasks, 1, project_id=other, stage="Review_1")
            await asyncio.to_thread(sandbox.humans, "Review_1", project_id=other)
            until = time.monotonic() + 10
            while not sent and time.monotonic() < until:  # noqa: ASYNC110 - another task sends
                await asyncio.sleep(0.02)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert sent == new
            return sent

        assert len(asyncio.run(scene())) == 1

    def test_explicit_and_connection_project_share_polls(self, sandbox, connections_read):
        """One trigger names the project, the other takes it from the connection."""
        deadline = time.time() + 2.2
        same = {"stage_name": "Label", "at_least": 9, "poke_interval": 1.0, "deadline": deadline}

        async def scene() -> None:
            named = queue(org_id=sandbox.org_id, project_id=sandbox.project_id, **same)
            await asyncio.gather(*(only_event(trigger) for trigger in (named, queue(**same))))

        asyncio.run(scene())
        assert sandbox.stats()["requests"] < 2 * (1 + 1 + 3 + 1)
        assert connections_read == ["redbrick_default"]

    @pytest.mark.parametrize("limits", [{"page_size": 50}, {"timeout": 5}, {"max_concurrency": 2}])
    def test_new_sensor_uses_the_new_limits(self, sandbox, edit, limits, monkeypatch):
        used: list[Any] = []
        poll = poll_group.SharedProject.poll

        async def recorded_poll(self, condition):
            used.append(self._hook.settings)
            return await poll(self, condition)

        monkeypatch.setattr(poll_group.SharedProject, "poll", recorded_poll)

        async def scene() -> None:
            async with waiting(queue(), sandbox):
                edit(**limits)
                await only_event(queue(at_least=0))

        asyncio.run(scene())
        ((name, value),) = limits.items()
        assert value in {getattr(settings, name) for settings in used}

    def test_new_sensor_uses_the_new_server(self, sandbox, edit):
        with SandboxProcess() as other:
            other.seed_tasks(4, stage="Review_1")

            async def scene() -> dict[str, Any]:
                async with waiting(queue(), sandbox):
                    edit(url=other.url)
                    return await only_event(queue(at_least=4))

            assert asyncio.run(scene())["seen"] == 4

    def test_waiting_sensor_follows_to_the_new_server(self, sandbox, edit, no_stale_connections):
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
    def test_waiting_queue_sensor_continues(self, sandbox, edit, how):
        async def scene() -> dict[str, Any]:
            async with waiting(queue(stage_name="Label", at_least=2, **how), sandbox) as wait:
                await asyncio.to_thread(self.rotate, sandbox, edit)
                await asyncio.sleep(0.3)
                assert not wait.done(), wait.result()
                await asyncio.to_thread(sandbox.seed_tasks, 2)
                return await wait

        event = asyncio.run(scene())
        assert (event["status"], event["seen"]) == ("success", 2)

    def test_waiting_tasks_sensor_continues(self, sandbox, edit):
        ids = sandbox.seed_tasks(2)

        async def scene() -> dict[str, Any]:
            async with waiting(tasks(ids), sandbox) as wait:
                await asyncio.to_thread(self.rotate, sandbox, edit)
                await asyncio.sleep(0.3)
                assert not wait.done(), wait.result()
                await asyncio.to_thread(sandbox.humans, "Label")
                return await wait

        assert asyncio.run(scene())["seen"] == {"Review_1": 2}

    def test_waiting_sensors_read_the_connection_once(self, sandbox, edit, connections_read):
        async def scene() -> list[dict[str, Any]]:
            triggers = [queue(stage_name="Label", at_least=2, poke_interval=1.0) for _ in range(50)]
            waits = [asyncio.create_task(only_event(trigger)) for trigger in triggers]
            await asyncio.sleep(1.5)
            assert connections_read == ["redbrick_default"]
            before = sandbox.stats()["requests"]
            await asyncio.to_thread(self.rotate, sandbox, edit)
            await asyncio.to_thread(sandbox.seed_tasks, 2)
            events = await asyncio.gather(*waits)
            # Refused requests are not counted. Then one read of the project and one count serve all triggers.
            assert sandbox.stats()["requests"] - before <= 5
            return events

        assert {event["seen"] for event in asyncio.run(scene())} == {2}
        assert len(connections_read) <= 3

    @pytest.mark.parametrize("kind", ["queue", "truth"])
    def test_watcher_continues_without_the_error_pause(self, sandbox, edit, monkeypatch, kind):
        """The pause after an error is not shortened: it takes 15 minutes."""
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

    def test_refused_key_is_an_error_after_reading_it_again(self, sandbox, connections_read):
        async def scene() -> dict[str, Any]:
            async with waiting(queue(), sandbox) as wait:
                await asyncio.to_thread(sandbox.accept_keys, NEW_KEY)
                return await wait

        event = asyncio.run(scene())
        assert (event["status"], event["error"]) == ("error", "RedBrickAuthError")
        assert connections_read == ["redbrick_default"] * 2

    def test_replaced_client_is_closed(self, sandbox, edit, monkeypatch):
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
    def test_new_queue_sensor_knows_a_renamed_stage(self, sandbox, how):
        async def scene() -> dict[str, Any]:
            async with waiting(queue(stage_name="Label"), sandbox):
                await asyncio.to_thread(sandbox.change_stages, self.renamed())
                await asyncio.to_thread(sandbox.seed_tasks, 2, stage="Review_2")
                return await only_event(queue(stage_name="Review_2", at_least=2, **how))

        assert asyncio.run(scene())["seen"] == 2

    def test_new_tasks_sensor_knows_a_renamed_stage(self, sandbox):
        ids = sandbox.seed_tasks(2)

        async def scene() -> dict[str, Any]:
            async with waiting(tasks(ids), sandbox):
                await asyncio.to_thread(sandbox.change_stages, self.renamed())
                new = RedBrickTasksTrigger(**common(task_ids=ids, reached_stage="Review_2"))
                wait = asyncio.create_task(only_event(new))
                await asyncio.to_thread(sandbox.humans, "Label")
                return await wait

        assert asyncio.run(scene())["seen"] == {"Review_2": 2}

    def test_task_in_an_added_stage_is_past_earlier_stages(self, sandbox):
        stages = json.loads(json.dumps(DEMO_STAGES))
        stages[2]["routing"]["passed"] = "Review_2"
        second = {**stages[2], "stageName": "Review_2", "routing": {"passed": "Output", "failed": "Failed_Review_1"}}

        async def scene() -> dict[str, Any]:
            async with waiting(queue(stage_name="Label"), sandbox):
                await asyncio.to_thread(sandbox.change_stages, [*stages[:3], second, *stages[3:]])
                ids = await asyncio.to_thread(sandbox.seed_tasks, 1, stage="Review_2")
                return await only_event(RedBrickTasksTrigger(**common(task_ids=ids, reached_stage="Review_1")))

        assert asyncio.run(scene())["seen"] == {"Review_2": 1}

    def test_renamed_stage_ends_a_waiting_sensor_with_an_error(self, sandbox, no_stale_connections):
        async def scene() -> dict[str, Any]:
            async with waiting(queue(), sandbox) as wait:
                await asyncio.to_thread(sandbox.change_stages, self.renamed())
                return await wait

        event = asyncio.run(scene())
        assert (event["status"], event["error"]) == ("error", "RedBrickInputError")
        assert "no stage 'Review_1'; its stages are: Input, Label, Review_2" in event["message"]

    def test_watcher_finds_an_added_stage(self, sandbox, monkeypatch):
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
    def test_watcher_of_a_pass_through_stage_logs_an_error(self, sandbox, monkeypatch, stage):
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
    """A temporary failure of a secrets backend looks like a missing connection."""

    @pytest.mark.parametrize(
        "error", [AirflowNotFoundException("no such conn_id"), ConnectionError("vault"), OSError()]
    )
    def test_temporary_lookup_error_is_tolerated(self, sandbox, failing, error):
        failing.update(times=MAX_FAILED_POLLS - 1, error=error)
        sandbox.seed_tasks(1, stage="Review_1")
        assert asyncio.run(only_event(queue(at_least=1)))["status"] == "success"
        assert failing["times"] == 0

    def test_five_failed_lookups_end_the_wait_and_allow_a_retry(self, sandbox):
        event = asyncio.run(only_event(queue(redbrick_conn_id="there_is_none")))
        assert event["status"] == "error"
        assert "error" not in event
        assert event["message"].startswith("Gave up after 5 failed polls in a row")
        assert "'there_is_none'" in event["message"]
        assert "secrets backend failed temporarily" in event["message"]

    def test_text_of_other_errors_is_hidden(self, sandbox, failing):
        failing.update(times=99, error=RuntimeError("password=canary"))
        assert "canary" not in str(asyncio.run(only_event(queue())))

    def test_waiting_sensor_keeps_its_settings(self, sandbox, failing, no_stale_connections):
        async def scene() -> dict[str, Any]:
            async with waiting(queue(at_least=1), sandbox) as wait:
                failing["times"] = 999
                await asyncio.sleep(0.6)
                assert not wait.done(), wait.result()
                await asyncio.to_thread(sandbox.seed_tasks, 1, stage="Review_1")
                return await wait

        assert asyncio.run(scene())["status"] == "success"

    def test_refused_key_is_tolerated_while_the_connection_is_unreadable(self, sandbox, edit, failing):
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

    def test_watcher_retries_soon(self, sandbox, failing):
        failing["times"] = 2
        sandbox.seed_tasks(1, stage="Review_1")
        trigger = RedBrickStageQueueEventTrigger(stage_name="Review_1", at_least=1, poke_interval=0.05)

        async def scene() -> dict[str, Any]:
            return (await asyncio.wait_for(anext(trigger.run()), 20)).payload

        assert asyncio.run(scene())["count"] == 1


def test_connection_is_read_in_the_running_event_loop(sandbox, monkeypatch):
    """Below Airflow 3.2.2 reading it in a thread without asgiref's context opens a second loop on the same stream."""
    from asgiref.sync import async_to_sync

    loops: list[asyncio.AbstractEventLoop] = []
    get = BaseHook.get_connection.__func__

    async def record_loop() -> None:
        loops.append(asyncio.get_running_loop())

    def reads(cls, conn_id):
        async_to_sync(record_loop)()
        return get(cls, conn_id)

    monkeypatch.setattr(RedBrickHook, "get_connection", classmethod(reads))

    async def scene() -> bool:
        await asyncio.gather(only_event(queue(at_least=0)), only_event(queue(at_least=0)))
        return all(loop is asyncio.get_running_loop() for loop in loops)

    assert asyncio.run(scene())
    assert loops
