"""Test a remote-labeling stage with the GraphQL documents of the API's first generation."""

from __future__ import annotations

import json
import sqlite3
import time
from types import SimpleNamespace

import pytest
from sandbox_calls import ASSIGN, BOX, LIST, MOVE, PAGED, PUT, REOPEN, REVIEW, ask, data, error, post
from sandbox_process import SandboxError, SandboxProcess

SCOPE = "$orgId: UUID!, $projectId: UUID!, $stageName: String!"
PLACE = "orgId: $orgId, projectId: $projectId, stageName: $stageName"
STAGE = (
    f"""query ({SCOPE}) {{ stage({PLACE}) {{ inputType, outputType, outputTaxonomyName, outputTaxonomyVersion }} }}"""
)
STAT = f"query ({SCOPE}) {{ stageStat({PLACE}) {{ currentTaskCount }} }}"
TREE = """name, version, categories { name, children { name, classId, children { name, classId,
    children { name, classId } } } }"""
TAXONOMY = f"""query ($orgId: UUID!, $name: String!, $version: Int!) {{
    taxonomy(orgId: $orgId, name: $name, version: $version) {{ {TREE} }} }}"""
TASKS = f"""query ({SCOPE}, $numTasks: Int!) {{ tasksToLabelRemote({PLACE}, numTasks: $numTasks) {{
    stageName, taskId, subName, modelName, createdAt, dpId, taxonomy {{ {TREE} }}
    datapoint {{ items(presigned: false), itemsPresigned, name }} }} }}"""
PUT_LABELS = """mutation ($orgId: UUID!, $dpId: UUID!, $projectId: UUID!, $stageName: String!, $subName: String!,
        $labels: [LabelInput]!, $taxonomyName: String!, $taxonomyVersion: Int!, $tdType: TaskDataType!) {
    putLabels(orgId: $orgId, dpId: $dpId, projectId: $projectId, stageName: $stageName, subName: $subName,
        labels: $labels, taxonomyName: $taxonomyName, taxonomyVersion: $taxonomyVersion, tdType: $tdType) { ok } }"""
FINISH = """mutation ($finishedTask: RemoteLabelingTaskInput!) {
    putRemoteLabelingTask(finishedTask: $finishedTask) { ok } }"""
EITHER = """mutation ($o: UUID!, $p: UUID!, $t: UUID, $dp: UUID, $data: String, $labels: [LabelInput], $s: String) {
    putLabels(orgId: $o, projectId: $p, taskId: $t, dpId: $dp, labelsData: $data, labels: $labels, stageName: $s,
        subName: $s, taxonomyName: $s, taxonomyVersion: 1) { ok } }"""
TODAY = """mutation ($o: UUID!, $p: UUID!, $t: UUID!, $data: String, $finalize: Boolean) {
    putLabels(orgId: $o, projectId: $p, taskId: $t, labelsData: $data, finalize: $finalize) { ok message } }"""
WORK = """query ($o: UUID!, $p: UUID!, $t: UUID!) { task(orgId: $o, projectId: $p, taskId: $t) {
    dpId currentStageSubTask { __typename }
    genericEvents { __typename ... on TaskEvent { updatedBy createEvent { currentStageName }
        inputEvent { currentStageName } outputEvent { currentStageName outputBool nextStageName }
        taskData { tdId } } } } }"""

REMOTE = "Model_Predict"
UNKNOWN_ID = "00000000-0000-4000-8000-00000000dead"
BRAINS = [
    {"stageName": "Input", "brickName": "labelset-input", "routing": {"nextStageName": REMOTE}},
    {"stageName": REMOTE, "brickName": "remote-labeling", "routing": {"nextStageName": "Label"}},
    {"stageName": "Label", "brickName": "manual-labeling", "routing": {"nextStageName": "Review_1"}},
    {"stageName": "Review_1", "brickName": "expert-review", "routing": {"passed": "Output", "failed": "Label"}},
    {"stageName": "Output", "brickName": "labelset-output", "routing": {"nextStageName": "END"}},
]
LABEL = {
    "category": [["object", "finding"]],
    "attributes": [{"name": "confirmed", "value": True}, {"name": "score", "value": 0.5}],
    "labelid": "0d3b8e0e-6c0f-4b0e-9d5e-3f3b6e9a7b11",
    "bbox2d": {"xnorm": 0.1, "ynorm": 0.2, "hnorm": 0.4, "wnorm": 0.3},
}


