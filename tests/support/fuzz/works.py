"""A work for every operator and sensor: it creates tasks and returns the operator to execute."""

from __future__ import annotations

import gzip
import json
from functools import cache
from typing import TYPE_CHECKING, Any

import pendulum
import requests
from sandbox_calls import BOX, PRESIGN, data

from airflow_provider_redbrick.operators.auto_review import RedBrickAutoReviewOperator, Review
from airflow_provider_redbrick.operators.balance_assignments import RedBrickBalanceAssignmentsOperator
from airflow_provider_redbrick.operators.export_tasks import RedBrickExportTasksOperator
from airflow_provider_redbrick.operators.list_tasks import RedBrickListTasksOperator
from airflow_provider_redbrick.operators.prelabel import RedBrickPrelabelOperator
from airflow_provider_redbrick.operators.put_labels import RedBrickPutLabelsOperator
from airflow_provider_redbrick.operators.reopen_ground_truth import RedBrickReopenGroundTruthOperator
from airflow_provider_redbrick.operators.upload_tasks import RedBrickUploadTasksOperator
from airflow_provider_redbrick.sensors.stage_queue import RedBrickStageQueueSensor
from airflow_provider_redbrick.sensors.tasks import RedBrickTasksSensor

if TYPE_CHECKING:
    from pathlib import Path

    from sandbox_process import SandboxProcess

SERIES = [
    {
        "boundingBoxes": [
            {"pointTopLeft": {"xNorm": 0.1, "yNorm": 0.2}, "wNorm": 0.3, "hNorm": 0.4, "category": "finding"}
        ]
    }
]
SEGMENTS = {"1": {"category": "lesion"}}
REMOTE = [
    {"stageName": "Input", "brickName": "labelset-input", "routing": {"nextStageName": "Model"}},
    {"stageName": "Model", "brickName": "remote-labeling", "routing": {"nextStageName": "Label"}},
    {"stageName": "Label", "brickName": "manual-labeling", "routing": {"nextStageName": "Output"}},
    {"stageName": "Output", "brickName": "labelset-output", "routing": {"nextStageName": "END"}},
]
WAIT = {"poke_interval": 0.01, "timeout": 0.03}

_PUT = """mutation ($o: UUID!, $p: UUID!, $t: UUID!, $labels: String, $path: String, $map: [LabelMapInput]) {
    putLabels(orgId: $o, projectId: $p, taskId: $t, labelsData: $labels, labelsDataPath: $path, labelsMap: $map) {
        ok } }"""


@cache
def a_mask() -> bytes:
    """A mask, compressed."""
    import nibabel as nib
    import numpy as np

    voxels = np.zeros((4, 3, 2), np.uint8)
    voxels[1, 1, 1] = 1
    return gzip.compress(nib.Nifti1Image(voxels, np.eye(4)).to_bytes())


def list_tasks(sandbox: SandboxProcess, _folder: Path) -> Any:
    sandbox.seed_tasks(3, stage="Label")
    return RedBrickListTasksOperator(task_id="t", stage_name="Label", chunk_size=2)


def prelabel(sandbox: SandboxProcess, folder: Path) -> Any:
    sandbox.seed_tasks(3, stage="Label", images=True)
    report = str(folder / "report.jsonl")
    return RedBrickPrelabelOperator(task_id="t", stage_name="Label", labeler=lambda _: SERIES, report_path=report)


def prelabel_drafts(sandbox: SandboxProcess, _folder: Path) -> Any:
    sandbox.seed_tasks(2, stage="Label", labels=[BOX])
    return RedBrickPrelabelOperator(
        task_id="t", stage_name="Label", labeler=lambda task: task.series, write="draft_and_release", overwrite=True
    )


def prelabel_anywhere(sandbox: SandboxProcess, _folder: Path) -> Any:
    ids = sandbox.seed_tasks(2, stage="Review_1")
    return RedBrickPrelabelOperator(
        task_id="t", task_ids=ids, labeler=lambda _: SERIES, write="anywhere", model_name="m"
    )


def prelabel_remote(sandbox: SandboxProcess, _folder: Path) -> Any:
    project = sandbox.add_project(REMOTE)
    sandbox.seed_tasks(2, stage="Model", project_id=project)
    return RedBrickPrelabelOperator(task_id="t", stage_name="Model", project_id=project, labeler=lambda _: SERIES)


def put_labels(sandbox: SandboxProcess, _folder: Path) -> Any:
    ids = sandbox.seed_tasks(2, stage="Label")
    task = sandbox.task(ids[1])
    assert task is not None
    tasks = [{"taskId": ids[0], "series": SERIES}, {"name": task["name"], "series": SERIES}]
    return RedBrickPutLabelsOperator(task_id="t", stage_name="Label", tasks=tasks)


