"""``RedBrickExportTasksOperator``, with a running sandbox."""

from __future__ import annotations

import gzip
import json
import logging
import os
import signal
import time
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pendulum
import pytest
import requests
from airflow.sdk.io import attach
from fsspec.implementations.memory import MemoryFileSystem
from sandbox_calls import BOX, PRESIGN, data
from sandbox_process import SETTLE_SECONDS

from airflow_provider_redbrick.client.operations import task_reads
from airflow_provider_redbrick.client.operations.task_reads import BulkRead
from airflow_provider_redbrick.exceptions import RedBrickAPIError, RedBrickInputError
from airflow_provider_redbrick.operators.base import Progress
from airflow_provider_redbrick.operators.export_tasks import RedBrickExportTasksOperator
from airflow_provider_redbrick.operators.put_labels import RedBrickPutLabelsOperator

STORAGE = "11111111-1111-1111-1111-111111111111"
CREATE = """mutation ($o: UUID!, $p: UUID!, $storage: UUID!, $name: String!, $items: [String!]!, $priority: Float,
        $info: [SeriesInfoInput!], $meta: String) {
    createDatapoint(orgId: $o, projectId: $p, storageId: $storage, name: $name, items: $items, seriesInfo: $info,
        priority: $priority, metaData: $meta, isGroundTruth: true, labelsData: "[]") { taskId } }"""
PUT_LABELS = """mutation ($o: UUID!, $p: UUID!, $t: UUID!, $labels: String, $path: String, $map: [LabelMapInput]) {
    putLabels(orgId: $o, projectId: $p, taskId: $t, labelsData: $labels, labelsDataPath: $path, labelsMap: $map) {
        ok } }"""
VERSION = """query ($o: UUID!, $p: UUID!, $t: UUID!) { task(orgId: $o, projectId: $p, taskId: $t) {
    latestTaskData { tdId createdAt } } }"""

BOX_EXPORTED = {
    "pointTopLeft": {"xNorm": 0.1, "yNorm": 0.2},
    "wNorm": 0.3,
    "hNorm": 0.4,
    "category": "finding",
}
GZIPPED = gzip.compress(b"voxels" * 5000)


@pytest.fixture
def label(sandbox):
    """Put labels and masks on a task in its stage. Masks are by series or (series, bytes). Returns their paths."""

    def store(content, kind, name, encoding=None):
        (signed,) = data(sandbox, PRESIGN, files=[f"labels/{name}"], kind=kind, enc=encoding)
        headers = {"Content-Type": kind, **({"Content-Encoding": encoding} if encoding else {})}
        requests.put(signed["presignedUrl"], data=content, headers=headers, timeout=30).raise_for_status()
        return signed["filePath"]

    def put(task_id, labels=(BOX,), masks=(), *, in_file=False):
        pairs = list(masks.items() if isinstance(masks, dict) else masks)
        paths = [store(mask, "application/octet-stream", f"{task_id}/{i}.nii") for i, (_, mask) in enumerate(pairs)]
        entries = [{"seriesIndex": s, "labelName": path} for (s, _), path in zip(pairs, paths, strict=True)]
        text, path = json.dumps(list(labels)), None
        if in_file:
            path = store(gzip.compress(text.encode()), "application/json", f"{task_id}/labels.json", "gzip")
            text = "[]"
        data(sandbox, PUT_LABELS, t=task_id, labels=text, path=path, map=entries)
        return paths

    return put


@pytest.fixture
def said(caplog, capsys):
    """Return everything that was logged and printed so far."""
    caplog.set_level(logging.INFO)
    return lambda: caplog.text + "".join(capsys.readouterr())


def segment(instance, series=0, category="lesion"):
    return {"category": category, "volumeindex": series, "dicom": {"instanceid": instance, "groupids": None}}


def operator(path, **options) -> RedBrickExportTasksOperator:
    return RedBrickExportTasksOperator(task_id="export", export_path=str(path), **options)


def rows_in(path):
    return [json.loads(line) for line in (Path(path) / "tasks.jsonl").read_text().splitlines()]


