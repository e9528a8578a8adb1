"""Drafts, corrections and reopening: calls of the third SDK generation, in the order of its guide."""

from __future__ import annotations

import pytest
from label_samples import BOX

from airflow_provider_redbrick.exceptions import RedBrickTasksFailedError
from airflow_provider_redbrick.hooks.redbrick import RedBrickHook
from airflow_provider_redbrick.operators.auto_review import RedBrickAutoReviewOperator
from airflow_provider_redbrick.operators.put_labels import RedBrickPutLabelsOperator
from airflow_provider_redbrick.operators.reopen_ground_truth import RedBrickReopenGroundTruthOperator

SERIES = [{"boundingBoxes": [BOX]}]
FLAT_BOX = {"xnorm": 0.1, "ynorm": 0.2, "wnorm": 0.3, "hnorm": 0.4}


@pytest.fixture
def labeling(hook):
    return hook.stage("Label")


@pytest.fixture
def review(hook):
    return hook.stage("Review_1")


def boxes(task):
    return [label["bbox2d"] for label in task["labels"]]


# ---------------------------------------------------------------- getting tasks


def test_get_project(sandbox):
    project = RedBrickHook().project(sandbox.project_id, org_id=sandbox.org_id)
    assert project.info.name == "Sandbox Demo"


def test_tasks_must_be_assigned_to_your_api_key(labeling, sandbox, holders):
    """Claim tasks with the API, which the guide does in the web application."""
    ids = sandbox.seed_tasks(2)
    with pytest.raises(RedBrickTasksFailedError, match="not assigned to you"):
        RedBrickPutLabelsOperator(
            task_id="put", stage_name="Label", tasks=[{"taskId": ids[0], "series": SERIES}], claim=False
        ).execute({})
    assert [task.task_id for task in labeling.claim(2)] == ids
    assert all(owner.startswith("API:") for owner in holders("Label").values())


def test_search_tasks(labeling, sandbox):
    ids = sandbox.seed_tasks(12, prefix="study")
    assert [task.task_id for task in labeling.find("study-000003")] == [ids[2]]
    assert [task.task_id for task in labeling.find("study-00001", prefix=True)] == ids[9:]


def test_search_tasks_in_all_stages(hook, sandbox):
    (there,) = sandbox.seed_tasks(1, stage="Review_1", prefix="study")
    assert hook.project().find_by_name(["study-000001", "study"]) == {"study-000001": [there], "study": []}


def test_get_tasks(labeling, sandbox, assign_to_key):
    ids = sandbox.seed_tasks(3)
    assign_to_key(ids[1:])
    assert [task.task_id for task in labeling.mine()] == ids[1:]


# ---------------------------------------------------------------- programmatically label tasks


def test_labeling_put_tasks(sandbox, run, assign_to_key):
    ids = sandbox.seed_tasks(2)
    assign_to_key(ids)
    tasks = [{"taskId": task_id, "series": SERIES} for task_id in ids]
    put = RedBrickPutLabelsOperator(task_id="put_tasks", stage_name="Label", tasks=tasks)
    assert run.try_once(put)["counts"]["done"] == 2
    for task_id in ids:
        task = sandbox.task(task_id)
        assert (task["stage"], boxes(task)) == ("Review_1", [FLAT_BOX])


def test_labeling_put_tasks_in_python(labeling, sandbox, assign_to_key):
    (task_id,) = sandbox.seed_tasks(1)
    assign_to_key([task_id])
    labeling.submit({task_id: SERIES})
    assert (sandbox.stage_of(task_id), boxes(sandbox.task(task_id))) == ("Review_1", [FLAT_BOX])


def test_labeling_put_tasks_finalize_false(labeling, sandbox, run, assign_to_key):
    ids = sandbox.seed_tasks(2)
    assign_to_key(ids)
    tasks = [{"taskId": ids[0], "series": SERIES}]
    draft = RedBrickPutLabelsOperator(task_id="put_tasks", stage_name="Label", tasks=tasks, finalize=False)
    assert run.try_once(draft)["counts"]["done"] == 1
    labeling.save_draft({ids[1]: SERIES})
    for task_id in ids:
        task = sandbox.task(task_id)
        assert (task["stage"], task["state"], boxes(task)) == ("Label", "STAGED", [FLAT_BOX])
        assert task["owner"].startswith("API:")


