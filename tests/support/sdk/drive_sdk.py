"""Drive a sandbox with the unmodified public redbrick-sdk. Run by the SDK's own interpreter.

    python drive_sdk.py '<ready line of the sandbox>' <directory for files>

Prints one line of JSON: for each step whether it succeeded and, if it failed, the reason.
"""

from __future__ import annotations

import json
import sys
import time
import traceback
from pathlib import Path

import nibabel
import numpy as np
import redbrick
import requests
from redbrick.common.enums import TaskFilters

READY = json.loads(sys.argv[1])
FILES = Path(sys.argv[2])
URL, ORG, PROJECT = READY["url"], READY["org_id"], READY["project_id"]
ALICE, BOB, CAROL = READY["members"]
HTTP = requests.Session()
HTTP.trust_env = False

BOX = {
    "pointTopLeft": {"xNorm": 0.1, "yNorm": 0.2},
    "wNorm": 0.3,
    "hNorm": 0.4,
    "category": "finding",
    "attributes": {"confirmed": True, "side": "left", "score": 0.5},
}
TASK = """query ($o: UUID!, $p: UUID!, $t: UUID!) { task(orgId: $o, projectId: $p, taskId: $t) {
    currentStageName currentStageSubTask { ... on LabelingTask { state assignedTo { userId email } } }
    latestTaskData { createdBy labelsData labelsDataPath labelsMap { labelName seriesIndex } } } }"""


def control(path, body=None):
    verb = HTTP.get if body is None else HTTP.post
    response = verb(f"{URL}/_sandbox/{path}", **({} if body is None else {"json": body}), timeout=60)
    assert response.ok, response.text
    return response.json()


def seed(count, **options):
    return control("tasks", {"count": count, **options})["task_ids"]


def state(task_id):
    """Return stage, state, owner, flat labels and masks of a task as the sandbox has them."""
    body = {"query": TASK, "variables": {"o": ORG, "p": PROJECT, "t": task_id}}
    headers = {"ApiKey": READY["api_key"]}
    task = HTTP.post(f"{URL}/graphql/", json=body, headers=headers, timeout=60).json()["data"]["task"]
    work = task["currentStageSubTask"] or {}
    owner = work.get("assignedTo") or {}
    data = task["latestTaskData"] or {}
    return {
        "stage": task["currentStageName"],
        "state": work.get("state"),
        "owner": owner.get("email") or owner.get("userId"),
        "labels": json.loads(data.get("labelsData") or "[]"),
        "path": data.get("labelsDataPath"),
        "masks": data.get("labelsMap") or [],
    }


def claim(project, ids):
    """Assign tasks to the API key, which the API supports and the SDK's public methods no longer do."""
    return project.context.labeling.assign_tasks(ORG, PROJECT, ids, None, True)


def refused(words, call, *arguments, **options):
    """Require that a call raises an exception of any class with these words in its message."""
    try:
        call(*arguments, **options)
    except Exception as error:  # noqa: BLE001
        said = str(error)
    else:
        said = "nothing: it was accepted"
    assert words in said, said


def applied(task_id):
    return control("stats")["applied"].get(task_id, {})


# -- steps: each gets the project and the state left by earlier steps, and fails by assertion -----------


def get_project(project, _):
    assert project.name == "Sandbox Demo"
    assert project.org_id == ORG
    assert project.taxonomy["isNew"] is True
    kinds = {each["labelType"] for each in project.taxonomy["objectTypes"]}
    assert kinds == {"BBOX", "CUBOID", "POINT", "POLYLINE", "POLYGON", "ELLIPSE", "SEGMENTATION", "LENGTH", "ANGLE"}


def stages(project, _):
    assert [stage.stage_name for stage in project.stages] == ["Label", "Review_1"], project.stages
    assert project.output_stage_name == "Output"