def files_in(path):
    """Return all files below a folder by relative path."""
    return {str(file.relative_to(path)): file.read_bytes() for file in Path(path).rglob("*") if file.is_file()}


def ids_in(path):
    return [row["taskId"] for row in rows_in(path)]


class TestRows:
    def test_row_has_all_task_fields(self, sandbox, run, label, tmp_path):
        task_id = data(
            sandbox,
            CREATE,
            storage=STORAGE,
            name="study 1",
            items=["a.dcm", "b.dcm", "c.nii"],
            info=[{"name": "T1", "itemsIndices": [1, 0]}, {"name": "T2", "itemsIndices": [2]}],
            meta='{"age": "40"}',
            priority=0.25,
        )["taskId"]
        verdict = {"studyclassify": True, "attributes": [{"name": "abnormal", "value": True}]}
        box = {**BOX, "volumeindex": 1, "attributes": [{"name": "side", "value": "left"}], "labelid": "l1"}
        (path,) = label(task_id, [verdict, box, segment(3)], {0: GZIPPED})
        run.try_once(operator(tmp_path))
        version = data(sandbox, VERSION, t=task_id)["latestTaskData"]
        mask = f"masks/{task_id}/0.nii.gz"
        (row,) = rows_in(tmp_path)
        assert row == {
            "taskId": task_id,
            "name": "study 1",
            "currentStageName": "Ground Truth",
            "classification": {"attributes": {"abnormal": True}},
            "series": [
                {
                    "name": "T1",
                    "items": ["a.dcm", "b.dcm"],
                    "segmentations": mask,
                    "segmentMap": {"3": {"category": "lesion", "mask": mask}},
                    "binaryMask": False,
                    "semanticMask": False,
                    "pngMask": False,
                },
                {
                    "name": "T2",
                    "items": ["c.nii"],
                    "boundingBoxes": [{**BOX_EXPORTED, "id": "l1", "attributes": {"side": "left"}}],
                },
            ],
            "labelsId": version["tdId"],
            "updatedAt": version["createdAt"],
            "updatedBy": row["updatedBy"],
            "priority": 0.25,
            "metaData": {"age": "40"},
            "storageId": STORAGE,
        }
        assert row["updatedBy"].startswith("API:")
        assert (tmp_path / mask).read_bytes() == GZIPPED
        assert path not in (tmp_path / "tasks.jsonl").read_text()

    def test_row_omits_absent_fields(self, sandbox, run, tmp_path):
        (task_id,) = sandbox.seed_tasks(1)
        run.try_once(operator(tmp_path, stage_name="Label"))
        (row,) = rows_in(tmp_path)
        assert set(row) == {"taskId", "name", "series", "currentStageName", "storageId"}
        assert row["taskId"] == task_id
        assert row["currentStageName"] == "Label"
        assert row["series"] == [{"items": [f"items/{row['name']}.dcm"]}]

    def test_row_names_labeler_by_email(self, sandbox, run, tmp_path):
        sandbox.seed_tasks(1, ground_truth=True)
        run.try_once(operator(tmp_path))
        assert rows_in(tmp_path)[0]["updatedBy"] == "alice@example.com"

    def test_row_of_labels_in_file_has_category_names(self, sandbox, run, label, tmp_path):
        (task_id,) = sandbox.seed_tasks(1, ground_truth=True)
        nameless = {"bbox2d": BOX["bbox2d"], "classid": 0, "attributes": [{"attrid": 3, "optionid": 1}]}
        label(task_id, [nameless] * 1500, in_file=True)
        manifest = run.try_once(operator(tmp_path))
        boxes = rows_in(tmp_path)[0]["series"][0]["boundingBoxes"]
        assert boxes == [{**BOX_EXPORTED, "attributes": {"side": "right"}}] * 1500
        assert manifest["counts"]["labels"] == 1500

    def test_export_reads_all_pages(self, sandbox, run, tmp_path):
        ids = sandbox.seed_tasks(130, ground_truth=True, labels=[BOX])
        manifest = run.try_once(operator(tmp_path))
        assert ids_in(tmp_path) == ids
        assert all(row["series"][0]["boundingBoxes"] == [BOX_EXPORTED] for row in rows_in(tmp_path))
        assert manifest["counts"] == {"tasks": 130, "labels": 130, "masks": 0}
        assert sandbox.stats()["root_fields"]["tasksPaged"] == 3

    def test_export_shrinks_page_size_on_demand(self, sandbox, run, tmp_path):
        ids = sandbox.seed_tasks(60, ground_truth=True)
        sandbox.behavior(max_page=30)
        run.try_once(operator(tmp_path))
        assert ids_in(tmp_path) == ids

    def test_row_can_be_put_again(self, sandbox, run, new_run, label, tmp_path):
        (task_id,) = sandbox.seed_tasks(1, assignee="API key")
        verdict = {"studyclassify": True, "attributes": [{"name": "abnormal", "value": True}]}
        label(task_id, [{**BOX, "volumeindex": 0}, segment(1), verdict], {0: GZIPPED})
        before = sandbox.task(task_id)
        run.try_once(operator(tmp_path, stage_name="Label", masks=False))
        put = RedBrickPutLabelsOperator(task_id="put", stage_name="Label", tasks=rows_in(tmp_path))
        assert new_run().try_once(put)["counts"]["done"] == 1
        after = sandbox.task(task_id)
        assert after["stage"] == "Review_1"
        assert after["latestTaskData"]["labelsMap"] == before["latestTaskData"]["labelsMap"]
        run.try_once(operator(tmp_path / "again", stage_name="Review_1", masks=False))
        again, first = rows_in(tmp_path / "again")[0], rows_in(tmp_path)[0]
        assert (again["series"], again["classification"]) == (first["series"], first["classification"])

    def test_damaged_mask_is_exported_with_warning(self, sandbox, run, label, tmp_path, caplog):
        bad, good = sandbox.seed_tasks(2)
        damaged = GZIPPED[:-8] + bytes(4) + GZIPPED[-4:]
        label(bad, [segment(1)], {0: damaged})
        label(good, [segment(1)], {0: GZIPPED})
        run.try_once(operator(tmp_path, stage_name="Label"))
        assert (tmp_path / "masks" / bad / "0.nii.gz").read_bytes() == damaged
        warned = [record.getMessage() for record in caplog.records if "is damaged in the" in record.getMessage()]
        assert len(warned) == 1
        assert f"The mask of series 0 of task {bad} is damaged in the storage. It is exported as it is: " in warned[0]
        assert "CRC check failed" in warned[0]

    def test_moved_export_can_be_put_with_masks(self, sandbox, run, new_run, label, tmp_path):
        (task_id,) = sandbox.seed_tasks(1, assignee="API key")
        voxels = np.zeros((4, 5, 6), np.uint8)
        voxels[1:3, 1:3, 1:3] = 1
        mask = gzip.compress(nib.Nifti1Image(voxels, np.eye(4)).to_bytes())
        label(task_id, [segment(1)], {0: mask})
        run.try_once(operator(tmp_path / "export", stage_name="Label"))
        (tmp_path / "export").rename(tmp_path / "elsewhere")
        path = str(tmp_path / "elsewhere" / "tasks.jsonl")
        put = RedBrickPutLabelsOperator(task_id="put", stage_name="Label", labels_path=path)
        assert new_run().try_once(put)["counts"]["done"] == 1
        run.try_once(operator(tmp_path / "again", stage_name="Review_1"))
        assert rows_in(tmp_path / "again")[0]["series"] == rows_in(tmp_path / "elsewhere")[0]["series"]
        assert (tmp_path / "again" / "masks" / task_id / "0.nii.gz").read_bytes() == mask


