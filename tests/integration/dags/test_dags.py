"""DAGs run by Airflow itself, against a running server."""

from __future__ import annotations

import inspect
import json
import shutil
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pendulum
import pytest
from airflow.sdk import BaseOperator
from airflow_versions import BEFORE_3_1, dag_bag, serialization
from fixtures import counts
from sandbox_calls import ASSIGN, REOPEN, data

from airflow_provider_redbrick import get_provider_info

EXAMPLES = {
    "active_learning",
    "approve_corrections",
    "auto_review_when_long",
    "consensus_project",
    "correct_ground_truth",
    "export_ground_truth",
    "labels_from_elsewhere",
    "new_studies",
    "nightly_quality_control",
    "prelabel_in_parallel",
    "prelabel_new_tasks",
    "record_queues",
    "share_the_queue",
    "started_by_the_queue",
    "with_taskflow",
}
LABELERS = ["alice@example.com", "bob@example.com", "carol@example.com"]
HUGE_BOX = {"category": "finding", "bbox2d": {"xnorm": 0.05, "ynorm": 0.05, "wnorm": 0.9, "hnorm": 0.9}}
SMALL_BOX = {"category": "finding", "bbox2d": {"xnorm": 0.4, "ynorm": 0.4, "wnorm": 0.2, "hnorm": 0.2}}
MOVE = "moveTaskToStart"


@contextmanager
def meanwhile(sandbox, *steps):
    """Let simulated people work in the background, in steps that wait for their condition."""
    stop = threading.Event()

    def work() -> None:
        for ready, act in steps:
            while not ready() and not stop.is_set():
                time.sleep(0.1)
            if stop.is_set():
                return
            act()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=20)


