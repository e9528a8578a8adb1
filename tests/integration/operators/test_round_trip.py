"""Rows of upload, export and put are interchangeable."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from fixtures import counts
from label_samples import BOX
from pydicom.data import get_testdata_file

from airflow_provider_redbrick.actions.decision import Review
from airflow_provider_redbrick.exceptions import RedBrickTasksFailedError
from airflow_provider_redbrick.operators.auto_review import RedBrickAutoReviewOperator
from airflow_provider_redbrick.operators.export_tasks import RedBrickExportTasksOperator
from airflow_provider_redbrick.operators.prelabel import RedBrickPrelabelOperator
from airflow_provider_redbrick.operators.put_labels import RedBrickPutLabelsOperator
from airflow_provider_redbrick.operators.upload_tasks import RedBrickUploadTasksOperator

STORAGE = "0a9c6e10-5b1d-4c8e-9f00-00000000abcd"
OTHER = "0a9c6e10-5b1d-4c8e-9f00-00000000abce"
CT, MR = get_testdata_file("CT_small.dcm"), get_testdata_file("MR_small.dcm")
PLACE = {"trackId": "", "keyFrame": True, "endTrack": True, "frameIndex": 3, "seriesItemIndex": 1}
VOXELS = {"point1": {"i": 1, "j": 2, "k": 3}, "point2": {"i": 4, "j": 5, "k": 6}}
NORMAL = [0, 0, 1]
TRIANGLE = [{"xNorm": 0.1, "yNorm": 0.1}, {"xNorm": 0.2, "yNorm": 0.1}, {"xNorm": 0.2, "yNorm": 0.3}]
# Texts that look like values of other types.
TEXTS = ["true", "False", "TRUE", "1", "1.5", "0", "null", "None", "[]", "{}", " ", "NaN", "2024-05-01", '"', "ÿ"]
LABELS = {
    "boundingBoxes": [
        {**BOX, "id": "b", "group": "g", "readOnly": True, "video": PLACE, "stats": {"average": 1.5}},
        *({**BOX, "attributes": {"note": text}} for text in TEXTS),
        {**BOX, "attributes": {"confirmed": False, "score": 1, "side": "left", "appearance": ["solid"]}},
        {**BOX, "attributes": {"confirmed": True, "score": 0.25, "note": "", "appearance": []}},
    ],
    "landmarks": [{"point": TRIANGLE[0], "category": "landmark"}],
    "landmarks3d": [{"point": {"i": 1, "j": 2, "k": 3}, "category": "landmark"}],
    "measurements": [
        {"type": "length", **VOXELS, "normal": NORMAL, "length": 5.5, "category": "diameter"},
        {"type": "angle", **VOXELS, "vertex": {"i": 0, "j": 0, "k": 0}, "normal": NORMAL, "category": "bend"},
    ],
    "ellipses": [
        {"pointCenter": TRIANGLE[0], "xRadiusNorm": 0.1, "yRadiusNorm": 0.2, "rotationRad": 0, "category": "nodule"}
    ],
    "polygons": [{"points": TRIANGLE, "category": "region"}],
    "polylines": [{"points": TRIANGLE[:2], "category": "vessel"}],
    "cuboids": [{**VOXELS, "category": "volume"}],
    "classifications": [{"attributes": {"usable": True, "plane": "axial"}}],
    "instanceClassifications": [{"fileIndex": 1, "values": {"artifact": False, "visible": ["heart"]}}],
}
VERDICT = {"attributes": {"abnormal": True, "impression": "true", "urgency": "now"}}
OF_ONE_TASK = ("taskId", "labelsId", "updatedAt", "currentStageName", "updatedBy")


def upload(**options) -> RedBrickUploadTasksOperator:
    return RedBrickUploadTasksOperator(task_id="upload", **options)


def rows_in(path) -> list[dict]:
    return [json.loads(line) for line in (Path(path) / "tasks.jsonl").read_text().splitlines()]


@pytest.fixture
def export(new_run, tmp_path):
    """Export a stage of a project into a folder and return the rows."""

    def write(folder, stage_name="Label", **options) -> list[dict]:
        path = str(tmp_path / folder)
        operator = RedBrickExportTasksOperator(task_id="export", export_path=path, stage_name=stage_name, **options)
        new_run().try_once(operator)
        return rows_in(path)

    return write


def described(row: dict) -> dict:
    """Return a row without what identifies the task: its ids and the paths of its masks."""
    said = {key: value for key, value in row.items() if key not in OF_ONE_TASK}
    return json.loads(json.dumps(said).replace(row["taskId"], "TASK"))


def mask_file(path, *values) -> str:
    voxels = np.zeros((4, 5, 6), np.uint8)
    for value in values:
        voxels[value, value, value] = value
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), path)
    return str(path)


def description(tmp_path) -> dict:
    matrix = [[1, 0, 0, 4], [0, 1, 0, 5], [0, 0, 1, 6], [0, 0, 0, 1]]
    first = {
        "items": [CT, MR],
        "name": "axial",
        "metaData": {"modality": "CT", "kVp": "120"},
        "imageHeaders": {"spacing": [1, 2, 3]},
        "heatMaps": [{"name": "risk", "item": CT, "preset": "hot", "dataRange": [0, 1]}],
        "transforms": [{"transform": matrix}],
        "centerline": [{"name": "aorta", "centerline": [{"x": 1}]}],
        **LABELS,
    }
    mask = mask_file(tmp_path / "mask.nii.gz", 1, 3)
    second = {
        "items": MR,
        "metaData": {"modality": "MR"},
        "segmentations": mask,
        "segmentMap": {"1": {"category": "lesion", "attributes": {"confirmed": True}}, "3": "organ"},
    }
    return {
        "name": "study",
        "series": [first, second],
        "classification": VERDICT,
        "metaData": {"ward": "3", "looks_like": "true"},
        "priority": 0,
    }


class TestUploadAndExport:
    def test_upload_export_upload_keeps_rows(self, sandbox, run, new_run, export, tmp_path):
        given = description(tmp_path)
        assert run.try_once(upload(tasks=[given]))["counts"] == counts(done=1)
        (row,) = export("first")
        other = sandbox.add_project()
        again = upload(tasks_path=str(tmp_path / "first" / "tasks.jsonl"), project_id=other)
        assert new_run().try_once(again)["counts"] == counts(done=1)
        (second,) = export("second", project_id=other)
        assert described(second) == described(row)
        masks = [
            tmp_path / name / each["series"][1]["segmentations"] for name, each in (("first", row), ("second", second))
        ]
        assert len({mask.read_bytes() for mask in masks}) == 1

        # The row equals the description, except for the storage paths of items and masks.
        axial, other_series = row["series"]
        for key in ("name", "metaData", "imageHeaders", "transforms", "centerline"):
            assert axial[key] == given["series"][0][key]
        assert {**axial["heatMaps"][0], "item": CT} == given["series"][0]["heatMaps"][0]
        assert len(axial["items"]) == 2
        for kind in LABELS.keys() - {"instanceClassifications"}:
            assert axial[kind] == LABELS[kind]
        (instance,) = axial["instanceClassifications"]
        assert instance.pop("fileName") == axial["items"][1]
        assert [instance] == LABELS["instanceClassifications"]
        assert other_series["metaData"] == {"modality": "MR"}
        assert "name" not in other_series
        assert list(other_series["segmentMap"]) == ["1", "3"]
        assert other_series["segmentMap"]["1"]["attributes"] == {"confirmed": True}
        assert (row["classification"], row["metaData"], row["priority"]) == (VERDICT, given["metaData"], 0)

    def test_upload_export_with_own_storage_keeps_items(self, sandbox, run, new_run, export):
        task = {
            "name": "study",
            "series": [{"items": ["b/2.dcm", "a/1.dcm"], "metaData": {"k": "v"}}, {"items": "c.nii"}],
        }
        run.try_once(upload(tasks=[task], storage_id=STORAGE))
        (row,) = export("first")
        assert row["storageId"] == STORAGE
        assert [series["items"] for series in row["series"]] == [["b/2.dcm", "a/1.dcm"], ["c.nii"]]
        other = sandbox.add_project()
        of_the_sdk = {"createdBy": "a@example.com", "createdAt": "2024-05-01T00:00:00Z", "status": "UNASSIGNED"}
        for options in ({}, {"storage_id": STORAGE.upper()}):
            tasks = [{**row, "name": f"study {len(options)}", "storageId": STORAGE.upper(), **of_the_sdk}]
            assert new_run().try_once(upload(tasks=tasks, project_id=other, **options))["counts"] == counts(done=1)
        for second in export("second", project_id=other):
            assert {**described(second), "name": "study"} == described(row)

    def test_upload_with_other_storage_than_row_fails(self, sandbox, run):
        row = {"name": "study", "items": "a.dcm", "storageId": OTHER}
        with pytest.raises(
            RedBrickTasksFailedError, match=f"its storageId is {OTHER}, but the operator's is {STORAGE}"
        ):
            run.try_once(upload(tasks=[row], storage_id=STORAGE))

    def test_empty_ground_truth_labels_round_trip(self, sandbox, run, new_run, export):
        """Ground truth needs labels; an empty list is enough."""
        run.try_once(upload(tasks=[{"name": "empty", "series": [{"items": CT, "boundingBoxes": []}]}]))
        run.try_once(upload(tasks=[{"name": "unlabeled", "items": CT}]))
        empty, unlabeled = export("first")
        assert ("labelsId" in empty, "labelsId" in unlabeled) == (True, False)
        other = sandbox.add_project()
        new_run().try_once(upload(tasks=[empty], project_id=other, is_ground_truth=True))
        with pytest.raises(RedBrickTasksFailedError, match="ground truth needs labels"):
            new_run().try_once(upload(tasks=[unlabeled], project_id=other, is_ground_truth=True))
        (second,) = export("second", "Ground Truth", project_id=other)
        assert described(second) == described(empty)


class TestExportAndPut:
    def test_put_of_exported_rows_changes_nothing(self, sandbox, run, new_run, export, tmp_path):
        run.try_once(upload(tasks=[description(tmp_path)]))
        (row,) = export("first")
        path = str(tmp_path / "first" / "tasks.jsonl")
        put = RedBrickPutLabelsOperator(task_id="put", stage_name="Label", labels_path=path)
        assert new_run().try_once(put)["counts"] == counts(done=1)
        (second,) = export("second", "Review_1")
        assert described(second) == described(row)

    @pytest.mark.parametrize("text", TEXTS)
    def test_text_attributes_round_trip(self, sandbox, run, new_run, export, text):
        """Callables, exports and put_labels use the same format."""
        (task_id,) = sandbox.seed_tasks(1)
        body = {
            "series": [{"boundingBoxes": [{**BOX, "attributes": {"note": text, "confirmed": True}}]}],
            "classification": {"attributes": {"impression": text, "abnormal": False}},
        }
        predict = RedBrickPrelabelOperator(task_id="p", stage_name="Label", labeler=lambda _task: body)
        run.try_once(predict)
        seen = []

        def correct(task):
            seen.append({"series": list(task.series), "classification": task.classification})
            return Review.correct(list(task.series), classification=task.classification)

        new_run().try_once(RedBrickAutoReviewOperator(task_id="r", stage_name="Review_1", reviewer=correct))
        (row,) = export("gt", "Ground Truth")
        assert row["taskId"] == task_id
        for each in (*seen, row):
            assert each["series"][0]["boundingBoxes"] == body["series"][0]["boundingBoxes"]
            assert each["classification"] == body["classification"]

    def test_text_attributes_in_legacy_format_round_trip(self, sandbox, run, export):
        (task_id,) = sandbox.seed_tasks(1)
        flat = {
            "category": [["object", "finding"]],
            "bbox2d": {"xnorm": 0.1, "ynorm": 0.2, "wnorm": 0.3, "hnorm": 0.4},
            "attributes": [{"name": "note", "value": "true"}, {"name": "confirmed", "value": "true"}],
        }
        put = RedBrickPutLabelsOperator(
            task_id="put", stage_name="Label", tasks=[{"taskId": task_id, "labels": [flat]}]
        )
        assert run.try_once(put)["counts"] == counts(done=1)
        (row,) = export("first", "Review_1")
        assert row["series"][0]["boundingBoxes"] == [{**BOX, "attributes": {"note": "true", "confirmed": True}}]