def list_members(project, _):
    members = project.workforce.list_members()
    access = {member.org_membership.email: sorted(member.stages or []) for member in members}
    assert access[ALICE] == ["Label"], access
    assert access[CAROL] == ["Label", "Review_1"], access
    assert len(access) == 4


def create_datapoints(project, box):
    picture = FILES / "picture.png"
    picture.write_bytes(b"\x89PNG not really")
    point = {
        "name": "made/1",
        "series": [{"items": str(picture), "boundingBoxes": [BOX], "metaData": {"a": "b"}}],
        "priority": 0.5,
        "preAssign": {"Label": BOB},
    }
    made = project.upload.create_datapoints(redbrick.StorageMethod.REDBRICK, [point])
    assert "response" in made[0], made
    found = state(made[0]["response"]["taskId"])
    assert found["stage"] == "Label"
    assert found["owner"] == BOB
    assert found["labels"][0]["bbox2d"]["wnorm"] == 0.3
    again = project.upload.create_datapoints(redbrick.StorageMethod.REDBRICK, [point])
    assert "already" in again[0]["error"], again
    box["made"] = made[0]["response"]["taskId"]
    truth = {"name": "made/truth", "series": [{"items": str(picture), "boundingBoxes": [BOX]}]}
    made = project.upload.create_datapoints(redbrick.StorageMethod.REDBRICK, [truth], is_ground_truth=True)
    assert state(made[0]["response"]["taskId"])["stage"] == "END", made


def create_from_a_list_of_items(project, _):
    """Create tasks from an uploaded list, as the SDK does for videos in RedBrick's own storage."""
    video = FILES / "scan.mp4"
    video.write_bytes(b"not really")
    study = {"abnormal": True}
    point = {
        "name": "video/1",
        "series": [{"items": str(video)}],
        "classification": {"attributes": study},
        "priority": 0.5,
        "metaData": {"ward": "3"},
    }
    upload = project.upload.create_datapoints
    upload(redbrick.StorageMethod.REDBRICK, [{**point, "preAssign": {"Label": BOB}}])
    upload(redbrick.StorageMethod.REDBRICK, [{**point, "name": "video/2"}], is_ground_truth=True)
    tasks = {card["name"]: card for stage in control("board")["stages"] for card in stage["cards"]}
    (labels,) = state(tasks["video/2"]["task_id"])["labels"]
    assert labels["attributes"] == [{"name": "abnormal", "value": True}], labels
    assert tasks["video/1"]["assignee"] == BOB, tasks
    assert state(tasks["video/2"]["task_id"])["stage"] == "END", tasks


