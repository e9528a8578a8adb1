"""Waiting for tasks, in each mode, on a running server."""

from __future__ import annotations

import uuid

import pytest
from airflow.providers.common.compat.sdk import AirflowSensorTimeout
from sandbox_calls import ASSIGN, claim, data, submit

from airflow_provider_redbrick.exceptions import RedBrickError, RedBrickInputError, RedBrickNotFoundError
from airflow_provider_redbrick.sensors.tasks import RedBrickTasksSensor

ANY_ID = str(uuid.UUID(int=1))


def sensor(**options) -> RedBrickTasksSensor:
    return RedBrickTasksSensor(task_id="wait", **{"timeout": 30, **options})


def sampled(sandbox, percent: float) -> str:
    """A project in which only a share of the tasks is held for review."""
    return sandbox.add_project(
        [
            {"stageName": "Input", "brickName": "labelset-input", "routing": {"nextStageName": "Label"}},
            {"stageName": "Label", "brickName": "manual-labeling", "routing": {"nextStageName": "Review_1"}},
            {
                "stageName": "Review_1",
                "brickName": "expert-review",
                "routing": {"passed": "Output", "failed": "Failed_Review_1"},
                "stageConfig": {"reviewPercent": percent},
            },
            {"stageName": "Failed_Review_1", "brickName": "feedback", "routing": {"feedbackStageName": "Label"}},
            {"stageName": "Output", "brickName": "labelset-output", "routing": {"nextStageName": "END"}},
        ]
    )


class TestLeft:
    def test_all_of_them(self, sandbox, wait, soon, mode):
        ids = sandbox.seed_tasks(3)
        soon(sandbox.humans, "Label")
        assert wait(sensor(task_ids=ids, left_stage="Label", **mode)) == {"Review_1": 3}
        assert len(wait.deferred) == bool(mode["deferrable"])

    def test_not_before_the_last_one(self, sandbox, wait, mode):
        ids = sandbox.seed_tasks(3)
        sandbox.humans("Label", 2)
        with pytest.raises(AirflowSensorTimeout):
            wait(sensor(task_ids=ids, left_stage="Label", **{**mode, "timeout": 0.2}))

    def test_at_once_when_they_have(self, sandbox, wait, mode):
        ids = [*sandbox.seed_tasks(1, stage="Review_1"), *sandbox.seed_tasks(2, ground_truth=True)]
        assert wait(sensor(task_ids=ids, left_stage="Label", **mode)) == {"Ground Truth": 2, "Review_1": 1}
        assert (wait.deferred, wait.rescheduled) == ([], 0)

    def test_ground_truth_is_left_by_reopening(self, sandbox, wait, soon, mode):
        (task_id,) = sandbox.seed_tasks(1, ground_truth=True)
        query = (
            "mutation ($o: UUID!, $p: UUID!, $t: UUID!) {moveTaskToStart(orgId: $o, projectId: $p, taskId: $t) {ok}}"
        )
        soon(sandbox.graphql, query, {"o": sandbox.org_id, "p": sandbox.project_id, "t": task_id})
        assert wait(sensor(task_ids=[task_id], left_stage="Ground Truth", **mode)) == {"Label": 1}

    def test_a_task_on_its_way_out_has_left(self, sandbox, wait):
        sandbox.settings(transition_ms=60_000)
        ids = sandbox.seed_tasks(2)
        sandbox.humans("Label")
        assert wait(sensor(task_ids=ids, left_stage="Label")) == {"Label": 2}

    def test_a_rejected_task_has_left_the_review(self, sandbox, wait):
        ids = sandbox.seed_tasks(2, stage="Review_1")
        sandbox.humans("Review_1", accept_ratio=0)
        assert wait(sensor(task_ids=ids, left_stage="Review_1")) == {"Label": 2}