class Remote(SimpleNamespace):
    """A project with a remote-labeling stage, and the calls of a program of the first generation."""

    @property
    def scope(self):
        return {"orgId": self.sandbox.org_id, "projectId": self.project, "stageName": REMOTE}

    def seed(self, count=1, **options):
        return self.sandbox.seed_tasks(count, **{"project_id": self.project, "stage": REMOTE, **options})

    def task(self, task_id):
        return self.sandbox.task(task_id, project_id=self.project)

    def tasks(self, most=100):
        return data(self.sandbox, TASKS, **self.scope, numTasks=most)

    def waiting(self):
        return data(self.sandbox, STAT, **self.scope)["currentTaskCount"]

    def labels(self, task_id, labels=(LABEL,), **options):
        about = data(self.sandbox, STAGE, **self.scope)
        return {
            **self.scope,
            "dpId": data(self.sandbox, WORK, p=self.project, t=task_id)["dpId"],
            "subName": "remote-labeling",
            "labels": list(labels),
            "taxonomyName": about["outputTaxonomyName"],
            "taxonomyVersion": about["outputTaxonomyVersion"],
            "tdType": about["outputType"],
            **options,
        }

    def put(self, task_id, labels=(LABEL,), **options):
        return data(self.sandbox, PUT_LABELS, **self.labels(task_id, labels, **options))

    def finished(self, task_id, name="remote-labeling", **options):
        return {"finishedTask": {**self.scope, "taskId": task_id, "newSubName": name, **options}}

    def finish(self, task_id, name="remote-labeling"):
        return data(self.sandbox, FINISH, **self.finished(task_id, name))


@pytest.fixture
def remote(sandbox):
    return Remote(sandbox=sandbox, project=sandbox.add_project(BRAINS))


def leaves(nodes, above=()):
    for node in nodes:
        path = [*above, node["name"]]
        if node.get("children"):
            yield from leaves(node["children"], path)
        else:
            yield path


def test_program_labels_waiting_tasks(sandbox, remote):
    ids = remote.seed(3)
    about = data(sandbox, STAGE, **remote.scope)
    assert (about["inputType"], about["outputType"]) == ("IMAGE", "IMAGE_BBOX")
    assert remote.waiting() == 3
    first = remote.tasks(2)
    assert [task["taskId"] for task in first] == ids[:2]
    task = first[0]
    assert (task["stageName"], task["subName"]) == (REMOTE, None)
    assert task["datapoint"]["name"] == remote.task(ids[0])["name"]
    assert task["datapoint"]["items"] == [f"items/{task['datapoint']['name']}.dcm"]
    assert [url.startswith(sandbox.url) for url in task["datapoint"]["itemsPresigned"]] == [True]
    named = {"name": task["taxonomy"]["name"], "version": task["taxonomy"]["version"]}
    assert named == {"name": about["outputTaxonomyName"], "version": about["outputTaxonomyVersion"]}

    assert remote.put(ids[0], dpId=task["dpId"]) == {"ok": True}
    assert remote.task(ids[0])["stage"] == REMOTE
    assert remote.finish(ids[0]) == {"ok": True}

    found = remote.task(ids[0])
    assert (found["stage"], found["state"], found["owner"]) == ("Label", "UNASSIGNED", None)
    assert found["labels"] == [LABEL]
    assert found["latestTaskData"]["createdBy"].startswith("API:")
    assert remote.waiting() == 2
    assert sandbox.stats()["applied"] == {ids[0]: {"putLabels": 1, "putRemoteLabelingTask": 1}}


