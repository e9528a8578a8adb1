"""Test that files and tasks that clients upload can be read without loss."""

from __future__ import annotations

import gzip
import json

import pytest
import requests
from sandbox_calls import BOX, PRESIGN, data, error

REDBRICK = "22222222-2222-2222-2222-222222222222"
PUBLIC = "11111111-1111-1111-1111-111111111111"
UPLOAD_ITEMS = """query ($o: UUID!, $p: UUID!, $files: [String]!, $kinds: [String]!) {
    itemsUploadPresign(orgId: $o, projectId: $p, files: $files, fileType: $kinds) {
        items { presignedUrl filePath fileName } } }"""
SIGN = """query ($o: UUID!, $s: UUID!, $items: [String]!) { presignItems(orgId: $o, storageId: $s, items: $items) }"""
CREATE = """mutation ($o: UUID!, $p: UUID!, $items: [String!]!, $name: String!, $storage: UUID!, $data: String,
        $path: String, $map: [LabelMapInput], $series: [SeriesInfoInput!], $meta: String, $truth: Boolean!,
        $assign: String, $priority: Float, $attributes: JSONString) {
    createDatapoint(orgId: $o, projectId: $p, items: $items, name: $name, storageId: $storage, labelsData: $data,
        labelsDataPath: $path, labelsMap: $map, seriesInfo: $series, metaData: $meta, isGroundTruth: $truth,
        preAssign: $assign, priority: $priority, attributes: $attributes) { dpId taskId taskIds } }"""
EXPORT = """query ($o: UUID!, $p: UUID!, $s: String) { tasksPaged(orgId: $o, projectId: $p, stageName: $s, first: 50) {
    cursor entries { taskId dpId currentStageName priority
        currentStageSubTask { ... on LabelingTask { state assignedTo { email } } }
        datapoint { dpId name items(presigned: false) itemsPresigned: items(presigned: true) metaData attributes
            seriesInfo { name itemsIndices dataType metaData imageHeaders localToWorldTransform }
            heatMaps { name } transforms { seriesIndex } centerline { name }
            storageMethod { storageId } createdAt createdByEntity { userId } archived cohorts { name } }
        latestTaskData { tdId createdAt createdByEntity { userId } labelsData(interpolate: true)
            path: labelsDataPath(presigned: false) url: labelsDataPath(presigned: true)
            labelsStorage { storageId } labelsMap(presigned: false) { seriesIndex imageIndex labelName }
            masks: labelsMap(presigned: true) { seriesIndex labelName } } } } }"""
PUT_MASKS = """mutation ($o: UUID!, $p: UUID!, $t: UUID!, $s: String!, $data: String, $map: [LabelMapInput]) {
    putManualLabelingTaskAndLabels(orgId: $o, projectId: $p, taskId: $t, stageName: $s, elapsedTimeMs: 0,
        finished: true, labelsData: $data, labelsMap: $map) { ok } }"""
PNG = b"\x89PNG, or so it says"
MASK = bytes(range(256)) * 20
SEGMENT = {"category": "lesion", "attributes": [], "dicom": {"instanceid": 1}}


def create(sandbox, name, **options):
    variables = {"name": name, "items": [f"{name}.png"], "storage": REDBRICK, "truth": False, **options}
    return data(sandbox, CREATE, **variables)


def exported(sandbox, stage=None, **where):
    page = data(sandbox, EXPORT, s=stage, **where)
    assert page["cursor"] is None
    return {entry["taskId"]: entry for entry in page["entries"]}


def upload(sandbox, name, content, kind="application/octet-stream", encoding=None):
    """Put a file into the label storage and give its path there."""
    (place,) = data(sandbox, PRESIGN, files=[name], kind=kind, enc=encoding)
    headers = {"Content-Type": kind, **({"Content-Encoding": encoding} if encoding else {})}
    assert requests.put(place["presignedUrl"], data=content, headers=headers, timeout=30).status_code == 200
    return place["filePath"]


def fetched(url):
    response = requests.get(url, timeout=30)
    response.raise_for_status()
    return response.content


