"""A callable's return value is copied: later changes to objects or files do not affect earlier tasks."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import json
import tempfile
from decimal import Decimal
from enum import Enum
from pathlib import Path

import nibabel as nib
import numpy as np
import pendulum
import pytest
import requests
from airflow.sdk import DAG, task
from fixtures import counts
from label_samples import BOX
from pydantic import BaseModel, Field

from airflow_provider_redbrick.annotations import snapshot
from airflow_provider_redbrick.exceptions import RedBrickStoppedError, RedBrickTasksFailedError
from airflow_provider_redbrick.operators.auto_review import RedBrickAutoReviewOperator, Review
from airflow_provider_redbrick.operators.prelabel import RedBrickPrelabelOperator
from airflow_provider_redbrick.operators.put_labels import RedBrickPutLabelsOperator
from airflow_provider_redbrick.operators.reopen_ground_truth import RedBrickReopenGroundTruthOperator

PUT = "putManualLabelingTaskAndLabels"
MAP = {"1": "lesion"}
WAYS = ("submit", "draft", "draft_and_release", "anywhere", "correct", "decorated")


def image(voxels, *, shape=(4, 4, 4)):
    """Return a mask image with ``voxels`` voxels of value 1."""
    data = np.zeros(shape, np.uint8)
    data.reshape(-1)[:voxels] = 1
    return nib.Nifti1Image(data, np.eye(4))


def wide(number):
    """Return labels whose box width identifies the task."""
    return [{"boundingBoxes": [{**BOX, "wNorm": number / 100}]}]


@pytest.fixture
def voxels(sandbox):
    """Return the number of voxels of value 1 in a task's stored masks, by series."""

    def read(task_id):
        query = """query ($o: UUID!, $p: UUID!, $t: UUID!) { task(orgId: $o, projectId: $p, taskId: $t) {
            latestTaskData { labelsMap(presigned: true) { labelName } } } }"""
        ids = {"o": sandbox.org_id, "p": sandbox.project_id, "t": task_id}
        entries = sandbox.graphql(query, ids)["task"]["latestTaskData"]["labelsMap"]
        contents = [requests.get(entry["labelName"], timeout=30).content for entry in entries]
        plain = [gzip.decompress(each) if each[:2] == b"\x1f\x8b" else each for each in contents]
        return [int((np.asanyarray(nib.Nifti1Image.from_bytes(each).dataobj) == 1).sum()) for each in plain]

    return read


@pytest.fixture
def widths(sandbox):
    return lambda ids: [round(sandbox.task(task_id)["labels"][0]["bbox2d"]["wnorm"] * 100) for task_id in ids]


@pytest.fixture(params=WAYS)
def way(request, sandbox, run):
    """Run an operator with a callable: ``way(answer, 4)`` returns 4 task ids in call order."""
    return lambda answer, count, **options: having(request.param, sandbox, run, answer, count, **options)


def having(how, sandbox, run, answer, count, **options):
    stage = "Review_1" if how == "correct" else "Label"
    ids = sandbox.seed_tasks(count, stage=stage)
    options = {"stage_name": stage, "task_ids": ids, **options}
    if how == "correct":
        reviewer = lambda scan: Review.correct(**answer(scan))  # noqa: E731
        operator = RedBrickAutoReviewOperator(task_id="t", reviewer=reviewer, **options)
    elif how == "decorated":
        with DAG("answers", schedule=None, start_date=pendulum.datetime(2026, 1, 1)):
            # Functions in DAG files have a name, which Airflow uses for the task.
            label = lambda scan: answer(scan)  # noqa: E731, PLW0108
            label.__name__ = "label"
            operator = task.redbrick_prelabel(**options)(label)().operator
    else:
        operator = RedBrickPrelabelOperator(task_id="t", labeler=answer, write=how, **options)
    assert run.try_once(operator)["counts"] == counts(done=count)
    return ids