class TestExamples:
    def test_all_can_be_read(self, bags):
        assert bags["examples"].import_errors == {}
        assert set(bags["examples"].dags) == EXAMPLES

    def test_without_an_approval_step_nothing_is_reopened(self, bags, run_dag, sandbox, tmp_path, monkeypatch):
        """As with Airflow 3.0, or an old standard provider."""
        monkeypatch.setitem(sys.modules, "airflow.providers.standard.operators.hitl", None)
        dags = dag_bag(Path(bags["examples"].dag_folder), "examples").dags
        monkeypatch.setitem(bags["examples"].dags, "approve_corrections", dags["approve_corrections"])
        sandbox.seed_tasks(2, ground_truth=True, labels=[HUGE_BOX])
        ran = run_dag("approve_corrections", conf={"folder": str(tmp_path)})
        assert ran.state == "failed"
        assert ran.states() == {
            "export": "success",
            "find_implausible": "success",
            "approve": "failed",
            "reopen": "upstream_failed",
        }
        assert ran.task("approve").try_number == 1
        assert sandbox.count("END") == 2

    @pytest.mark.parametrize("limit", ["response_timeout", "execution_timeout"])
    def test_the_time_for_an_answer_is_given_by_the_name_that_the_operator_knows(self, bags, monkeypatch, limit):
        """Before 1.12.2 Airflow's standard provider knows only ``execution_timeout``."""

        class Operator(BaseOperator):
            def __init__(self, *, subject, body, defaults, notifiers, response_timeout=None, **kwargs):
                super().__init__(**kwargs)
                self.response_timeout = response_timeout

        class OlderOperator(Operator):
            def __init__(self, *, subject, body, defaults, notifiers, **kwargs):
                super().__init__(subject=subject, body=body, defaults=defaults, notifiers=notifiers, **kwargs)

        kind = Operator if limit == "response_timeout" else OlderOperator
        module = SimpleNamespace(HITLOperator=kind, ApprovalOperator=kind)
        monkeypatch.setitem(sys.modules, "airflow.providers.standard.operators.hitl", module)
        bag = dag_bag(Path(bags["examples"].dag_folder), "examples")
        assert bag.import_errors == {}
        step = bag.dags["approve_corrections"].task_dict["approve"]
        limits = {name: getattr(step, name) for name in ("response_timeout", "execution_timeout")}
        assert limits == {"response_timeout": None, "execution_timeout": None} | {limit: timedelta(days=5)}

    def test_the_story(self, run_dag, sandbox, holders):
        """Run the DAGs in the demo's order, because each needs the result of the previous one."""
        pytest.importorskip("scipy")
        pytest.importorskip("pydicom")
        ids = sandbox.seed_tasks(12, stage="Label", images=True)

        ran = run_dag("prelabel_new_tasks")
        assert ran.state == "success"
        done = ran.returned("prelabel")["counts"]["done"]
        assert done > 0
        assert sum(ran.returned("prelabel")["counts"].values()) == 12
        assert Counter(bool(sandbox.task(task_id)["labels"]) for task_id in ids)[True] == done

        ran = run_dag("share_the_queue")
        assert ran.state == "success"
        assert Counter(holders("Label").values()) == dict.fromkeys(LABELERS, 4)

        sandbox.humans("Label")
        ran = run_dag("auto_review_when_long")
        assert ran.state == "success"
        assert ran.returned("wait_for_reviews") == 12
        assert sum(ran.returned("review")["counts"].values()) == 12
        sandbox.humans("Review_1")
        assert sandbox.count("END") == 12

        day = pendulum.datetime(2026, 3, 14)
        huge = sandbox.seed_tasks(2, ground_truth=True, updated_at=day.at(12).isoformat(), labels=[HUGE_BOX])
        ran = run_dag("correct_ground_truth", at=day.add(days=1))
        assert ran.state == "success"
        assert set(ran.returned("reopen")["task_ids"]) == set(huge)

        new = sandbox.seed_tasks(5, stage="Label", images=True, prefix="new")
        ran = run_dag("prelabel_in_parallel")
        assert ran.state == "success"
        assert sum(sum(ran.returned("prelabel", ti.map_index)["counts"].values()) for ti in ran.mapped("prelabel")) >= 5
        assert any(sandbox.task(task_id)["labels"] for task_id in new)

    @pytest.mark.skipif(BEFORE_3_1, reason="this Airflow's DAG.test wants assets that a scheduler has activated")
    def test_record_queues_is_the_history_of_the_page(self, run_dag, sandbox):
        from airflow_provider_redbrick.plugins import records

        for label, review in ((3, 0), (5, 1)):
            sandbox.reset()
            sandbox.seed_tasks(label)
            sandbox.seed_tasks(review, stage="Review_1")
            assert run_dag("record_queues").state == "success"
        history = records.list_samples(sandbox.org_id, sandbox.project_id)
        assert [count for _, count in history["Label"]] == [3, 5]
        assert [count for _, count in history["Review_1"]] == [0, 1]

    def test_from_a_folder_to_a_folder(self, run_dag, sandbox, tmp_path):
        data = pytest.importorskip("pydicom.data")
        folder = tmp_path / "new"
        assert run_dag("new_studies", conf={"folder": str(folder)}).states() == {"find": "skipped", "upload": "skipped"}

        folder.mkdir()
        for name in ("one", "two"):
            shutil.copyfile(str(data.get_testdata_file("CT_small.dcm")), folder / f"{name}.dcm")
        for name in (".DS_Store", "._one.dcm", "DICOMDIR", "Thumbs.db"):
            (folder / name).write_bytes(b"what systems leave in folders")
        ran = run_dag("new_studies", conf={"folder": str(folder)})
        assert ran.returned("upload")["counts"] == counts(done=2)
        shutil.copyfile(str(data.get_testdata_file("MR_small.dcm")), folder / "three.dcm")
        ran = run_dag("new_studies", conf={"folder": str(folder)})
        assert ran.returned("upload")["counts"] == counts(done=1, already_done=2)
        assert sandbox.count("Label") == 3

        sandbox.seed_tasks(4, ground_truth=True, labels=[SMALL_BOX])
        ran = run_dag("export_ground_truth", conf={"folder": str(tmp_path / "out")})
        first = ran.returned("export")
        rows = [json.loads(line) for line in Path(first["uri"]).read_text().splitlines()]
        assert [row["series"][0]["boundingBoxes"][0]["category"] for row in rows] == ["finding"] * 4
        before = first
        for night in range(4):  # releases of Airflow give one earlier value as such, and several as a list
            (newer,) = sandbox.seed_tasks(1, ground_truth=True, labels=[SMALL_BOX])
            ran = run_dag("export_ground_truth", conf={"folder": str(tmp_path / f"out{night}")})
            after = ran.returned("export")
            assert after["updated_after"] == before["watermark"]
            assert [json.loads(line)["taskId"] for line in Path(after["uri"]).read_text().splitlines()] == [newer]
            before = after

    @pytest.mark.skipif(BEFORE_3_1, reason="this Airflow's DAG.test maps no decorated function, nor a plain one")
    def test_decorated_functions(self, run_dag, sandbox):
        pytest.importorskip("scipy")
        pytest.importorskip("pydicom")
        sandbox.seed_tasks(6, stage="Label", images=True)
        ran = run_dag("with_taskflow")
        assert ran.state == "success"
        labelled = ran.returned("prelabel", 0)["counts"]["done"]
        reviewed = ran.returned("review")["counts"]
        assert 0 < reviewed["done"] == sandbox.count("END") < labelled
        assert reviewed["done"] + reviewed["skipped"] == labelled

    @pytest.mark.skipif(BEFORE_3_1, reason="this Airflow's DAG.test wants assets that a scheduler has activated")
    def test_started_by_the_queue(self, run_dag, sandbox):
        pytest.importorskip("scipy")
        pytest.importorskip("pydicom")
        sandbox.seed_tasks(6, stage="Label", images=True)
        ran = run_dag("started_by_the_queue")
        assert ran.state == "success"
        assert 0 < ran.returned("prelabel")["counts"]["done"] == sandbox.count("Review_1")

    @pytest.mark.skipif(BEFORE_3_1, reason="this Airflow's DAG.test takes a short circuit for a failure")
    def test_rounds_of_active_learning(self, run_dag, sandbox, tmp_path):
        """A round starts when enough tasks are finished since the last training, and replaces models' labels."""
        pytest.importorskip("scipy")
        pytest.importorskip("pydicom")
        round_of_3 = {"folder": str(tmp_path), "enough": 3}
        old = sandbox.seed_tasks(2, stage="Label", images=True, prefix="old")
        run_dag("prelabel_new_tasks")
        drafts = {task_id: sandbox.task(task_id)["latestTaskData"]["tdId"] for task_id in old}
        (reopened,) = sandbox.seed_tasks(1, ground_truth=True, prefix="corrected", labels=[HUGE_BOX])
        data(sandbox, REOPEN, t=reopened)
        corrected = sandbox.task(reopened)["latestTaskData"]

        sandbox.seed_tasks(2, ground_truth=True, labels=[SMALL_BOX])
        few = run_dag("active_learning", conf=round_of_3)
        assert few.states()["train"] == few.states()["predict_again"] == "skipped"
        sandbox.seed_tasks(1, ground_truth=True, labels=[SMALL_BOX])
        first = run_dag("active_learning", conf=round_of_3)
        assert first.returned("train")["trained_on"] == 3
        assert first.returned("predict_again")["counts"] == counts(done=2, skipped=1)
        assert all(sandbox.task(task_id)["latestTaskData"]["tdId"] != before for task_id, before in drafts.items())
        assert sandbox.task(reopened)["latestTaskData"]["tdId"] == corrected["tdId"]

        sandbox.seed_tasks(2, ground_truth=True, labels=[SMALL_BOX])
        assert run_dag("active_learning", conf=round_of_3).states()["train"] == "skipped"
        sandbox.seed_tasks(1, ground_truth=True, labels=[SMALL_BOX])
        second = run_dag("active_learning", conf=round_of_3)
        assert second.returned("train")["trained_on"] == 3
        assert second.returned("export")["updated_after"] == first.returned("train")["watermark"]
        sandbox.seed_tasks(3, ground_truth=True, labels=[SMALL_BOX])
        third = run_dag("active_learning", conf=round_of_3)
        assert third.returned("train")["trained_on"] == 3
        assert third.returned("export")["updated_after"] == second.returned("train")["watermark"]

    def test_labels_from_elsewhere(self, run_dag, bags, sandbox, tmp_path, monkeypatch):
        monkeypatch.setattr(bags["examples"].dags["labels_from_elsewhere"].task_dict["reviewed"], "poke_interval", 0.1)
        ids = sandbox.seed_tasks(3, prefix="study")
        names = [sandbox.task(task_id)["name"] for task_id in ids]
        box = {"pointTopLeft": {"xNorm": 0.4, "yNorm": 0.4}, "wNorm": 0.2, "hNorm": 0.2, "category": "finding"}
        lines = [json.dumps({"name": name, "series": [{"boundingBoxes": [box]}]}) for name in (*names[:2], "unknown")]
        (tmp_path / "labels.jsonl").write_text("\n".join(lines))
        conf = {"labels": str(tmp_path / "labels.jsonl"), "reports": str(tmp_path / "reports")}
        review = (lambda: sandbox.count("Review_1") == 2, lambda: sandbox.humans("Review_1"))
        with meanwhile(sandbox, review):
            ran = run_dag("labels_from_elsewhere", conf=conf)
        assert ran.state == "success"
        put = ran.returned("put")
        assert put["counts"] == counts(done=2, failed=1)
        assert ran.returned("submitted") == ids[:2]
        assert ran.returned("reviewed") == {"Ground Truth": 2}
        rows = [json.loads(line) for line in Path(put["report"]).read_text().splitlines()]
        assert {row["status"] for row in rows} == {"done", "failed"}

    def test_nightly_quality_control(self, run_dag, sandbox, holders, tmp_path):
        right = sandbox.seed_tasks(2, stage="Review_1", labels=[SMALL_BOX])
        wrong = sandbox.seed_tasks(1, stage="Review_1", labels=[HUGE_BOX])
        open_to_doubt = sandbox.seed_tasks(4, stage="Review_1", labels=[])
        ran = run_dag("nightly_quality_control", conf={"reports": str(tmp_path)})
        assert ran.state == "success"
        assert ran.returned("review")["counts"] == counts(done=3, skipped=4)
        assert ran.returned("share")["counts"] == counts(done=4)
        assert {sandbox.stage_of(task_id) for task_id in right} == {"END"}
        assert {sandbox.stage_of(task_id) for task_id in wrong} == {"Label"}
        assert Counter(holders("Review_1").values()) == {LABELERS[1]: 2, LABELERS[2]: 2}
        assert set(holders("Review_1")) == set(open_to_doubt)
        rows = [json.loads(line) for line in Path(ran.returned("review")["report"]).read_text().splitlines()]
        assert {(row["status"], row["reason"]) for row in rows} == {
            ("done", ""),
            ("skipped", "the reviewer left it to people"),
        }

    def test_in_a_consensus_project(self, run_dag, bags, sandbox, monkeypatch):
        pytest.importorskip("scipy")
        pytest.importorskip("pydicom")
        sensor = bags["examples"].dags["consensus_project"].task_dict["all_done"]
        monkeypatch.setitem(sensor.partial_kwargs, "poke_interval", 0.1)
        project = sandbox.add_project(consensus=True)
        alone, shared = sandbox.seed_tasks(2, project_id=project, images=True, assignee="API key")
        (others,) = sandbox.seed_tasks(1, project_id=project, images=True)
        data(sandbox, ASSIGN, p=project, ids=[shared], emails=LABELERS[:1], me=False, refresh=False)
        assert sandbox.task(shared, project_id=project)["owners"][1:] == LABELERS[:1]

        def alice_submits():
            # The sandbox's people leave alone what the key has a part in.
            data(sandbox, ASSIGN, p=project, ids=[shared], emails=LABELERS[:1], me=False)
            sandbox.humans("Label", 1, project_id=project)

        submitted = "putManualLabelingTaskAndLabels"
        step = (lambda: len(sandbox.applied(submitted)) == 2, alice_submits)
        with meanwhile(sandbox, step):
            ran = run_dag("consensus_project", conf={"project": project})
        assert ran.state == "success"
        assert ran.returned("label", 0)["counts"] == counts(done=2)
        assert sandbox.applied(submitted) == {alone: 1, shared: 1}
        assert sandbox.stage_of(others, project_id=project) == "Label"

    def test_no_chunks_no_prelabel(self, run_dag, sandbox):
        ran = run_dag("prelabel_in_parallel")
        assert ran.state == "success"
        assert ran.states() == {"list_queue": "success", "prelabel": "skipped"}