def test_uploaded_file_becomes_task_and_can_be_read(sandbox):
    files = ["a.png", "a.png"]
    places = data(sandbox, UPLOAD_ITEMS, files=files, kinds=["image/png"] * 2)["items"]
    assert [place["fileName"] for place in places] == files
    assert len({place["filePath"] for place in places}) == 2
    for number, place in enumerate(places):
        headers = {"Content-Type": "image/png"}
        body = PNG + bytes([number])
        assert requests.put(place["presignedUrl"], data=body, headers=headers, timeout=30).status_code == 200
    paths = [place["filePath"] for place in places]
    made = create(
        sandbox,
        "study",
        items=paths,
        series=[{"name": "one", "itemsIndices": [0], "metaData": '{"plane": "axial"}'}, {"itemsIndices": [1]}],
        meta='{"ward": "3"}',
        attributes='[{"name": "age", "value": 7}]',
    )
    assert made["taskIds"] == [made["taskId"]]
    task = exported(sandbox)[made["taskId"]]
    point = task["datapoint"]
    assert task["dpId"] == point["dpId"] == made["dpId"]
    assert (point["name"], point["items"], point["storageMethod"]) == ("study", paths, {"storageId": REDBRICK})
    assert [fetched(url) for url in point["itemsPresigned"]] == [PNG + b"\0", PNG + b"\1"]
    assert [series["itemsIndices"] for series in point["seriesInfo"]] == [[0], [1]]
    assert [series["name"] for series in point["seriesInfo"]] == ["one", None]
    assert point["seriesInfo"][0]["metaData"] == '{"plane": "axial"}'
    assert (point["metaData"], point["attributes"]) == ('{"ward": "3"}', '[{"name": "age", "value": 7}]')
    assert task["latestTaskData"] is None


def test_new_task_keeps_all_fields(sandbox):
    labels = json.dumps([BOX, SEGMENT])
    mask = upload(sandbox, "labels/a/b/0.nii.gz", MASK)
    made = create(
        sandbox,
        "given",
        storage=PUBLIC,
        data=labels,
        map=[None, {"seriesIndex": 1, "labelName": mask}],
        assign='{"Label": "alice@example.com", "Review_1": ["bob@example.com"]}',
        priority=0.75,
    )
    task = exported(sandbox, "Label")[made["taskId"]]
    assert task["priority"] == 0.75
    assert task["currentStageSubTask"] == {"state": "ASSIGNED", "assignedTo": {"email": "alice@example.com"}}
    assert task["datapoint"]["storageMethod"] == {"storageId": PUBLIC}
    latest = task["latestTaskData"]
    assert [label["category"] for label in json.loads(latest["labelsData"])] == ["finding", "lesion"]
    assert latest["labelsStorage"] == {"storageId": REDBRICK}
    assert latest["labelsMap"] == [None, {"seriesIndex": 1, "imageIndex": None, "labelName": mask}]
    assert fetched(latest["masks"][1]["labelName"]) == MASK
    sandbox.humans("Label")
    assert sandbox.task(made["taskId"])["owner"] == "bob@example.com"


def test_create_ground_truth_with_labels_file(sandbox):
    labels = [BOX] * 1001
    path = upload(
        sandbox, "labels/a/b/data.json", gzip.compress(json.dumps(labels).encode()), "application/json", "gzip"
    )
    made = create(sandbox, "truth", data="[]", path=path, truth=True, assign="null")
    task = exported(sandbox, "END")[made["taskId"]]
    assert task["currentStageSubTask"] is None
    assert (task["latestTaskData"]["labelsData"], task["latestTaskData"]["path"]) == (None, path)
    assert json.loads(fetched(task["latestTaskData"]["url"])) == labels


def test_create_with_mask_without_labels(sandbox):
    mask = upload(sandbox, "labels/a/b/0.nii.gz", MASK)
    made = create(sandbox, "mask", map=[{"seriesIndex": 0, "labelName": mask}])
    latest = exported(sandbox)[made["taskId"]]["latestTaskData"]
    assert (latest["labelsData"], latest["labelsMap"][0]["labelName"]) == ("[]", mask)