def test_audit_trail_of_completed_task(sandbox, remote):
    (task_id,) = remote.seed()
    remote.put(task_id)
    remote.finish(task_id)
    events = data(sandbox, WORK, p=remote.project, t=task_id)["genericEvents"]
    assert {event["__typename"] for event in events} == {"TaskEvent"}
    kinds = [next(key for key in ("createEvent", "inputEvent", "outputEvent") if event[key]) for event in events]
    places = [event[kind]["currentStageName"] for event, kind in zip(events, kinds, strict=True)]
    assert list(zip(kinds, places, strict=True)) == [
        ("createEvent", "Input"),
        ("inputEvent", REMOTE),
        ("outputEvent", REMOTE),
        ("inputEvent", "Label"),
    ]
    left = events[2]
    assert left["outputEvent"] == {"currentStageName": REMOTE, "outputBool": None, "nextStageName": None}
    assert left["updatedBy"].startswith("API:")
    assert left["taskData"]["tdId"] == remote.task(task_id)["latestTaskData"]["tdId"]
    done = data(sandbox, LIST, p=remote.project, s=REMOTE, m={"recentlyCompleted": True})["entries"]
    assert [entry["taskId"] for entry in done] == [task_id]


def test_taxonomy_is_of_first_generation(sandbox, remote):
    about = data(sandbox, STAGE, **remote.scope)
    name, version = about["outputTaxonomyName"], about["outputTaxonomyVersion"]
    tree = data(sandbox, TAXONOMY, orgId=sandbox.org_id, name=name, version=version)
    (root,) = tree["categories"]
    assert root["name"] == "object"
    paths = list(leaves(tree["categories"]))
    assert ["object", "finding"] in paths
    assert max(map(len, paths)) == 3

    kinds = "query ($o: UUID!, $name: String) { taxonomy(orgId: $o, name: $name) { isNew objectTypes { category } } }"
    today = data(sandbox, kinds)
    assert today["isNew"] is True
    assert {path[-1] for path in paths} == {each["category"] for each in today["objectTypes"]}
    assert data(sandbox, kinds, name=name) == {"isNew": False, "objectTypes": None}
    assert data(sandbox, TAXONOMY, orgId=sandbox.org_id, name=name, version=version + 1) is None


def test_reading_tasks_does_not_assign_them(sandbox, remote):
    late = remote.seed(2)
    first = remote.seed(1, priority=0.9)
    assert [task["taskId"] for task in remote.tasks()] == [*first, *late]
    assert remote.tasks() == remote.tasks()
    assert remote.tasks(0) == []
    assert "-1" in error(sandbox, TASKS, **remote.scope, numTasks=-1)
    assert "at most 500" in error(sandbox, TASKS, **remote.scope, numTasks=501)
    assert sandbox.stats()["applied"] == {}


def test_tasks_in_remote_stage_have_no_assignee(sandbox, remote):
    ids = remote.seed(2)
    assert data(sandbox, WORK, p=remote.project, t=ids[0])["currentStageSubTask"] is None
    listed = data(sandbox, LIST, p=remote.project, s=REMOTE)["entries"]
    assert [entry["taskId"] for entry in listed] == ids
    assert {entry["currentStageName"] for entry in listed} == {REMOTE}
    paged = data(sandbox, PAGED, p=remote.project, s=REMOTE)
    assert (paged["count"], [entry["taskId"] for entry in paged["entries"]]) == (2, ids)
    board = sandbox.control(f"board?project_id={remote.project}")
    column = next(stage for stage in board["stages"] if stage["name"] == REMOTE)
    assert (column["kind"], column["count"], len(column["cards"])) == ("remote-labeling", 2, 2)