class TestCopiedReturnValues:
    def test_one_mask_path_reused_is_copied_per_task(self, way, voxels, tmp_path):
        path, calls = tmp_path / "pred.nii.gz", iter(range(1, 9))

        def predict(_task):
            nib.save(image(next(calls)), path)
            return {"series": [{"segmentations": str(path), "segmentMap": MAP}]}

        ids = way(predict, 4)
        assert [voxels(task_id) for task_id in ids] == [[1], [2], [3], [4]]

    def test_one_object_reused_is_copied_per_task(self, way, widths):
        answer, calls = {"series": wide(0)}, iter(range(1, 9))

        def predict(_task):
            answer["series"][0]["boundingBoxes"][0]["wNorm"] = next(calls) / 100
            return answer

        assert widths(way(predict, 4)) == [1, 2, 3, 4]

    def test_reused_object_beyond_batch_size_is_copied_per_task(self, sandbox, run, widths):
        answer, calls, given = {"series": wide(0)}, iter(range(1, 99)), {}

        def predict(scan):
            given[scan.task_id] = next(calls)
            answer["series"][0]["boundingBoxes"][0]["wNorm"] = given[scan.task_id] / 100
            return answer

        ids = having("submit", sandbox, run, predict, 60)
        assert widths(ids) == [given[task_id] for task_id in ids]

    def test_reused_arrays_and_models_are_copied_per_task(self, sandbox, run, widths):
        @dataclasses.dataclass
        class Box:
            pointTopLeft: dict  # noqa: N815
            wNorm: np.ndarray  # noqa: N815
            hNorm: float = 0.1  # noqa: N815
            category: str = "finding"

        width, calls = np.zeros(()), iter(range(1, 9))

        def predict(_task):
            width[...] = next(calls) / 100
            return {"series": [{"boundingBoxes": (Box(BOX["pointTopLeft"], width),)}]}

        assert widths(having("submit", sandbox, run, predict, 4)) == [1, 2, 3, 4]

    def test_reused_masks_of_several_series_are_copied_per_task(self, sandbox, run, voxels, tmp_path):
        """Merged masks, one mask per instance, one in an object store, and one in the home folder."""
        one, two, far, calls = tmp_path / "1.nii", tmp_path / "2.nii", tmp_path / "far.nii", iter(range(1, 9))

        def predict(_task):
            number = next(calls)
            for path in (one, far):
                nib.save(image(number), path)
            nib.save(nib.Nifti1Image(np.zeros((4, 4, 4), np.uint8), np.eye(4)), two)
            return [
                {"segmentations": [one, str(two)], "segmentMap": MAP},
                {"binaryMask": True, "segmentMap": {"1": {"category": "lesion", "mask": f"file://{far}"}}},
                {"segmentations": str(far), "segmentMap": MAP},
            ]

        ids = sandbox.seed_tasks(3)
        change = """mutation ($o: UUID!, $p: UUID!, $t: UUID!, $i: [SeriesInfoInput!]) { updateTaskItems(orgId: $o,
            projectId: $p, taskId: $t, storageId: "22222222-2222-2222-2222-222222222222",
            items: ["a", "b", "c"], seriesInfo: $i) { ok } }"""
        for task_id in ids:
            info = [{"itemsIndices": [0]}, {"itemsIndices": [1]}, {"itemsIndices": [2]}]
            sandbox.graphql(change, {"o": sandbox.org_id, "p": sandbox.project_id, "t": task_id, "i": info})
        run.try_once(RedBrickPrelabelOperator(task_id="t", stage_name="Label", task_ids=ids, labeler=predict))
        assert [voxels(task_id) for task_id in ids] == [[n, n, n] for n in (1, 2, 3)]

    def test_mask_in_home_folder_is_read(self, sandbox, run, voxels, tmp_path, monkeypatch):
        monkeypatch.setenv("HOME", str(tmp_path))
        nib.save(image(2), tmp_path / "m.nii.gz")
        ids = having("submit", sandbox, run, lambda _: [{"segmentations": "~/m.nii.gz", "segmentMap": MAP}], 1)
        assert voxels(ids[0]) == [2]
        ids = sandbox.seed_tasks(1)
        tasks = [{"taskId": ids[0], "series": [{"segmentations": "~/m.nii.gz", "segmentMap": MAP}]}]
        run.try_once(RedBrickPutLabelsOperator(task_id="p", stage_name="Label", tasks=tasks))
        assert voxels(ids[0]) == [2]

    def test_large_reused_masks_are_copied_to_disk(self, sandbox, run, voxels, tmp_path):
        path, calls = tmp_path / "pred.nii", iter(range(1, 9))

        def predict(_task):
            nib.save(image(next(calls), shape=(64, 64, 80)), path)
            assert path.stat().st_size > snapshot.LARGEST_IN_MEMORY
            return [{"segmentations": str(path), "segmentMap": MAP}]

        ids = having("submit", sandbox, run, predict, 3)
        assert [voxels(task_id) for task_id in ids] == [[1], [2], [3]]

    def test_reused_object_in_remote_labeling_stage_is_copied(self, sandbox, run):
        stages = [
            {"stageName": "Input", "brickName": "labelset-input", "routing": {"nextStageName": "M"}},
            {"stageName": "M", "brickName": "remote-labeling", "routing": {"nextStageName": "Output"}},
            {"stageName": "Output", "brickName": "labelset-output", "routing": {"nextStageName": "END"}},
        ]
        project_id = sandbox.add_project(stages)
        ids = sandbox.seed_tasks(4, project_id=project_id, stage="M")
        answer, calls = {"series": wide(0)}, iter(range(1, 9))

        def predict(_task):
            answer["series"][0]["boundingBoxes"][0]["wNorm"] = next(calls) / 100
            return answer

        run.try_once(
            RedBrickPrelabelOperator(task_id="t", stage_name="M", project_id=project_id, labeler=predict, task_ids=ids)
        )
        found = [sandbox.task(task_id, project_id=project_id)["labels"][0]["bbox2d"]["wnorm"] for task_id in ids]
        assert found == [0.01, 0.02, 0.03, 0.04]

    def test_labels_naming_other_task_are_refused(self, sandbox, run):
        ids = sandbox.seed_tasks(2)
        labeler = lambda _task: {"taskId": ids[0], "series": wide(1)}  # noqa: E731
        with pytest.raises(RedBrickTasksFailedError, match="have the taskId of another task"):
            run.try_once(RedBrickPrelabelOperator(task_id="t", stage_name="Label", task_ids=ids, labeler=labeler))
        assert sandbox.applied(PUT) == {ids[0]: 1}


