"""``RedBrickUploadTasksOperator``, with a running sandbox and real images."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import nibabel as nib
import nibabel.testing
import numpy as np
import pytest
from airflow.providers.common.compat.sdk import ObjectStoragePath, literal
from airflow.sdk.io import attach
from fixtures import counts
from fsspec.implementations.memory import MemoryFileSystem
from label_samples import BOX
from pydicom.data import get_testdata_file

from airflow_provider_redbrick.client.operations.account import RedBrickClient
from airflow_provider_redbrick.client.operations.project import RedBrickProject
from airflow_provider_redbrick.client.operations.uploads import ProjectImports
from airflow_provider_redbrick.exceptions import RedBrickInputError, RedBrickStoppedError, RedBrickTasksFailedError
from airflow_provider_redbrick.operators.upload_tasks import RedBrickUploadTasksOperator

CREATE = "createDatapoint"
PRESIGN = "itemsUploadPresign"
LOOK_UP = "genericTasks"
CONVERT = "validateAndConvertToImportFormat"
ALICE, BOB = "alice@example.com", "bob@example.com"
STORAGE = "0a9c6e10-5b1d-4c8e-9f00-00000000abcd"
PUBLIC = "11111111-1111-1111-1111-111111111111"
FLAT_BOX = {"xnorm": 0.1, "ynorm": 0.2, "wnorm": 0.3, "hnorm": 0.4}
CT = get_testdata_file("CT_small.dcm")
MR = get_testdata_file("MR_small.dcm")
DICOMDIR = Path(CT).parent / "dicomdirtests" / "DICOMDIR"
BRAIN = Path(nibabel.testing.data_path) / "example4d.nii.gz"


def upload(tasks=None, **options) -> RedBrickUploadTasksOperator:
    return RedBrickUploadTasksOperator(task_id="upload", tasks=tasks, **options)


def studies(n: int, **more) -> list[dict]:
    return [{"name": f"study-{i:03d}", "items": CT, **more} for i in range(n)]


@pytest.fixture
def created(sandbox):
    """Return all tasks by name, with their stage and content."""
    document = """query ($o: UUID!, $p: UUID!, $after: String) {
        genericTasks(orgId: $o, projectId: $p, first: 500, after: $after) { entries {
        taskId currentStageName priority
        datapoint { name metaData storageMethod { storageId } items(presigned: false) urls: items(presigned: true)
            seriesInfo { name itemsIndices metaData imageHeaders } heatMaps { name item seriesIndex }
            transforms { seriesIndex transform } centerline { seriesIndex name centerline } }
        latestTaskData { labelsData labelsDataPath labelsMap { seriesIndex labelName } }
        currentStageSubTask { ... on LabelingTask { state assignedTo { email } } } } } }"""

    def ask() -> dict[str, dict]:
        entries = sandbox.graphql(document, {"o": sandbox.org_id, "p": sandbox.project_id})["genericTasks"]["entries"]
        found = {entry["datapoint"]["name"]: {**entry, **entry.pop("datapoint")} for entry in entries}
        assert len(found) == len(entries)
        return found

    return ask


@pytest.fixture
def stored(sandbox):
    """Return the stored type and content of a task's items, in order."""

    def read(task) -> list[tuple[str, bytes]]:
        answers = [sandbox.http.get(url, timeout=30) for url in task["urls"]]
        assert all(answer.status_code == 200 for answer in answers)
        return [(answer.headers["Content-Type"], answer.content) for answer in answers]

    return read


@pytest.fixture
def content(sandbox):
    """Return what the server has stored at a path."""
    document = "query ($o: UUID!, $s: UUID!, $i: [String]!) { presignItems(orgId: $o, storageId: $s, items: $i) }"

    def read(path) -> bytes:
        ids = {"o": sandbox.org_id, "s": STORAGE, "i": [path]}
        (url,) = sandbox.graphql(document, ids)["presignItems"]
        return sandbox.http.get(url, timeout=30).content

    return read


@pytest.fixture
def report(sandbox, run, tmp_path):
    """Upload with a report and return its rows by name."""

    def attempt(tasks=None, **options) -> dict[str, dict]:
        path = tmp_path / "report.jsonl"
        manifest = run.try_once(upload(tasks, report_path=str(path), fail_on="never", **options))
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        assert sum(manifest["counts"].values()) == len(rows)
        return {row["name"] or row["reason"].split(":")[0]: row for row in rows}

    return attempt


@pytest.fixture
def changes(sandbox):
    """Return the number of requests that changed or stored data."""
    return lambda: sum(sandbox.stats()["root_fields"].get(name, 0) for name in (CREATE, PRESIGN, "presignUploads"))