class TestMasks:
    def test_masks_are_copied_unchanged_with_matching_suffix(self, sandbox, run, label, tmp_path):
        ids = sandbox.seed_tasks(25, ground_truth=True)
        plain = {task_id: f"voxels of {task_id}".encode() * 40_000 for task_id in ids}
        for task_id in ids[:20]:
            label(task_id, [segment(1)], {0: plain[task_id]})
        for task_id in ids[20:]:
            label(task_id, [segment(1)], {0: gzip.compress(plain[task_id])})
        manifest = run.try_once(operator(tmp_path))
        assert manifest["counts"] == {"tasks": 25, "labels": 25, "masks": 25}
        assert manifest["masks_uri"] == f"{tmp_path}/masks"
        named = {row["taskId"]: row["series"][0]["segmentations"] for row in rows_in(tmp_path)}
        for task_id in ids[:20]:
            assert named[task_id] == f"masks/{task_id}/0.nii"
            assert (tmp_path / named[task_id]).read_bytes() == plain[task_id]
        for task_id in ids[20:]:
            assert named[task_id] == f"masks/{task_id}/0.nii.gz"
            assert gzip.decompress((tmp_path / named[task_id]).read_bytes()) == plain[task_id]
        assert len(files_in(tmp_path)) == 26

    def test_masks_of_several_series_have_distinct_names(self, sandbox, run, label, tmp_path):
        (task_id,) = sandbox.seed_tasks(1, ground_truth=True)
        label(task_id, [segment(1, 0), segment(2, 2)], [(0, b"first"), (0, GZIPPED), (2, b"third")])
        run.try_once(operator(tmp_path))
        first, _, third = rows_in(tmp_path)[0]["series"]
        folder = f"masks/{task_id}"
        assert first["segmentations"] == [f"{folder}/0.nii", f"{folder}/0-1.nii.gz"]
        assert third["segmentations"] == f"{folder}/2.nii"
        assert third["segmentMap"]["2"]["mask"] == f"{folder}/2.nii"
        found = files_in(tmp_path / "masks" / task_id)
        assert found == {"0.nii": b"first", "0-1.nii.gz": GZIPPED, "2.nii": b"third"}

    def test_mask_shared_by_two_series_is_fetched_once(self, sandbox, run, label, tmp_path):
        (task_id,) = sandbox.seed_tasks(1, ground_truth=True)
        (path,) = label(task_id, masks={0: b"shared"})
        entries = [{"seriesIndex": i, "labelName": path} for i in (0, 1)]
        data(sandbox, PUT_LABELS, t=task_id, labels="[]", map=entries)
        manifest = run.try_once(operator(tmp_path))
        named = [series["segmentations"] for series in rows_in(tmp_path)[0]["series"]]
        assert named == [f"masks/{task_id}/0.nii"] * 2
        assert manifest["counts"]["masks"] == 1

    def test_export_without_masks_keeps_storage_paths(self, sandbox, run, label, tmp_path):
        (task_id,) = sandbox.seed_tasks(1, ground_truth=True)
        (path,) = label(task_id, [segment(1)], {0: GZIPPED})
        manifest = run.try_once(operator(tmp_path, masks=False))
        (series,) = rows_in(tmp_path)[0]["series"]
        assert series["segmentations"] == series["segmentMap"]["1"]["mask"] == path
        assert list(files_in(tmp_path)) == ["tasks.jsonl"]
        assert (manifest["masks_uri"], manifest["counts"]["masks"]) == (None, 0)

    def test_missing_mask_fails_with_task_id(self, sandbox, run, label, tmp_path):
        ids = sandbox.seed_tasks(3, ground_truth=True)
        label(ids[0], [segment(1)], {0: GZIPPED})
        lost = [{"seriesIndex": 1, "labelName": "labels/never/stored/this.nii"}]
        data(sandbox, PUT_LABELS, t=ids[1], labels="[]", map=lost)
        with pytest.raises(RedBrickAPIError, match=rf"mask of series 1 of task {ids[1]}: .*404"):
            run.try_once(operator(tmp_path))
        assert files_in(tmp_path) == {}

    def test_unsignable_mask_fails_with_task_id(self, sandbox, run, label, tmp_path, monkeypatch):
        (task_id,) = sandbox.seed_tasks(1, ground_truth=True)
        label(task_id, [segment(1)], {0: GZIPPED})
        spoil_urls(monkeypatch, None)
        with pytest.raises(RedBrickAPIError, match=f"task {task_id}: .*no URL"):
            run.try_once(operator(tmp_path))