def test_new_tasks_arrive_in_remote_stage(sandbox, remote):
    create = """mutation ($o: UUID!, $p: UUID!, $s: UUID!) { createDatapoint(orgId: $o, projectId: $p, name: "new",
        storageId: $s, items: ["a.png"], isGroundTruth: false) { taskId } }"""
    task_id = data(sandbox, create, p=remote.project, s="22222222-2222-2222-2222-222222222222")["taskId"]
    assert [task["taskId"] for task in remote.tasks()] == [task_id]


def test_completed_task_is_in_transition(sandbox, remote):
    (task_id,) = remote.seed()
    remote.put(task_id)
    sandbox.settings(transition_ms=300)
    remote.finish(task_id)
    assert remote.task(task_id)["stage"] == REMOTE
    assert (remote.waiting(), remote.tasks()) == (0, [])
    assert sandbox.count(REMOTE, project_id=remote.project) == 1
    assert "already been completed" in error(sandbox, FINISH, **remote.finished(task_id))
    assert "already been completed" in error(sandbox, PUT_LABELS, **remote.labels(task_id))
    time.sleep(0.35)
    assert remote.task(task_id)["stage"] == "Label"


# -- labels --------------------------------------------------------------------------------------------


def test_labels_with_same_sub_name_replace_each_other(remote):
    (task_id,) = remote.seed()
    other = {**LABEL, "category": [["object", "anatomy", "organ"]]}
    remote.put(task_id, [LABEL])
    remote.put(task_id, [LABEL, other])
    remote.put(task_id, [other], subName="second model")
    assert remote.tasks()[0]["subName"] == "second model"
    remote.finish(task_id)
    assert remote.task(task_id)["labels"] == [LABEL, other]


def test_empty_labels_are_accepted(remote):
    (task_id,) = remote.seed()
    remote.put(task_id, [])
    remote.finish(task_id)
    found = remote.task(task_id)
    assert (found["stage"], found["labels"], found["latestTaskData"]["stageName"]) == ("Label", [], REMOTE)


def test_all_label_keys_are_kept(remote):
    (task_id,) = remote.seed()
    point = {"xnorm": 0.25, "ynorm": 0.5}
    label = {
        **LABEL,
        "frameindex": 3,
        "trackid": "track",
        "keyframe": True,
        "end": False,
        "ocrvalue": "L",
        "taskclassify": True,
        "tasklevelclassify": True,
        "multiclassify": True,
        "frameclassify": True,
        "point": point,
        "polyline": [point, point],
        "polygon": [point, point, point],
        "pixel": {"imagesize": [4, 4], "regions": [[[0.0, 0.5]]], "holes": None},
        "ellipse": {"xcenternorm": 0.5, "ycenternorm": 0.5, "xnorm": 0.1, "ynorm": 0.2, "rot": 0.0},
    }
    remote.put(task_id, [{**label, "ocrvalue": None}, label])
    kept = remote.task(task_id)["labels"]
    assert kept == [{key: value for key, value in label.items() if key != "ocrvalue"}, label]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"labels": [{**LABEL, "category": [["object", "dragon"]]}]}, "labels[0].category: ['object', 'dragon']"),
        ({"labels": [LABEL, {**LABEL, "category": [["finding"]]}]}, "labels[1].category: ['finding']"),
        ({"labels": [{**LABEL, "category": [["object", "anatomy"]]}]}, "not a path from the root to a leaf"),
        ({"labels": [{**LABEL, "category": [["object", "finding"], ["object"]]}]}, "labels[0].category: ['object']"),
        ({"labels": [{**LABEL, "category": []}]}, "labels[0] has no category"),
        ({"labels": [None]}, "labels[0] has no category"),
        ({"taxonomyName": "Sandbox Taxonomy"}, "not by taxonomy 'Sandbox Taxonomy' version 1"),
        ({"taxonomyVersion": 2}, "version 2"),
        ({"tdType": "VIDEO_BBOX"}, "makes IMAGE_BBOX labels, not VIDEO_BBOX"),
        ({"subName": " "}, "subName"),
        ({"dpId": UNKNOWN_ID}, UNKNOWN_ID),
    ],
)
def test_labels_not_matching_the_stage_are_refused(sandbox, remote, options, words):
    (task_id,) = remote.seed()
    before = remote.task(task_id)
    assert words in error(sandbox, PUT_LABELS, **remote.labels(task_id, **options))
    assert remote.task(task_id) == before
    assert sandbox.stats()["applied"] == {}


