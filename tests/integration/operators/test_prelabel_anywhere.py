"""``RedBrickPrelabelOperator`` with ``write="anywhere"``, and its audit trail."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from fixtures import counts
from label_samples import BOX

from airflow_provider_redbrick.exceptions import RedBrickInputError, RedBrickTasksFailedError
from airflow_provider_redbrick.operators.prelabel import RedBrickPrelabelOperator

PUT = "putLabels"
EVENTS = """query ($o: UUID!, $p: UUID!, $t: UUID!) { task(orgId: $o, projectId: $p, taskId: $t) {
    genericEvents { ... on TaskEvent { updatedBy taskData { tdId }
        outputEvent { currentStageName nextStageName extraData } } } } }"""


def predict(task):
    return [{"boundingBoxes": [{**BOX, "attributes": {"score": 0.5}}]}]


def anywhere(labeler=predict, **options):
    return RedBrickPrelabelOperator(task_id="p", labeler=labeler, write="anywhere", **options)


def written(sandbox, task_id):
    """Return what the audit trail stores of each write."""
    ids = {"o": sandbox.org_id, "p": sandbox.project_id, "t": task_id}
    events = sandbox.graphql(EVENTS, ids)["task"]["genericEvents"]
    outputs = [event["outputEvent"] for event in events if event.get("outputEvent")]
    return [json.loads(output["extraData"]) for output in outputs if output["extraData"]]


class TestTarget:
    def test_anywhere_writes_in_each_stage_without_moving_tasks(self, sandbox, run, holders):
        ids = [
            *sandbox.seed_tasks(1, stage="Label"),
            *sandbox.seed_tasks(1, stage="Review_1"),
            *sandbox.seed_tasks(1, ground_truth=True),
        ]
        before = [sandbox.stage_of(task_id) for task_id in ids]
        assert run.try_once(anywhere(task_ids=ids))["counts"] == counts(done=3)
        assert sandbox.applied(PUT) == dict.fromkeys(ids, 1)
        assert [sandbox.stage_of(task_id) for task_id in ids] == before == ["Label", "Review_1", "END"]
        for task_id in ids:
            (label,) = sandbox.task(task_id)["labels"]
            assert label["bbox2d"] == {"xnorm": 0.1, "ynorm": 0.2, "wnorm": 0.3, "hnorm": 0.4}
        assert sandbox.applied("assignTasksMultipleUsers") == {}
        assert set(holders("Label").values()) == {None}

    def test_anywhere_without_ids_selects_unlabeled_tasks(self, sandbox, run, new_run):
        fresh = sandbox.seed_tasks(4)
        held = sandbox.seed_tasks(1, assignee="alice@example.com")
        labeled = sandbox.seed_tasks(1, labels=[{"category": "finding"}])
        assert run.try_once(anywhere(stage_name="Label", limit=3))["counts"] == counts(done=3)
        assert new_run().try_once(anywhere(stage_name="Label"))["counts"] == counts(done=1)
        assert sandbox.applied(PUT) == dict.fromkeys(fresh, 1)
        assert new_run().try_once(anywhere(stage_name="Label", overwrite=True))["counts"] == counts(done=5)
        assert held[0] not in sandbox.applied(PUT)
        assert labeled[0] in sandbox.applied(PUT)

    def test_anywhere_skips_tasks_of_people_unless_allowed(self, sandbox, run, new_run, holders):
        ids = sandbox.seed_tasks(2, assignee="alice@example.com")
        made = run.try_once(anywhere(task_ids=ids))
        assert made["counts"] == counts(skipped=2)
        made = new_run().try_once(anywhere(task_ids=ids, take_from_people=True))
        assert made["counts"] == counts(done=2)
        assert set(holders("Label").values()) == {"alice@example.com"}

    def test_anywhere_skips_archived_tasks(self, sandbox, run):
        ids = sandbox.seed_tasks(1, stage="ARCHIVED")
        assert run.try_once(anywhere(task_ids=ids))["counts"] == counts(skipped=1)

    def test_anywhere_in_ground_truth_needs_task_ids(self, sandbox, run, new_run):
        review = sandbox.seed_tasks(2, stage="Review_1")
        made = run.try_once(anywhere(stage_name="Review_1", overwrite=True))
        assert (made["counts"], made["stage_name"]) == (counts(done=2), "Review_1")
        assert [sandbox.stage_of(task_id) for task_id in review] == ["Review_1"] * 2
        with pytest.raises(RedBrickInputError, match="Give task_ids"):
            new_run().try_once(anywhere(stage_name="Ground Truth"))
        truth = sandbox.seed_tasks(1, ground_truth=True)
        made = new_run().try_once(anywhere(stage_name="Ground Truth", task_ids=truth))
        assert (made["counts"], sandbox.stage_of(truth[0])) == (counts(done=1), "END")

    def test_anywhere_works_in_consensus_project(self, sandbox, run):
        project_id = sandbox.add_project(consensus=True)
        ids = sandbox.seed_tasks(2, project_id=project_id)
        assert run.try_once(anywhere(stage_name="Label", project_id=project_id))["counts"] == counts(done=2)
        assert set(sandbox.applied(PUT)) == set(ids)


class TestAuditTrail:
    def test_trail_names_model_and_run(self, sandbox, new_run):
        (task_id,) = sandbox.seed_tasks(1)
        operator = anywhere(task_ids=[task_id], model_name="lungs", model_version="2.1")
        ti = SimpleNamespace(
            try_number=1, dag_id="nightly", run_id="scheduled__1", task_id="p", xcom_push=lambda **_: None
        )
        operator.execute({"ti": ti})
        operator.model_version = "2.2"
        operator.execute({"ti": ti})
        first, second = written(sandbox, task_id)
        assert first["model"] == {"name": "lungs", "version": "2.1"}
        assert second["model"] == {"name": "lungs", "version": "2.2"}
        assert (first["dag_id"], first["run_id"], first["task_id"]) == ("nightly", "scheduled__1", "p")
        assert first["written_by"].startswith("airflow-provider-redbrick ")

    def test_write_anywhere_is_not_evidence_of_submit(self, sandbox, run):
        """An operator that submits must not take this write for its own result."""
        (task_id,) = sandbox.seed_tasks(1)
        run.try_once(anywhere(task_ids=[task_id], model_name="m"))
        submit = RedBrickPrelabelOperator(task_id="s", stage_name="Label", labeler=predict, task_ids=[task_id])
        assert run.try_once(submit)["counts"] == counts(done=1)

    @pytest.mark.parametrize("write", ["submit", "draft", "draft_and_release"])
    def test_model_name_with_other_write_is_refused(self, sandbox, run, write):
        operator = RedBrickPrelabelOperator(
            task_id="p", stage_name="Label", labeler=predict, write=write, model_version="1"
        )
        with pytest.raises(RedBrickInputError, match="model_name and model_version need write='anywhere'"):
            run.try_once(operator)
        assert sandbox.stats()["requests"] == 0

    @pytest.mark.parametrize("name", ["", " ", 5])
    def test_blank_model_name_is_refused(self, sandbox, run, name):
        with pytest.raises(RedBrickInputError, match="model_name must "):
            run.try_once(anywhere(stage_name="Label", model_name=name))
        assert sandbox.stats()["requests"] == 0

    def test_model_name_and_version_are_templates(self):
        assert {"model_name", "model_version", "task_ids", "stage_name"} <= set(
            RedBrickPrelabelOperator.template_fields
        )


class TestRetry:
    def test_retries_after_faults_write_once(self, sandbox, core_fault, finish):
        ids = sandbox.seed_tasks(30)
        core_fault(PUT)
        manifests = finish(lambda: anywhere(task_ids=ids))
        assert sum(manifests[-1]["counts"].values()) == 30
        assert sandbox.applied(PUT) == dict.fromkeys(ids, 1)

    def test_retry_after_kill_writes_the_rest(self, sandbox, killed_attempt, finish):
        ids = sandbox.seed_tasks(30)
        killed_attempt(anywhere(task_ids=ids), after_change=10)
        assert len(sandbox.applied(PUT)) >= 10
        finish(lambda: anywhere(task_ids=ids))
        assert sandbox.applied(PUT) == dict.fromkeys(ids, 1)


class TestInput:
    def test_anywhere_without_stage_and_ids_is_refused(self, sandbox, run):
        with pytest.raises(RedBrickInputError, match="stage_name must not be empty"):
            run.try_once(anywhere())
        with pytest.raises(RedBrickInputError, match="stage_name must not be empty"):
            run.try_once(RedBrickPrelabelOperator(task_id="p", labeler=predict))

    def test_anywhere_refuses_invalid_labels(self, sandbox, run):
        ids = sandbox.seed_tasks(2)
        bad = [{"boundingBoxes": [{**BOX, "category": "fnding"}]}]
        with pytest.raises(RedBrickTasksFailedError, match="did you mean 'finding'"):
            run.try_once(anywhere(lambda task: bad if task.task_id == ids[0] else predict(task), task_ids=ids))
        assert sandbox.applied(PUT) == {ids[1]: 1}