def spoil_urls(monkeypatch, how):
    """Make a page's data on masks and label files unusable; data that is read again is valid."""
    read = task_reads._read

    def spoilt(entry):
        saved = entry["latestTaskData"]
        for url in saved["labelsMapPresigned"]:
            url["labelName"] = how and f"{url['labelName']}{how}"
        saved["labelsDataPath"] = saved["labelsDataPath"] and f"{saved['labelsDataPath']}{how}"
        return read(entry)

    monkeypatch.setattr(task_reads, "_read", spoilt)


class TestURLs:
    def test_expired_urls_are_requested_again(self, sandbox, run, label, tmp_path, monkeypatch):
        ids = sandbox.seed_tasks(3, ground_truth=True)
        label(ids[1], [segment(1)], {0: GZIPPED})
        label(ids[2], [BOX] * 1200, in_file=True)
        spoil_urls(monkeypatch, "expired")
        manifest = run.try_once(operator(tmp_path))
        assert ids_in(tmp_path) == ids
        assert manifest["counts"] == {"tasks": 3, "labels": 1202, "masks": 1}
        assert sandbox.stats()["root_fields"]["task"] == 2

    def test_task_changed_during_export_has_newer_labels(self, sandbox, run, label, tmp_path, monkeypatch):
        (task_id,) = sandbox.seed_tasks(1, ground_truth=True)
        label(task_id, [segment(1)], {0: b"old"})
        spoil_urls(monkeypatch, "expired")
        spoilt = task_reads._read

        def changed(entry):
            label(task_id, [segment(2)], {0: b"new"})
            return spoilt(entry)

        monkeypatch.setattr(task_reads, "_read", changed)
        run.try_once(operator(tmp_path))
        (row,) = rows_in(tmp_path)
        assert list(row["series"][0]["segmentMap"]) == ["2"]
        assert (tmp_path / row["series"][0]["segmentations"]).read_bytes() == b"new"
        assert row["labelsId"] == data(sandbox, VERSION, t=task_id)["latestTaskData"]["tdId"]

    def test_presigned_urls_appear_nowhere(self, sandbox, run, label, said, tmp_path):
        ids = sandbox.seed_tasks(2, ground_truth=True)
        label(ids[0], [BOX] * 1200, {0: GZIPPED}, in_file=True)
        manifest = run.try_once(operator(tmp_path))
        data(sandbox, PUT_LABELS, t=ids[1], labels="[]", map=[{"seriesIndex": 0, "labelName": "labels/none"}])
        with pytest.raises(RedBrickAPIError) as raised:
            run.try_once(operator(tmp_path))
        text = (tmp_path / "tasks.jsonl").read_text()
        shown = "".join([said(), json.dumps(manifest), str(raised.value), repr(raised.value), text])
        assert "2 tasks with 1201 labels and 1 masks" in shown
        assert "signature" not in shown