class TestReached:
    def test_all_of_them(self, sandbox, wait, soon, mode):
        ids = sandbox.seed_tasks(2)
        soon(sandbox.humans, "Label")
        assert wait(sensor(task_ids=ids, reached_stage="Review_1", **mode)) == {"Review_1": 2}

    @pytest.mark.parametrize("name", ["Ground Truth", "Output", "END"])
    def test_ground_truth_by_all_its_names(self, sandbox, wait, soon, mode, name):
        ids = sandbox.seed_tasks(2, stage="Review_1")
        soon(sandbox.humans, "Review_1")
        assert wait(sensor(task_ids=ids, reached_stage=name, **mode)) == {"Ground Truth": 2}

    def test_a_task_that_jumps_over_the_review(self, sandbox, wait, soon, mode):
        project = sampled(sandbox, 0)
        ids = sandbox.seed_tasks(2, project_id=project)
        soon(sandbox.humans, "Label", project_id=project)
        seen = wait(sensor(task_ids=ids, reached_stage="Review_1", project_id=project, **mode))
        assert seen == {"Ground Truth": 2}

    def test_some_jump_and_some_do_not(self, sandbox, wait, soon, mode):
        project = sampled(sandbox, 0.5)
        ids = sandbox.seed_tasks(20, project_id=project)
        soon(sandbox.humans, "Label", project_id=project)
        seen = wait(sensor(task_ids=ids, reached_stage="Review_1", project_id=project, **mode))
        assert sum(seen.values()) == 20
        assert set(seen) == {"Ground Truth", "Review_1"}

    def test_a_task_on_its_way_has_not_arrived(self, sandbox, wait, mode):
        sandbox.settings(transition_ms=400)
        ids = sandbox.seed_tasks(2)
        sandbox.humans("Label")
        assert wait(sensor(task_ids=ids, reached_stage="Review_1", **mode)) == {"Review_1": 2}

    def test_a_rejected_task_on_its_way_back_has_not_arrived(self, sandbox, wait):
        sandbox.settings(transition_ms=60_000)
        ids = sandbox.seed_tasks(1, stage="Review_1")
        sandbox.humans("Review_1", accept_ratio=0)
        with pytest.raises(AirflowSensorTimeout):
            wait(sensor(task_ids=ids, reached_stage="Ground Truth", timeout=0))

    def test_many(self, sandbox, wait):
        ids = sandbox.seed_tasks(120, stage="Review_1")
        assert wait(sensor(task_ids=ids, reached_stage="Review_1")) == {"Review_1": 120}


class TestTasksThatAreNot:
    def test_an_unknown_task_fails_at_once_with_its_id(self, sandbox, wait, mode):
        ids = sandbox.seed_tasks(1)
        with pytest.raises(RedBrickNotFoundError, match=ANY_ID):
            wait(sensor(task_ids=[*ids, ANY_ID], left_stage="Label", **mode))

    def test_a_task_deleted_in_the_meantime_fails_with_its_id(self, sandbox, wait, soon, mode):
        ids = sandbox.seed_tasks(2)
        query = (
            "mutation ($o: UUID!, $p: UUID!, $t: [UUID!]) { deleteTasks(orgId: $o, projectId: $p, taskIds: $t) { ok } }"
        )
        soon(sandbox.graphql, query, {"o": sandbox.org_id, "p": sandbox.project_id, "t": ids[1:]})
        with pytest.raises(RedBrickError, match=ids[1]):
            wait(sensor(task_ids=ids, left_stage="Label", **mode))


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"task_ids": [ANY_ID]}, "Give either left_stage or reached_stage"),
            ({"task_ids": [ANY_ID], "left_stage": "Label", "reached_stage": "Label"}, "and not both"),
            ({"task_ids": [], "left_stage": "Label"}, "task_ids is empty"),
            ({"task_ids": "{{ ids }}", "left_stage": "Label"}, "task_ids must be a list"),
            ({"task_ids": ["17"], "left_stage": "Label"}, r"task_ids\[0\]"),
            ({"task_ids": [None], "left_stage": "Label"}, r"task_ids\[0\]"),
            ({"task_ids": [ANY_ID], "left_stage": ""}, "left_stage must not be empty"),
            ({"task_ids": [ANY_ID], "reached_stage": " "}, "reached_stage must not be empty"),
        ],
    )
    def test_nonsense_is_refused_before_any_request(self, sandbox, wait, mode, options, words):
        with pytest.raises(RedBrickInputError, match=words):
            wait(sensor(**mode, **options))
        assert sandbox.stats()["requests"] == 0
        assert wait.deferred == []

    def test_a_stage_that_tasks_only_pass_through_is_no_place_to_arrive(self, sandbox, wait, mode):
        ids = sandbox.seed_tasks(1)
        with pytest.raises(RedBrickInputError, match="only pass through Failed_Review_1"):
            wait(sensor(task_ids=ids, reached_stage="Failed_Review_1", **mode))

    @pytest.mark.parametrize("parameter", ["left_stage", "reached_stage"])
    def test_a_wrong_stage_fails_at_once(self, sandbox, wait, mode, parameter):
        ids = sandbox.seed_tasks(1)
        with pytest.raises(RedBrickInputError, match="Review_1"):
            wait(sensor(task_ids=ids, **{parameter: "Reviews"}, **mode))
        assert wait.deferred == []


class TestConsensus:
    def test_the_first_who_has_submitted_has_left_and_all_of_them_have_reached(self, sandbox):
        project = sandbox.add_project(consensus=True)
        (task_id,) = sandbox.seed_tasks(1, project_id=project)
        claim(sandbox, task_id, p=project)
        data(sandbox, ASSIGN, p=project, ids=[task_id], emails=["alice@example.com"], refresh=False)
        submit(sandbox, task_id, p=project)
        assert sandbox.stage_of(task_id, project_id=project) == "Label"
        given = {"task_ids": [task_id], "project_id": project}
        assert sensor(left_stage="Label", **given).poke({}).is_done
        assert not sensor(reached_stage="Review_1", **given).poke({}).is_done