class TestQuickstart:
    def test_the_first_dag_does_what_the_document_says(self, run_dag, sandbox):
        ids = sandbox.seed_tasks(3)
        ran = run_dag("prelabel_new_studies")
        assert ran.state == "success"
        assert ran.returned("prelabel")["counts"] == counts(done=3)
        assert {(sandbox.task(task_id)["owner"], len(sandbox.task(task_id)["labels"])) for task_id in ids} == {
            (None, 1)
        }
        assert run_dag("prelabel_new_studies").returned("prelabel")["counts"] == counts()


class TestFiles:
    def test_images_labels_and_masks_from_files_and_back(self, run_dag, sandbox, tmp_path):
        nib = pytest.importorskip("nibabel")
        np = pytest.importorskip("numpy")
        data = pytest.importorskip("pydicom.data")
        shutil.copyfile(str(data.get_testdata_file("CT_small.dcm")), tmp_path / "ct.dcm")
        nib.save(nib.Nifti1Image(np.ones((4, 4, 2), np.uint8), np.eye(4)), tmp_path / "mask.nii.gz")
        (tmp_path / "tasks.json").write_text(json.dumps([{"name": name, "items": "ct.dcm"} for name in ("one", "two")]))
        box = {"pointTopLeft": {"xNorm": 0.4, "yNorm": 0.4}, "wNorm": 0.2, "hNorm": 0.2, "category": "finding"}
        mask = {"segmentations": "mask.nii.gz", "segmentMap": {"1": "lesion"}}
        lines = [
            json.dumps({"name": "one", "series": [{"boundingBoxes": [box]}]}),
            json.dumps({"name": "two", "series": [mask]}),
            "this line is broken",
        ]
        (tmp_path / "labels.jsonl").write_text("\n".join(lines))

        ran = run_dag("from_files_to_files", conf={"folder": str(tmp_path), "model": "lungs"})

        assert ran.state == "success"
        assert ran.returned("put")["counts"] == counts(done=2, failed=1)
        assert ran.returned("put")["failed"][0]["reason"].startswith("line 3: it is not JSON")
        assert ran.returned("predict")["counts"] == counts(done=2)
        exported = ran.returned("export")
        assert (exported["counts"], exported["stage_name"]) == ({"tasks": 2, "labels": 2, "masks": 1}, "Ground Truth")
        rows = {row["name"]: row for row in map(json.loads, Path(exported["uri"]).read_text().splitlines())}
        assert rows["one"]["series"][0]["boundingBoxes"] == [box]
        kept = Path(exported["uri"]).parent / rows["two"]["series"][0]["segmentations"]
        assert kept.read_bytes() == (tmp_path / "mask.nii.gz").read_bytes()