@pytest.mark.parametrize("label", [{**LABEL, "colour": "red"}, {**LABEL, "bbox2d": {"xnorm": 0.1}}, {"labelid": "x"}])
def test_labels_of_wrong_type_are_refused(sandbox, remote, label):
    (task_id,) = remote.seed()
    body = json.dumps({"query": PUT_LABELS, "variables": remote.labels(task_id, [label])})
    assert post(sandbox, body, ApiKey=sandbox.api_key).status_code == 400


def test_stage_with_video_output(sandbox):
    stages = [{**each, "stageConfig": {"outputType": "VIDEO_BBOX"}} for each in BRAINS]
    remote = Remote(sandbox=sandbox, project=sandbox.add_project(stages))
    assert data(sandbox, STAGE, **remote.scope)["outputType"] == "VIDEO_BBOX"
    (task_id,) = remote.seed()
    assert "makes VIDEO_BBOX labels" in error(sandbox, PUT_LABELS, **remote.labels(task_id, tdType="IMAGE_BBOX"))
    label = {**LABEL, "frameindex": 7, "trackid": "t", "keyframe": True, "end": True}
    remote.put(task_id, [label])
    assert remote.task(task_id)["labels"] == [label]


# -- what is refused -----------------------------------------------------------------------------------


def test_task_is_completed_once_and_only_with_labels(sandbox, remote):
    (task_id,) = remote.seed()
    assert f"{task_id} under 'remote-labeling'" in error(sandbox, FINISH, **remote.finished(task_id))
    remote.put(task_id, subName="other")
    assert "under 'remote-labeling'" in error(sandbox, FINISH, **remote.finished(task_id))
    remote.finish(task_id, "other")
    assert f"{task_id} is in stage 'Label'" in error(sandbox, FINISH, **remote.finished(task_id, "other"))
    assert "is in stage 'Label'" in error(sandbox, PUT_LABELS, **remote.labels(task_id))
    assert UNKNOWN_ID in error(sandbox, FINISH, **remote.finished(UNKNOWN_ID))
    assert sandbox.applied("putRemoteLabelingTask") == {task_id: 1}


@pytest.mark.parametrize(
    ("stage", "words"),
    [("Label", "not a remote-labeling stage but manual-labeling"), ("Nowhere", f"the project has 'Input', '{REMOTE}'")],
)
def test_old_fields_are_refused_in_other_stages(sandbox, remote, stage, words):
    (task_id,) = remote.seed(stage="Label")
    scope = {**remote.scope, "stageName": stage}
    for document in (STAGE, STAT, TASKS):
        assert words in error(sandbox, document, **scope, numTasks=1)
    assert words in error(sandbox, PUT_LABELS, **remote.labels(task_id, stageName=stage))
    assert words in error(sandbox, FINISH, **remote.finished(task_id, stageName=stage))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, ["needs a taskId", "dpId and labels"]),
        ({"dp": UNKNOWN_ID}, ["older form", "needs stageName, subName, labels, taxonomyName, tdType"]),
        ({"t": UNKNOWN_ID, "s": REMOTE}, ["needs dpId, labels, tdType", "does not take taskId"]),
        ({"t": UNKNOWN_ID, "labels": []}, ["does not take taskId"]),
        ({"dp": UNKNOWN_ID, "labels": [], "s": REMOTE, "data": "[]"}, ["needs tdType", "does not take labelsData"]),
    ],
)
def test_put_labels_refuses_mixed_forms(sandbox, given, words):
    document = EITHER if given else EITHER.replace("taxonomyVersion: 1", "taxonomyVersion: null")
    said = error(sandbox, document, **given)
    assert all(each in said for each in words), said


