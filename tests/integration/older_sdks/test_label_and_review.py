"""Label, review and share a queue: calls of the second SDK generation, in the order of its guide."""

from __future__ import annotations

import pytest
from label_samples import BOX

from airflow_provider_redbrick.hooks.redbrick import RedBrickHook
from airflow_provider_redbrick.operators.auto_review import RedBrickAutoReviewOperator
from airflow_provider_redbrick.operators.balance_assignments import RedBrickBalanceAssignmentsOperator
from airflow_provider_redbrick.operators.put_labels import RedBrickPutLabelsOperator

ALICE, BOB, CAROL = "alice@example.com", "bob@example.com", "carol@example.com"
# A label in the stored format, which this generation reads and writes.
FLAT = {"category": "finding", "attributes": [], "bbox2d": {"xnorm": 0.1, "ynorm": 0.2, "wnorm": 0.3, "hnorm": 0.4}}


@pytest.fixture
def labeling(hook):
    return hook.stage("Label")


@pytest.fixture
def review(hook):
    return hook.stage("Review_1")


# ---------------------------------------------------------------- programmatically label


def test_get_project(sandbox):
    project = RedBrickHook().project(sandbox.project_id, org_id=sandbox.org_id)
    assert project.info.name == "Sandbox Demo"
    assert [stage.name for stage in project.info.workflow.stages] == sandbox.stages


def test_labeling_get_tasks(labeling, sandbox, holders):
    ids = sandbox.seed_tasks(2, labels=[FLAT])
    tasks = labeling.claim(1)
    assert [(task.task_id, task.name) for task in tasks] == [(ids[0], "task-000001")]
    assert (len(tasks[0].items), len(tasks[0].item_urls)) == (1, 1)
    # The labels are available in the current format and in the stored format.
    assert tasks[0].series == ({"boundingBoxes": [BOX]},)
    assert tasks[0].labels[0]["bbox2d"] == FLAT["bbox2d"]
    assert [owner is None for owner in holders("Label").values()] == [False, True]


def test_labeling_put_tasks(sandbox, run):
    ids = sandbox.seed_tasks(2)
    tasks_labeled = [{"taskId": task_id, "labels": [FLAT]} for task_id in ids]
    put = RedBrickPutLabelsOperator(task_id="put_tasks", stage_name="Label", tasks=tasks_labeled)
    assert run.try_once(put)["counts"]["done"] == 2
    for task_id in ids:
        task = sandbox.task(task_id)
        assert (task["stage"], task["labels"]) == ("Review_1", [FLAT])


def test_labeling_put_tasks_in_python(labeling, sandbox):
    ids = sandbox.seed_tasks(2)
    labeling.submit({task.task_id: {"labels": [FLAT]} for task in labeling.claim(2)})
    assert [sandbox.stage_of(task_id) for task_id in ids] == ["Review_1", "Review_1"]


# ---------------------------------------------------------------- programmatically review


def test_review_get_tasks(review, sandbox, holders):
    ids = sandbox.seed_tasks(2, stage="Review_1", labels=[FLAT])
    (task,) = review.claim(1)
    assert (task.task_id, task.series) == (ids[0], ({"boundingBoxes": [BOX]},))
    assert [owner is None for owner in holders("Review_1").values()] == [False, True]


def test_review_put_tasks(sandbox, run):
    accepted, rejected = sandbox.seed_tasks(2, stage="Review_1")
    tasks_reviewed = [{"taskId": accepted, "reviewVal": True}, {"taskId": rejected, "reviewVal": False}]
    review = RedBrickAutoReviewOperator(task_id="put_tasks", stage_name="Review_1", reviews=tasks_reviewed)
    assert run.try_once(review)["counts"]["done"] == 2
    assert (sandbox.stage_of(accepted), sandbox.stage_of(rejected)) == ("END", "Label")


def test_review_put_tasks_in_python(review, sandbox):
    accepted, rejected = sandbox.seed_tasks(2, stage="Review_1")
    review.claim(2)
    review.accept([accepted])
    review.reject([rejected], comment="The box is too large.")
    assert (sandbox.stage_of(accepted), sandbox.stage_of(rejected)) == ("END", "Label")


# ---------------------------------------------------------------- assign tasks to labelers or reviewers


def test_get_task_queue(labeling, sandbox):
    free, bobs = sandbox.seed_tasks(2), sandbox.seed_tasks(1, assignee=BOB)
    tasks = list(labeling.tasks())
    assigned = [task for task in tasks if task.assignee]
    unassigned = [task for task in tasks if task.assignee is None]
    assert [(task.task_id, task.assignee.email) for task in assigned] == [(bobs[0], BOB)]
    assert [task.task_id for task in unassigned] == free
    # The server makes the same distinction.
    assert list(labeling.tasks(unassigned=True)) == unassigned
    assert list(labeling.tasks(assignee=BOB)) == assigned


def test_assign_task(labeling, sandbox, holders):
    first, second = sandbox.seed_tasks(2)
    labeling.assign([first], BOB)
    assert holders("Label") == {first: BOB, second: None}


def test_split_unassigned_tasks_evenly(sandbox, run, holders):
    """Replace the guide's loop, one request per task, with an operator: one request per 50 tasks of a person."""
    sandbox.seed_tasks(30)
    share = RedBrickBalanceAssignmentsOperator(task_id="share", stage_name="Label", emails=[ALICE, BOB, CAROL])
    assert run.try_once(share)["counts"]["done"] == 30
    owners = list(holders("Label").values())
    assert {owner: owners.count(owner) for owner in owners} == {ALICE: 10, BOB: 10, CAROL: 10}
    assert sandbox.stats()["root_fields"]["assignTasksMultipleUsers"] == 3


def test_split_unassigned_tasks_evenly_by_hand(labeling, sandbox, holders):
    """Run the same loop in Python, for custom rules."""
    sandbox.seed_tasks(5)
    unassigned = [task.task_id for task in labeling.tasks(unassigned=True)]
    labelers = [ALICE, BOB]
    for place, email in enumerate(labelers):
        labeling.assign(unassigned[place :: len(labelers)], email)
    assert list(holders("Label").values()) == [ALICE, BOB, ALICE, BOB, ALICE]


def test_assign_reviewers(sandbox, run, holders):
    sandbox.seed_tasks(6, stage="Review_1")
    share = RedBrickBalanceAssignmentsOperator(task_id="share", stage_name="Review_1", emails=[BOB, CAROL])
    assert run.try_once(share)["counts"]["done"] == 6
    owners = list(holders("Review_1").values())
    assert {owner: owners.count(owner) for owner in owners} == {BOB: 3, CAROL: 3}