class TestPublishing:
    @pytest.mark.parametrize("fault", ["http_500", "gql_error", "gql_partial", "html"])
    def test_failed_page_publishes_nothing(self, sandbox, run, label, tmp_path, fault):
        ids = sandbox.seed_tasks(60, ground_truth=True)
        label(ids[0], masks={0: GZIPPED})
        sandbox.fault_once(fault, "tasksPaged", skip=1, times=20)
        with pytest.raises(RedBrickAPIError):
            run.try_once(operator(tmp_path))
        assert files_in(tmp_path) == {}

    def test_earlier_export_stays_until_new_one_is_complete(self, sandbox, run, label, tmp_path):
        ids = sandbox.seed_tasks(60, ground_truth=True)
        label(ids[0], [segment(1)], {0: b"old"})
        run.try_once(operator(tmp_path))
        old = files_in(tmp_path)
        label(ids[0], [segment(1)], {0: b"new"})
        sandbox.fault_once("gql_error", "tasksPaged", skip=1, times=20)
        with pytest.raises(RedBrickAPIError):
            run.try_once(operator(tmp_path))
        assert files_in(tmp_path) == old
        sandbox.faults("")
        run.try_once(operator(tmp_path))
        new = files_in(tmp_path)
        assert new.keys() == old.keys()
        assert new[f"masks/{ids[0]}/0.nii"] == b"new"
        assert new["tasks.jsonl"] != old["tasks.jsonl"]

    @pytest.mark.parametrize("fault", ["http_503", "drop_before", "rate_limit", "empty_page"])
    def test_lost_page_is_retried(self, sandbox, run, quick, tmp_path, fault):
        ids = sandbox.seed_tasks(60, ground_truth=True)
        sandbox.fault_once(fault, "tasksPaged", skip=1)
        run.try_once(operator(tmp_path))
        assert ids_in(tmp_path) == ids

    def test_unreadable_taxonomy_fails(self, sandbox, run, label, tmp_path):
        (task_id,) = sandbox.seed_tasks(1, ground_truth=True)
        label(task_id, [BOX] * 1200, in_file=True)
        sandbox.fault_once("gql_error", "project", skip=1, times=9)
        with pytest.raises(RedBrickAPIError, match=task_id):
            run.try_once(operator(tmp_path))
        assert files_in(tmp_path) == {}

    def test_unwritable_folder_fails_before_listing(self, sandbox, run, tmp_path):
        (tmp_path / "file").write_text("not a folder")
        with pytest.raises(RedBrickInputError, match=r"Nothing can be written to .*file"):
            run.try_once(operator(tmp_path / "file"))
        assert "tasksPaged" not in sandbox.stats()["root_fields"]

    def test_kill_during_export_leaves_no_files(self, sandbox, run, label, tmp_path):
        ids = sandbox.seed_tasks(200, ground_truth=True)
        label(ids[0], masks={0: GZIPPED})
        run.try_once(operator(tmp_path))
        old = files_in(tmp_path)
        sandbox.settings(latency_ms=400)
        export = operator(tmp_path)
        pid = os.fork()
        if pid == 0:  # pragma: no cover - another process
            # Like the handler of Airflow's task runner, which only calls on_kill.
            signal.signal(signal.SIGTERM, lambda *_: export.on_kill())
            try:
                run.try_once(export)
            finally:
                os._exit(0)
        deadline = time.monotonic() + 20
        while len(files_in(tmp_path)) < len(old) + 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert len(files_in(tmp_path)) == len(old) + 2, "the mask and the incomplete list"
        os.kill(pid, signal.SIGTERM)
        stopped = time.monotonic()
        os.waitpid(pid, 0)
        assert time.monotonic() - stopped < 4.5, "Airflow kills for good after five seconds"
        assert files_in(tmp_path) == old

    def test_next_attempt_removes_the_files_of_a_killed_one(self, sandbox, run, label, tmp_path):
        ids = sandbox.seed_tasks(100, ground_truth=True)
        label(ids[0], masks={0: GZIPPED})
        sandbox.settings(latency_ms=400)
        pid = os.fork()
        if pid == 0:  # pragma: no cover - another process
            try:
                run.try_once(operator(tmp_path))
            finally:
                os._exit(0)
        deadline = time.monotonic() + 20
        while len(files_in(tmp_path)) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        assert all(name.startswith(".unfinished-") for name in files_in(tmp_path))
        run.tries += 1
        sandbox.settings(latency_ms=0)
        run.try_once(operator(tmp_path))
        assert set(files_in(tmp_path)) == {"tasks.jsonl", f"masks/{ids[0]}/0.nii.gz"}

    def test_on_kill_before_export_raises_nothing(self, tmp_path):
        assert operator(tmp_path).on_kill() is None


