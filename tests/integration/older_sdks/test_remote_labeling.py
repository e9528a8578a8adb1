"""Remote labeling with a model: calls of the first SDK generation, in the order of its guide."""

from __future__ import annotations

import pytest

from airflow_provider_redbrick.hooks.redbrick import RedBrickHook
from airflow_provider_redbrick.labels.legacy import (
    image_bounding_boxes,
    image_classification,
    video_bounding_boxes,
    video_classification,
)
from airflow_provider_redbrick.operators.prelabel import RedBrickPrelabelOperator

ROOT_TO_LEAF = [["object", "finding"]]
BOX = {"xnorm": 0.1, "ynorm": 0.2, "wnorm": 0.3, "hnorm": 0.4}


@pytest.fixture
def remote_labeling(hook, sandbox):
    return hook.stage("Label", org_id=sandbox.org_id, project_id=sandbox.project_id)


def stored(sandbox, task_id):
    """Return the stage of a task, and its labels without the fields that the server adds."""
    task = sandbox.task(task_id)
    return task["stage"], [{k: v for k, v in label.items() if k != "volumeindex"} for label in task["labels"]]


def test_redbrick_init(hook, sandbox):
    works, words = hook.test_connection()
    assert works
    assert (
        words == "Connected to RedBrick as API:0a9c6e10-5b1d-4c8e-9f00-0000000000a0, organization 'Sandbox Hospital'."
    )


def test_remote_label(sandbox):
    sandbox.seed_tasks(2)
    remote_labeling = RedBrickHook().stage("Label", org_id=sandbox.org_id, project_id=sandbox.project_id)
    assert remote_labeling.count() == 2


def test_get_task(remote_labeling, sandbox, holders):
    first, second = sandbox.seed_tasks(2)
    tasks = remote_labeling.claim(1)
    assert [task.task_id for task in tasks] == [first]
    assert (tasks[0].name, len(tasks[0].items), len(tasks[0].item_urls)) == ("task-000001", 1, 1)
    # The task is now claimed. In the older API two programs could get the same task.
    assert holders("Label")[first].startswith("API:")
    assert holders("Label")[second] is None


def test_submit_task_image_bounding_box(remote_labeling, sandbox):
    sandbox.seed_tasks(1)
    labels = [{"category": ROOT_TO_LEAF, "bbox2d": BOX, "attributes": [{"name": "score", "value": 0.9}]}]
    tasks = remote_labeling.claim(1)
    image_bbox = image_bounding_boxes(labels)
    remote_labeling.submit({tasks[0].task_id: image_bbox})
    box = {"category": "finding", "bbox2d": BOX, "attributes": [{"name": "score", "value": 0.9}]}
    assert stored(sandbox, tasks[0].task_id) == ("Review_1", [box])


def test_submit_task_video_bounding_box(remote_labeling, sandbox):
    sandbox.seed_tasks(1)
    labels = [
        {"category": ROOT_TO_LEAF, "bbox2d": BOX, "frameindex": 3, "trackid": "one", "end": False},
        {"category": ROOT_TO_LEAF, "bbox2d": BOX, "frameindex": 9, "trackid": "one", "keyframe": True},
    ]
    (task,) = remote_labeling.claim(1)
    remote_labeling.submit({task.task_id: video_bounding_boxes(labels)})
    track = {"category": "finding", "bbox2d": BOX, "attributes": [], "trackid": "one", "keyframe": True}
    boxes = [{**track, "frameindex": 3, "end": False}, {**track, "frameindex": 9, "end": True}]
    assert stored(sandbox, task.task_id) == ("Review_1", boxes)


def test_submit_task_image_classify(remote_labeling, sandbox):
    sandbox.seed_tasks(1)
    (task,) = remote_labeling.claim(1)
    labels = image_classification([{"category": [["object", "now"]]}], attribute="urgency")
    remote_labeling.submit({task.task_id: labels})
    classification = {"studyclassify": True, "attributes": [{"name": "urgency", "value": "now"}]}
    assert stored(sandbox, task.task_id) == ("Review_1", [classification])


def test_submit_task_video_classify(remote_labeling, sandbox):
    sandbox.seed_tasks(1)
    (task,) = remote_labeling.claim(1)
    # A path of two names sets an attribute with several values.
    path = [["object", "lung", "heart"]]
    labels = [{"category": path, "frameclassify": True, "frameindex": frame} for frame in (2, 5)]
    remote_labeling.submit({task.task_id: video_classification(labels, attribute="visible")})
    said = {"instanceclassify": True, "attributes": [{"name": "visible", "value": ["lung", "heart"]}]}
    assert stored(sandbox, task.task_id) == ("Review_1", [{**said, "frameindex": 2}, {**said, "frameindex": 5}])


def test_get_num_tasks(remote_labeling, sandbox):
    sandbox.seed_tasks(3)
    assert remote_labeling.count() == 3
    (task,) = remote_labeling.claim(1)
    assert remote_labeling.count() == 3
    remote_labeling.submit({task.task_id: {"series": []}})
    assert remote_labeling.count() == 2


def test_the_whole_document(run, sandbox):
    """Retrieve, label and submit all tasks with one operator."""
    ids = sandbox.seed_tasks(30)

    def model(task):
        return image_bounding_boxes([{"category": ROOT_TO_LEAF, "bbox2d": BOX}])

    manifest = run.try_once(RedBrickPrelabelOperator(task_id="model", stage_name="Label", labeler=model))
    assert manifest["counts"]["done"] == 30
    assert {sandbox.stage_of(task_id) for task_id in ids} == {"Review_1"}
