"""Segmentation masks, with all operators that can send them."""

from __future__ import annotations

import gzip
import json
from decimal import Decimal
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import requests

from airflow_provider_redbrick.exceptions import RedBrickTasksFailedError
from airflow_provider_redbrick.hooks.redbrick import RedBrickHook
from airflow_provider_redbrick.operators.auto_review import RedBrickAutoReviewOperator, Review
from airflow_provider_redbrick.operators.prelabel import RedBrickPrelabelOperator
from airflow_provider_redbrick.operators.put_labels import RedBrickPutLabelsOperator

PUT = "putManualLabelingTaskAndLabels"
PRESIGN = "presignUploads"
SHAPE = (8, 7, 6)
AFFINE = np.diag([0.5, 0.5, 2.0, 1.0])


def box(low, high, value=1, dtype=np.uint8):
    """Return a volume with a block of one value."""
    data = np.zeros(SHAPE, dtype)
    data[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = value
    return data


@pytest.fixture
def mask(tmp_path):
    """Write a mask: ``mask("a.nii.gz", array)`` returns its path."""

    def write(name, data):
        path = tmp_path / name
        nib.save(nib.Nifti1Image(data, AFFINE, dtype=data.dtype), path)
        return str(path)

    return write


@pytest.fixture
def stored(sandbox):
    """Return a task's stored labels, and the bytes of each series' mask or None."""

    def read(task_id):
        task = sandbox.task(task_id)
        query = """query ($o: UUID!, $p: UUID!, $t: UUID!) { task(orgId: $o, projectId: $p, taskId: $t) {
            latestTaskData { labelsMap(presigned: true) { labelName } } } }"""
        ids = {"o": sandbox.org_id, "p": sandbox.project_id, "t": task_id}
        entries = sandbox.graphql(query, ids)["task"]["latestTaskData"]["labelsMap"]
        return task["labels"], [entry and requests.get(entry["labelName"], timeout=30).content for entry in entries]

    return read


def voxels(content):
    """Return the voxels of a stored mask."""
    content = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    return np.asanyarray(nib.Nifti1Image.from_bytes(content).dataobj)


def put(tasks, **options):
    return RedBrickPutLabelsOperator(task_id="put", stage_name="Label", tasks=tasks, **options)


def segment(category="lesion", **more):
    return {"category": category, **more}


class TestOneFile:
    def test_mask_file_is_stored_unchanged(self, sandbox, run, mask, stored, tmp_path):
        (task_id,) = sandbox.seed_tasks(1)
        path = mask("organ.nii.gz", box((0, 0, 0), (4, 4, 4), 3))
        series = [{"segmentations": path, "segmentMap": {"3": segment("organ", attributes={"confirmed": True})}}]
        assert run.try_once(put([{"taskId": task_id, "series": series}]))["counts"]["done"] == 1
        (label,), (content,) = stored(task_id)
        assert content == (tmp_path / "organ.nii.gz").read_bytes()
        assert (label["category"], label["dicom"], label["volumeindex"]) == ("organ", {"instanceid": 3}, 0)
        assert label["attributes"] == [{"name": "confirmed", "value": True}]

    @pytest.mark.parametrize("dtype", [np.int16, np.float32, np.int64])
    def test_mask_of_other_number_type_is_converted(self, sandbox, run, mask, stored, dtype):
        (task_id,) = sandbox.seed_tasks(1)
        data = box((1, 1, 1), (5, 5, 5), 300, dtype)
        series = [{"segmentations": mask("m.nii", data), "segmentMap": {"300": "lesion"}}]
        run.try_once(put([{"taskId": task_id, "series": series}]))
        _, (content,) = stored(task_id)
        assert (voxels(content) == data).all()
        assert voxels(content).dtype == np.uint16

    def test_mask_from_object_store_is_stored(self, sandbox, run, mask, stored, tmp_path):
        (task_id,) = sandbox.seed_tasks(1)
        path = mask("m.nii.gz", box((0, 0, 0), (2, 2, 2)))
        series = [{"segmentations": f"file://{path}", "segmentMap": {"1": "lesion"}}]
        run.try_once(put([{"taskId": task_id, "series": series}]))
        _, (content,) = stored(task_id)
        assert content == (tmp_path / "m.nii.gz").read_bytes()

    def test_mask_per_series_is_stored(self, sandbox, run, mask, stored):
        (task_id,) = sandbox.seed_tasks(1)
        shape_a, shape_c = box((0, 0, 0), (2, 2, 2)), box((3, 3, 3), (5, 5, 5), 2)
        series = [
            {"segmentations": mask("a.nii.gz", shape_a), "segmentMap": {"1": "lesion"}},
            {"boundingBoxes": []},
            {"segmentations": [mask("c.nii", shape_c)], "segmentMap": {"2": "organ"}},
        ]
        info = [{"itemsIndices": [0]}, {"itemsIndices": [1]}, {"itemsIndices": [2]}]
        change = """mutation ($o: UUID!, $p: UUID!, $t: UUID!, $i: [SeriesInfoInput!]) { updateTaskItems(orgId: $o,
            projectId: $p, taskId: $t, storageId: "22222222-2222-2222-2222-222222222222",
            items: ["a", "b", "c"], seriesInfo: $i) { ok } }"""
        sandbox.graphql(change, {"o": sandbox.org_id, "p": sandbox.project_id, "t": task_id, "i": info})
        run.try_once(put([{"taskId": task_id, "series": series}]))
        labels, (first, second, third) = stored(task_id)
        assert second is None
        assert (voxels(first) == shape_a).all()
        assert (voxels(third) == shape_c).all()
        assert [(label["volumeindex"], label["dicom"]["instanceid"]) for label in labels] == [(0, 1), (2, 2)]

    @pytest.mark.parametrize("packed", ["", ".gz"])
    def test_mask_trailing_singleton_axes_are_dropped(self, sandbox, run, mask, stored, packed):
        (task_id,) = sandbox.seed_tasks(1)
        data = box((1, 1, 1), (5, 5, 5), 3)
        series = [{"segmentations": mask(f"m.nii{packed}", data[..., None, None]), "segmentMap": {"3": "lesion"}}]
        run.try_once(put([{"taskId": task_id, "series": series}]))
        _, (content,) = stored(task_id)
        image = nib.Nifti1Image.from_bytes(gzip.decompress(content))
        assert image.shape == SHAPE
        assert (np.asanyarray(image.dataobj) == data).all()
        assert image.affine.tolist() == AFFINE.tolist()

    def test_mask_float_values_are_rounded_with_one_warning(self, sandbox, run, tmp_path, stored, caplog):
        ids = sandbox.seed_tasks(3)
        data = box((1, 1, 1), (5, 5, 5), 1)
        for task_id, value in zip(ids, (0.99999, 1.00001526, 0.99607849), strict=True):
            image = nib.Nifti1Image(data * value, AFFINE)
            image.set_data_dtype(np.int16)
            nib.save(image, tmp_path / f"{task_id}.nii.gz")
        tasks = [
            {
                "taskId": task_id,
                "series": [{"segmentations": f"{tmp_path / task_id}.nii.gz", "segmentMap": {"1": "lesion"}}],
            }
            for task_id in ids
        ]
        assert run.try_once(put(tasks))["counts"]["done"] == 3
        for task_id in ids:
            image = nib.Nifti1Image.from_bytes(gzip.decompress(stored(task_id)[1][0]))
            assert image.get_data_dtype() == np.uint8
            assert (image.dataobj.slope, image.dataobj.inter) == (1, 0)
            assert (np.asanyarray(image.dataobj) == data).all()
            assert image.affine.tolist() == AFFINE.tolist()
        assert caplog.text.count("whole numbers only after rounding") == 1

    @pytest.mark.parametrize(
        "key", [np.int64(3), np.uint8(3), np.float32(3), 3.0, "3.0", 3, "03", Decimal(3)], ids=repr
    )
    def test_segment_value_accepts_whole_numbers_of_any_type(self, sandbox, run, mask, stored, key):
        (task_id,) = sandbox.seed_tasks(1)
        series = [{"segmentations": mask("m.nii", box((1, 1, 1), (5, 5, 5), 3)), "segmentMap": {key: "lesion"}}]
        run.try_once(put([{"taskId": task_id, "series": series}]))
        (label,), _ = stored(task_id)
        assert label["dicom"]["instanceid"] == 3


class TestManyFiles:
    def test_binary_masks_are_merged_with_overlaps(self, sandbox, run, mask, stored):
        (task_id,) = sandbox.seed_tasks(1)
        left, right = box((0, 0, 0), (4, 4, 4), 255), box((2, 2, 2), (6, 6, 6), 1)
        segments = {
            "10": segment("lesion", mask=mask("left.nii.gz", left)),
            "20": segment("organ", mask=mask("right.nii.gz", right)),
        }
        run.try_once(put([{"taskId": task_id, "series": [{"binaryMask": True, "segmentMap": segments}]}]))
        labels, (content,) = stored(task_id)
        found = voxels(content)
        (overlap,) = set(np.unique(found).tolist()) - {0, 10, 20}
        assert {label["dicom"]["instanceid"]: label["dicom"]["groupids"] for label in labels} == {
            10: [overlap],
            20: [overlap],
        }
        assert (np.isin(found, [10, overlap]) == (left > 0)).all()
        assert (np.isin(found, [20, overlap]) == (right > 0)).all()
        assert nib.Nifti1Image.from_bytes(gzip.decompress(content)).affine.tolist() == AFFINE.tolist()

    def test_instance_masks_are_merged(self, sandbox, run, mask, stored):
        (task_id,) = sandbox.seed_tasks(1)
        paths = [mask("a.nii", box((0, 0, 0), (2, 2, 2), 1)), mask("b.nii.gz", box((4, 4, 4), (6, 6, 6), 2))]
        series = [{"segmentations": paths, "segmentMap": {"1": "lesion", "2": "organ"}}]
        run.try_once(put([{"taskId": task_id, "series": series}]))
        _, (content,) = stored(task_id)
        assert (voxels(content) == box((0, 0, 0), (2, 2, 2), 1) + box((4, 4, 4), (6, 6, 6), 2)).all()


NOISE = np.random.default_rng(7).integers(0, 3, SHAPE).astype(np.uint8)


def flipped(path):
    """Corrupt the checksum of a compressed file."""
    content = bytearray(Path(path).read_bytes())
    content[-8] ^= 1
    Path(path).write_bytes(content)
    return path


def cut(path, count):
    """Remove bytes from the end of a file; a negative number adds bytes."""
    content = Path(path).read_bytes()
    Path(path).write_bytes(content[:-count] if count > 0 else content + bytes(-count))
    return path


BAD = {
    "no such file": (
        lambda mask: {"segmentations": "nowhere.nii.gz", "segmentMap": {"1": "lesion"}},
        "is not a local file",
    ),
    "one of two is missing": (
        lambda mask: {
            "segmentations": [mask("a.nii", box((0, 0, 0), (1, 1, 1))), "b.nii"],
            "segmentMap": {"1": "lesion"},
        },
        "series 0: there is no mask file 'b.nii'",
    ),
    "an unknown value": (
        lambda mask: {"segmentations": mask("a.nii", box((0, 0, 0), (1, 1, 1), 7)), "segmentMap": {"1": "lesion"}},
        "series 0, segmentMap: has no entry for 7, but the mask has such voxels",
    ),
    "a fraction": (
        lambda mask: {
            "segmentations": mask("a.nii", box((0, 0, 0), (1, 1, 1), 0.5, np.float32)),
            "segmentMap": {"1": "lesion"},
        },
        "has the voxel value 0.5",
    ),
    "a value next to a whole number": (
        lambda mask: {
            "segmentations": mask("a.nii", box((0, 0, 0), (1, 1, 1), 0.98, np.float64)),
            "segmentMap": {"1": "lesion"},
        },
        "has the voxel value 0.98. Values must be whole numbers",
    ),
    "several points in time": (
        lambda mask: {
            "segmentations": mask("a.nii", np.ones((*SHAPE, 2), np.uint8)),
            "segmentMap": {"1": "lesion"},
        },
        "must have 3 axes, not 4 (8 x 7 x 6 x 2)",
    ),
    "a flipped bit": (
        lambda mask: {"segmentations": flipped(mask("a.nii.gz", NOISE)), "segmentMap": {"1": "lesion", "2": "organ"}},
        "its gzip data are damaged: CRC check failed",
    ),
    "an end that is missing": (
        lambda mask: {"segmentations": cut(mask("a.nii.gz", NOISE), 4), "segmentMap": {"1": "lesion", "2": "organ"}},
        "its gzip data are truncated",
    ),
    "bytes that its header does not know": (
        lambda mask: {"segmentations": cut(mask("a.nii", NOISE), -1), "segmentMap": {"1": "lesion", "2": "organ"}},
        "its header states 688 bytes, but it has 689",
    ),
    "one of several is damaged": (
        lambda mask: {
            "binaryMask": True,
            "segmentMap": {
                "1": segment(mask=mask("a.nii.gz", NOISE)),
                "2": segment(mask=flipped(mask("b.nii.gz", NOISE))),
            },
        },
        "its gzip data are damaged",
    ),
    "two keys that are one": (
        lambda mask: {"segmentations": mask("a.nii", NOISE), "segmentMap": {1: "lesion", "1": "organ", 2: "organ"}},
        "segmentMap",
    ),
    "two keys that are one value": (
        lambda mask: {
            "segmentations": mask("a.nii", NOISE),
            "segmentMap": {"1": "lesion", "01": "organ", "2": "organ"},
        },
        "has two entries, '1' and '01'",
    ),
    "a key with a blank": (
        lambda mask: {"segmentations": mask("a.nii", NOISE), "segmentMap": {"1": "lesion", " 2": "organ"}},
        "must be a whole number from 1 to 65535, not ' 2'",
    ),
    "a key that is true": (
        lambda mask: {"segmentations": mask("a.nii", NOISE), "segmentMap": {True: "lesion", "2": "organ"}},
        "True",
    ),
    "a path with a line break": (
        lambda mask: {"segmentations": mask("a\nb.nii", NOISE), "segmentMap": {"1": "lesion", "2": "organ"}},
        "without line breaks",
    ),
    "a flat mask": (
        lambda mask: {"segmentations": mask("a.nii", np.ones((3, 3), np.uint8)), "segmentMap": {"1": "lesion"}},
        "must have 3 axes",
    ),
    "two sizes": (
        lambda mask: {
            "segmentations": [mask("a.nii", box((0, 0, 0), (1, 1, 1))), mask("b.nii", np.ones((3, 3, 3), np.uint8))],
            "segmentMap": {"1": "lesion"},
        },
        "differ in size",
    ),
    "an object store that is not there": (
        lambda mask: {"segmentations": "nosuch://bucket/a.nii", "segmentMap": {"1": "lesion"}},
        "series 0: mask 'nosuch://bucket/a.nii' cannot be read",
    ),
    "an object that is not there": (
        lambda mask: {"segmentations": "file:///nowhere/a.nii", "segmentMap": {"1": "lesion"}},
        "series 0: mask 'file:///nowhere/a.nii' cannot be read",
    ),
    "a mask of a series the task does not have": (
        lambda mask: [{}, {"segmentations": mask("a.nii", box((0, 0, 0), (1, 1, 1))), "segmentMap": {"1": "lesion"}}],
        "its labels are for series 1, but it has 1",
    ),
}


@pytest.fixture
def odd_masks(tmp_path, monkeypatch):
    """Files in the working directory that are not masks."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.nii.gz").mkdir()
    (tmp_path / "lost.nii.gz").symlink_to("gone.nii.gz")
    (tmp_path / "page.nii.gz").write_text("<!doctype html><html>Sign in</html>")
    (tmp_path / "pointer.nii.gz").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


class TestBadMasks:
    @pytest.mark.parametrize(
        ("path", "words"),
        [
            ("folder.nii.gz", "it is a folder, not a file"),
            ("lost.nii.gz", "'lost.nii.gz' is a link to 'gone.nii.gz', which does not exist"),
            ("page.nii.gz", "it looks like an HTML page"),
            ("pointer.nii.gz", "it looks like a Git LFS pointer"),
        ],
    )
    @pytest.mark.usefixtures("odd_masks")
    def test_non_mask_path_names_reason(self, sandbox, run, path, words):
        (task_id,) = sandbox.seed_tasks(1)
        series = [{"segmentations": path, "segmentMap": {"1": "lesion"}}]
        with pytest.raises(RedBrickTasksFailedError):
            run.try_once(put([{"taskId": task_id, "series": series}]))
        assert f"series 0: mask {path!r} cannot be read: {words}" in run.xcoms["manifest"]["failed"][0]["reason"]

    @pytest.mark.parametrize(("make", "words"), BAD.values(), ids=[name.replace(" ", "_") for name in BAD])
    def test_bad_mask_fails_task_and_sends_nothing(self, sandbox, run, mask, make, words):
        bad, good = sandbox.seed_tasks(2)
        series = make(mask)
        tasks = [
            {"taskId": bad, "series": series if isinstance(series, list) else [series]},
            {"taskId": good, "series": [{}]},
        ]
        with pytest.raises(RedBrickTasksFailedError):
            run.try_once(put(tasks))
        assert words in run.xcoms["manifest"]["failed"][0]["reason"]
        assert sandbox.applied(PUT) == {good: 1}
        assert bad not in sandbox.applied("assignTasksMultipleUsers")
        assert PRESIGN not in sandbox.stats()["root_fields"]

    def test_unknown_mask_value_with_validate_warn_is_sent(self, sandbox, run, mask, stored, caplog):
        (task_id,) = sandbox.seed_tasks(1)
        path = mask("a.nii", box((0, 0, 0), (1, 1, 1), 7))
        series = [{"segmentations": path, "segmentMap": {"1": "lesion"}}]
        run.try_once(put([{"taskId": task_id, "series": series}], validate="warn"))
        assert "has no entry for 7" in caplog.text
        assert stored(task_id)[1][0]


class TestStoredMasks:
    @pytest.fixture
    def masked(self, sandbox, run, new_run, mask):
        """A task in review with a mask."""
        (task_id,) = sandbox.seed_tasks(1)
        series = [{"segmentations": mask("a.nii.gz", box((0, 0, 0), (4, 4, 4))), "segmentMap": {"1": "lesion"}}]
        new_run().try_once(put([{"taskId": task_id, "series": series}]))
        return task_id

    def review(self, reviewer):
        return RedBrickAutoReviewOperator(task_id="review", stage_name="Review_1", reviewer=reviewer)

    def test_correction_with_same_series_keeps_mask(self, sandbox, run, masked, stored):
        before = stored(masked)[1]

        def corrected(task):
            assert task.series[0]["segmentMap"]["1"]["category"] == "lesion"
            series = json.loads(json.dumps(task.series))
            series[0]["segmentMap"]["1"]["category"] = "organ"
            return Review.correct(series)

        stats = sandbox.stats()["root_fields"][PRESIGN]
        run.try_once(self.review(corrected))
        (label,), after = stored(masked)
        assert sandbox.stage_of(masked) == "END"
        assert (label["category"], after) == ("organ", before)
        assert sandbox.stats()["root_fields"][PRESIGN] == stats  # nothing went over the wire again

    def test_labels_omitting_stored_mask_are_refused(self, sandbox, run, masked):
        with pytest.raises(
            RedBrickTasksFailedError, match="series 0 has a segmentation mask, which these labels would"
        ):
            run.try_once(self.review(lambda task: Review.correct([{"boundingBoxes": []}])))
        assert sandbox.stage_of(masked) == "Review_1"

    def test_empty_segmentations_remove_mask(self, run, masked, stored):
        run.try_once(self.review(lambda task: Review.correct([{"segmentations": []}])))
        assert stored(masked) == ([], [])

    def test_new_mask_replaces_stored_mask(self, run, masked, stored, mask):
        new = {"segmentations": mask("b.nii", box((4, 4, 4), (6, 6, 6), 2)), "segmentMap": {"2": "organ"}}
        run.try_once(self.review(lambda task: Review.correct([new])))
        (label,), (content,) = stored(masked)
        assert label["dicom"]["instanceid"] == 2
        assert (voxels(content) == box((4, 4, 4), (6, 6, 6), 2)).all()


class TestServerPaths:
    """A server returns a local path as a mask's path. Returning the series must not send that file."""

    @pytest.fixture(params=["", "file://"])
    def hostile(self, request, mask):
        """The path of a local file that is not a mask of the task."""
        return f"{request.param}{mask('other.nii.gz', box((0, 0, 0), (4, 4, 4)))}"

    @pytest.fixture
    def seeded(self, sandbox, hostile):
        """Create tasks whose masks are said to have that path."""
        document = """mutation ($o: UUID!, $p: UUID!, $t: UUID!, $d: String, $m: [LabelMapInput]) { putLabels(
            orgId: $o, projectId: $p, taskId: $t, labelsData: $d, labelsMap: $m, finalize: false) { ok } }"""
        label = [{"category": "lesion", "dicom": {"instanceid": 1}, "volumeindex": 0}]

        def seed(stage):
            (task_id,) = sandbox.seed_tasks(1, stage=stage)
            entries = [{"labelName": hostile, "seriesIndex": 0}]
            given = {"t": task_id, "d": json.dumps(label), "m": entries}
            sandbox.graphql(document, {"o": sandbox.org_id, "p": sandbox.project_id, **given})
            return task_id

        return seed

    @pytest.fixture
    def kept(self, sandbox, hostile, monkeypatch):
        """Check that a task keeps its mask, and that nothing is opened or sent."""
        opened = []
        monkeypatch.setattr(
            "airflow_provider_redbrick.annotations.masks.read_volume", lambda *args: opened.append(args)
        )

        def check(task_id):
            assert opened == []
            assert PRESIGN not in sandbox.stats()["root_fields"]
            (entry,) = sandbox.task(task_id)["latestTaskData"]["labelsMap"]
            assert entry["labelName"] == hostile

        return check

    def test_reviewer_returning_server_path_keeps_mask(self, sandbox, run, seeded, kept, hostile):
        task_id, seen = seeded("Review_1"), []

        def reviewer(task):
            seen.append(task.series[0]["segmentations"])
            return Review.correct(task.series)

        made = RedBrickAutoReviewOperator(task_id="review", stage_name="Review_1", reviewer=reviewer)
        assert run.try_once(made)["counts"]["done"] == 1
        assert seen == [hostile]
        assert sandbox.stage_of(task_id) == "END"
        kept(task_id)

    def test_labeler_returning_server_path_keeps_mask(self, run, seeded, kept):
        task_id = seeded("Label")
        made = RedBrickPrelabelOperator(
            task_id="p", stage_name="Label", task_ids=[task_id], labeler=lambda task: task.series, overwrite=True
        )
        assert run.try_once(made)["counts"]["done"] == 1
        kept(task_id)

    def test_hook_submitting_server_path_keeps_mask(self, run, seeded, kept):
        task_id = seeded("Label")
        queue = RedBrickHook().stage("Label")
        (task,) = queue.claim(1)
        assert queue.submit({task_id: list(task.series)})[task_id].status.is_done
        kept(task_id)

    def test_server_path_in_merged_mask_is_refused(self, run, seeded, hostile, mask):
        seeded("Review_1")
        mine = mask("mine.nii.gz", box((5, 5, 5), (6, 6, 6), 2))
        series = [{"segmentations": [mine, hostile], "segmentMap": {"1": "lesion", "2": "organ"}}]
        made = RedBrickAutoReviewOperator(
            task_id="review", stage_name="Review_1", reviewer=lambda _task: Review.correct(series)
        )
        with pytest.raises(RedBrickTasksFailedError, match="there is no mask file"):
            run.try_once(made)


class TestFaults:
    def test_lost_answer_stores_mask_once(self, sandbox, run, mask, quick):
        (task_id,) = sandbox.seed_tasks(1)
        series = [{"segmentations": mask("a.nii.gz", box((0, 0, 0), (4, 4, 4))), "segmentMap": {"1": "lesion"}}]
        sandbox.fault_once("drop_before", PUT)
        assert run.try_once(put([{"taskId": task_id, "series": series}]))["counts"]["done"] == 1
        assert sandbox.applied(PUT) == {task_id: 1}
        assert sandbox.stats()["root_fields"][PRESIGN] == 1

    def test_temporary_mask_files_are_removed(self, sandbox, run, mask, tmp_path, monkeypatch):
        place = tmp_path / "tmp"
        place.mkdir()
        monkeypatch.setenv("TMPDIR", str(place))
        monkeypatch.setattr("tempfile.tempdir", None)
        ids = sandbox.seed_tasks(3)
        segments = {
            "1": segment(mask=mask("l.nii", box((0, 0, 0), (4, 4, 4)))),
            "2": segment(mask=mask("r.nii", box((1, 1, 1), (5, 5, 5)))),
        }
        tasks = [{"taskId": task_id, "series": [{"binaryMask": True, "segmentMap": segments}]} for task_id in ids]
        sandbox.fault_once("http_500", PRESIGN, skip=1)
        with pytest.raises(RedBrickTasksFailedError, match="presignUploads"):
            run.try_once(put(tasks))
        assert list(place.iterdir()) == []
        assert sum(sandbox.applied(PUT).values()) == 2


class TestPredictions:
    def test_labeler_returning_new_mask_file_is_stored(self, sandbox, run, tmp_path, stored):
        ids = sandbox.seed_tasks(4)

        def labeler(task):
            path = tmp_path / f"{task.task_id}.nii.gz"
            nib.save(nib.Nifti1Image(box((0, 0, 0), (3, 3, 3)), AFFINE), path)
            return [{"segmentations": str(path), "segmentMap": {1: {"category": "lesion"}}}]

        made = run.try_once(RedBrickPrelabelOperator(task_id="p", stage_name="Label", task_ids=ids, labeler=labeler))
        assert made["counts"]["done"] == 4
        for task_id in ids:
            assert (voxels(stored(task_id)[1][0]) == box((0, 0, 0), (3, 3, 3))).all()