class TestDeletedFiles:
    def test_mask_folder_deleted_at_next_call_is_read(self, way, voxels):
        class Model:
            calls = 0
            folder = None

            def __call__(self, _task):
                if self.folder is not None:
                    self.folder.cleanup()
                self.calls, self.folder = self.calls + 1, tempfile.TemporaryDirectory()
                path = Path(self.folder.name) / "pred.nii.gz"
                nib.save(image(self.calls), path)
                return {"series": [{"segmentations": path, "segmentMap": MAP}]}

        ids = way(Model(), 3)
        assert [voxels(task_id) for task_id in ids] == [[1], [2], [3]]

    def test_mask_folder_deleted_on_return_error_names_solution(self, sandbox, run):
        ids = sandbox.seed_tasks(2)

        def predict(scan):
            with tempfile.TemporaryDirectory() as folder:
                path = f"{folder}/pred.nii.gz"
                nib.save(image(1), path)
                return {"series": [{"segmentations": path, "segmentMap": MAP}] if scan.task_id == ids[0] else [{}]}

        with pytest.raises(RedBrickTasksFailedError):
            run.try_once(RedBrickPrelabelOperator(task_id="t", stage_name="Label", task_ids=ids, labeler=predict))
        (failure,) = run.xcoms["manifest"]["failed"]
        assert failure["task_id"] == ids[0]
        assert failure["reason"].startswith("The prediction cannot be sent: series 0: mask '/")
        for words in ("there is no such file", "TemporaryDirectory", "yield", "nibabel image. Nothing was sent."):
            assert words in failure["reason"]
        assert sandbox.applied(PUT) == {ids[1]: 1}

    @pytest.mark.parametrize("how", ["submit", "anywhere", "decorated"])
    def test_generator_labeler_masks_are_copied_before_cleanup(self, sandbox, run, voxels, how):
        calls, folders = iter(range(1, 9)), []

        def predict(_task):
            with tempfile.TemporaryDirectory() as folder:
                folders.append(Path(folder))
                nib.save(image(next(calls)), f"{folder}/pred.nii.gz")
                yield {"series": [{"segmentations": f"{folder}/pred.nii.gz", "segmentMap": MAP}]}
            assert not folders[-1].exists()

        ids = having(how, sandbox, run, predict, 3)
        assert [voxels(task_id) for task_id in ids] == [[1], [2], [3]]

    def test_generator_reviewer_and_selector_are_supported(self, sandbox, run, new_run):
        ids = sandbox.seed_tasks(1, stage="Review_1")

        def review(_task):
            yield Review.correct(wide(7))

        operator = RedBrickAutoReviewOperator(task_id="t", stage_name="Review_1", task_ids=ids, reviewer=review)
        run.try_once(operator)
        assert sandbox.stage_of(ids[0]) == "END"

        def select(_task):
            yield True

        window = {"updated_after": "2020-01-01", "updated_before": "2100-01-01"}
        operator = RedBrickReopenGroundTruthOperator(task_id="r", selector=select, **window)
        assert new_run().try_once(operator)["counts"] == counts(done=1)

    def test_generator_without_value_skips_task(self, sandbox, run):
        ids = sandbox.seed_tasks(1)

        def predict(_task):
            return
            yield

        operator = RedBrickPrelabelOperator(task_id="t", stage_name="Label", task_ids=ids, labeler=predict)
        assert run.try_once(operator)["counts"] == counts(skipped=1)

    @pytest.mark.parametrize(
        ("after", "words"),
        [("second", "yielded a second one"), ("raise", "raised ValueError: too late")],
    )
    def test_generator_failing_after_yield_sends_nothing(self, sandbox, run, after, words):
        ids, ended = sandbox.seed_tasks(1), []

        def predict(_task):
            try:
                yield wide(1)
                if after == "raise":
                    raise ValueError("too late")
                yield wide(2)
            finally:
                ended.append(True)

        with pytest.raises(RedBrickTasksFailedError, match=words):
            run.try_once(RedBrickPrelabelOperator(task_id="t", stage_name="Label", task_ids=ids, labeler=predict))
        assert sandbox.applied(PUT) == {}
        assert ended == [True]