class TestBackfill:
    def test_each_date_reopens_its_own_tasks_once(self, run_dag, sandbox):
        days = [pendulum.datetime(2026, 3, day) for day in (10, 11, 12)]
        ids = {
            day: [
                *sandbox.seed_tasks(2, ground_truth=True, updated_at=day.isoformat(), labels=[HUGE_BOX]),
                *sandbox.seed_tasks(1, ground_truth=True, updated_at=day.at(23, 59, 59).isoformat(), labels=[HUGE_BOX]),
            ]
            for day in days
        }
        good = sandbox.seed_tasks(2, ground_truth=True, updated_at=days[0].at(12).isoformat(), labels=[SMALL_BOX])
        for day in (days[2], days[0], days[1]):
            ran = run_dag("correct_ground_truth", at=day.add(days=1))
            assert ran.state == "success"
            assert ran.data_interval == (day, day.add(days=1))
            assert set(ran.returned("reopen")["task_ids"]) == set(ids[day])
        for day in (days[1], days[2], days[0]):
            assert run_dag("correct_ground_truth", at=day.add(days=1)).returned("reopen")["counts"] == counts()
        assert sandbox.applied(MOVE) == {task_id: 1 for day in days for task_id in ids[day]}
        assert {sandbox.stage_of(task_id) for task_id in good} == {"END"}