def list_tasks(project, box):
    free = seed(12, prefix="free")
    mine = seed(2, prefix="alices", assignee=ALICE)
    seed(1, prefix="skipped", assignee=ALICE, state="SKIPPED")
    seed(1, prefix="issue", assignee=ALICE, state="PROBLEM")
    seed(1, prefix="draft", assignee=ALICE, state="STAGED")
    truth = seed(3, prefix="truth", ground_truth=True)
    review = seed(2, prefix="review", stage="Review_1", assignee=CAROL)
    claim(project, review)
    project.review.put_tasks("Review_1", [{"taskId": review[0]}], review_result=False)
    project.review.put_tasks("Review_1", [{"taskId": review[1]}], review_result=True)

    def names(search=None, **options):
        found = list(project.export.list_tasks(search=search, limit=None, **options))
        assert len({task["taskId"] for task in found}) == len(found)
        return sorted(task["name"].split("-")[0] for task in found)

    everything = names(TaskFilters.ALL)
    assert everything.count("free") == 12, everything
    assert everything.count("truth") == 3
    assert names(TaskFilters.GROUNDTRUTH) == ["made/truth", "review", "truth", "truth", "truth"]
    assert names(TaskFilters.UNASSIGNED, stage_name="Label") == ["free"] * 12
    assert names(TaskFilters.QUEUED, stage_name="Label", user_id=ALICE) == [
        *["alices"] * 2,
        "draft",
        "issue",
        # A rejected task returned to its labeler.
        "review",
        "skipped",
    ], names(TaskFilters.QUEUED, stage_name="Label", user_id=ALICE)
    assert names(TaskFilters.DRAFT, stage_name="Label") == ["draft"]
    assert names(TaskFilters.SKIPPED, stage_name="Label") == ["skipped"]
    assert names(TaskFilters.ISSUES) == ["issue"]
    assert names(TaskFilters.FAILED) == ["review"]
    assert names(TaskFilters.COMPLETED, stage_name="Review_1") == ["review", "review", "truth", "truth", "truth"]
    key = project.context.key_id
    assert names(TaskFilters.COMPLETED, stage_name="Review_1", user_id=key) == ["review", "review"]
    soon = time.time() + 3600
    assert names(TaskFilters.COMPLETED, stage_name="Review_1", completed_at=(soon, None)) == []
    assert len(names(TaskFilters.COMPLETED, stage_name="Review_1", completed_at=(0, soon))) == 5
    assert names(task_name="tru") == ["truth"] * 3
    name = next(iter(project.export.list_tasks(task_id=free[0])))["name"]
    exact = list(project.export.list_tasks(task_name=name, exact_match=True))
    assert [task["taskId"] for task in exact] == [free[0]]
    assert len(list(project.export.list_tasks(task_name=name[:-1], exact_match=True))) == 0
    one = next(iter(project.export.list_tasks(search=TaskFilters.QUEUED, stage_name="Label", task_id=mine[0])))
    assert one["assignees"][0]["user"] == ALICE
    assert one["assignees"][0]["status"] == "ASSIGNED"
    box |= {"free": free, "mine": mine, "truth": truth, "rejected": review[0]}


def assign_tasks(project, box):
    ids = box["free"][:3]
    done = project.labeling.assign_tasks(ids, email=BOB)
    assert [each["taskId"] for each in done] == ids
    assert done[0]["stageName"] == "Label"
    assert {state(task_id)["owner"] for task_id in ids} == {BOB}
    project.labeling.assign_tasks(ids[:1])
    assert state(ids[0]) | {"labels": []} == {
        "stage": "Label",
        "state": "UNASSIGNED",
        "owner": None,
        "labels": [],
        "path": None,
        "masks": [],
    }
    missing = "00000000-0000-4000-8000-00000000dead"
    assert [each["taskId"] for each in project.labeling.assign_tasks([missing, ids[0]], email=CAROL)] == [ids[0]]
    refused("unknown@example.com", project.labeling.assign_tasks, ids, email="unknown@example.com")
    assert state(ids[1])["owner"] == BOB
    assert applied(ids[0])["assignTasksMultipleUsers"] == 3, applied(ids[0])


def put_series(project, box):
    task_id = box["free"][3]
    task = {
        "taskId": task_id,
        "classification": {"attributes": {"abnormal": True, "urgency": "soon"}},
        "series": [
            {
                "boundingBoxes": [BOX],
                "landmarks": [{"point": {"xNorm": 0.5, "yNorm": 0.5}, "category": "landmark"}],
                "measurements": [
                    {
                        "type": "length",
                        "point1": {"i": 1, "j": 2, "k": 3},
                        "point2": {"i": 4, "j": 5, "k": 6},
                        "normal": [0, 0, 1],
                        "length": 9.5,
                        "category": "diameter",
                    }
                ],
            }
        ],
    }
    refused("not assigned to you", project.labeling.put_tasks, "Label", [task])
    assert state(task_id)["labels"] == []
    claim(project, [task_id])
    assert project.labeling.put_tasks("Label", [task]) == []
    found = state(task_id)
    assert found["stage"] == "Review_1"
    assert len(found["labels"]) == 4
    box["submitted"] = task_id
    box["series"] = task["series"]


