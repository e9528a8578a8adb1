"""Tests of the tasks sensor in each mode on a running sandbox."""

from __future__ import annotations

import uuid

import pytest
from airflow.providers.common.compat.sdk import AirflowSensorTimeout
from sandbox_calls import ASSIGN, REOPEN, claim, data, submit

from airflow_provider_redbrick.exceptions import RedBrickError, RedBrickInputError, RedBrickNotFoundError
from airflow_provider_redbrick.sensors.tasks import RedBrickTasksSensor

ANY_ID = str(uuid.UUID(int=1))


def sensor(**options) -> RedBrickTasksSensor:
    return RedBrickTasksSensor(task_id="wait", **{"timeout": 30, **options})


def sampled(sandbox, percent: float) -> str:
    """Create a project that reviews only a share of the tasks."""
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

    def test_tasks_left_needs_all_tasks(self, sandbox, wait, mode):
        ids = sandbox.seed_tasks(3)
        sandbox.humans("Label", 2)
        with pytest.raises(AirflowSensorTimeout):
            wait(sensor(task_ids=ids, left_stage="Label", **{**mode, "timeout": 0.2}))

    def test_tasks_that_have_left_return_without_waiting(self, sandbox, wait, mode):
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

    def test_task_in_transition_has_left(self, sandbox, wait):
        sandbox.settings(transition_ms=60_000)
        ids = sandbox.seed_tasks(2)
        sandbox.humans("Label")
        assert wait(sensor(task_ids=ids, left_stage="Label")) == {"Label": 2}

    def test_rejected_task_has_left_the_review(self, sandbox, wait):
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

    def test_task_that_skips_the_review_has_reached_it(self, sandbox, wait, soon, mode):
        project = sampled(sandbox, 0)
        ids = sandbox.seed_tasks(2, project_id=project)
        soon(sandbox.humans, "Label", project_id=project)
        seen = wait(sensor(task_ids=ids, reached_stage="Review_1", project_id=project, **mode))
        assert seen == {"Ground Truth": 2}

    def test_sampled_review_counts_both_ways(self, sandbox, wait, soon, mode):
        project = sampled(sandbox, 0.5)
        ids = sandbox.seed_tasks(20, project_id=project)
        soon(sandbox.humans, "Label", project_id=project)
        seen = wait(sensor(task_ids=ids, reached_stage="Review_1", project_id=project, **mode))
        assert sum(seen.values()) == 20
        assert set(seen) == {"Ground Truth", "Review_1"}

    def test_task_in_transition_has_not_reached_the_next_stage(self, sandbox, wait, mode):
        sandbox.settings(transition_ms=400)
        ids = sandbox.seed_tasks(2)
        sandbox.humans("Label")
        assert wait(sensor(task_ids=ids, reached_stage="Review_1", **mode)) == {"Review_1": 2}

    def test_rejected_task_in_transition_has_not_reached_the_stage(self, sandbox, wait):
        sandbox.settings(transition_ms=60_000)
        ids = sandbox.seed_tasks(1, stage="Review_1")
        sandbox.humans("Review_1", accept_ratio=0)
        with pytest.raises(AirflowSensorTimeout):
            wait(sensor(task_ids=ids, reached_stage="Ground Truth", timeout=0))

    def test_many_tasks_are_read_in_batches(self, sandbox, wait):
        ids = sandbox.seed_tasks(120, stage="Review_1")
        assert wait(sensor(task_ids=ids, reached_stage="Review_1")) == {"Review_1": 120}


class TestStaleReads:
    def test_met_first_look_is_confirmed(self, sandbox, wait, soon, mode):
        """The tasks were reopened; the first read shows them finished, as before."""
        ids = sandbox.seed_tasks(2, ground_truth=True)
        sandbox.behavior(read_lag=60)
        for task_id in ids:
            data(sandbox, REOPEN, t=task_id)
        soon(sandbox.behavior, read_lag=0)
        with pytest.raises(AirflowSensorTimeout, match=r"2 tasks to reach 'Ground Truth'. Last seen: 2 in Label"):
            wait(sensor(task_ids=ids, reached_stage="Ground Truth", **{**mode, "poke_interval": 0.8, "timeout": 1}))


class TestTasksThatAreNot:
    def test_unknown_task_fails_at_once_with_its_id(self, sandbox, wait, mode):
        ids = sandbox.seed_tasks(1)
        with pytest.raises(RedBrickNotFoundError, match=ANY_ID):
            wait(sensor(task_ids=[*ids, ANY_ID], left_stage="Label", **mode))

    def test_deleted_task_fails_with_its_id(self, sandbox, wait, soon, mode):
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
            (
                {"task_ids": [ANY_ID], "left_stage": "Label", "reached_stage": "Label"},
                "Give either left_stage or reached_stage",
            ),
            ({"task_ids": [], "left_stage": "Label"}, "task_ids is empty"),
            ({"task_ids": "{{ ids }}", "left_stage": "Label"}, "task_ids must be a list"),
            ({"task_ids": ["17"], "left_stage": "Label"}, r"task_ids\[0\]"),
            ({"task_ids": [None], "left_stage": "Label"}, r"task_ids\[0\]"),
            ({"task_ids": [ANY_ID], "left_stage": ""}, "left_stage must not be empty"),
            ({"task_ids": [ANY_ID], "reached_stage": " "}, "reached_stage must not be empty"),
        ],
    )
    def test_invalid_parameters_are_refused_before_any_request(self, sandbox, wait, mode, options, words):
        with pytest.raises(RedBrickInputError, match=words):
            wait(sensor(**mode, **options))
        assert sandbox.stats()["requests"] == 0
        assert wait.deferred == []

    def test_pass_through_stage_cannot_be_reached(self, sandbox, wait, mode):
        ids = sandbox.seed_tasks(1)
        with pytest.raises(RedBrickInputError, match="only pass through Failed_Review_1"):
            wait(sensor(task_ids=ids, reached_stage="Failed_Review_1", **mode))

    @pytest.mark.parametrize("parameter", ["left_stage", "reached_stage"])
    def test_missing_stage_fails_at_once(self, sandbox, wait, mode, parameter):
        ids = sandbox.seed_tasks(1)
        with pytest.raises(RedBrickInputError, match="Review_1"):
            wait(sensor(task_ids=ids, **{parameter: "Reviews"}, **mode))
        assert wait.deferred == []


class TestConsensus:
    def test_consensus_task_leaves_at_first_submission_and_reaches_at_last(self, sandbox):
        project = sandbox.add_project(consensus=True)
        (task_id,) = sandbox.seed_tasks(1, project_id=project)
        claim(sandbox, task_id, p=project)
        data(sandbox, ASSIGN, p=project, ids=[task_id], emails=["alice@example.com"], refresh=False)
        submit(sandbox, task_id, p=project)
        assert sandbox.stage_of(task_id, project_id=project) == "Label"
        given = {"task_ids": [task_id], "project_id": project}
        assert sensor(left_stage="Label", **given).poke({}).is_done
        assert not sensor(reached_stage="Review_1", **given).poke({}).is_done