class TestInMemoryMasks:
    @pytest.mark.parametrize("how", ["submit", "anywhere", "correct"])
    @pytest.mark.parametrize("kind", ["bytes", "packed", "buffer", "file", "image", "view"])
    def test_mask_as_array_or_image_is_stored(self, *, sandbox, run, voxels, tmp_path, how, kind):
        calls, buffer, path = iter(range(1, 9)), io.BytesIO(), tmp_path / "m.nii"

        def mask(made):
            if kind == "buffer":
                # Reused for each call, at its last position.
                buffer.seek(0)
                buffer.truncate()
                buffer.write(made.to_bytes())
                return buffer
            nib.save(made, path)
            return {
                "bytes": made.to_bytes,
                "packed": lambda: gzip.compress(made.to_bytes()),
                "view": lambda: memoryview(made.to_bytes()),
                "file": lambda: path.open("rb"),
                "image": lambda: made,
            }[kind]()

        def predict(_task):
            return {"series": [{"segmentations": [mask(image(next(calls)))], "segmentMap": MAP}]}

        ids = having(how, sandbox, run, predict, 3)
        assert [voxels(task_id) for task_id in ids] == [[1], [2], [3]]

    def test_mask_per_instance_is_stored(self, sandbox, run, voxels):
        segments = {1: {"category": "lesion", "mask": image(3)}, 2: {"category": "organ", "mask": image(0)}}
        ids = having("submit", sandbox, run, lambda _: [{"binaryMask": True, "segmentMap": segments}], 2)
        assert [voxels(task_id) for task_id in ids] == [[3], [3]]

    @pytest.mark.parametrize(
        ("mask", "words"),
        [
            (np.zeros((4, 4, 4), np.uint8), "series 0, segmentations: ndarray has no affine"),
            (io.StringIO("text"), r"series 0: mask 'segmentations \(StringIO\)' cannot be read: it returns text"),
            (b"no mask", r"mask 'segmentations \(bytes\)' is not a readable NIfTI file"),
            (object(), "series 0, segmentations: object cannot be converted to JSON"),
        ],
        ids=["array", "text", "no_mask", "object"],
    )
    def test_mask_of_unsupported_type_is_refused(self, sandbox, run, mask, words):
        ids = sandbox.seed_tasks(1)
        labeler = lambda _: [{"segmentations": mask, "segmentMap": MAP}]  # noqa: E731
        with pytest.raises(RedBrickTasksFailedError, match=words):
            run.try_once(RedBrickPrelabelOperator(task_id="t", stage_name="Label", task_ids=ids, labeler=labeler))
        assert sandbox.applied(PUT) == {}

    def test_stored_mask_path_is_not_opened_locally(self, *, sandbox, run, new_run, voxels, tmp_path, monkeypatch):
        ids = having("draft", sandbox, run, lambda _: [{"segmentations": image(2), "segmentMap": MAP}], 1)
        name = next(entry["labelName"] for entry in sandbox.task(ids[0])["latestTaskData"]["labelsMap"])
        monkeypatch.chdir(tmp_path)
        (tmp_path / name).parent.mkdir(parents=True)
        nib.save(image(5), tmp_path / name)
        operator = RedBrickPrelabelOperator(
            task_id="t", stage_name="Label", task_ids=ids, labeler=lambda scan: list(scan.series)
        )
        new_run().try_once(operator)
        assert voxels(ids[0]) == [2]