def put_legacy(project, box):
    task_id = box["free"][4]
    claim(project, [task_id])
    label = {
        "category": [["object", "finding"]],
        "attributes": [],
        "bbox2d": {"xnorm": 0.1, "ynorm": 0.1, "wnorm": 0.2, "hnorm": 0.2},
    }
    assert project.labeling.put_tasks("Label", [{"taskId": task_id, "labels": [label]}]) == []
    assert state(task_id)["stage"] == "Review_1"
    assert state(task_id)["labels"] == [label]


def put_draft_and_existing(project, box):
    task_id = box["free"][5]
    claim(project, [task_id])
    series = [{"boundingBoxes": [BOX]}]
    assert project.labeling.put_tasks("Label", [{"taskId": task_id, "series": series}], finalize=False) == []
    found = state(task_id)
    assert (found["stage"], found["state"], len(found["labels"])) == ("Label", "STAGED", 1), found
    assert project.labeling.put_tasks("Label", [{"taskId": task_id}], existing_labels=True) == []
    assert state(task_id)["stage"] == "Review_1"
    assert len(state(task_id)["labels"]) == 1
    box["existing"] = task_id


def put_segmentation(project, box):
    mask = np.zeros((8, 8, 4), dtype=np.uint16)
    mask[2:4, 2:4, 1:3] = 1
    mask[5:7, 5:7, 1:3] = 2
    path = FILES / "mask.nii.gz"
    nibabel.save(nibabel.Nifti1Image(mask, np.eye(4)), path)
    task_id = box["free"][6]
    claim(project, [task_id])
    series = [{"segmentations": str(path), "segmentMap": {"1": "lesion", "2": {"category": "organ"}}}]
    assert project.labeling.put_tasks("Label", [{"taskId": task_id, "series": series}]) == []
    found = state(task_id)
    assert found["stage"] == "Review_1"
    assert sorted(label["dicom"]["instanceid"] for label in found["labels"]) == [1, 2], found
    assert found["masks"][0]["labelName"].endswith(".nii.gz"), found
    box["masked"] = task_id


def put_many_labels(project, box):
    task_id = box["free"][7]
    claim(project, [task_id])
    series = [{"boundingBoxes": [BOX] * 1001}]
    assert project.labeling.put_tasks("Label", [{"taskId": task_id, "series": series}]) == []
    found = state(task_id)
    assert found["stage"] == "Review_1"
    assert found["path"], found
    box["many"] = task_id


def review_put_tasks(project, box):
    ids = [box["submitted"], box["existing"], box["masked"], box["many"]]
    claim(project, ids)
    review = project.review.put_tasks
    assert review("Review_1", [{"taskId": ids[0]}], review_result=False, review_comment="Look again.") == []
    found = state(ids[0])
    assert (found["stage"], found["state"]) == ("Label", "ASSIGNED")
    assert found["owner"].startswith("API:"), found
    moved = {**BOX, "wNorm": 0.111}
    assert review("Review_1", [{"taskId": ids[1], "series": [{"boundingBoxes": [moved]}]}]) == []
    found = state(ids[1])
    assert (found["stage"], found["labels"][0]["bbox2d"]["wnorm"]) == ("END", 0.111)
    assert review("Review_1", [{"taskId": each} for each in ids[2:]], review_result=True) == []
    assert [state(each)["stage"] for each in ids[2:]] == ["END", "END"]
    assert applied(ids[0])["putExpertReviewTask"] == 1
    assert project.labeling.put_tasks("Label", [{"taskId": ids[0]}], existing_labels=True) == []