# ---------------------------------------------------------------- programmatically review tasks


def test_review_put_tasks_review_result_true(review, sandbox, run, assign_to_key):
    ids = sandbox.seed_tasks(2, stage="Review_1")
    assign_to_key(ids)
    accept = RedBrickAutoReviewOperator(
        task_id="put_tasks", stage_name="Review_1", task_ids=ids[:1], review_result=True
    )
    assert run.try_once(accept)["counts"]["done"] == 1
    review.accept(ids[1:])
    assert {sandbox.stage_of(task_id) for task_id in ids} == {"END"}
    assert sandbox.applied("putExpertReviewTask") == dict.fromkeys(ids, 1)


def test_review_put_tasks_review_result_false(review, sandbox, run, assign_to_key):
    ids = sandbox.seed_tasks(2, stage="Review_1")
    assign_to_key(ids)
    reject = RedBrickAutoReviewOperator(
        task_id="put_tasks", stage_name="Review_1", task_ids=ids[:1], review_result=False, comment="Look again."
    )
    assert run.try_once(reject)["counts"]["done"] == 1
    review.reject(ids[1:], comment="Look again.")
    # Rejected tasks return to their labelers.
    assert {(sandbox.task(task_id)["stage"], sandbox.task(task_id)["state"]) for task_id in ids} == {
        ("Label", "ASSIGNED")
    }


def test_review_put_tasks_with_correction(review, sandbox, run, assign_to_key):
    ids = sandbox.seed_tasks(2, stage="Review_1")
    assign_to_key(ids)
    correct = RedBrickAutoReviewOperator(
        task_id="put_tasks", stage_name="Review_1", reviews=[{"taskId": ids[0], "series": SERIES}]
    )
    assert run.try_once(correct)["counts"]["done"] == 1
    review.correct({ids[1]: SERIES})
    for task_id in ids:
        task = sandbox.task(task_id)
        assert (task["stage"], boxes(task)) == ("END", [FLAT_BOX])
    # A correction uses another mutation than an acceptance.
    assert sandbox.applied("putExpertReviewTask") == {}


# ---------------------------------------------------------------- re-annotate ground truth tasks


def test_move_tasks_to_start(hook, sandbox, run):
    ids = sandbox.seed_tasks(3, ground_truth=True)
    reopen = RedBrickReopenGroundTruthOperator(task_id="move_tasks_to_start", task_ids=ids[:1])
    assert run.try_once(reopen)["counts"]["done"] == 1
    hook.reopen(ids[1:2])
    assert [sandbox.stage_of(task_id) for task_id in ids] == ["Label", "Label", "END"]
    assert boxes(sandbox.task(ids[0]))


def test_move_tasks_to_start_those_that_look_wrong(sandbox, new_run):
    """Export ground truth, filter it and reopen wrong tasks with one operator."""
    ids = sandbox.seed_tasks(3, ground_truth=True, updated_at="2024-05-01T12:00:00Z")
    days = {"data_interval_start": "2024-05-01T00:00:00Z", "data_interval_end": "2024-05-02T00:00:00Z"}
    reopen = RedBrickReopenGroundTruthOperator(task_id="reopen", selector=lambda task: task.task_id == ids[1])
    assert new_run(**days).try_once(reopen)["counts"]["done"] == 1
    assert [sandbox.stage_of(task_id) for task_id in ids] == ["END", "Label", "END"]


def test_move_tasks_to_start_does_not_work_for_tasks_in_review(hook, sandbox):
    (task_id,) = sandbox.seed_tasks(1, stage="Review_1")
    (outcome,) = hook.reopen([task_id]).values()
    assert (outcome.status.value, outcome.reason) == ("skipped", "it is in Review_1, not in Ground Truth")
    assert sandbox.stage_of(task_id) == "Review_1"