def put_a_mask(sandbox: SandboxProcess, folder: Path) -> Any:
    (folder / "mask.nii.gz").write_bytes(a_mask())
    (task_id,) = sandbox.seed_tasks(1, stage="Label")
    series = [{"segmentations": "mask.nii.gz", "segmentMap": SEGMENTS}]
    (folder / "labels.jsonl").write_text(json.dumps({"taskId": task_id, "series": series}))
    return RedBrickPutLabelsOperator(
        task_id="t", stage_name="Label", labels_path=str(folder / "labels.jsonl"), finalize=False
    )


def auto_review(sandbox: SandboxProcess, _folder: Path) -> Any:
    sandbox.seed_tasks(4, stage="Review_1")
    answers = iter([True, Review.reject("no"), Review.correct(SERIES), Review.leave()])
    return RedBrickAutoReviewOperator(task_id="t", stage_name="Review_1", reviewer=lambda _: next(answers, True))


def balance(sandbox: SandboxProcess, _folder: Path) -> Any:
    sandbox.seed_tasks(3, stage="Label")
    sandbox.seed_tasks(2, stage="Label", assignee="alice@example.com")
    people = ["alice@example.com", "bob@example.com"]
    return RedBrickBalanceAssignmentsOperator(task_id="t", stage_name="Label", emails=people, rebalance=True)


def reopen(sandbox: SandboxProcess, _folder: Path) -> Any:
    sandbox.seed_tasks(3, ground_truth=True)
    within = {"updated_after": "2000-01-01", "updated_before": pendulum.datetime(2100, 1, 1)}
    return RedBrickReopenGroundTruthOperator(task_id="t", selector=lambda task: bool(task.series), **within)


def upload(sandbox: SandboxProcess, folder: Path) -> Any:
    for name, content in (("a.dcm", b"item"), ("mask.nii.gz", a_mask())):
        (folder / name).write_bytes(content)
    masked = {"items": "a.dcm", "segmentations": "mask.nii.gz", "segmentMap": SEGMENTS, **SERIES[0]}
    tasks = [
        {"name": "new-1", "items": ["a.dcm"], "preAssign": {"Label": "bob@example.com"}},
        {"name": "new-2", "series": [masked]},
    ]
    (folder / "tasks.json").write_text(json.dumps(tasks))
    return RedBrickUploadTasksOperator(task_id="t", tasks_path=str(folder / "tasks.json"))


def export(sandbox: SandboxProcess, folder: Path) -> Any:
    ids = sandbox.seed_tasks(2, ground_truth=True)
    paths = [_stored(sandbox, a_mask(), "application/octet-stream"), None]
    labels = json.dumps([BOX, {"category": "lesion", "volumeindex": 0, "dicom": {"instanceid": 1, "groupids": None}}])
    file = _stored(sandbox, gzip.compress(labels.encode()), "application/json", "gzip")
    entries = [{"seriesIndex": 0, "labelName": paths[0]}]
    data(sandbox, _PUT, t=ids[0], labels=labels, path=None, map=entries)
    data(sandbox, _PUT, t=ids[1], labels="[]", path=file, map=[])
    return RedBrickExportTasksOperator(task_id="t", export_path=str(folder / "export"))


def _stored(sandbox: SandboxProcess, content: bytes, kind: str, encoding: str | None = None) -> str:
    (signed,) = data(sandbox, PRESIGN, files=["labels/file"], kind=kind, enc=encoding)
    headers = {"Content-Type": kind, **({"Content-Encoding": encoding} if encoding else {})}
    requests.put(signed["presignedUrl"], data=content, headers=headers, timeout=30).raise_for_status()
    return str(signed["filePath"])


def queue_sensor(sandbox: SandboxProcess, _folder: Path) -> Any:
    sandbox.seed_tasks(2, stage="Label")
    return RedBrickStageQueueSensor(task_id="t", stage_name="Label", at_least=2, unassigned=True, **WAIT)


def count_sensor(_sandbox: SandboxProcess, _folder: Path) -> Any:
    return RedBrickStageQueueSensor(task_id="t", stage_name="Label", at_most=0, **WAIT)


def tasks_sensor(sandbox: SandboxProcess, _folder: Path) -> Any:
    ids = sandbox.seed_tasks(2, stage="Review_1")
    return RedBrickTasksSensor(task_id="t", task_ids=ids, left_stage="Label", **WAIT)


WORKS = {
    work.__name__: work
    for work in (
        *(list_tasks, prelabel, prelabel_drafts, prelabel_anywhere, prelabel_remote, put_labels, put_a_mask),
        *(auto_review, balance, reopen, upload, export, queue_sensor, count_sensor, tasks_sensor),
    )
}