def export_tasks(project, box):
    destination = str(FILES / "export")
    tasks = list(project.export.export_tasks(only_ground_truth=True, destination=destination))
    by_id = {task["taskId"]: task for task in tasks}
    for key in ("existing", "masked", "many"):
        assert box[key] in by_id, (key, len(tasks))
    assert all(task["currentStageName"] == "END" for task in tasks)
    corrected = by_id[box["existing"]]["series"][0]["boundingBoxes"][0]
    assert corrected["wNorm"] == 0.111
    assert corrected["attributes"] == BOX["attributes"]
    assert corrected["category"] == "finding"
    assert len(by_id[box["many"]]["series"][0]["boundingBoxes"]) == 1001
    masked = by_id[box["masked"]]["series"][0]
    assert {key: each["category"] for key, each in masked["segmentMap"].items()} == {"1": "lesion", "2": "organ"}
    image = nibabel.load(
        masked["segmentations"] if isinstance(masked["segmentations"], str) else masked["segmentations"][0]
    )
    assert sorted(np.unique(image.get_fdata()).tolist()) == [0, 1, 2]
    since = list(project.export.export_tasks(only_ground_truth=True, from_timestamp=time.time() + 60))
    assert since == []


def put_exported_back(project, box):
    """Put exported tasks back unchanged, in their current stage."""
    task_id = box["submitted"]
    claim(project, [task_id])
    exported = next(iter(project.export.export_tasks(task_id=task_id, destination=str(FILES / "back"))))
    before = state(task_id)["labels"]
    assert exported["classification"]["attributes"] == {"abnormal": True, "urgency": "soon"}, exported
    assert project.review.put_tasks("Review_1", [exported]) == []
    found = state(task_id)
    assert found["stage"] == "END"
    key = lambda label: json.dumps(label, sort_keys=True)  # noqa: E731
    assert sorted(found["labels"], key=key) == sorted(before, key=key)


def move_tasks_to_start(project, box):
    ids = [box["existing"], box["masked"]]
    project.labeling.move_tasks_to_start(ids)
    found = [state(each) for each in ids]
    assert [(each["stage"], each["state"], each["owner"]) for each in found] == [("Label", "UNASSIGNED", None)] * 2
    assert found[0]["labels"][0]["bbox2d"]["wnorm"] == 0.111
    refused("ground truth", project.labeling.move_tasks_to_start, ids[:1])
    assert applied(ids[0])["moveTaskToStart"] == 1


def get_task_events(project, box):
    def kinds(task_id):
        found = list(project.export.get_task_events(task_id=task_id, only_ground_truth=False))
        assert len(found) == 1, found
        return [event["eventType"] for event in found[0]["events"]], found[0]["events"]

    names, events = kinds(box["submitted"])
    wanted = ["TASK_CREATED", "TASK_ASSIGNED", "TASK_SUBMITTED", "COMMENT_ADDED", "TASK_REJECTED", "TASK_CORRECTED"]
    assert [name for name in wanted if name not in names] == [], names
    comment = next(event for event in events if event["eventType"] == "COMMENT_ADDED")
    assert comment["commentText"] == "Look again."
    names, _ = kinds(box["masked"])
    assert "TASK_ACCEPTED" in names, names
    assert "GROUNDTRUTH_TASK_EDITED" in names, names
    assert len(list(project.export.get_task_events(only_ground_truth=True))) >= 4


STEPS = [
    get_project,
    stages,
    list_members,
    create_datapoints,
    list_tasks,
    assign_tasks,
    put_series,
    put_legacy,
    put_draft_and_existing,
    put_segmentation,
    put_many_labels,
    review_put_tasks,
    export_tasks,
    put_exported_back,
    move_tasks_to_start,
    get_task_events,
    create_from_a_list_of_items,
]


def main():
    summary = {"sdk": redbrick.version(), "steps": {}}
    project = redbrick.get_project(org_id=ORG, project_id=PROJECT, api_key=READY["api_key"], url=URL)
    left = {}
    for step in STEPS:
        try:
            step(project, left)
        except Exception:  # noqa: BLE001 - a step that fails must not hide what the others do
            summary["steps"][step.__name__] = traceback.format_exc()
        else:
            summary["steps"][step.__name__] = "ok"
    sys.stdout.write(json.dumps(summary) + "\n")


if __name__ == "__main__":
    main()
