"""Unattended runs: tasks stopped by Airflow, runs that overlap, servers that are down, odd input."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from airflow.providers.common.compat.sdk import AirflowTaskTimeout
from fixtures import counts
from label_samples import BOX
from sandbox_calls import ASSIGN as CLAIM
from sandbox_calls import data

from airflow_provider_redbrick.actions import decisions
from airflow_provider_redbrick.annotations.conversion import Converter
from airflow_provider_redbrick.engine import task_reader
from airflow_provider_redbrick.exceptions import RedBrickInputError, RedBrickStoppedError, RedBrickTasksFailedError
from airflow_provider_redbrick.operators.auto_review import RedBrickAutoReviewOperator
from airflow_provider_redbrick.operators.balance_assignments import RedBrickBalanceAssignmentsOperator
from airflow_provider_redbrick.operators.prelabel import RedBrickPrelabelOperator
from airflow_provider_redbrick.operators.put_labels import RedBrickPutLabelsOperator

PUT = "putManualLabelingTaskAndLabels"
ASSIGN = "assignTasksMultipleUsers"


def prelabel(labeler=lambda _task: [{"boundingBoxes": [BOX]}], **options):
    return RedBrickPrelabelOperator(task_id="prelabel", **{"stage_name": "Label", "labeler": labeler, **options})


def put(tasks, **options):
    return RedBrickPutLabelsOperator(task_id="put", **{"stage_name": "Label", "tasks": tasks, **options})


def balance(**options):
    return RedBrickBalanceAssignmentsOperator(task_id="share", stage_name="Label", **options)


def label_by_hand(sandbox, task_id):
    """Write labels to a task in its stage, as another user."""
    document = """mutation ($o: UUID!, $p: UUID!, $t: UUID!, $l: String) {
        putLabels(orgId: $o, projectId: $p, taskId: $t, labelsData: $l) { ok } }"""
    sandbox.graphql(document, {"o": sandbox.org_id, "p": sandbox.project_id, "t": task_id, "l": "[]"})


@pytest.fixture
def said(caplog, capsys):
    """Return everything that was logged and printed so far."""
    caplog.set_level(logging.INFO)
    return lambda: caplog.text + "".join(capsys.readouterr())


class TestStoppedByAirflow:
    # At 900 ms per request, the request in flight, a read and the release take most of the available time.
    @pytest.mark.parametrize("latency_ms", [0, 900])
    def test_kill_during_work_releases_claims_in_time(self, sandbox, run, whereabouts, monkeypatch, latency_ms):
        ids = sandbox.seed_tasks(30)
        sandbox.settings(latency_ms=latency_ms)
        monkeypatch.setattr(decisions, "MAX_BUFFER_S", 0.0)
        read_end, write_end = os.pipe()

        def slow(_task):
            os.write(write_end, b".")
            time.sleep(0.1)
            return [{"boundingBoxes": [BOX]}]

        operator = prelabel(slow)
        pid = os.fork()
        if pid == 0:  # pragma: no cover - another process
            # Like the handler of Airflow's task runner, which only calls on_kill.
            signal.signal(signal.SIGTERM, lambda *_: operator.on_kill())
            try:
                run.try_once(operator)
            finally:
                os._exit(0)
        for _ in range(4):
            os.read(read_end, 1)
        os.kill(pid, signal.SIGTERM)
        stopped = time.monotonic()
        os.waitpid(pid, 0)
        assert time.monotonic() - stopped < 4.5, "Airflow kills for good after five seconds"
        sandbox.settings(latency_ms=0)
        found = whereabouts()
        assert {task.owner for task in found.values()} == {None}
        submitted = [task_id for task_id in ids if found[task_id].stage == "Review_1"]
        # The third prediction may have been too late to be sent.
        assert 2 <= len(submitted) <= 5

    def test_kill_before_work_prevents_start(self, sandbox, run):
        sandbox.seed_tasks(3)
        operator = prelabel(lambda _task: pytest.fail("asked"))
        assert operator.on_kill() is None
        with pytest.raises(RedBrickStoppedError, match="The next attempt processes the rest"):
            run.try_once(operator)
        assert sandbox.stats()["applied"] == {}

    def test_timeout_releases_claims(self, sandbox, run, whereabouts, said, monkeypatch):
        ids = sandbox.seed_tasks(30)
        monkeypatch.setattr(decisions, "MAX_BUFFER_S", 0.0)
        answers = iter([[{"boundingBoxes": [BOX]}]] * 26)

        def labeler(_task):
            labels = next(answers, None)
            if labels is None:
                raise AirflowTaskTimeout
            return labels

        operator = prelabel(labeler)
        with pytest.raises(AirflowTaskTimeout):
            run.try_once(operator)
        # Airflow calls on_kill after the timeout, when the work has ended.
        operator.on_kill()
        found = whereabouts()
        assert {task.owner for task in found.values()} == {None}
        assert len([i for i in ids if found[i].stage == "Review_1"]) == 26
        words = said()
        assert "prelabel was stopped. Completed so far: " in words
        assert "4 unfinished tasks are no longer assigned to the API key" in words


class TestOverlappingRuns:
    def test_review_superseded_by_other_run_is_not_done(self, sandbox, new_run):
        sandbox.seed_tasks(12, stage="Review_1")
        manifests = {}
        together = threading.Barrier(2)

        def decide(answer):
            def reviewer(_task, first=[True]):  # noqa: B006
                if first:
                    first.clear()
                    together.wait(timeout=20)
                return answer

            operator = RedBrickAutoReviewOperator(
                task_id="review", stage_name="Review_1", reviewer=reviewer, fail_on="never"
            )
            manifests[answer] = new_run().try_once(operator)

        threads = [threading.Thread(target=decide, args=(answer,)) for answer in (True, False)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
        accepted = sandbox.count("END")
        applied = sandbox.applied("putExpertReviewTask")
        assert set(applied.values()) == {1}
        assert manifests[True]["counts"]["done"] == accepted
        assert manifests[False]["counts"]["done"] == len(applied) - accepted

    def test_task_taken_after_listing_is_not_changed(self, sandbox, run, give, holders, monkeypatch):
        first, *_ = sandbox.seed_tasks(4)
        monkeypatch.setattr(task_reader, "STALE_AFTER_S", -1.0)
        listed = RedBrickBalanceAssignmentsOperator._carry_out

        def taken_first(self, project, shared):
            give(first, "carol@example.com")
            return listed(self, project, shared)

        monkeypatch.setattr(RedBrickBalanceAssignmentsOperator, "_carry_out", taken_first)
        manifest = run.try_once(balance(emails=["alice@example.com", "bob@example.com"]))
        assert holders("Label")[first] == "carol@example.com"
        assert manifest["counts"] == counts(done=3, skipped=1)

    def test_task_taken_during_conversion_is_not_changed(self, sandbox, run, give, holders, monkeypatch):
        first, *others = sandbox.seed_tasks(3)
        monkeypatch.setattr(task_reader, "STALE_AFTER_S", 0.2)
        convert = Converter.convert

        def slowly(*args):
            converted = convert(*args)
            give(first, "carol@example.com")
            time.sleep(0.3)
            return converted

        monkeypatch.setattr(Converter, "convert", slowly)
        entries = [{"taskId": task_id, "series": [{"boundingBoxes": [BOX]}]} for task_id in (first, *others)]
        assert run.try_once(put(entries))["counts"] == counts(done=2, skipped=1)
        assert holders("Label") == {first: "carol@example.com"}

    @pytest.mark.usefixtures("quick")
    @pytest.mark.parametrize("read_again", [True, False])
    def test_task_taken_during_write_anywhere_is_not_changed(self, sandbox, run, give, monkeypatch, read_again):
        ids = sandbox.seed_tasks(4)
        monkeypatch.setattr(task_reader, "STALE_AFTER_S", 0.0)
        taken, labeled = ids[:2]

        def labeler(task):
            if not give_once:
                give_once.append(give(taken, "carol@example.com"))
                label_by_hand(sandbox, labeled)
                if not read_again:
                    sandbox.fault_once("http_503", "task", times=1000)
            return [{"boundingBoxes": [BOX]}]

        give_once = []
        made = run.try_once(prelabel(labeler, write="anywhere", task_ids=ids, fail_on="never"))
        if read_again:
            assert made["counts"] == counts(done=2, skipped=2)
            # One write by hand, and one by the model for each of the other tasks.
            assert sandbox.applied("putLabels") == dict.fromkeys([labeled, *ids[2:]], 1)
        else:
            assert made["counts"] == counts(failed=4)
            assert sandbox.applied("putLabels") == {labeled: 1}

    def test_task_held_by_key_is_released_if_skipped(self, sandbox, run, monkeypatch, holders):
        (task_id,) = sandbox.seed_tasks(1, assignee="API key")
        monkeypatch.setattr("airflow_provider_redbrick.actions.candidates.ABANDONED_AFTER", -1)
        monkeypatch.setattr(
            "airflow_provider_redbrick.actions.candidates._is_abandoned",
            lambda _work, task, _now: task.task_id == task_id,
        )
        assert run.try_once(prelabel(lambda _task: None))["counts"]["skipped"] == 1
        assert holders("Label")[task_id] is None


class TestSlowModels:
    def test_crash_loses_only_buffered_predictions(self, sandbox, run, monkeypatch):
        sandbox.seed_tasks(10)
        monkeypatch.setattr(decisions, "MAX_BUFFER_S", 0.0)
        asked = []

        def crashes(task):
            asked.append(task)
            if len(asked) == 4:
                raise SystemExit
            return [{"boundingBoxes": [BOX]}]

        with pytest.raises(SystemExit):
            run.try_once(prelabel(crashes))
        assert len(sandbox.applied(PUT)) == 3


class TestServerOutage:
    def test_server_outage_stops_requests_per_task(self, sandbox, run, quick):
        ids = sandbox.seed_tasks(300)
        sandbox.fault_once("http_503", "task", skip=1, times=100_000)
        with pytest.raises(RedBrickTasksFailedError) as failed:
            run.try_once(put([{"taskId": i, "series": [{"boundingBoxes": [BOX]}]} for i in ids]))
        manifest = run.xcoms["manifest"]
        assert sum(manifest["counts"].values()) == 300
        assert manifest["counts"] == counts(failed=250, unknown=50)
        assert "A retry skips completed tasks and processes the rest" in str(failed.value)
        assert sandbox.stats()["root_fields"]["task"] < 50 * 80

    def test_outage_before_reread_still_returns_manifest(self, sandbox, run, quick, monkeypatch):
        sandbox.seed_tasks(4)
        monkeypatch.setattr(task_reader, "STALE_AFTER_S", -1.0)
        sandbox.fault_once("http_503", "task", times=1000)
        manifest = run.try_once(balance(emails=["alice@example.com", "bob@example.com"], fail_on="never"))
        assert manifest["counts"] == counts(failed=4)
        assert sandbox.applied(ASSIGN) == {}

    def test_retry_with_unreadable_queue_continues(self, sandbox, run, quick):
        ids = sandbox.seed_tasks(2, assignee="API key")
        tasks = [{"taskId": i, "series": [{"boundingBoxes": [BOX]}]} for i in ids]
        sandbox.fault_once("gql_error", PUT, times=10)
        with pytest.raises(RedBrickTasksFailedError):
            run.try_once(put(tasks))
        sandbox.faults("")
        sandbox.fault_once("http_503", "genericTasks", times=1000)
        assert run.try_once(put(tasks))["counts"] == counts(done=2)


class TestUnusualInput:
    @pytest.mark.parametrize(
        "operator",
        [
            lambda ids: put(ids, existing_labels=True, take_from_people="False"),
            lambda ids: put(ids, existing_labels="no"),
            lambda ids: put([{"taskId": ids[0], "series": []}], finalize="False"),
            lambda ids: prelabel(task_ids=ids, claim="False"),
            lambda ids: prelabel(task_ids=ids, overwrite="False"),
            lambda ids: balance(emails=["alice@example.com"], rebalance="False"),
        ],
    )
    def test_flag_as_text_sends_no_request(self, sandbox, run, operator):
        ids = sandbox.seed_tasks(1)
        before = sandbox.stats()["requests"]
        with pytest.raises(RedBrickInputError, match="must be True or False"):
            run.try_once(operator(ids))
        assert sandbox.stats()["requests"] == before

    def test_numpy_numbers_in_labels_are_converted(self, sandbox, run):
        (task_id,) = sandbox.seed_tasks(1)
        corner, size = np.array([0.25, 0.5], dtype=np.float32), np.float32(0.125)
        box = {"pointTopLeft": {"xNorm": corner[0], "yNorm": corner[1]}, "wNorm": size, "hNorm": size}
        run.try_once(prelabel(lambda _task: [{"boundingBoxes": [{**box, "category": "finding"}]}]))
        assert sandbox.task(task_id)["labels"][0]["bbox2d"] == {
            "xnorm": 0.25,
            "ynorm": 0.5,
            "wnorm": 0.125,
            "hnorm": 0.125,
        }

    def test_labels_for_missing_series_are_refused(self, sandbox, run):
        ids = sandbox.seed_tasks(2)
        many = [{}, {}, {"boundingBoxes": [BOX]}]
        entries = [{"taskId": ids[0], "series": many}, {"taskId": ids[1], "series": [{"boundingBoxes": [BOX]}, {}]}]
        with pytest.raises(RedBrickTasksFailedError, match="for series 2, but it has 1"):
            run.try_once(put(entries))
        assert sandbox.applied(PUT) == {ids[1]: 1}
        assert sandbox.task(ids[0])["owner"] is None

    def test_uppercase_ids_are_normalized(self, sandbox, run):
        (task_id,) = sandbox.seed_tasks(1)
        manifest = run.try_once(put([{"taskId": task_id.upper(), "series": [{"boundingBoxes": [BOX]}]}]))
        assert manifest["task_ids"] == [task_id]

    def test_labels_omitting_stored_mask_are_refused(self, sandbox, run):
        (task_id,) = sandbox.seed_tasks(1)
        sandbox.graphql(
            """mutation ($o: UUID!, $p: UUID!, $t: UUID!) { putLabels(orgId: $o, projectId: $p, taskId: $t,
            labelsData: "[]", labelsMap: [{seriesIndex: 0, labelName: "labels/mask.nii.gz"}]) { ok } }""",
            {"o": sandbox.org_id, "p": sandbox.project_id, "t": task_id},
        )
        with pytest.raises(
            RedBrickTasksFailedError, match="series 0 has a segmentation mask, which these labels would remove"
        ):
            run.try_once(put([{"taskId": task_id, "series": [{"boundingBoxes": [BOX]}]}]))
        assert sandbox.task(task_id)["latestTaskData"]["labelsMap"][0]["labelName"] == "labels/mask.nii.gz"
        assert sandbox.task(task_id)["owner"] is None


class TestTemplates:
    def test_template_in_task_id_is_rendered_but_not_in_labels(self, sandbox, run):
        comment = "50% {% of {{ the volume"
        box = {**BOX, "comment": comment}
        operator = put([{"name": "{{ study }}", "series": [{"boundingBoxes": [box]}]}])
        operator.render_template_fields({"study": "task-000001"})
        assert operator.tasks == [{"name": "task-000001", "series": [{"boundingBoxes": [box]}]}]

    def test_upstream_output_in_labels_is_resolved(self):
        operator = put([{"name": "a", "series": "{{ labels }}"}])
        operator.render_template_fields({"labels": "[]"})
        assert operator.tasks == [{"name": "a", "series": "[]"}]


class TestConsensus:
    @pytest.mark.parametrize(
        "operator",
        [
            lambda ids, project: prelabel(task_ids=ids, project_id=project),
            lambda ids, project: prelabel(task_ids=ids, project_id=project, claim=False, write="draft_and_release"),
            lambda ids, project: put(
                [{"taskId": i, "series": [{"boundingBoxes": [BOX]}]} for i in ids], project_id=project
            ),
        ],
    )
    def test_consensus_task_keeps_all_assignees(self, sandbox, run, operator):
        project = sandbox.add_project(consensus=True)
        ids = sandbox.seed_tasks(1, project_id=project)
        with pytest.raises(RedBrickInputError, match="consensus"):
            run.try_once(operator(ids, project))
        assert sandbox.applied(ASSIGN) == {}

    def test_consensus_task_uses_first_labels(self, sandbox, run):
        project = sandbox.add_project(consensus=True)
        first, second = sandbox.seed_tasks(2, project_id=project)
        data(sandbox, CLAIM, p=project, ids=[first], me=True)
        data(sandbox, CLAIM, p=project, ids=[first], emails=["alice@example.com"], refresh=False)
        data(sandbox, CLAIM, p=project, ids=[second], emails=["alice@example.com"], me=True)
        made = run.try_once(prelabel(task_ids=[first, second], project_id=project, claim=False))
        assert made["counts"] == counts(done=1, skipped=1)
        assert set(sandbox.applied(PUT)) == {first}


class TestReviewStages:
    def test_prelabel_in_review_stage_is_refused(self, sandbox, run):
        ids = sandbox.seed_tasks(1, stage="Review_1")
        with pytest.raises(RedBrickInputError, match="RedBrickAutoReviewOperator"):
            run.try_once(prelabel(stage_name="Review_1", task_ids=ids))
        assert sandbox.stage_of(ids[0]) == "Review_1"


class TestReportsOfMappedTasks:
    def test_mapped_tasks_write_separate_reports(self, sandbox, new_run, tmp_path):
        ids = sandbox.seed_tasks(2)
        paths = []
        for index, task_id in enumerate(ids):
            operator = prelabel(task_ids=[task_id], report_path=str(tmp_path / "report.jsonl"))
            context = {"ti": SimpleNamespace(try_number=1, map_index=index), "dag_run": None}
            paths.append(operator.execute(context)["report"])
        assert [path.rsplit("/", 1)[-1] for path in paths] == ["report.0.jsonl", "report.1.jsonl"]
        assert ids[1] in (tmp_path / "report.1.jsonl").read_text()