class TestItems:
    def test_files_are_stored_byte_for_byte(self, sandbox, run, created, stored, tmp_path):
        bare = tmp_path / "1.2.840.113"
        bare.write_bytes(Path(MR).read_bytes())
        tasks = [
            {"name": "ct", "items": CT},
            {"name": "both", "items": [MR, CT]},
            {"name": "brain", "series": [{"items": str(BRAIN)}, {"items": [str(bare)]}]},
        ]
        assert run.try_once(upload(tasks))["counts"] == counts(done=3)
        found = created()
        dicom, volume = "application/dicom", "application/octet-stream"
        assert stored(found["ct"]) == [(dicom, Path(CT).read_bytes())]
        assert stored(found["both"]) == [(dicom, Path(MR).read_bytes()), (dicom, Path(CT).read_bytes())]
        assert stored(found["brain"]) == [(volume, BRAIN.read_bytes()), (dicom, bare.read_bytes())]
        assert [info["itemsIndices"] for info in found["both"]["seriesInfo"]] == [[0, 1]]
        assert [info["itemsIndices"] for info in found["brain"]["seriesInfo"]] == [[0], [1]]
        assert {task["currentStageName"] for task in found.values()} == {"Label"}

    def test_files_of_object_storage_are_stored(self, run, created, stored, tmp_path):
        attach(protocol="memory", conn_id="box", fs=MemoryFileSystem())
        folder = ObjectStoragePath("memory://box@bucket/day")
        (folder / "images").mkdir(parents=True, exist_ok=True)
        for name in ("1.dcm", "2.dcm"):
            (folder / "images" / name).write_bytes(Path(CT).read_bytes())
        uris = [f"file://{CT}", "memory://box@bucket/day/images/1.dcm", "images/2.dcm"]
        tasks = [{"name": str(i), "items": uri} for i, uri in enumerate(uris)]
        (folder / "tasks.jsonl").write_bytes(lines(tasks))
        images = str(Path(CT).parent)
        manifest = run.try_once(upload(tasks_path="memory://box@bucket/day/tasks.jsonl", allowed_folders=[images]))
        assert manifest["counts"] == counts(done=3)
        assert [stored(task)[0][1] for task in created().values()] == [Path(CT).read_bytes()] * 3

    def test_files_with_equal_names_keep_order(self, sandbox, run, created, stored, tmp_path):
        items = []
        for i in range(120):
            path = tmp_path / f"series{i % 3}" / f"slice{i // 3}.dcm"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"%d" % i)
            items.append(str(path))
        assert run.try_once(upload([{"name": "ct", "items": items}]))["counts"] == counts(done=1)
        assert [content for _, content in stored(created()["ct"])] == [b"%d" % i for i in range(120)]
        assert sandbox.stats()["root_fields"][PRESIGN] == 3

    def test_file_in_two_series_is_stored_once(self, sandbox, run, created):
        run.try_once(upload([{"name": "ct", "series": [{"items": CT}, {"items": [CT, MR]}]}]))
        items = created()["ct"]["items"]
        assert items[0] == items[1] != items[2]

    def test_items_with_storage_id_are_sent_unchanged(self, sandbox, run, created, changes):
        tasks = [{"name": "ct", "items": ["bucket/a.dcm", "../b"]}, {"name": "web", "items": "https://h/x.nii?a=b"}]
        assert run.try_once(upload(tasks, storage_id=PUBLIC))["counts"] == counts(done=2)
        found = created()
        assert found["ct"]["items"] == ["bucket/a.dcm", "../b"]
        assert found["web"]["items"] == ["https://h/x.nii?a=b"]
        assert found["ct"]["storageMethod"]["storageId"] == PUBLIC
        assert changes() == 2

    @pytest.fixture
    def odd_files(self, tmp_path, monkeypatch):
        """The working directory, with files that cannot be items."""
        monkeypatch.chdir(tmp_path)
        (tmp_path / "empty.dcm").touch()
        (tmp_path / "folder.dcm").mkdir()
        for name in ("scan.pdf", "scan.mp4", "scan.MOV"):
            (tmp_path / name).write_bytes(b"x")
        (tmp_path / "lost.dcm").symlink_to("/nowhere/a.dcm")
        for name in ("page.dcm", "page.nii.gz"):
            (tmp_path / name).write_text("<!DOCTYPE html>\n<html><body>Please sign in</body></html>")
        for name in ("pointer.dcm", "pointer.png"):
            (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n")
        (tmp_path / "volume.nii").write_bytes(BRAIN.read_bytes())
        (tmp_path / "plain.nii.gz").write_bytes(gzip.decompress(BRAIN.read_bytes()))
        (tmp_path / "DICOMDIR").write_bytes(DICOMDIR.read_bytes())
        (tmp_path / ".DS_Store").write_bytes(b"\0\0\0\1Bud1" + bytes(100))
        (tmp_path / "._a.dcm").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X" + bytes(100))
        (tmp_path / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(100))

    @pytest.mark.parametrize(
        ("item", "words"),
        [
            ("nowhere.dcm", "item 'nowhere.dcm': there is no such file"),
            ("empty.dcm", "item 'empty.dcm': it is empty"),
            ("folder.dcm", "item 'folder.dcm': it is a folder, not a file"),
            ("folder.dcm/", "item 'folder.dcm/': it is a folder, not a file"),
            ("lost.dcm", "item 'lost.dcm': 'lost.dcm' is a link to '/nowhere/a.dcm', which does not exist"),
            ("~no-such-user/a.dcm", "item '~no-such-user/a.dcm': there is no such file, nor a home directory"),
            ("page.dcm", "item 'page.dcm': it looks like an HTML page"),
            ("page.nii.gz", "item 'page.nii.gz': its name ends in .gz, but it looks like an HTML page"),
            ("pointer.dcm", "item 'pointer.dcm': it looks like a Git LFS pointer"),
            ("pointer.png", "item 'pointer.png': it looks like a Git LFS pointer"),
            ("volume.nii", "item 'volume.nii': it is compressed with gzip, but its name has no .gz suffix"),
            ("plain.nii.gz", "item 'plain.nii.gz': its name ends in .gz, but it looks like a NIfTI volume"),
            ("DICOMDIR", "item 'DICOMDIR': it looks like a DICOMDIR, which lists other files"),
            (".DS_Store", "item '.DS_Store': it looks like a system file of macOS"),
            ("._a.dcm", "item '._a.dcm': it looks like a system file of macOS"),
            ("Thumbs.db", "item 'Thumbs.db' is a system file of Windows"),
            ("file:///nowhere/a.dcm", "item 'file:///nowhere/a.dcm' cannot be read"),
            ("nothing://a.dcm", "item 'nothing://a.dcm' cannot be read"),
            ("scan.pdf", "item 'scan.pdf' has an unsupported file type. RedBrick accepts .dcm"),
            ("scan.mp4", "item 'scan.mp4' is a video"),
            ("scan.MOV", "item 'scan.MOV' is a video"),
        ],
    )
    @pytest.mark.usefixtures("odd_files")
    def test_unreadable_file_fails_task_alone(self, report, created, item, words):
        rows = report([{"name": "bad", "items": [CT, item]}, {"name": "good", "items": CT}])
        assert rows["bad"]["reason"].startswith(words)
        assert rows["good"]["status"] == "done"
        assert set(created()) == {"good"}

    def test_non_item_in_object_store_is_refused_before_upload(self, report, created):
        attach(protocol="memory", conn_id="box", fs=MemoryFileSystem())
        folder = ObjectStoragePath("memory://box@bucket/odd")
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in (("a.dcm", b"<?xml version='1.0'?><Error><Code>NoSuchKey</Code></Error>"), ("b.dcm", b"")):
            (folder / name).write_bytes(content)
        rows = report([{"name": name, "items": f"memory://box@bucket/odd/{name}.dcm"} for name in "ab"])
        assert "it looks like an XML error message" in rows["a"]["reason"]
        assert "it is empty" in rows["b"]["reason"]
        assert created() == {}

    @pytest.mark.parametrize("name", ["no_meta.dcm", "badVR.dcm", "ExplVR_BigEndNoMeta.dcm", "rtstruct.dcm"])
    def test_unusual_dicom_files_are_accepted(self, run, created, stored, name):
        path = get_testdata_file(name, download=False)
        assert run.try_once(upload([{"name": "odd", "items": path}]))["counts"] == counts(done=1)
        assert stored(created()["odd"]) == [("application/dicom", Path(path).read_bytes())]

    def test_home_path_is_expanded(self, run, created, tmp_path, monkeypatch):
        monkeypatch.setenv("HOME", str(tmp_path))
        (tmp_path / "a.dcm").write_bytes(Path(CT).read_bytes())
        assert run.try_once(upload([{"name": "home", "items": "~/a.dcm"}]))["counts"] == counts(done=1)

    @pytest.mark.parametrize(
        ("item", "words"),
        [
            ("scans/DICOMDIR", "item 'scans/DICOMDIR' is a DICOMDIR"),
            ("https://h/x/.DS_Store?sig=a.dcm", "item 'https://h/x/.DS_Store?***' is a system file of macOS"),
            ("s3://b/._a.dcm", "item 's3://b/._a.dcm' is a system file of macOS"),
            ("a/Thumbs.db", "item 'a/Thumbs.db' is a system file of Windows"),
        ],
    )
    def test_items_with_storage_id_are_checked_by_name_only(self, report, created, item, words):
        tasks = [{"name": "bad", "items": ["scans/a", item]}, {"name": "good", "items": "b/a.dcm"}]
        assert report(tasks, storage_id=PUBLIC)["bad"]["reason"].startswith(words)
        assert set(created()) == {"good"}

    def test_missing_file_is_found_before_first_upload(self, report, changes):
        assert report([{"name": "bad", "items": [CT, "nowhere.dcm"]}])["bad"]["status"] == "failed"
        assert changes() == 0


class TestDescriptions:
    def test_description_with_all_fields_is_stored(self, run, created, content):
        matrix = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
        series = {
            "items": [CT],
            "name": "axial",
            "metaData": {"modality": "CT"},
            "imageHeaders": {"spacing": [1, 2, 3]},
            "heatMaps": [{"name": "risk", "item": str(BRAIN)}],
            "transforms": [{"transform": matrix}],
            "centerline": [{"name": "aorta", "centerline": [{"x": 1}]}],
        }
        task = {"name": "a", "series": [{"items": MR}, series], "metaData": {"ward": "3"}, "priority": 0.25}
        run.try_once(upload([task]))
        found = created()["a"]
        first, second = found["seriesInfo"]
        assert (json.loads(found["metaData"]), found["priority"]) == ({"ward": "3"}, 0.25)
        assert (first["name"], second["name"], second["itemsIndices"]) == (None, "axial", [1])
        assert json.loads(second["metaData"]) == {"modality": "CT"}
        assert json.loads(second["imageHeaders"]) == {"spacing": [1, 2, 3]}
        assert found["transforms"] == [{"seriesIndex": 1, "transform": [n for row in matrix for n in row]}]
        (heat_map,), (centerline,) = found["heatMaps"], found["centerline"]
        assert (heat_map["name"], heat_map["seriesIndex"], len(found["items"])) == ("risk", 1, 2)
        assert content(heat_map["item"]) == BRAIN.read_bytes()
        assert json.loads(centerline["centerline"]) == [{"x": 1}]

    def test_priorities_order_the_queue(self, sandbox, run, created):
        wanted = {"low": 0.1, "high": 1, "none": None, "middle": 0.5}
        run.try_once(upload([{"name": name, "items": CT, "priority": value} for name, value in wanted.items()]))
        assert list(created()) == ["high", "middle", "low", "none"]

    def test_tasks_are_assigned_when_they_come_to_the_stage(self, sandbox, run, created):
        run.try_once(upload([{"name": "a", "items": CT, "preAssign": {"Label": ALICE.upper(), "Review_1": [BOB]}}]))
        task = created()["a"]
        assert task["currentStageSubTask"] == {"state": "ASSIGNED", "assignedTo": {"email": ALICE}}
        sandbox.humans("Label")
        task = created()["a"]
        assert (task["currentStageName"], task["currentStageSubTask"]["assignedTo"]) == ("Review_1", {"email": BOB})

    def test_unusual_names_are_stored(self, run, created, new_run):
        names = ['say "ah"', "50%_done", "größe", "a'b", "x" * 300, "{{ name }}", "a/b", '"quoted"']
        tasks = [{"name": name, "items": CT} for name in names]
        assert run.try_once(upload(tasks))["counts"] == counts(done=len(names))
        assert set(created()) == set(names)
        assert new_run().try_once(upload(tasks))["counts"] == counts(already_done=len(names))

    def test_templates_are_rendered_except_in_labels(self):
        box = {**BOX, "comment": "{% that is none"}
        series = [{"items": ["/in/{{ ds }}/a.dcm"], "boundingBoxes": [box], "segmentMap": {"1": "{{ ds }}"}}]
        tasks = [{"name": "ct-{{ ds }}", "series": series, "classification": {"attributes": {"a": "{{ ds }}"}}}]
        made = upload(tasks, tasks_path="/in/{{ ds }}.jsonl", storage_id="{{ ds }}")
        made.render_template_fields({"ds": "2024-05-01"})
        (task,) = made.tasks
        assert (made.tasks_path, made.storage_id) == ("/in/2024-05-01.jsonl", "2024-05-01")
        assert (task["name"], task["series"][0]["items"]) == ("ct-2024-05-01", ["/in/2024-05-01/a.dcm"])
        assert task["series"][0]["boundingBoxes"] == [box]
        assert task["series"][0]["segmentMap"] == {"1": "{{ ds }}"}
        assert task["classification"] == {"attributes": {"a": "{{ ds }}"}}

    def test_upstream_output_as_labels_is_resolved(self):
        made = upload([{"name": "ct", "series": [{"items": CT, "boundingBoxes": literal([BOX])}]}])
        made.render_template_fields({})
        assert made.tasks[0]["series"][0]["boundingBoxes"] == [BOX]

    def test_nested_upstream_output_in_labels_is_resolved(self):
        box = {**BOX, "comment": "{{ ds }}", "attributes": literal({"side": "left"})}
        made = upload([{"name": "ct", "series": [{"items": CT, "boundingBoxes": [box, literal(BOX)]}]}])
        made.render_template_fields({"ds": "2024-05-01"})
        first, second = made.tasks[0]["series"][0]["boundingBoxes"]
        assert (first, second) == ({**BOX, "comment": "{{ ds }}", "attributes": {"side": "left"}}, BOX)


def labeled(name: str, *boxes, **more) -> dict:
    return {"name": name, "series": [{"items": CT, "boundingBoxes": list(boxes or [BOX])}], **more}


class TestLabels:
    def test_labels_are_created_with_task(self, sandbox, run, created):
        point = {"point": {"xNorm": 0.5, "yNorm": 0.5}, "category": "landmark", "video": {"seriesItemIndex": 1}}
        series = [{"items": CT, "boundingBoxes": [BOX]}, {"items": [CT, MR], "landmarks": [point]}]
        task = {"name": "a", "series": series, "classification": {"attributes": {"abnormal": True}}}
        assert run.try_once(upload([task]))["counts"] == counts(done=1)
        study, box, landmark = json.loads(created()["a"]["latestTaskData"]["labelsData"])
        assert study["studyclassify"] is True
        assert (box["bbox2d"], box["volumeindex"]) == (FLAT_BOX, 0)
        # The index counts all items of the task.
        assert (landmark["volumeindex"], landmark["globalitemsindex"]) == (1, 2)

    def test_task_without_labels_has_none(self, run, created):
        run.try_once(upload(studies(1)))
        assert created()["study-000"]["latestTaskData"] is None

    def test_mask_is_uploaded_with_task(self, run, created, content, tmp_path):
        data = np.zeros((4, 5, 6), np.uint8)
        data[1:3, 1:3, 1:3] = 2
        nib.save(nib.Nifti1Image(data, np.eye(4)), tmp_path / "mask.nii.gz")
        series = {"items": str(BRAIN), "segmentations": str(tmp_path / "mask.nii.gz"), "segmentMap": {"2": "lesion"}}
        run.try_once(upload([{"name": "a", "series": [{"items": CT}, series]}]))
        labels = created()["a"]["latestTaskData"]
        (label,) = json.loads(labels["labelsData"])
        assert (label["category"], label["dicom"]["instanceid"], label["volumeindex"]) == ("lesion", 2, 1)
        first, second = labels["labelsMap"]
        assert (first, second["seriesIndex"]) == (None, 1)
        assert content(second["labelName"]) == (tmp_path / "mask.nii.gz").read_bytes()

    def test_missing_mask_file_fails_task(self, report, changes):
        series = {"items": CT, "segmentations": "mask.nii.gz", "segmentMap": {"2": "lesion"}}
        rows = report([{"name": "a", "series": [series]}])
        assert rows["a"]["reason"] == "series 0: there is no mask file 'mask.nii.gz'. Nothing was sent"
        assert changes() == 0

    def test_large_labels_are_stored_as_file(self, run, created, sandbox):
        points = [{"point": {"xNorm": i / 2000, "yNorm": 0.5}, "category": "landmark"} for i in range(1200)]
        run.try_once(upload([{"name": "a", "series": [{"items": CT, "landmarks": points}]}]))
        assert created()["a"]["latestTaskData"]["labelsDataPath"]

    def test_invalid_labels_fail_task_and_upload_nothing(self, sandbox, report, created):
        rows = report([labeled("bad", {**BOX, "category": "findign"}), labeled("good")])
        assert rows["bad"]["status"] == "failed"
        assert "did you mean 'finding'" in rows["bad"]["reason"]
        assert rows["good"]["status"] == "done"
        assert set(created()) == {"good"}
        assert sandbox.stats()["root_fields"][PRESIGN] == 1

    def test_labels_refused_by_server_fail_task(self, sandbox, report, created):
        tasks = [labeled("bad", {**BOX, "wNorm": "wide"}), labeled("good"), labeled("odd", {**BOX, "category": "x"})]
        rows = report(tasks, validate="off")
        assert "wNorm: a number is needed" in rows["bad"]["reason"]
        assert set(created()) == {"good", "odd"}
        assert sandbox.stats()["root_fields"][PRESIGN] == 2

    def test_invalid_labels_with_validate_warn_are_sent(self, report, created):
        assert report([labeled("odd", {**BOX, "category": "x"})], validate="warn")["odd"]["status"] == "done"


class TestGroundTruth:
    def test_ground_truth_parameter_applies_to_all_tasks(self, run, created):
        run.try_once(upload([labeled("a"), labeled("b", isGroundTruth=False)], is_ground_truth=True))
        assert {name: task["currentStageName"] for name, task in created().items()} == {"a": "END", "b": "Label"}
        assert json.loads(created()["a"]["latestTaskData"]["labelsData"])[0]["bbox2d"] == FLAT_BOX

    def test_ground_truth_of_one_description_applies_to_it(self, run, created):
        run.try_once(upload([labeled("a", isGroundTruth=True), *studies(1)]))
        stages = {name: task["currentStageName"] for name, task in created().items()}
        assert stages == {"a": "END", "study-000": "Label"}

    def test_ground_truth_without_labels_is_refused(self, sandbox, report, created):
        empty = {"name": "healthy", "series": [{"items": CT, "boundingBoxes": []}]}
        rows = report([*studies(1), empty, labeled("a")], is_ground_truth=True)
        assert rows["study-000"]["reason"].startswith("ground truth needs labels")
        assert {name: task["currentStageName"] for name, task in created().items()} == {"healthy": "END", "a": "END"}
        assert sandbox.stats()["root_fields"][PRESIGN] == 2


class TestIdempotence:
    def test_second_run_creates_and_uploads_nothing(self, sandbox, run, new_run, created, changes):
        first = run.try_once(upload(studies(30)))
        assert first["counts"] == counts(done=30)
        assert first["stage_name"] is None
        outputs = new_run().try_once(upload(studies(30), multiple_outputs=True))
        assert set(first) - set(outputs) == {"stage_name", "report"}
        before, ids = changes(), {task["taskId"] for task in created().values()}
        assert set(first["task_ids"]) == ids
        second = new_run().try_once(upload(studies(31)))
        assert second["counts"] == counts(done=1, already_done=30)
        assert ids < set(second["task_ids"])
        assert changes() == before + 2
        assert sandbox.applied(CREATE) == dict.fromkeys(set(second["task_ids"]), 1)

    def test_existing_task_with_missing_files_is_already_done(self, sandbox, report, changes):
        (task_id,) = sandbox.seed_tasks(1)
        name = sandbox.task(task_id)["name"]
        row = report([{"name": name, "items": "gone.dcm", "priority": 1}])[name]
        assert (row["status"], row["task_id"]) == ("already_done", task_id)
        assert row["reason"] == "a task with this name already exists"
        assert changes() == 0
        assert sandbox.task(task_id)["priority"] is None

    def test_name_taken_meanwhile_is_already_done(self, sandbox, report, monkeypatch, created):
        """The name is taken between the lookup and the request."""
        (task_id,) = sandbox.seed_tasks(1)
        name = sandbox.task(task_id)["name"]
        find, looks = RedBrickProject.find_by_name, []

        def late(self, names):
            looks.append(names)
            return {name: [] for name in names} if len(looks) == 1 else find(self, names)

        monkeypatch.setattr(RedBrickProject, "find_by_name", late)
        row = report([{"name": name, "items": CT}])[name]
        assert (row["status"], row["task_id"]) == ("already_done", task_id)
        assert len(created()) == 1

    def test_many_take_few_requests(self, sandbox, run):
        before = sandbox.stats()["requests"]
        run.try_once(upload(studies(100), storage_id=PUBLIC))
        # One request per task; per 25 tasks: look up, convert; once: project, taxonomy, and the last tasks at the end.
        assert sandbox.stats()["requests"] - before <= 100 + 2 * 4 + 3

    def test_duplicating_project_reports_all_copies(self, sandbox, report):
        document = """mutation ($o: UUID!, $p: UUID!) {
            updateProjectTaskDuplication(orgId: $o, projectId: $p, taskDuplicationCount: 3) { ok } }"""
        sandbox.graphql(document, {"o": sandbox.org_id, "p": sandbox.project_id})
        row = report(studies(1))["study-000"]
        assert len(set(row["task_ids"])) == 3
        assert row["task_id"] == row["task_ids"][0]
        assert sandbox.task(row["task_id"])["name"] == "study-000"
        assert report(studies(1))["study-000"]["status"] == "already_done"

    def test_report_names_data_point(self, report):
        row = report(studies(1))["study-000"]
        assert row["status"] == "done"
        assert row["dp_id"]
        assert "task_ids" not in row


# By name: (fault, root field, number of requests that pass first, number of requests that fail).
FAULTS = {
    "answer lost": [("drop_after", CREATE, 3, 1)],
    "answers lost": [("drop_after", CREATE, 0, 30)],
    "request lost": [("drop_before", CREATE, 3, 1)],
    "http 500": [("http_500", CREATE, 3, 1)],
    "http 503": [("http_503", CREATE, 3, 4)],
    "graphql error": [("gql_error", CREATE, 3, 2)],
    "graphql error, null": [("gql_partial", CREATE, 3, 2)],
    "html": [("html", CREATE, 3, 2)],
    "rate limit": [("rate_limit", CREATE, 3, 2)],
    "too large": [("too_large", CREATE, 3, 2)],
    "outage": [("http_503", CREATE, 3, 1000)],
    "dead line": [("drop_after", CREATE, 2, 1000), ("http_500", LOOK_UP, 1, 1000)],
    "answer lost, then unreadable": [("drop_after", CREATE, 3, 1), ("http_500", LOOK_UP, 1, 1)],
    "answer lost, then refused": [("drop_before", CREATE, 3, 1), ("gql_error", CREATE, 0, 1)],
    "names unreadable": [("http_500", LOOK_UP, 0, 1)],
    "names refused": [("gql_error", LOOK_UP, 0, 1)],
    "no place for files": [("gql_error", PRESIGN, 3, 2)],
    "no conversion": [("http_500", CONVERT, 0, 1)],
    "invalid conversion": [("html", CONVERT, 0, 1)],
    "no project": [("gql_error", "project", 0, 1)],
}


class TestRetry:
    @pytest.mark.parametrize("fault", FAULTS, ids=lambda name: name.replace(" ", "_"))
    def test_retry_after_fault_processes_the_rest(self, sandbox, created, finish, quick, fault):
        for name, root_field, skip, times in FAULTS[fault]:
            sandbox.fault_once(name, root_field, skip=skip, times=times)
        manifests = finish(lambda: upload([labeled(f"study-{i}") for i in range(8)]))
        assert len(created()) == 8
        assert set(sandbox.applied(CREATE).values()) == {1}
        tried = [manifest["counts"] for manifest in manifests if manifest]
        assert all(sum(each.values()) == 8 for each in tried)
        assert tried[-1]["done"] + tried[-1]["already_done"] == 8
        assert sum(each["done"] for each in tried) <= 8
        assert set(manifests[-1]["task_ids"]) == {task["taskId"] for task in created().values()}

    @pytest.mark.parametrize("fault", ["answer lost", "answers lost", "request lost", "http 500", "html"])
    def test_lost_answer_is_resolved_without_retry(self, sandbox, run, quick, fault):
        for name, root_field, skip, times in FAULTS[fault]:
            sandbox.fault_once(name, root_field, skip=skip, times=times)
        assert run.try_once(upload(studies(8), storage_id=PUBLIC))["counts"] == counts(done=8)

    def test_name_refused_after_lost_answer_is_done(self, sandbox, run, quick, monkeypatch):
        """The server is still busy when its answer is lost, and creates the task before the repeated request."""
        find, looks = RedBrickProject.find_by_name, []

        def late(self, names):
            looks.append(names)
            return {name: [] for name in names} if len(looks) <= 4 else find(self, names)

        monkeypatch.setattr(RedBrickProject, "find_by_name", late)
        sandbox.fault_once("drop_after", CREATE)
        manifest = run.try_once(upload(studies(1)))
        assert manifest["counts"] == counts(done=1)
        assert sandbox.stats()["root_fields"][CREATE] == 2
        assert sandbox.applied(CREATE) == dict.fromkeys(manifest["task_ids"], 1)

    def test_server_outage_stops_requests_per_task(self, sandbox, run, quick):
        sandbox.fault_once("http_503", PRESIGN, times=1000)
        with pytest.raises(RedBrickTasksFailedError):
            run.try_once(upload(studies(60)))
        reasons = [failure["reason"] for failure in run.xcoms["manifest"]["failed"]]
        assert sum("Not attempted: RedBrick did not answer" in reason for reason in reasons) >= 30
        assert any("HTTP 503" in reason and reason.endswith("The task was not created") for reason in reasons)
        assert run.xcoms["manifest"]["counts"] == counts(failed=60)

    @pytest.mark.parametrize("seed", [17])
    def test_retries_after_any_fault_create_once(self, sandbox, created, finish, quick, seed):
        sandbox.faults(f"http_503=0.1,drop_before=0.05,drop_after=0.05,rate_limit=0.05,http_500=0.05,seed={seed}")
        manifests = finish(lambda: upload(studies(60)), faults_stay=True, tries=10)
        sandbox.faults("")
        assert len(created()) == 60
        assert set(sandbox.applied(CREATE).values()) == {1}
        assert manifests[-1]["counts"]["failed"] == 0

    def test_retry_after_kill_processes_the_rest(self, sandbox, created, killed_attempt, finish, monkeypatch):
        with monkeypatch.context() as patch:
            patch.setattr(ProjectImports, "create", dying_after(12, ProjectImports.create))
            killed_attempt(upload(studies(40)))
        assert 12 <= len(created()) < 40
        (manifest,) = finish(lambda: upload(studies(40)))
        assert manifest["counts"]["done"] + manifest["counts"]["already_done"] == 40
        assert len(created()) == 40

    def test_stop_sends_nothing_more(self, sandbox, run, created, monkeypatch):
        """Airflow calls ``on_kill`` in the main thread, for example while the next tasks are prepared."""
        made, convert = upload(studies(60)), RedBrickClient.convert_labels

        def stopping(self, tasks):
            if created():
                made.on_kill()
            return convert(self, tasks)

        monkeypatch.setattr(RedBrickClient, "convert_labels", stopping)
        with pytest.raises(RedBrickStoppedError, match="The next attempt processes the rest"):
            run.try_once(made)
        assert len(created()) == 25
        assert sandbox.stats()["root_fields"][PRESIGN] == 25

    def test_lost_request_does_not_upload_files_again(self, sandbox, run, quick):
        sandbox.fault_once("drop_before", CREATE, times=2)
        assert run.try_once(upload(studies(1)))["counts"] == counts(done=1)
        fields = sandbox.stats()["root_fields"]
        assert (fields[PRESIGN], fields[CREATE]) == (1, 3)


def dying_after(number, create):
    """Return a replacement that kills its process after a number of created tasks."""
    import itertools
    import os
    import signal

    count = itertools.count(1)

    def counted(self, new):
        answer = create(self, new)
        if next(count) >= number:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    return counted


def lines(entries) -> bytes:
    return b"".join(entry if isinstance(entry, bytes) else json.dumps(entry).encode() + b"\n" for entry in entries)


class TestFiles:
    @pytest.fixture
    def written(self, tmp_path, monkeypatch):
        """Write a file of descriptions into a folder with images, other than the working directory."""
        elsewhere = tmp_path / "elsewhere"
        (tmp_path / "batch" / "images").mkdir(parents=True)
        elsewhere.mkdir()
        monkeypatch.chdir(elsewhere)
        (tmp_path / "batch" / "images" / "ct.dcm").write_bytes(Path(CT).read_bytes())
        (tmp_path / "beside.dcm").write_bytes(Path(MR).read_bytes())

        def write(content: bytes) -> Path:
            path = tmp_path / "batch" / "tasks"
            path.write_bytes(content)
            return path

        return write

    @pytest.mark.parametrize(
        ("content", "scheme"),
        [
            (lines, ""),
            (lines, "file://"),
            (lambda tasks: json.dumps(tasks).encode(), ""),
            (lambda tasks: gzip.compress(lines(tasks)), "file://"),
        ],
        ids=["lines", "lines_by_uri", "array", "compressed_by_uri"],
    )
    def test_file_format_is_detected_by_content(self, report, created, written, content, scheme):
        boxed = {"name": "b", "series": [{"items": "images/ct.dcm", "boundingBoxes": [BOX]}]}
        tasks = [{"name": "a", "items": "images/ct.dcm"}, boxed, {"name": "c", "items": ["./images/ct.dcm"]}]
        rows = report(tasks_path=f"{scheme}{written(content(tasks))}")
        assert {name: row["status"] for name, row in rows.items()} == dict.fromkeys("abc", "done")
        assert set(created()) == set("abc")

    def test_broken_entry_fails_alone_with_position(self, report, created, written, run):
        entries = [
            {"name": "a", "items": "images/ct.dcm"},
            b'{"name": "b", \n',
            {"name": "c", "items": "images/ct.dcm", "priority": 2},
            {"items": "images/ct.dcm"},
            {"name": "a", "items": "images/other.dcm"},
            {"name": "c", "items": "images/ct.dcm"},
            {
                "name": "d",
                "series": [{"items": "images/ct.dcm", "boundingBoxes": [{**BOX, "category": "findign"}]}],
            },
            {"name": "e", "items": "../beside.dcm"},
            {"name": "f", "items": "images/ct.dcm", "preAssign": {"Labl": BOB}},
            {"name": "g", "items": "images/ct.dcm"},
        ]
        path = str(written(lines(entries)))
        with pytest.raises(RedBrickTasksFailedError):
            run.try_once(upload(tasks_path=path))
        assert run.xcoms["manifest"]["counts"] == counts(done=2, failed=8)
        told = {f["reason"].split(":")[0]: (f["name"], f["reason"]) for f in run.xcoms["manifest"]["failed"]}
        assert told.keys() == {f"line {n}" for n in range(2, 10)}
        assert [told[f"line {n}"][0] for n in range(2, 10)] == ["", "c", "", "a", "c", "d", "e", "f"]
        for line, words in {
            2: "it is not JSON: ",
            3: "priority: must be a number from 0 to 1, not 2",
            4: "name: is missing",
            5: "line 1 already has this name, and only the first is used",
            6: "line 3 already has this name, and only the first is used",
            7: "did you mean 'finding'",
            8: "item '../beside.dcm': it leads out of the folder of",
            9: "'Labl' is not a label or review stage of the project. Its stages are Label, Review_1",
        }.items():
            assert words in told[f"line {line}"][1]
        assert set(created()) == {"a", "g"}

    def test_unstorable_text_or_repeated_key_fails_task_alone(self, run, created, written):
        content = lines(
            [
                {"name": "a", "items": "images/ct.dcm"},
                {"name": "b\0", "items": "images/ct.dcm"},
                {"name": "c", "items": "images/ct.dcm", "metaData": {"k": "\ud800"}},
                b'{"name": "d", "items": "images/ct.dcm", "items": "images/other.dcm"}\n',
                {"name": "e", "items": "images/c\nt.dcm"},
                {"name": "f", "items": "images/ct.dcm"},
            ]
        )
        with pytest.raises(RedBrickTasksFailedError):
            run.try_once(upload(tasks_path=str(written(content))))
        reasons = [row["reason"] for row in run.xcoms["manifest"]["failed"]]
        assert reasons[0].startswith("line 2: name has characters that cannot be sent or stored")
        assert reasons[1].startswith("line 3: metaData.k has characters")
        assert reasons[2] == "line 4: it repeats the key 'items' (column 41)"
        assert reasons[3].startswith("line 5: items: must be a path or a list of paths without line breaks")
        assert set(created()) == {"a", "f"}

    @pytest.mark.parametrize("scheme", ["", "file://"])
    @pytest.mark.parametrize("name", ["half.nii", "half.nii.gz"])
    def test_truncated_volume_fails_task_alone(self, *, sandbox, run, tmp_path, scheme, name):
        """Intact gzip data may contain it: each member is checked, but their number is not known."""
        volume = gzip.decompress(BRAIN.read_bytes())
        half = volume[: len(volume) // 2]
        (tmp_path / name).write_bytes(gzip.compress(half) if name.endswith(".gz") else half)
        whole = gzip.compress(half) + gzip.compress(volume[len(half) :])
        (tmp_path / "whole.nii.gz").write_bytes(whole)
        tasks = [{"name": each, "items": f"{scheme}{tmp_path}/{each}"} for each in (name, "whole.nii.gz")]
        with pytest.raises(RedBrickTasksFailedError, match=f"its header states {len(volume)} bytes, but"):
            run.try_once(RedBrickUploadTasksOperator(task_id="u", tasks=tasks))
        assert run.xcoms["manifest"]["counts"] == counts(done=1, failed=1)
        assert sandbox.count() == 1

    @pytest.mark.parametrize("scheme", ["", "file://"])
    def test_damaged_gzip_item_fails_task_alone(self, sandbox, run, created, tmp_path, scheme):
        whole = BRAIN.read_bytes()
        for name, content in (("good", whole), ("bad", whole[:-8] + bytes(4) + whole[-4:]), ("cut", whole[:-9])):
            (tmp_path / f"{name}.nii.gz").write_bytes(content)
        tasks = [{"name": name, "items": f"{scheme}{tmp_path / name}.nii.gz"} for name in ("good", "bad", "cut")]
        with pytest.raises(RedBrickTasksFailedError):
            run.try_once(upload(tasks))
        reasons = {row["name"]: row["reason"] for row in run.xcoms["manifest"]["failed"]}
        assert "bad.nii.gz' cannot be read: its gzip data are damaged: CRC check failed" in reasons["bad"]
        assert "cut.nii.gz' cannot be read: its gzip data are truncated" in reasons["cut"]
        assert set(created()) == {"good"}
        assert sandbox.stats()["root_fields"][PRESIGN] == (3 if scheme else 1)

    def test_truncated_array_is_uploaded_up_to_its_end(self, run, created, written):
        content = json.dumps(studies(60)).encode()
        path = written(content[: content.index(b"study-040") + 3])
        with pytest.raises(RedBrickTasksFailedError, match="entry 41: the array is invalid from here on"):
            run.try_once(upload(tasks_path=str(path), storage_id=PUBLIC))
        assert len(created()) == 40

    def test_items_with_storage_id_are_not_relative_to_file(self, run, created, written):
        path = written(lines([{"name": "a", "items": "../x/ct.dcm"}]))
        run.try_once(upload(tasks_path=str(path), storage_id=PUBLIC))
        assert created()["a"]["items"] == ["../x/ct.dcm"]

    @pytest.mark.parametrize(
        ("content", "words"), [(b"", "is empty"), (b" [] ", "is empty"), (b"name,items\n", "neither JSON Lines")]
    )
    def test_file_without_descriptions_is_refused(self, sandbox, run, written, content, words):
        before = sandbox.stats()["requests"]
        with pytest.raises(RedBrickInputError, match=words):
            run.try_once(upload(tasks_path=str(written(content))))
        assert sandbox.stats()["requests"] == before

    def test_missing_file_is_refused(self, run):
        with pytest.raises(RedBrickInputError, match="tasks_path '/nowhere' cannot be read: there is no such file"):
            run.try_once(upload(tasks_path="/nowhere"))


def one(**changes) -> list[dict]:
    """Return a valid description, followed by one with changes; None removes a key."""
    task = {"name": "bad", "items": CT, **changes}
    return [*studies(1), {key: value for key, value in task.items() if value is not None}]


BAD_TASKS = {
    "none": (None, "either tasks or tasks_path"),
    "text": ("[{'name': 'a'}]", "tasks must be a list, not the text"),
    "object": ({"name": "a"}, "tasks must be a list, not dict"),
    "path": ([CT], "tasks[0]: it must be an object, not '"),
    "null": ([None], "tasks[0]: it must be an object, not null"),
    "no name": (one(name=None), "tasks[1]: name: is missing"),
    "blank name": (one(name=" "), "tasks[1]: name: must be text that is not blank, not ' '"),
    "number for a name": (one(name=7), "tasks[1]: name: must be text that is not blank, not 7"),
    "twins": ([*studies(2), *studies(1)], "Duplicate name: study-000. Nothing was sent"),
    "no items": (one(items=None), "tasks[1]: items: is missing; specify 'items' or 'series'"),
    "empty items": (one(items=[]), "items: must be a path or a list of paths"),
    "blank item": (one(items=[CT, ""]), "items: must be a path or a list of paths"),
    "items and series": (one(series=[{"items": CT}]), "items: cannot be combined with 'series'"),
    "no series": (one(items=None, series=[]), "series: must have at least 1 series, not 0"),
    "series without items": (one(items=None, series=[{"name": "x"}]), "series[0].items: is missing"),
    "series of text": (one(items=None, series=["a.dcm"]), "series[0]: must be an object, not 'a.dcm'"),
    "series' metaData": (
        one(items=None, series=[{"items": CT, "metaData": {"a": 1}}]),
        "series[0].metaData.a: must be",
    ),
    "heat map": (one(items=None, series=[{"items": CT, "heatMaps": [{}]}]), "series[0].heatMaps[0].item: is missing"),
    "unknown key": (one(metadata={"a": "b"}), "metadata: unknown key; did you mean 'metaData'?"),
    "half a pair in a name": (one(name="a\ud800"), "tasks[1]: name has characters that cannot be sent or stored"),
    "NUL in an item": (one(items=[CT, "b\0.dcm"]), "tasks[1]: items[1] has characters that cannot be sent or stored"),
    "an item that is no text in its file system": (one(items=os.fsdecode(b"caf\xe9.dcm")), "'caf\\udce9.dcm'"),
    "line break in an item": (one(items="a\nb.dcm"), "items: must be a path or a list of paths without line breaks"),
    "line break in a series' item": (
        one(items=None, series=[{"items": ["a.dcm", "b\r.dcm"]}]),
        "series[0].items: must be a path or a list of paths without line breaks, not 'b\\r.dcm'",
    ),
    "NUL in metaData": (one(metaData={"a": "b\0"}), "metaData.a has characters"),
    "NUL in metaData's key": (one(metaData={"a\0": "b"}), "metaData: the key has characters"),
    "NUL in a series' name": (one(items=None, series=[{"items": CT, "name": "\0"}]), "series[0].name has characters"),
    "NUL in a label": (
        one(items=None, series=[{"items": CT, "boundingBoxes": [{**BOX, "comment": "\0"}]}]),
        "series[0].boundingBoxes[0].comment has characters",
    ),
    "NUL in a classification": (one(classification={"attributes": {"x": "\0"}}), "classification.attributes.x has"),
    "NUL in a stage": (one(preAssign={"Label\0": ALICE}), "preAssign: the key has characters"),
    "NUL in an e-mail": (one(preAssign={"Label": [ALICE, "\0"]}), "preAssign.Label[1] has characters"),
    "keys that are one": (one(metaData={1: "a", "1": "b"}), "metaData"),
    "priority": (one(priority=1.5), "priority: must be a number from 0 to 1, not 1.5"),
    "priority as text": (one(priority="high"), "priority: must be a number from 0 to 1, not 'high'"),
    "priority as truth": (one(priority=True), "priority: must be a number from 0 to 1, not true"),
    "metaData": (one(metaData=["a"]), "metaData: must be an object, not a list"),
    "metaData of numbers": (one(metaData={"age": 5}), "metaData.age: must be text, not 5"),
    "classification": (one(classification="x"), "classification: must be an object, not 'x'"),
    "ground truth": (one(isGroundTruth="False"), "isGroundTruth: must be true or false, not 'False'"),
    "no JSON": (one(metaData={"a": {1, 2}}), "tasks[1]: it cannot be written as JSON"),
    "preAssign": (one(preAssign=ALICE), "preAssign: must be an object, not 'alice@example.com'"),
    "blank email": (one(preAssign={"Label": " "}), "preAssign.Label: must be an email or a list of emails, not ' '"),
    "no emails": (one(preAssign={"Label": []}), "preAssign.Label: must be an email or a list of emails"),
    "null email": (one(preAssign={"Label": [ALICE, None]}), "preAssign.Label: must be an email or a list of emails"),
}
BAD_OPTIONS = {
    "storage_id": ({"storage_id": "mine"}, "storage_id must be a UUID, not 'mine'"),
    "blank storage_id": ({"storage_id": ""}, "storage_id must be a UUID, not ''"),
    "is_ground_truth": ({"is_ground_truth": "True"}, "is_ground_truth must be True or False, not 'True'"),
    "validate": ({"validate": "strictly"}, "validate must be one of 'strict', 'warn', 'off'"),
    "both": ({"tasks_path": "x.json"}, "either tasks or tasks_path"),
    "fail_on": ({"fail_on": "sometimes"}, "fail_on"),
    "report_path": ({"report_path": " "}, "report_path"),
    "project_id": ({"project_id": ""}, "project_id"),
}
BAD_PEOPLE = {
    "unknown stage": ({"Labeling": ALICE}, "preAssign: 'Labeling' is not a label or review stage of the project"),
    "stage without people": ({"Input": ALICE}, "Its stages are Label, Review_1"),
    "ground truth": ({"Output": ALICE}, "Its stages are Label, Review_1"),
    "stranger": ({"Label": "eve@example.com"}, "preAssign, Label: Not members of the project: eve@example.com"),
    "no access": ({"Review_1": [BOB, ALICE]}, "preAssign, Review_1: No access to stage Review_1: alice@example.com"),
}


class TestRefusedInput:
    def refused(self, sandbox, run, made) -> str:
        before = sandbox.stats()["requests"]
        with pytest.raises(RedBrickInputError) as caught:
            run.try_once(made)
        assert sandbox.stats()["requests"] == before
        return str(caught.value)

    @pytest.mark.parametrize("case", BAD_TASKS, ids=lambda name: name.replace(" ", "_"))
    def test_invalid_tasks_are_refused(self, sandbox, run, case):
        tasks, words = BAD_TASKS[case]
        assert words in self.refused(sandbox, run, upload(tasks))

    @pytest.mark.parametrize("case", BAD_OPTIONS, ids=lambda name: name.replace(" ", "_"))
    def test_invalid_options_are_refused(self, sandbox, run, case):
        options, words = BAD_OPTIONS[case]
        assert words in self.refused(sandbox, run, upload(studies(1), **options))

    def test_blank_tasks_path_is_refused(self, sandbox, run):
        assert "tasks_path must not be empty" in self.refused(sandbox, run, upload(tasks_path=" "))

    @pytest.mark.parametrize("case", BAD_PEOPLE, ids=lambda name: name.replace(" ", "_"))
    def test_unknown_assignee_is_refused_before_any_change(self, run, created, changes, case):
        people, words = BAD_PEOPLE[case]
        with pytest.raises(RedBrickInputError) as caught:
            run.try_once(upload(one(preAssign=people)))
        assert str(caught.value).startswith("tasks[1]: ")
        assert words in str(caught.value)
        assert changes() == 0
        assert created() == {}