class TestCleanup:
    @pytest.fixture
    def folder(self, tmp_path, monkeypatch):
        made = tmp_path / "tmp"
        made.mkdir()
        monkeypatch.setenv("TMPDIR", str(made))
        monkeypatch.setattr(tempfile, "tempdir", None)
        return made

    @pytest.mark.parametrize("end", ["done", "failed", "stopped"])
    def test_mask_copies_are_removed_on_every_exit(self, *, sandbox, run, folder, tmp_path, end, monkeypatch):
        monkeypatch.setattr(snapshot, "LARGEST_IN_MEMORY", 10)
        path, ids = tmp_path / "m.nii.gz", sandbox.seed_tasks(6)
        nib.save(image(1), path)

        def predict(scan):
            if scan.task_id == ids[4] and end == "stopped":
                raise RedBrickStoppedError("stopped")
            return [{"segmentations": str(path), "segmentMap": {"7": "organ"} if end == "failed" else MAP}]

        operator = RedBrickPrelabelOperator(task_id="t", stage_name="Label", task_ids=ids, labeler=predict)
        try:
            run.try_once(operator)
        except (RedBrickTasksFailedError, RedBrickStoppedError):
            assert end != "done"
        assert list(folder.iterdir()) == []

    def test_mask_copies_held_at_once_are_limited(self, sandbox, run, monkeypatch):
        monkeypatch.setattr("airflow_provider_redbrick.actions.decisions.MOST_MASKS", 3)
        held = []
        convert = "airflow_provider_redbrick.annotations.conversion.Converter.convert"
        from airflow_provider_redbrick.annotations.conversion import Converter

        real = Converter.convert

        def watched(self, batch):
            batch = list(batch)
            held.append(sum(len(labels.copies) for labels in batch))
            return real(self, batch)

        monkeypatch.setattr(convert, watched)
        having("submit", sandbox, run, lambda _: [{"segmentations": image(1), "segmentMap": MAP}], 8)
        assert max(held) == 3
        assert sum(held) == 8