def test_current_mutations_are_refused_in_remote_stage(sandbox, remote):
    (task_id,) = remote.seed()
    before = remote.task(task_id)
    here = {"p": remote.project, "t": task_id, "s": REMOTE}
    assert "is not a label or review stage" in error(sandbox, PUT, **here, f=True, l=json.dumps([BOX]))
    assert "is not a label or review stage" in error(sandbox, PUT, **here, f=False, l=json.dumps([BOX]))
    assert "is not a label or review stage" in error(sandbox, REVIEW, **here, v=True)
    assert data(sandbox, ASSIGN, p=remote.project, ids=[task_id], me=True) == []
    assert data(sandbox, ASSIGN, p=remote.project, ids=[task_id], emails=["bob@example.com"], me=False) == []
    for refused in (
        lambda: sandbox.humans(REMOTE, project_id=remote.project),
        lambda: remote.seed(assignee="API key"),
    ):
        with pytest.raises(SandboxError, match=REMOTE):
            refused()
    assert remote.task(task_id) == before


def test_current_put_labels_works_in_remote_stage(remote, sandbox):
    (task_id,) = remote.seed()
    for finalize in (False, True):
        assert data(sandbox, TODAY, p=remote.project, t=task_id, data=json.dumps([BOX]), finalize=finalize)["ok"]
        assert (remote.task(task_id)["stage"], remote.task(task_id)["labels"]) == (REMOTE, [BOX])
    assert "under 'remote-labeling'" in error(sandbox, FINISH, **remote.finished(task_id))


# -- other ways ----------------------------------------------------------------------------------------


def test_move_tasks_to_remote_stage(sandbox, remote):
    (task_id,) = remote.seed(stage="Label", labels=[BOX])
    data(sandbox, MOVE, p=remote.project, ids=[task_id], s=REMOTE)
    assert (remote.waiting(), remote.task(task_id)["labels"]) == (1, [BOX])
    remote.put(task_id)
    remote.finish(task_id)
    assert (remote.task(task_id)["stage"], remote.task(task_id)["labels"]) == ("Label", [LABEL])


def test_project_with_only_remote_stage(sandbox):
    stages = [
        BRAINS[0],
        {"stageName": REMOTE, "brickName": "remote-labeling", "routing": {"nextStageName": "Output"}},
        BRAINS[-1],
    ]
    remote = Remote(sandbox=sandbox, project=sandbox.add_project(stages))
    (task_id,) = remote.seed()
    remote.put(task_id)
    remote.finish(task_id)
    assert (remote.task(task_id)["stage"], remote.task(task_id)["labels"]) == ("END", [LABEL])
    data(sandbox, REOPEN, p=remote.project, t=task_id)
    assert remote.task(task_id)["stage"] == REMOTE


def test_database_without_sub_name_column_is_migrated(tmp_path):
    path = tmp_path / "sandbox.sqlite"
    with SandboxProcess(db=str(path)) as sandbox:
        (old,) = sandbox.seed_tasks(1, labels=[BOX])
    with sqlite3.connect(path) as database:
        database.execute("ALTER TABLE versions DROP COLUMN sub_name")
    database.close()
    with SandboxProcess(db=str(path)) as sandbox:
        assert sandbox.task(old)["labels"] == [BOX]
        remote = Remote(sandbox=sandbox, project=sandbox.add_project(BRAINS))
        (task_id,) = remote.seed()
        remote.put(task_id)
        remote.finish(task_id)
        assert remote.task(task_id)["labels"] == [LABEL]


def test_faults_apply_to_old_fields(sandbox, remote):
    (task_id,) = remote.seed()
    remote.put(task_id)
    sandbox.fault_once("not_ok", "putRemoteLabelingTask")
    assert ask(sandbox, FINISH, **remote.finished(task_id))["data"]["putRemoteLabelingTask"] == {"ok": False}
    assert remote.task(task_id)["stage"] == REMOTE
    assert remote.finish(task_id) == {"ok": True}