class TestMapping:
    def test_prelabel_over_chunks(self, run_dag, sandbox):
        ids = sandbox.seed_tasks(10)
        ran = run_dag("prelabel_in_chunks")
        assert ran.state == "success"
        assert [len(chunk) for chunk in ran.returned("queue")] == [4, 4, 2]
        manifests = [ran.returned("prelabel", ti.map_index) for ti in ran.mapped("prelabel")]
        assert [manifest["counts"]["done"] for manifest in manifests] == [4, 4, 2]
        assert sorted(task_id for manifest in manifests for task_id in manifest["task_ids"]) == sorted(ids)
        assert sandbox.applied("putManualLabelingTaskAndLabels") == dict.fromkeys(ids, 1)


class TestWhatHasNoLabels:
    def test_a_listing_does_not_know_and_peoples_labels_stay(self, run_dag, sandbox):
        labeled, unlabeled = sandbox.seed_tasks(3, labels=[HUGE_BOX]), sandbox.seed_tasks(2)
        ran = run_dag("pick_what_has_no_labels")
        assert ran.states() == {
            "listed": "failed",
            "by_listing": "upstream_failed",
            "read": "success",
            "by_reading": "success",
        }
        assert ran.returned("read") == unlabeled
        assert ran.returned("by_reading")["counts"] == counts(done=2)
        assert all(sandbox.task(task_id)["labels"][0]["bbox2d"] == HUGE_BOX["bbox2d"] for task_id in labeled)