class TestHash:
    def rows(self, path):
        return {row["task_id"]: row for row in map(json.loads, path.read_text().splitlines())}

    def expected(self, series, **masks):
        series = [
            {**one, **({"segmentations": f"sha256:{masks[str(i)]}"} if str(i) in masks else {})}
            for i, one in enumerate(series)
        ]
        text = json.dumps({"series": series}, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def test_report_hashes_labels_and_masks(self, way, tmp_path):
        report, path, calls = tmp_path / "r.jsonl", tmp_path / "pred.nii.gz", iter(range(1, 9))
        digests = []

        def predict(_task):
            nib.save(image(next(calls)), path)
            digests.append(hashlib.sha256(path.read_bytes()).hexdigest())
            return {"series": [{"segmentations": str(path), "segmentMap": {1: "lesion"}}]}

        ids = way(predict, 3, report_path=str(report))
        rows = self.rows(report)
        expected = [self.expected([{"segmentMap": MAP}], **{"0": digest}) for digest in digests]
        assert [rows[task_id]["labels_sha256"] for task_id in ids] == expected
        assert len(set(expected)) == 3

    def test_equal_labels_have_equal_hash(self, sandbox, run, new_run, tmp_path):
        series, report = [{"boundingBoxes": [BOX]}], tmp_path / "r.jsonl"
        first, second, third = (
            sandbox.seed_tasks(1)[0],
            sandbox.seed_tasks(1)[0],
            sandbox.seed_tasks(1, stage="Review_1")[0],
        )
        options = {"task_id": "t", "stage_name": "Label", "report_path": str(report)}
        run.try_once(RedBrickPrelabelOperator(**options, labeler=lambda _: series, task_ids=[first]))
        found = [self.rows(report)[first]["labels_sha256"]]
        tasks = [{"taskId": second, "series": [{**series[0], "name": "A", "polygons": None}]}]
        new_run().try_once(RedBrickPutLabelsOperator(**options, tasks=tasks))
        found.append(self.rows(report)[second]["labels_sha256"])
        options["stage_name"] = "Review_1"
        new_run().try_once(RedBrickAutoReviewOperator(**options, reviews=[{"taskId": third, "series": series}]))
        found.append(self.rows(report)[third]["labels_sha256"])
        assert set(found) == {self.expected(series)}

    def test_outcome_without_labels_has_no_hash(self, sandbox, run, tmp_path):
        (task_id,) = sandbox.seed_tasks(1, stage="Review_1")
        options = {"task_id": "t", "stage_name": "Review_1", "report_path": str(tmp_path / "r.jsonl")}
        run.try_once(RedBrickAutoReviewOperator(**options, reviewer=lambda _: True))
        assert "labels_sha256" not in self.rows(tmp_path / "r.jsonl")[task_id]


class Finding(BaseModel):
    class Corner(BaseModel):
        x: float = Field(serialization_alias="xNorm")
        y: Decimal = Field(serialization_alias="yNorm")

    corner: Corner = Field(serialization_alias="pointTopLeft")
    wNorm: float  # noqa: N815
    hNorm: float  # noqa: N815
    category: str
    id: str | None = None


class Category(Enum):
    FINDING = "finding"


def test_pydantic_labels_are_accepted(sandbox, run):
    class Series(BaseModel):
        boundingBoxes: list[Finding]  # noqa: N815

    class Labels(BaseModel):
        series: list[Series]
        classification: dict | None = None

    box = Finding(corner={"x": 0.25, "y": "0.5"}, wNorm=0.1, hNorm=0.2, category="finding")
    ids = having("submit", sandbox, run, lambda _: Labels(series=[Series(boundingBoxes=[box])]), 1)
    (label,) = sandbox.task(ids[0])["labels"]
    assert label["bbox2d"] == {"xnorm": 0.25, "ynorm": 0.5, "wnorm": 0.1, "hnorm": 0.2}
    assert label["category"] == "finding"


@pytest.mark.parametrize("validate", ["strict", "warn", "off"])
@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({1, 2}, "set cannot be converted to JSON"),
        (pendulum.datetime(2026, 1, 1), "DateTime cannot be converted to JSON"),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        ({1: 0, "1": 0}, "the keys 1 and '1' are the same in JSON"),
        ({None: 0}, "a key must be text, not None"),
    ],
    ids=["set", "time", "nan", "infinity", "twin_keys", "odd_key"],
)
def test_value_without_json_form_names_position(*, sandbox, run, new_run, validate, value, words):
    bad, good = sandbox.seed_tasks(2)
    series = {bad: [{}, {"boundingBoxes": [BOX, {**BOX, "wNorm": value}]}], good: wide(1)}
    how = {"task_id": "t", "stage_name": "Label", "validate": validate}
    tasks = [{"taskId": task_id, "series": labels} for task_id, labels in series.items()]
    for operator in (
        RedBrickPrelabelOperator(**how, labeler=lambda scan: series[scan.task_id], task_ids=[bad, good]),
        RedBrickPutLabelsOperator(**how, tasks=tasks[:1]),
    ):
        one = new_run()
        with pytest.raises(RedBrickTasksFailedError):
            one.try_once(operator)
        (failure,) = one.xcoms["manifest"]["failed"]
        assert failure["task_id"] == bad
        for part in ("series 1, boundingBoxes[1], wNorm: ", words):
            assert part in failure["reason"]
    assert sandbox.applied(PUT) == {good: 1}


def test_values_convertible_to_json_are_accepted(sandbox, run):
    box = {
        **BOX,
        "wNorm": np.float32(0.25),
        "hNorm": Decimal("0.5"),
        "category": Category.FINDING,
        "pointTopLeft": {"xNorm": np.array(0.25), "yNorm": np.float64(0.25)},
        "attributes": {"score": np.int64(0)},
    }
    ids = having("submit", sandbox, run, lambda _: [{"boundingBoxes": np.array([box], object)}], 1)
    (label,) = sandbox.task(ids[0])["labels"]
    assert label["bbox2d"] == {"xnorm": 0.25, "ynorm": 0.25, "wnorm": 0.25, "hnorm": 0.5}
    assert (label["category"], label["attributes"]) == ("finding", [{"name": "score", "value": 0}])
