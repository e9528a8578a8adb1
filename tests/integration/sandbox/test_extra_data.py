"""Test the extraData of `putLabels` in the audit trail, which names the model that made the labels."""

from __future__ import annotations

import json

import pytest
from sandbox_calls import ASSIGN, BOX, MOVE, data, error

PUT_LABELS = """mutation ($o: UUID!, $p: UUID!, $t: UUID!, $data: String, $extra: JSONString, $finalize: Boolean,
        $ms: Int) {
    putLabels(orgId: $o, projectId: $p, taskId: $t, labelsData: $data, extraData: $extra, finalize: $finalize,
        timeSpentMs: $ms) { ok message } }"""
TRAIL = """query ($o: UUID!, $p: UUID!, $t: UUID!) { task(orgId: $o, projectId: $p, taskId: $t) {
    genericEvents { ... on TaskEvent { updatedBy taskData { tdId labelsData } outputEvent {
        currentStageName nextStageName outputBool timeSpentMs extraData } } } } }"""
MODEL = json.dumps({"model": "lungs", "version": "1.2"})
MOVED = {**BOX, "category": "nodule"}


def put(sandbox, task_id, extra=None, labels=(BOX,), **options):
    text = None if labels is None else json.dumps(list(labels))
    assert data(sandbox, PUT_LABELS, t=task_id, data=text, extra=extra, **options)["ok"] is True


def outputs(sandbox, task_id, **options):
    events = data(sandbox, TRAIL, t=task_id, **options)["genericEvents"]
    return [event for event in events if event.get("outputEvent")]


@pytest.mark.parametrize(
    "options",
    [{"assignee": "bob@example.com"}, {"stage": "Review_1"}, {"stage": "ARCHIVED"}],
    ids=["Label", "Review_1", "ARCHIVED"],
)
def test_write_without_move_records_current_stage(sandbox, options):
    (task_id,) = sandbox.seed_tasks(1, **options)
    known = len(outputs(sandbox, task_id))
    before = sandbox.task(task_id)
    put(sandbox, task_id, MODEL, ms=1500)
    put(sandbox, task_id, '"second"', [MOVED])
    found = sandbox.task(task_id)
    assert [found[key] for key in ("stage", "state", "owner")] == [before[key] for key in ("stage", "state", "owner")]
    first, second = outputs(sandbox, task_id)[known:]
    assert first["outputEvent"] == {
        "currentStageName": found["stage"],
        "nextStageName": found["stage"],
        "outputBool": None,
        "timeSpentMs": 1500,
        "extraData": MODEL,
    }
    assert first["updatedBy"].startswith("API:")
    assert json.loads(first["taskData"]["labelsData"]) == [BOX]
    assert second["taskData"]["tdId"] == found["latestTaskData"]["tdId"] != first["taskData"]["tdId"]
    assert second["outputEvent"]["extraData"] == '"second"'


@pytest.mark.parametrize("extra", [None, "null", " null "])
def test_write_in_queue_without_extra_data_is_not_recorded(sandbox, extra):
    (task_id,) = sandbox.seed_tasks(1)
    put(sandbox, task_id, extra)
    assert outputs(sandbox, task_id) == []
    assert sandbox.task(task_id)["labels"] == [BOX]


@pytest.mark.parametrize(("extra", "kept"), [(MODEL, MODEL), ("null", None)])
def test_write_in_ground_truth_is_recorded_as_output_of_end(sandbox, extra, kept):
    (task_id,) = sandbox.seed_tasks(1, ground_truth=True)
    known = len(outputs(sandbox, task_id))
    put(sandbox, task_id, extra, [MOVED])
    (edit,) = outputs(sandbox, task_id)[known:]
    wanted = {"currentStageName": "END", "nextStageName": None, "extraData": kept}
    assert {key: edit["outputEvent"][key] for key in wanted} == wanted
    assert edit["taskData"]["tdId"] == sandbox.task(task_id)["latestTaskData"]["tdId"]


@pytest.mark.parametrize(("stage", "verdict"), [("Label", None), ("Review_1", True)])
def test_finalize_records_extra_data_in_output_event(sandbox, stage, verdict):
    (task_id,) = sandbox.seed_tasks(1, stage=stage)
    known = len(outputs(sandbox, task_id))
    put(sandbox, task_id, MODEL, [MOVED], finalize=True, ms=20)
    assert sandbox.stage_of(task_id) != stage
    (left,) = outputs(sandbox, task_id)[known:]
    assert left["outputEvent"] == {
        "currentStageName": stage,
        "nextStageName": None,
        "outputBool": verdict,
        "timeSpentMs": 20,
        "extraData": MODEL,
    }
    assert json.loads(left["taskData"]["labelsData"]) == [MOVED]


def test_finalize_waits_for_other_assignees(sandbox):
    project = sandbox.add_project(consensus=True)
    (task_id,) = sandbox.seed_tasks(1, project_id=project)
    data(sandbox, ASSIGN, p=project, ids=[task_id], emails=["alice@example.com"], me=True)
    put(sandbox, task_id, MODEL, p=project, finalize=True)
    assert sandbox.stage_of(task_id, project_id=project) == "Label"
    (stayed,) = outputs(sandbox, task_id, p=project)
    assert (stayed["outputEvent"]["nextStageName"], stayed["outputEvent"]["extraData"]) == ("Label", MODEL)


def test_extra_data_without_labels(sandbox):
    (task_id,) = sandbox.seed_tasks(1, labels=[BOX])
    put(sandbox, task_id, MODEL, labels=None)
    (stayed,) = outputs(sandbox, task_id)
    assert (stayed["outputEvent"]["extraData"], json.loads(stayed["taskData"]["labelsData"])) == (MODEL, [BOX])


@pytest.mark.parametrize("extra", ["", "model=lungs", "{'model': 1}", {"model": "lungs"}])
def test_extra_data_must_be_json(sandbox, extra):
    (task_id,) = sandbox.seed_tasks(1, labels=[BOX])
    before = sandbox.task(task_id)
    assert "extraData is not JSON" in error(sandbox, PUT_LABELS, t=task_id, data="[]", extra=extra)
    assert sandbox.task(task_id) == before
    assert sandbox.stats()["applied"] == {}


def test_task_can_be_moved_after_write(sandbox):
    (task_id,) = sandbox.seed_tasks(1)
    put(sandbox, task_id, MODEL)
    data(sandbox, MOVE, ids=[task_id], s="Review_1")
    ways = [
        (each["outputEvent"]["currentStageName"], each["outputEvent"]["nextStageName"])
        for each in outputs(sandbox, task_id)
    ]
    assert ways == [("Label", "Label"), ("Label", "Review_1")]