class TestSensors:
    def test_each_mode_fires_when_people_have_worked(self, run_dag, sandbox):
        sandbox.seed_tasks(3)

        def polled(root_field: str, times: int):
            return lambda: sandbox.stats()["root_fields"].get(root_field, 0) >= times

        steps = [(polled("tasksPaged", looks), lambda: sandbox.humans("Label", 1)) for looks in (2, 5, 8)]
        with meanwhile(sandbox, *steps, (polled("task", 3), lambda: sandbox.humans("Review_1"))):
            ran = run_dag("wait_in_each_mode")
        assert ran.state == "success"
        assert [ran.returned(name) for name in ("poke", "reschedule", "deferred")] == [1, 2, 3]
        assert ran.returned("reviewed") == {"Ground Truth": 3}

    @pytest.mark.skipif(BEFORE_3_1, reason="a time-out ends the whole of this Airflow's DAG.test")
    def test_limits_end_the_same_whether_deferred_or_not(self, run_dag, sandbox):
        ran = run_dag("give_up")
        assert ran.states() == {
            "poke": "failed",
            "deferred": "failed",
            "soft_poke": "skipped",
            "soft_deferred": "skipped",
            "limited_poke": "failed",
            "limited_deferred": "failed",
        }
        # A sensor's timeout is final: Airflow does not retry it, and it must not when it was deferred either.
        assert {name: ran.task(name).try_number for name in ("poke", "deferred")} == {"poke": 1, "deferred": 1}


class TestRetries:
    def test_airflows_own_retry_finishes_the_rest_once(self, run_dag, sandbox, holders):
        reviews = sandbox.seed_tasks(80, stage="Review_1")
        new = sandbox.seed_tasks(12)
        true = sandbox.seed_tasks(12, ground_truth=True, updated_at="2026-03-14T12:00:00+00:00")
        sandbox.fault_once("gql_error", "assignTasksMultipleUsers", skip=1)
        sandbox.fault_once("gql_error", "putManualLabelingTaskAndLabels", times=4)
        sandbox.fault_once("not_ok", MOVE, skip=1)
        ran = run_dag("go_wrong_half_way")
        assert ran.state == "success"
        assert {name: ti.try_number for (name, _), ti in ran.instances.items()} == {
            "share": 2,
            "prelabel": 2,
            "reopen": 2,
        }
        assert ran.returned("share")["counts"] == counts(done=40)
        held = {task_id: who for task_id, who in holders("Review_1").items() if task_id in reviews}
        assert Counter(held.values()) == {LABELERS[1]: 40, LABELERS[2]: 40}
        assigned = sandbox.applied("assignTasksMultipleUsers")
        assert {task_id: assigned[task_id] for task_id in reviews} == dict.fromkeys(reviews, 1)
        assert ran.returned("prelabel")["counts"]["done"] == 2
        assert sandbox.applied("putManualLabelingTaskAndLabels") == dict.fromkeys(new, 1)
        assert ran.returned("reopen")["counts"]["done"] in {2, 10}  # whichever of two requests was refused
        assert sandbox.applied(MOVE) == dict.fromkeys(true, 1)


