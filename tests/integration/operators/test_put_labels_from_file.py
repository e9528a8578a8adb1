"""``RedBrickPutLabelsOperator`` with ``labels_path``, with a running sandbox."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from airflow.sdk import ObjectStoragePath
from airflow.sdk.io import attach
from fixtures import counts
from fsspec.implementations.memory import MemoryFileSystem
from label_samples import BOX

from airflow_provider_redbrick.client.operations.project import RedBrickProject
from airflow_provider_redbrick.exceptions import RedBrickInputError, RedBrickStoppedError, RedBrickTasksFailedError
from airflow_provider_redbrick.hooks import files as module
from airflow_provider_redbrick.operators.put_labels import RedBrickPutLabelsOperator

PUT = "putManualLabelingTaskAndLabels"
ASSIGN = "assignTasksMultipleUsers"
LOOK_UP = "genericTasks"
UNKNOWN = "00000000-0000-4000-8000-000000000000"
SERIES = [{"boundingBoxes": [BOX]}]


def operator(path, **options) -> RedBrickPutLabelsOperator:
    return RedBrickPutLabelsOperator(task_id="put", **{"stage_name": "Label", "labels_path": str(path), **options})


def labeled(ids, key: str = "taskId") -> list[dict]:
    return [{key: value, "series": SERIES} for value in ids]


def lines(entries) -> bytes:
    return b"".join(entry if isinstance(entry, bytes) else json.dumps(entry).encode() + b"\n" for entry in entries)


@pytest.fixture
def written(tmp_path):
    """Write a file of labels from bytes, or from entries as JSON Lines. Entries of bytes are raw lines."""

    def write(content, name: str = "labels.jsonl") -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else lines(content))
        return path

    return write


@pytest.fixture
def report(run, tmp_path):
    """Put a file of labels and return the rows of the report in order."""

    def attempt(path, **options) -> list[dict]:
        to = tmp_path / "report.jsonl"
        manifest = run.try_once(operator(path, report_path=str(to), fail_on="never", **options))
        rows = [json.loads(line) for line in to.read_text().splitlines()]
        assert sum(manifest["counts"].values()) == len(rows)
        return rows

    return attempt


@pytest.fixture
def opened(monkeypatch):
    """The label files that were opened."""
    files = []

    def remembered(*args):
        files.append(open_input(*args))
        return files[-1]

    open_input = module.open_input
    monkeypatch.setattr(module, "open_input", remembered)
    return files


class TestFileFormats:
    @pytest.mark.parametrize(
        "content",
        [
            lines,
            lambda entries: json.dumps(entries, indent=2).encode(),
            lambda entries: gzip.compress(lines(entries)),
            lambda entries: gzip.compress(json.dumps(entries).encode()),
            lambda entries: b"\xef\xbb\xbf" + lines(entries).replace(b"\n", b"\r\n\r\n"),
        ],
        ids=["lines", "array", "lines_compressed", "array_compressed", "lines_of_windows"],
    )
    def test_file_format_is_detected_by_content(self, sandbox, run, written, content):
        ids = sandbox.seed_tasks(3)
        manifest = run.try_once(operator(written(content(labeled(ids)), "labels.txt")))
        assert manifest["counts"] == counts(done=3)
        assert sandbox.applied(PUT) == dict.fromkeys(ids, 1)
        assert all(len(sandbox.task(task_id)["labels"]) == 1 for task_id in ids)

    def test_export_keys_besides_labels_are_ignored(self, sandbox, run, written):
        (task_id,) = sandbox.seed_tasks(1)
        exported = {
            **labeled([task_id])[0],
            "name": "another",
            "currentStageName": "Ground Truth",
            "createdAt": "2024-01-01T00:00:00Z",
            "series": [{"name": "ct", "items": ["a.dcm"], "metaData": None, "boundingBoxes": [BOX], "polygons": None}],
        }
        assert run.try_once(operator(written([exported])))["counts"] == counts(done=1)
        assert len(sandbox.task(task_id)["labels"]) == 1

    def test_labels_path_is_a_template(self):
        put = operator("/data/{{ ds }}/labels.jsonl")
        put.render_template_fields({"ds": "2024-05-01"})
        assert put.labels_path == "/data/2024-05-01/labels.jsonl"

    def test_file_supports_drafts_and_corrections(self, sandbox, run, new_run, written):
        (task_id,) = sandbox.seed_tasks(1)
        (reviewed,) = sandbox.seed_tasks(1, stage="Review_1")
        run.try_once(operator(written(labeled([task_id])), finalize=False))
        new_run().try_once(operator(written(labeled([reviewed])), stage_name="Review_1"))
        assert sandbox.task(task_id)["state"] == "STAGED"
        assert sandbox.stage_of(reviewed) == "END"


class TestBrokenEntries:
    def test_broken_entry_fails_alone_with_position(self, sandbox, report, written):
        ids = sandbox.seed_tasks(4)
        good = labeled(ids)
        bad = {"taskId": ids[2], "series": [{"boundingBoxes": [{**BOX, "category": "findign"}]}]}
        rows = report(
            written(
                [
                    good[0],
                    b'{"taskId": "x", \n',
                    b"\n",
                    b'{"taskId": "caf\xe9"}\n',
                    good[1],
                    bad,
                    {"series": []},
                    {"taskId": "x"},
                    {"taskId": ids[3]},
                    b'["no", "object"]\n',
                    {"taskId": UNKNOWN, "series": []},
                ]
            )
        )
        failed = {row["reason"].split(":")[0]: row for row in rows if row["status"] == "failed"}
        reasons = {place: row["reason"].removeprefix(f"{place}: ") for place, row in failed.items()}
        assert {row["task_id"] for row in rows if row["status"] == "done"} == set(ids[:2])
        assert len(rows) == 10
        assert reasons.keys() == {f"line {n}" for n in (2, 4, 6, 7, 8, 9, 10, 11)}
        assert reasons["line 2"].startswith("it is not JSON: ")
        assert reasons["line 4"] == "it is not UTF-8 from byte 16 onwards"
        assert "'findign'" in reasons["line 6"]
        assert "it must have a 'taskId' or a 'name'" in reasons["line 7"]
        assert "'taskId' must be a UUID" in reasons["line 8"]
        assert "labels must be an object with 'series'" in reasons["line 9"]
        assert reasons["line 10"] == "it must be an object, not list"
        assert "no such task" in reasons["line 11"]
        assert [failed[f"line {n}"]["task_id"] for n in (2, 6, 9, 11)] == ["", ids[2], ids[3], UNKNOWN]
        assert sandbox.applied(PUT) == dict.fromkeys(ids[:2], 1)
        assert sandbox.applied(ASSIGN) == dict.fromkeys(ids[:2], 1)

    @pytest.mark.parametrize("kind", ["lines", "array"])
    def test_repeated_key_or_nan_fails_entry_alone(self, sandbox, report, written, kind):
        ids = sandbox.seed_tasks(5)
        first, *_, last = (json.dumps(entry) for entry in labeled(ids))
        box = json.dumps(BOX)
        bad = [
            f'{{"taskId": "{ids[1]}", "series": [{{"boundingBoxes": [{box}], "boundingBoxes": []}}]}}',
            f'{{"taskId": "{ids[2]}", "taskId": "{ids[3]}", "series": []}}',
            f'{{"taskId": "{ids[3]}", "series": [{{"boundingBoxes": [{{"wNorm": NaN}}]}}]}}',
            f'{{"taskId": "{ids[3]}", "series": [{{"boundingBoxes": [{box[:-1]}, "category": "organ"}}]}}]}}',
            f'{{"taskId": "{ids[3]}", "classification": {{"attributes": {{"a": "\\u0000"}}}}}}',
        ]
        text = "\n".join([first, *bad, last]) if kind == "lines" else "[" + ",\n".join([first, *bad, last]) + "]"
        rows = report(written(text.encode()))
        assert [row["task_id"] for row in rows if row["status"] == "done"] == [ids[0], ids[4]]
        reasons = {row["reason"].split(":")[0]: row["reason"] for row in rows if row["status"] == "failed"}
        place = "line" if kind == "lines" else "entry"
        assert reasons.keys() == {f"{place} {n}" for n in range(2, 7)}
        assert "series[0] repeats the key 'boundingBoxes'" in reasons[f"{place} 2"]
        assert "it repeats the key 'taskId'" in reasons[f"{place} 3"]
        assert "NaN is not a JSON number" in reasons[f"{place} 4"]
        assert "series[0].boundingBoxes[0] repeats the key 'category'" in reasons[f"{place} 5"]
        assert "classification.attributes.a has characters that cannot be sent or stored" in reasons[f"{place} 6"]
        if kind == "array":
            assert all(reasons[f"entry {n}"].endswith(f"(line {n})") for n in range(2, 6))
        assert sandbox.applied(PUT) == dict.fromkeys((ids[0], ids[4]), 1)

    def test_broken_entries_fail_airflow_task_after_the_rest(self, sandbox, run, written):
        ids = sandbox.seed_tasks(2)
        good = labeled(ids)
        with pytest.raises(RedBrickTasksFailedError, match="line 2: it is not JSON"):
            run.try_once(operator(written([good[0], b"{x\n", good[1]])))
        assert run.xcoms["manifest"]["counts"] == counts(done=2, failed=1)

    def test_truncated_array_is_put_up_to_its_end(self, sandbox, report, written):
        ids = sandbox.seed_tasks(60)
        content = json.dumps(labeled(ids)).encode()
        rows = report(written(content[: content.index(ids[40].encode()) + 3]))
        assert [row["status"] for row in rows].count("done") == 40
        assert sandbox.applied(PUT) == dict.fromkeys(ids[:40], 1)
        assert re.fullmatch(
            r"entry 41: the array is invalid from here on .*\. The rest of the file was not read", told(rows)
        )


def told(rows) -> str:
    """Return the reason of the only failed row."""
    (reason,) = [row["reason"] for row in rows if row["status"] == "failed"]
    return reason


class TestTaskSelection:
    def test_file_mixes_names_and_ids(self, sandbox, report, written):
        ids = sandbox.seed_tasks(4, prefix="scan")
        names = [sandbox.task(task_id)["name"] for task_id in ids]
        entries = [*labeled(names[:2], "name"), *labeled(ids[2:]), *labeled(["scan"], "name")]
        rows = report(written(entries))
        assert told(rows) == "line 5: no task has the name 'scan'; nothing was sent"
        assert sandbox.applied(PUT) == dict.fromkeys(ids, 1)

    def test_repeated_task_fails_with_both_positions(self, sandbox, report, written):
        ids = sandbox.seed_tasks(2)
        other = {"taskId": ids[0].upper(), "series": [{"boundingBoxes": [BOX, BOX]}]}
        rows = report(written([*labeled(ids), b"\n", other]))
        assert told(rows) == "line 4: line 1 already names this task; only the first entry is used"
        assert [row["task_id"] for row in rows if row["status"] == "failed"] == [ids[0]]
        assert len(sandbox.task(ids[0])["labels"]) == 1

    def test_task_repeated_by_name_and_id_fails_with_both_positions(self, sandbox, report, written):
        ids = sandbox.seed_tasks(40)
        again = labeled([sandbox.task(ids[3])["name"]], "name")
        rows = report(written(json.dumps([*labeled(ids), *again]).encode()))
        assert told(rows) == "entry 41: entry 4 already names this task; only the first entry is used"
        assert sandbox.applied(PUT) == dict.fromkeys(ids, 1)

    def test_repeated_task_uses_first_entry_even_if_invalid(self, sandbox, report, written):
        (task_id,) = sandbox.seed_tasks(1)
        rows = report(written([{"taskId": task_id, "series": 7}, *labeled([task_id])]))
        assert [row["reason"].split(":")[0] for row in rows] == ["line 2", "line 1"]
        assert sandbox.applied(PUT) == {}


class TestManyEntries:
    def test_many_entries_take_few_requests(self, sandbox, run, written):
        ids = sandbox.seed_tasks(300)
        names = {task_id: card["name"] for task_id, card in _tasks(sandbox).items()}
        entries = [*labeled(ids[:150]), *labeled([names[task_id] for task_id in ids[150:]], "name")]
        before = sandbox.stats()["requests"]
        assert run.try_once(operator(written(entries)))["counts"] == counts(done=300)
        assert sandbox.applied(PUT) == dict.fromkeys(ids, 1)
        # Per 50 tasks: convert, read, claim, read, and put 10 a request. Half of the tasks: 25 name lookups a request.
        assert sandbox.stats()["requests"] - before <= (4 + 5) * 6 + 6 + 5

    def test_file_is_read_lazily(self, sandbox, run, written, monkeypatch):
        monkeypatch.setenv("AIRFLOW_CONN_REDBRICK_DEFAULT", f"{sandbox.airflow_conn_uri}&max_concurrency=2")
        ids = sandbox.seed_tasks(400)
        entries = [{**entry, "report": "x" * 50_000} for entry in labeled(ids)]
        ahead = []

        class Watched:
            def __init__(self, file):
                self.file, self.close, self.taken = file, file.close, 0

            def read(self, size):
                content = self.file.read(size)
                self.taken += content.count(b"\n")
                ahead.append(self.taken - len(sandbox.applied(PUT)))
                return content

        open_input = module.open_input
        monkeypatch.setattr(module, "open_input", lambda *args: Watched(open_input(*args)))
        assert run.try_once(operator(written(entries)))["counts"] == counts(done=400)
        assert len(ahead) > 5
        # Two chunks are processed while a third is read, and the file is read in blocks of 1 MB.
        assert max(ahead) < 4 * 50


def _tasks(sandbox) -> dict[str, dict]:
    query = """query ($o: UUID!, $p: UUID!) { genericTasks(orgId: $o, projectId: $p, first: 500) {
        entries { taskId datapoint { name } } } }"""
    ids = {"o": sandbox.org_id, "p": sandbox.project_id}
    entries = sandbox.graphql(query, ids)["genericTasks"]["entries"]
    return {entry["taskId"]: entry["datapoint"] for entry in entries}


SHAPE = (6, 5, 4)


def voxels(value: int) -> np.ndarray:
    data = np.zeros(SHAPE, np.uint8)
    data[1:3, 1:3, 1:3] = value
    return data


def masked(task_id: str, path: str) -> dict:
    return {"taskId": task_id, "series": [{"segmentations": path, "segmentMap": {"1": {"category": "lesion"}}}]}


def mask_bytes() -> bytes:
    return gzip.compress(nib.Nifti1Image(voxels(1), np.eye(4)).to_bytes())


@pytest.mark.usefixtures("folder")
class TestMasks:
    @pytest.fixture
    def folder(self, tmp_path, monkeypatch):
        """A folder with masks in it and beside it, other than the working directory."""
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        monkeypatch.chdir(elsewhere)
        (tmp_path / "batch" / "masks").mkdir(parents=True)
        for name in ("beside.nii.gz", "batch/near.nii.gz", "batch/masks/far.nii.gz"):
            (tmp_path / name).write_bytes(mask_bytes())
        return tmp_path / "batch"

    @pytest.mark.parametrize("scheme", ["", "file://"])
    def test_mask_paths_are_relative_to_file(self, sandbox, run, folder, written, scheme):
        names = ["near.nii.gz", "masks/far.nii.gz", "./masks/../near.nii.gz"]
        names += [str(folder / "near.nii.gz"), f"file://{folder / 'near.nii.gz'}"]
        ids = sandbox.seed_tasks(len(names))
        path = written([masked(*pair) for pair in zip(ids, names, strict=True)], "batch/labels.jsonl")
        assert run.try_once(operator(f"{scheme}{path}"))["counts"] == counts(done=len(names))
        for task_id in ids:
            assert sandbox.task(task_id)["latestTaskData"]["labelsMap"][0]["labelName"].endswith(".nii.gz")

    def test_mask_paths_are_relative_to_relative_file(self, sandbox, run, folder, written, monkeypatch):
        (task_id,) = sandbox.seed_tasks(1)
        written([masked(task_id, "masks/far.nii.gz")], "batch/labels.jsonl")
        monkeypatch.chdir(folder.parent)
        assert run.try_once(operator("batch/labels.jsonl"))["counts"] == counts(done=1)

    @pytest.mark.parametrize("scheme", ["", "file://"])
    @pytest.mark.parametrize("name", ["../beside.nii.gz", "masks/../../beside.nii.gz", ".."])
    def test_mask_path_outside_folder_is_refused(self, sandbox, report, written, scheme, name):
        bad, good = sandbox.seed_tasks(2)
        path = written([masked(bad, name), masked(good, "near.nii.gz")], "batch/labels.jsonl")
        reason = told(report(f"{scheme}{path}"))
        assert reason.startswith("line 1: Its labels cannot be sent: ")
        assert "it leads out of the folder of" in reason
        assert sandbox.applied(PUT) == {good: 1}

    @pytest.mark.parametrize("scheme", ["", "file://"])
    @pytest.mark.parametrize("told", ["batch", "{parent}/batch"])
    def test_mask_path_with_export_folder_prefix_is_found(self, sandbox, run, written, scheme, told):
        (task_id,) = sandbox.seed_tasks(1)
        parent = Path.cwd().parent.name
        path = written([masked(task_id, f"{told.format(parent=parent)}/masks/far.nii.gz")], "batch/labels.jsonl")
        assert run.try_once(operator(f"{scheme}{path}"))["counts"] == counts(done=1)

    @pytest.mark.parametrize("scheme", ["", "file://"])
    def test_missing_mask_fails_with_position(self, sandbox, report, written, scheme):
        (task_id,) = sandbox.seed_tasks(1)
        path = written([masked(task_id, "nowhere.nii.gz")], "batch/labels.jsonl")
        reason = told(report(f"{scheme}{path}"))
        assert reason.startswith(
            "line 1: series 0: 'nowhere.nii.gz' is not a local file, and not the stored mask of the task"
        )

    @pytest.mark.parametrize("scheme", ["", "file://"])
    def test_stored_mask_by_storage_path_is_kept(self, sandbox, run, new_run, written, scheme):
        (task_id,) = sandbox.seed_tasks(1)
        near = written([masked(task_id, "near.nii.gz")], "batch/labels.jsonl")
        run.try_once(operator(near, finalize=False))
        stored = sandbox.task(task_id)["latestTaskData"]["labelsMap"][0]["labelName"]
        path = written([masked(task_id, stored)], "batch/labels.jsonl")
        assert new_run().try_once(operator(f"{scheme}{path}"))["counts"] == counts(done=1)
        assert sandbox.task(task_id)["latestTaskData"]["labelsMap"][0]["labelName"] == stored


class TestObjectStorage:
    def test_uri_connection_is_used_for_file_and_masks(self, sandbox, run):
        attach(protocol="memory", conn_id="box", fs=MemoryFileSystem())
        ids = sandbox.seed_tasks(2)
        folder = ObjectStoragePath("memory://box@bucket/day")
        (folder / "masks").mkdir(parents=True, exist_ok=True)
        (folder / "masks" / "a.nii.gz").write_bytes(mask_bytes())
        content = lines([masked(ids[0], "masks/a.nii.gz"), *labeled(ids[1:])])
        (folder / "labels.jsonl.gz").write_bytes(gzip.compress(content))
        manifest = run.try_once(operator("memory://box@bucket/day/labels.jsonl.gz"))
        assert manifest["counts"] == counts(done=2)
        assert sandbox.task(ids[0])["latestTaskData"]["labelsMap"][0]["labelName"].endswith(".nii.gz")

    def test_missing_object_is_refused(self, sandbox, run):
        attach(protocol="memory", conn_id="box", fs=MemoryFileSystem())
        with pytest.raises(RedBrickInputError, match=r"'memory://box@bucket/none\.jsonl' cannot be read"):
            run.try_once(operator("memory://box@bucket/none.jsonl"))


class TestRefused:
    @pytest.fixture
    def refused(self, sandbox, run):
        """Check that an operator refuses its input without a request, and return the message."""

        def attempt(put) -> str:
            with pytest.raises(RedBrickInputError) as caught:
                run.try_once(put)
            assert sandbox.stats()["requests"] == 0
            return str(caught.value)

        return attempt

    def test_tasks_with_labels_path_are_refused(self, refused, written):
        assert "either tasks or labels_path" in refused(operator(written(labeled([UNKNOWN])), tasks=[UNKNOWN]))

    def test_neither_tasks_nor_labels_path_is_refused(self, refused):
        assert "either tasks or labels_path" in refused(operator("", labels_path=None))

    def test_existing_labels_with_labels_path_are_refused(self, refused, written):
        put = operator(written([{"taskId": UNKNOWN}]), existing_labels=True)
        assert "existing_labels cannot be combined with labels_path" in refused(put)

    @pytest.mark.parametrize("path", ["", " ", 7, Path("labels.jsonl")], ids=repr)
    def test_blank_or_non_text_labels_path_is_refused(self, refused, path):
        assert "labels_path" in refused(operator("", labels_path=path))

    @pytest.mark.parametrize("path", ["a\nb.jsonl", "a.jsonl\n", "s3://bucket/a\r"])
    def test_labels_path_with_line_break_is_refused(self, refused, path):
        assert "labels_path must be a path without line breaks" in refused(operator(path))

    @pytest.mark.parametrize("path", ["a\0b", "a\udce9"])
    def test_labels_path_with_unstorable_text_is_refused(self, refused, path):
        assert "labels_path has characters that cannot be sent or stored" in refused(operator(path))

    @pytest.mark.parametrize("scheme", ["", "file://"])
    def test_missing_file_is_refused(self, refused, tmp_path, scheme):
        path = f"{scheme}{tmp_path / 'none.jsonl'}"
        assert f"labels_path '{path}' cannot be read" in refused(operator(path))

    def test_folder_as_file_is_refused(self, refused, tmp_path):
        assert "cannot be read" in refused(operator(tmp_path))

    def test_unsupported_object_store_is_refused(self, refused):
        assert "labels_path 'nosuch://bucket/a' cannot be read" in refused(operator("nosuch://bucket/a"))

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (b"", "is empty"),
            (b"[]", "is empty"),
            (b"name,label\n", "neither JSON Lines"),
            (b'{\n  "taskId": "x"\n}\n', "spans several lines"),
            (b"\x1f\x8b\x08", "cannot be read"),
            (gzip.compress(lines(labeled([UNKNOWN])), mtime=0)[:-1], "its gzip data are truncated"),
            (gzip.compress(lines(labeled([UNKNOWN])), mtime=0)[:-4] + bytes(4), "its gzip data are damaged"),
            (json.dumps(labeled([UNKNOWN])).encode("utf-16"), "it is encoded as UTF-16; save it as UTF-8"),
            (lines(labeled([UNKNOWN])).decode().encode("utf-16-le"), "it is encoded as UTF-16"),
        ],
        ids=repr,
    )
    def test_empty_or_unknown_file_is_refused(self, refused, written, opened, content, words):
        assert words in refused(operator(written(content)))
        assert [file.closed for file in opened] == [True]


class TestRetry:
    def test_retry_processes_the_rest(self, sandbox, core_fault, finish, written):
        ids = sandbox.seed_tasks(30)
        path = written(labeled(ids))
        core_fault(PUT)
        manifests = finish(lambda: operator(path))
        assert sandbox.applied(PUT) == dict.fromkeys(ids, 1)
        tried = [manifest["counts"] for manifest in manifests if manifest]
        assert all(sum(each.values()) == 30 for each in tried)
        assert tried[-1]["done"] + tried[-1]["already_done"] == 30

    def test_retry_after_kill_processes_the_rest(self, sandbox, killed_attempt, finish, written):
        ids = sandbox.seed_tasks(60)
        path = written(json.dumps(labeled(ids)).encode())
        killed_attempt(operator(path), after_change=30)
        (manifest,) = finish(lambda: operator(path))
        assert sandbox.applied(PUT) == dict.fromkeys(ids, 1)
        assert manifest["counts"]["already_done"] >= 30

    @pytest.mark.usefixtures("one_by_one")
    def test_unresolvable_names_fail_alone(self, sandbox, finish, quick, written):
        ids = sandbox.seed_tasks(75)
        names = [_tasks(sandbox)[task_id]["name"] for task_id in ids]
        path = written([*labeled(names[:50], "name"), *labeled(ids[50:])])
        sandbox.fault_once("gql_error", LOOK_UP, skip=1, times=2)
        first, second = finish(lambda: operator(path))
        # The second chunk's request fails as a whole. When its names are requested one by one, one fails.
        assert first["counts"] == counts(done=74, failed=1)
        assert first["failed"][0]["name"] == names[25]
        assert re.match("line 26: It could not be looked up, and nothing was sent: ", first["failed"][0]["reason"])
        assert second["counts"] == counts(done=1, already_done=74)
        assert sandbox.applied(PUT) == dict.fromkeys(ids, 1)

    @pytest.mark.usefixtures("quick", "one_by_one")
    def test_server_outage_stops_requests_and_counts_every_line(self, sandbox, report, run, written):
        ids = sandbox.seed_tasks(200)
        path = written(labeled([_tasks(sandbox)[task_id]["name"] for task_id in ids], "name"))
        sandbox.fault_once("http_503", LOOK_UP, skip=1, times=1000)
        rows = sorted(report(path), key=lambda row: row["status"])
        assert [row["status"] for row in rows] == ["done"] * 25 + ["failed"] * 175
        assert [row["reason"].split(":")[0] for row in rows[25:]] == [f"line {n}" for n in range(26, 201)]
        assert all("could not be looked up" in row["reason"] for row in rows[25:75])
        assert all("Not attempted" in row["reason"] for row in rows[125:])
        sandbox.faults("")
        assert run.try_once(operator(path))["counts"] == counts(done=175, already_done=25)
        assert sandbox.applied(PUT) == dict.fromkeys(ids, 1)

    def test_stop_releases_claims_and_closes_file(self, sandbox, run, written, opened, whereabouts):
        ids = sandbox.seed_tasks(60)
        put = operator(written(labeled(ids)))
        send, requests = RedBrickProject.send, []

        def stop(self, calls):
            requests.append(calls)
            if len(requests) == 4:
                put.on_kill()
            return send(self, calls)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(RedBrickProject, "send", stop)
            with pytest.raises(RedBrickStoppedError):
                run.try_once(put)
        assert {task.owner for task in whereabouts().values()} == {None}
        assert 25 < len(sandbox.applied(PUT)) < 60
        assert [file.closed for file in opened] == [True]

    @pytest.mark.parametrize("content", [b"", b"{x\n"])
    def test_file_is_closed_on_every_exit(self, sandbox, run, written, opened, content):
        ids = sandbox.seed_tasks(1)
        run.try_once(operator(written([*labeled(ids), content]), fail_on="never"))
        assert [file.closed for file in opened] == [True]