class TestIncrementalExport:
    def test_task_changed_during_export_is_in_next_export(self, sandbox, run, label, tmp_path, monkeypatch):
        ids = sandbox.seed_tasks(60, ground_truth=True, updated_at="2024-05-01T12:00:00Z")
        page = BulkRead._page

        def then_changed(self, cursor, first):
            found = page(self, cursor, first)
            if cursor is None:
                label(ids[0])
            return found

        with monkeypatch.context() as patch:
            patch.setattr(BulkRead, "_page", then_changed)
            first = run.try_once(operator(tmp_path / "1"))
        assert ids_in(tmp_path / "1") == ids
        label(ids[59])
        second = run.try_once(operator(tmp_path / "2", updated_after=first["watermark"]))
        assert ids_in(tmp_path / "2") == [ids[0], ids[59]]
        assert second["updated_after"] == first["watermark"]
        run.try_once(operator(tmp_path / "3", updated_after=second["watermark"]))
        assert ids_in(tmp_path / "3") == ids_in(tmp_path / "2"), "what has just changed may be listed late"

    def test_export_without_changes_is_empty(self, sandbox, run, tmp_path):
        sandbox.seed_tasks(1, ground_truth=True, updated_at="2024-05-01T12:00:00Z")
        first = run.try_once(operator(tmp_path / "1"))
        second = run.try_once(operator(tmp_path / "2", updated_after=first["watermark"]))
        assert (tmp_path / "2" / "tasks.jsonl").read_bytes() == b""
        assert second["counts"] == {"tasks": 0, "labels": 0, "masks": 0}

    @pytest.mark.parametrize(
        "after", ["2024-05-01T12:00:00Z", "2024-05-01 14:00:00+02:00", pendulum.datetime(2024, 5, 1, 12)]
    )
    def test_updated_after_is_inclusive(self, sandbox, run, tmp_path, after):
        sandbox.seed_tasks(1, ground_truth=True, updated_at="2024-05-01T11:59:59Z")
        ids = sandbox.seed_tasks(1, ground_truth=True, updated_at="2024-05-01T12:00:00Z")
        ids += sandbox.seed_tasks(1, ground_truth=True, updated_at="2024-05-01T12:00:01Z")
        manifest = run.try_once(operator(tmp_path, updated_after=after))
        assert ids_in(tmp_path) == ids
        assert pendulum.parse(manifest["updated_after"]) == pendulum.datetime(2024, 5, 1, 12)