def test_mask_is_kept_by_copy_and_correction(sandbox):
    mask = [{"seriesIndex": 0, "labelName": upload(sandbox, "labels/a/b/0.nii.gz", MASK)}]
    made = create(sandbox, "mask", map=mask)
    target = sandbox.add_project()
    copy = """mutation ($o: UUID!, $p: UUID!, $from: UUID!, $tasks: [TaskMetaDataInput!]!) {
        importTasksFromWorkspace(orgId: $o, projectId: $p, sourceProjectId: $from, tasks: $tasks, withLabels: true) {
            ok } }"""
    data(sandbox, copy, p=target, **{"from": sandbox.project_id}, tasks=[{"taskId": made["taskId"]}])
    (copied,) = exported(sandbox, p=target).values()
    sandbox.humans("Label")
    sandbox.humans("Review_1", labels=[BOX])
    corrected = exported(sandbox, "END")[made["taskId"]]
    for task in (copied, corrected):
        assert task["latestTaskData"]["labelsMap"][0]["labelName"] == mask[0]["labelName"]


def test_submitted_mask_can_be_read(sandbox):
    (task_id,) = sandbox.seed_tasks(1, assignee="API key")
    mask = upload(sandbox, "labels/a/b/0.nii.gz", MASK)
    entry = {"seriesIndex": 0, "labelName": mask}
    data(sandbox, PUT_MASKS, t=task_id, s="Label", data=json.dumps([SEGMENT]), map=[entry])
    latest = exported(sandbox, "Review_1")[task_id]["latestTaskData"]
    storage = latest["labelsStorage"]["storageId"]
    (signed,) = sandbox.graphql(SIGN, {"o": sandbox.org_id, "s": storage, "items": [mask]})["presignItems"]
    assert fetched(signed) == fetched(latest["masks"][0]["labelName"]) == MASK


def test_presign_keeps_order_and_returns_null_for_unsignable(sandbox):
    paths = [upload(sandbox, f"labels/a/b/{number}.nii.gz", MASK + bytes([number])) for number in range(3)]
    items = [paths[2], None, "altadb:///x", paths[0], "", "labels/never/uploaded", "https://elsewhere/x", paths[2]]
    signed = sandbox.graphql(SIGN, {"o": sandbox.org_id, "s": REDBRICK, "items": items})["presignItems"]
    assert [bool(url) for url in signed] == [True, False, False, True, False, True, True, True]
    assert [fetched(signed[index])[-1] for index in (0, 3, 7)] == [2, 0, 2]
    assert requests.get(signed[5], timeout=30).status_code == 404
    assert signed[6] == "https://elsewhere/x"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"items": []}, "no items"),
        ({"name": " "}, "needs a name"),
        ({"truth": True}, "cannot be ground truth without labels"),
        ({"priority": 1.5}, "from 0 to 1"),
        ({"data": "{}"}, "labelsData is not a list"),
        ({"path": "labels/never"}, "nothing has been uploaded there"),
        ({"assign": "alice"}, "preAssign is not JSON"),
        ({"assign": '{"Label": "who@example.com"}'}, "who@example.com"),
        ({"assign": '{"Input": "alice@example.com"}'}, "no label or review stage 'Input'"),
        ({"assign": '{"Label": ["alice@example.com", "bob@example.com"]}'}, "takes one assignee"),
    ],
)
def test_create_invalid_task_is_refused(sandbox, options, words):
    variables = {"name": "bad", "items": ["a.png"], "storage": REDBRICK, "truth": False, **options}
    assert words in error(sandbox, CREATE, **variables)
    assert exported(sandbox) == {}


def test_create_duplicate_name_is_refused(sandbox):
    create(sandbox, "twice")
    variables = {"name": "twice", "items": ["b.png"], "storage": REDBRICK, "truth": False}
    assert "'twice' already exists" in error(sandbox, CREATE, **variables)
    assert len(exported(sandbox)) == 1