class TestTemplates:
    @pytest.mark.parametrize("dag_id", ["templates", "native_templates"])
    def test_whatever_names_data_may_be_one(self, run_dag, sandbox, monkeypatch, tmp_path, dag_id):
        monkeypatch.setenv("AIRFLOW_CONN_ANOTHER", sandbox.airflow_conn_uri)
        monkeypatch.setenv("AIRFLOW_CONN_REDBRICK_DEFAULT", "redbrick://:wrong@http%3A%2F%2Flocalhost%3A9/")
        project = sandbox.add_project()
        ids = sandbox.seed_tasks(2, project_id=project, prefix="scan")
        ran = run_dag(
            dag_id,
            conf={
                "conn": "another",
                "org": sandbox.org_id,
                "project": project,
                "stage": "Label",
                "who": LABELERS[1],
                "n": 2,
                "prefix": "scan-",
                "reports": str(tmp_path),
                "after": pendulum.now("UTC").subtract(hours=1).isoformat(),
                "before": pendulum.now("UTC").add(hours=1).isoformat(),
            },
        )
        assert ran.state == "success", ran.states()
        assert ran.returned("wait") == 2
        assert sorted(ran.returned("held")) == sorted(ids)
        assert [sorted(chunk) for chunk in ran.returned("chunks")] == [sorted(ids)]
        assert ran.returned("there") == {"Label": 2}
        assert ran.returned("done") == {"Ground Truth": 2}
        for name in ("share", "prelabel", "review", "reopen"):
            assert ran.returned(name)["counts"] == counts(done=2)
            assert ran.returned(name)["project_id"] == project
        assert len(Path(ran.returned("share")["report"]).read_text().splitlines()) == 2
        assert {sandbox.stage_of(task_id, project_id=project) for task_id in ids} == {"Label"}


def kinds() -> list[type]:
    """All operators and sensors that the provider declares."""
    info = get_provider_info.get_provider_info()
    modules = [name for part in ("operators", "sensors") for entry in info[part] for name in entry["python-modules"]]
    return [
        thing
        for name in modules
        for thing in vars(import_module(name)).values()
        if inspect.isclass(thing) and thing.__module__ == name and hasattr(thing, "template_fields")
    ]


def parameters(kind: type) -> dict[str, inspect.Parameter]:
    """The parameters that the provider's own classes add to Airflow's."""
    ours = [base for base in kind.__mro__ if base.__module__.startswith("airflow_provider_redbrick")]
    return {name: one for base in ours for name, one in inspect.signature(base.__init__).parameters.items()}


def required(kind: type) -> set[str]:
    return {name for name, one in parameters(kind).items() if one.kind is one.KEYWORD_ONLY and one.default is one.empty}


NAME_DATA = (
    *("redbrick_conn_id", "org_id", "project_id", "stage_name", "task_ids", "tasks", "limit", "report_path"),
    *("emails", "weights", "ceiling", "updated_after", "updated_before", "at_least", "at_most", "left_stage"),
    *("reached_stage", "state", "assignee", "name", "chunk_size", "comment", "reviews", "labels_path", "tasks_path"),
    *("storage_id", "export_path", "watermark_from", "model_name", "model_version", "allowed_folders"),
)


class TestWrittenDown:
    def test_serialization_keeps_all_of_them(self, bags):
        dag = bags["scenarios"].dags["everything_there_is"]
        assert {type(task).__name__ for task in dag.tasks if not task.is_mapped} == {kind.__name__ for kind in kinds()}
        stored = json.loads(json.dumps(serialization().to_dict(dag)))
        back = serialization().from_dict(stored)
        assert set(back.task_dict) == set(dag.task_dict)
        for task_id, task in back.task_dict.items():
            assert set(task.template_fields) == set(dag.task_dict[task_id].template_fields)
        assert back.task_dict["list_tasks"].downstream_task_ids == dag.task_dict["list_tasks"].downstream_task_ids
        assert all(back.task_dict[task_id].is_mapped == task.is_mapped for task_id, task in dag.task_dict.items())

    def test_reading_a_file_twice_makes_no_new_version_of_its_dag(self, bags):
        for name, bag in bags.items():
            path = Path(bag.dag_folder)
            first, second = (dag_bag(path, name) for _ in range(2))
            for dag_id in bag.dags:
                stored = [serialization().to_dict(each.dags[dag_id]) for each in (first, second)]
                assert " at 0x" not in json.dumps(stored)
                assert stored[0] == stored[1], dag_id

    @pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.__name__)
    def test_building_one_assigns_its_fields_unchanged_and_looks_nothing_up(self, kind, sandbox, monkeypatch):
        monkeypatch.delenv("AIRFLOW_CONN_REDBRICK_DEFAULT")
        given = {name: object() for name in {*kind.template_fields, *required(kind)}}
        operator = kind(task_id="one", **given)
        assert {name: getattr(operator, name) for name in given} == given
        assert len(set(kind.template_fields)) == len(kind.template_fields)
        assert sandbox.stats()["requests"] == 0

    @pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.__name__)
    def test_everything_that_names_data_is_a_template_field(self, kind):
        assert set(parameters(kind)).intersection(NAME_DATA) == set(kind.template_fields)