class TestStageSelection:
    @pytest.mark.parametrize("name", ["Ground Truth", "ground truth", "Output", "END"])
    def test_ground_truth_is_exported_by_every_name(self, sandbox, run, tmp_path, name):
        sandbox.seed_tasks(2)
        ids = sandbox.seed_tasks(2, ground_truth=True)
        manifest = run.try_once(operator(tmp_path, stage_name=name))
        assert ids_in(tmp_path) == ids
        assert manifest["stage_name"] == "Ground Truth"

    def test_export_of_one_or_all_stages(self, sandbox, run, tmp_path):
        ids = [*sandbox.seed_tasks(2), *sandbox.seed_tasks(2, stage="Review_1")]
        ids += sandbox.seed_tasks(2, ground_truth=True)
        assert run.try_once(operator(tmp_path, stage_name="Review_1"))["stage_name"] == "Review_1"
        assert ids_in(tmp_path) == ids[2:4]
        assert run.try_once(operator(tmp_path, stage_name=None))["stage_name"] is None
        assert ids_in(tmp_path) == ids

    def test_multiple_outputs_omit_fields_without_value(self, sandbox, run, tmp_path):
        whole = run.try_once(operator(tmp_path, stage_name=None))
        outputs = run.try_once(operator(tmp_path, stage_name=None, multiple_outputs=True))
        assert set(whole) - set(outputs) == {"stage_name", "masks_uri", "updated_after"}

    @pytest.mark.parametrize("name", ["Lable", "None", "all"])
    def test_unknown_stage_is_refused(self, sandbox, run, tmp_path, name):
        with pytest.raises(RedBrickInputError, match="Input, Label, Review_1"):
            run.try_once(operator(tmp_path, stage_name=name))
        assert "tasksPaged" not in sandbox.stats()["root_fields"]
        assert list(tmp_path.iterdir()) == []


class TestTarget:
    def test_manifest_has_counts_uri_and_watermark(self, sandbox, run, tmp_path):
        sandbox.seed_tasks(3, ground_truth=True)
        before = pendulum.now("UTC")
        manifest = run.try_once(operator(f"{tmp_path}/a/b/"))
        watermark = pendulum.parse(manifest.pop("watermark"))
        overlap = pendulum.duration(seconds=30 + SETTLE_SECONDS)
        assert overlap <= pendulum.now("UTC") - watermark
        assert before - watermark <= overlap + pendulum.duration(seconds=4)
        assert manifest == {
            "schema_version": 1,
            "operation": "export_tasks",
            "org_id": sandbox.org_id,
            "project_id": sandbox.project_id,
            "stage_name": "Ground Truth",
            "counts": {"tasks": 3, "labels": 3, "masks": 0},
            "uri": f"{tmp_path}/a/b/tasks.jsonl",
            "masks_uri": None,
            "updated_after": None,
        }

    def test_export_to_file_uri(self, sandbox, run, label, tmp_path):
        (task_id,) = sandbox.seed_tasks(1, ground_truth=True)
        label(task_id, masks={0: GZIPPED})
        manifest = run.try_once(operator(f"file://{tmp_path}/x"))
        assert manifest["uri"] == f"file://{tmp_path}/x/tasks.jsonl"
        assert ids_in(tmp_path / "x") == [task_id]
        assert (tmp_path / "x/masks" / task_id / "0.nii.gz").read_bytes() == GZIPPED

    def test_export_to_store_without_folders(self, sandbox, run, label):
        store = MemoryFileSystem()
        attach("memory", fs=store)
        (task_id,) = sandbox.seed_tasks(1, ground_truth=True)
        label(task_id, masks={0: GZIPPED})
        manifest = run.try_once(operator("memory://bucket/export"))
        assert manifest["uri"] == "memory://bucket/export/tasks.jsonl"
        names = ["/bucket/export/masks/" + f"{task_id}/0.nii.gz", "/bucket/export/tasks.jsonl"]
        assert store.find("/bucket/export") == names
        assert store.cat_file(names[0]) == GZIPPED

    def test_progress_is_logged(self, sandbox, run, said, tmp_path, monkeypatch):
        sandbox.seed_tasks(2, ground_truth=True)
        run.try_once(operator(tmp_path))
        assert "so far" not in said()
        often = partial(Progress, every=1e-9)
        monkeypatch.setattr("airflow_provider_redbrick.operators.export_tasks.Progress", often)
        run.try_once(operator(tmp_path))
        assert "2 tasks so far" in said()


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"export_path": ""}, "export_path must not be empty"),
            ({"export_path": "  "}, "export_path must not be empty"),
            ({"export_path": None}, "export_path must not be empty"),
            ({"export_path": "nowhere://bucket/x"}, "nowhere"),
            ({"stage_name": ""}, "stage_name must not be empty"),
            ({"stage_name": 5}, "stage_name must be text"),
            ({"updated_after": ""}, "updated_after must be a date and time"),
            ({"updated_after": "None"}, "updated_after must be a date and time"),
            ({"updated_after": "yesterday"}, "updated_after must be a date and time"),
            ({"updated_after": 5}, "updated_after must be a date and time"),
            ({"masks": "False"}, "masks must be True or False"),
            ({"masks": None}, "masks must be True or False"),
            ({"project_id": ""}, "project_id must not be empty"),
        ],
    )
    def test_invalid_parameters_send_no_request(self, sandbox, run, tmp_path, options, words):
        with pytest.raises(RedBrickInputError, match=words):
            run.try_once(RedBrickExportTasksOperator(**{"task_id": "e", "export_path": str(tmp_path), **options}))
        assert sandbox.stats()["requests"] == 0
        assert list(tmp_path.iterdir()) == []

    def test_data_parameters_are_template_fields(self):
        names = {"export_path": "s3://b/{{ ds }}", "stage_name": "{{ params.s }}", "updated_after": "{{ params.t }}"}
        export = RedBrickExportTasksOperator(task_id="e", **names)
        export.render_template_fields({"ds": "2024-05-01", "params": {"s": "Label", "t": "2024-01-01"}})
        assert (export.export_path, export.stage_name, export.updated_after) == (
            "s3://b/2024-05-01",
            "Label",
            "2024-01-01",
        )
