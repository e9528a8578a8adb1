"""``RedBrickReopenGroundTruthOperator``, with a running sandbox."""

from __future__ import annotations

import json
import uuid

import pendulum
import pytest
from fixtures import counts

from airflow_provider_redbrick.exceptions import RedBrickAPIError, RedBrickInputError, RedBrickTasksFailedError
from airflow_provider_redbrick.operators.reopen_ground_truth import RedBrickReopenGroundTruthOperator
from airflow_provider_redbrick.operators.upload_tasks import RedBrickUploadTasksOperator

MOVE = "moveTaskToStart"
STORAGE = "11111111-1111-1111-1111-111111111111"
DAY = pendulum.datetime(2026, 3, 14)
NOON = DAY.at(12)
NEXT_DAY = DAY.add(days=1)
BOX = {"category": "nodule", "bbox2d": {"xnorm": 0.25, "ynorm": 0.25, "wnorm": 0.5, "hnorm": 0.125}}


def operator(**options) -> RedBrickReopenGroundTruthOperator:
    return RedBrickReopenGroundTruthOperator(task_id="reopen", **options)


def everything(task) -> bool:
    return True


def ground_truth(sandbox, count: int, at: pendulum.DateTime = NOON, **options) -> list[str]:
    return sandbox.seed_tasks(count, ground_truth=True, updated_at=at.to_iso8601_string(), **options)


class TestTimes:
    def test_window_in_repeated_hour_is_ordered_by_utc(self, sandbox, run):
        """02:45 summer time is earlier than 02:15 winter time, although local clocks say otherwise."""
        first, second = (
            pendulum.datetime(2026, 10, 25, hour, minute).in_timezone("Europe/Berlin")
            for hour, minute in ((0, 45), (1, 15))
        )
        (one,) = ground_truth(sandbox, 1, pendulum.datetime(2026, 10, 25, 1, 0))
        ground_truth(sandbox, 1, pendulum.datetime(2026, 10, 25, 0, 30))
        ground_truth(sandbox, 1, pendulum.datetime(2026, 10, 25, 1, 20))
        reopen = operator(selector=everything, updated_after=first, updated_before=second)
        assert run.try_once(reopen)["task_ids"] == [one]

    def test_task_uploaded_as_ground_truth_is_reopened_once(self, sandbox, run, new_run):
        task = {"name": "new", "series": [{"items": "a.dcm", "boundingBoxes": []}]}
        upload = RedBrickUploadTasksOperator(task_id="upload", tasks=[task], storage_id=STORAGE, is_ground_truth=True)
        (one,) = run.try_once(upload)["task_ids"]
        now = pendulum.now("UTC")
        window = {"updated_after": now.subtract(hours=1), "updated_before": now.add(hours=1)}
        assert new_run().try_once(operator(selector=everything, **window))["task_ids"] == [one]
        for stage in ("Label", "Review_1"):
            sandbox.humans(stage)
        assert new_run().try_once(operator(selector=everything, **window))["counts"] == counts(skipped=1)
        assert sandbox.applied(MOVE) == {one: 1}


class TestGivenTasks:
    def test_reopened_tasks_are_unassigned_in_first_stage_with_labels(self, sandbox, run):
        ids = ground_truth(sandbox, 3, labels=[BOX])
        before = [sandbox.task(task_id)["labels"] for task_id in ids]
        manifest = run.try_once(operator(task_ids=ids))
        assert manifest["counts"] == counts(done=3)
        assert manifest["task_ids"] == ids
        assert manifest["stage_name"] == "Ground Truth"
        after = [sandbox.task(task_id) for task_id in ids]
        assert [(task["stage"], task["state"], task["owner"]) for task in after] == [("Label", "UNASSIGNED", None)] * 3
        assert [task["labels"] for task in after] == before
        assert before[0][0]["bbox2d"] == BOX["bbox2d"]
        assert sandbox.applied(MOVE) == dict.fromkeys(ids, 1)

    def test_tasks_outside_ground_truth_are_skipped(self, sandbox, run, tmp_path):
        (labeled,) = sandbox.seed_tasks(1, assignee="bob@example.com")
        (reviewed,) = sandbox.seed_tasks(1, stage="Review_1")
        (true,) = ground_truth(sandbox, 1)
        report = tmp_path / "report.jsonl"
        manifest = run.try_once(operator(task_ids=[labeled, reviewed, true], report_path=str(report)))
        assert manifest["counts"] == counts(done=1, skipped=2)
        rows = {row["task_id"]: row for row in map(json.loads, report.read_text().splitlines())}
        assert rows[labeled]["reason"] == "it is in Label, assigned to bob@example.com, not in Ground Truth"
        assert rows[reviewed]["reason"] == "it is in Review_1, not in Ground Truth"
        assert sandbox.applied(MOVE) == {true: 1}

    def test_duplicate_id_is_one_task(self, sandbox, run):
        (one,) = ground_truth(sandbox, 1)
        assert run.try_once(operator(task_ids=[one, one]))["counts"] == counts(done=1)

    def test_unknown_task_fails_alone(self, sandbox, run):
        ids, unknown = ground_truth(sandbox, 2), str(uuid.uuid4())
        with pytest.raises(RedBrickTasksFailedError, match=unknown):
            run.try_once(operator(task_ids=[ids[0], unknown, ids[1]]))
        assert run.xcoms["manifest"]["counts"] == counts(done=2, failed=1)
        assert "no such task" in run.xcoms["manifest"]["failed"][0]["reason"]

    def test_second_run_skips_reopened_tasks(self, sandbox, new_run):
        ids = ground_truth(sandbox, 2)
        new_run().try_once(operator(task_ids=ids))
        assert new_run().try_once(operator(task_ids=ids))["counts"] == counts(skipped=2)
        assert sandbox.applied(MOVE) == dict.fromkeys(ids, 1)

    def test_renamed_first_and_output_stages_are_used(self, sandbox, run):
        project = sandbox.add_project(
            [
                {"stageName": "Input", "brickName": "labelset-input", "routing": {"nextStageName": "Outline"}},
                {"stageName": "Outline", "brickName": "manual-labeling", "routing": {"nextStageName": "Finished"}},
                {"stageName": "Finished", "brickName": "labelset-output", "routing": {"nextStageName": "END"}},
            ]
        )
        ids = ground_truth(sandbox, 2, project_id=project)
        window = {"updated_after": DAY, "updated_before": NEXT_DAY}
        manifest = run.try_once(operator(selector=everything, project_id=project, **window))
        assert manifest["counts"] == counts(done=2)
        assert {sandbox.stage_of(task_id, project_id=project) for task_id in ids} == {"Outline"}

    def test_tasks_beyond_one_chunk_are_reopened(self, sandbox, run):
        ids = ground_truth(sandbox, 130)
        assert run.try_once(operator(task_ids=ids))["counts"] == counts(done=130)
        assert sandbox.applied(MOVE) == dict.fromkeys(ids, 1)


class TestWindow:
    def test_window_is_half_open(self, sandbox, run):
        moments = {
            "before": DAY.subtract(microseconds=1),
            "first": DAY,
            "last": NEXT_DAY.subtract(microseconds=1),
            "after": NEXT_DAY,
        }
        ids = {name: ground_truth(sandbox, 1, at)[0] for name, at in moments.items()}
        manifest = run.try_once(operator(selector=everything, updated_after=DAY, updated_before=NEXT_DAY))
        assert set(manifest["task_ids"]) == {ids["first"], ids["last"]}
        assert set(sandbox.applied(MOVE)) == {ids["first"], ids["last"]}

    def test_window_defaults_to_data_interval(self, sandbox, new_run):
        mine, others = ground_truth(sandbox, 2), ground_truth(sandbox, 2, NEXT_DAY.at(12))
        run = new_run(data_interval_start=DAY, data_interval_end=NEXT_DAY)
        assert set(run.try_once(operator(selector=everything))["task_ids"]) == set(mine)
        run = new_run(data_interval_start=DAY, data_interval_end=NEXT_DAY)
        wider = operator(selector=everything, updated_before=NEXT_DAY.add(days=1))
        assert set(run.try_once(wider)["task_ids"]) == set(others)

    def test_window_times_as_text_are_parsed(self, sandbox, run):
        mine = ground_truth(sandbox, 1)
        ground_truth(sandbox, 1, NEXT_DAY.at(12))
        texts = {"updated_after": "2026-03-14", "updated_before": "2026-03-15T01:00:00+01:00"}
        assert run.try_once(operator(selector=everything, **texts))["task_ids"] == mine

    @pytest.mark.parametrize(
        "context",
        [
            {},
            {"data_interval_start": None, "data_interval_end": None},
            {"data_interval_start": DAY, "data_interval_end": DAY},
            {"data_interval_start": NEXT_DAY, "data_interval_end": DAY},
        ],
    )
    def test_empty_window_is_refused_with_solution(self, sandbox, new_run, context):
        ground_truth(sandbox, 1)
        with pytest.raises(RedBrickInputError, match="CronDataIntervalTimetable"):
            new_run(**context).try_once(operator(selector=everything))
        assert sandbox.stats()["requests"] == 0

    def test_window_without_tasks_succeeds(self, sandbox, run):
        ground_truth(sandbox, 2, NEXT_DAY)
        manifest = run.try_once(operator(selector=everything, updated_after=DAY, updated_before=NEXT_DAY))
        assert manifest["counts"] == counts()

    def test_second_run_reopens_nothing_twice(self, sandbox, new_run):
        ids = ground_truth(sandbox, 3)
        interval = {"data_interval_start": DAY, "data_interval_end": NEXT_DAY}
        assert new_run(**interval).try_once(operator(selector=everything))["counts"] == counts(done=3)
        assert new_run(**interval).try_once(operator(selector=everything))["counts"] == counts()
        # After correction they were updated today, so that the old interval no longer contains them.
        sandbox.humans("Label")
        sandbox.humans("Review_1")
        assert {sandbox.stage_of(task_id) for task_id in ids} == {"END"}
        assert new_run(**interval).try_once(operator(selector=everything))["counts"] == counts()
        assert sandbox.applied(MOVE) == dict.fromkeys(ids, 1)

    def test_second_run_of_open_interval_reopens_nothing_twice(self, sandbox, new_run):
        now = pendulum.now("UTC")
        today = {"data_interval_start": now.subtract(hours=12), "data_interval_end": now.add(hours=12)}
        ids = ground_truth(sandbox, 2, now.subtract(hours=1))
        assert new_run(**today).try_once(operator(selector=everything))["counts"] == counts(done=2)
        sandbox.humans("Label")
        sandbox.humans("Review_1")
        assert new_run(**today).try_once(operator(selector=everything))["counts"] == counts(skipped=2)
        assert sandbox.applied(MOVE) == dict.fromkeys(ids, 1)

    def test_task_wrong_again_is_reopened_in_next_interval(self, sandbox, new_run):
        """A run starts after its interval. Its changes, and the corrections, fall into the next interval."""
        midnight = pendulum.now("UTC").subtract(seconds=30)
        yesterday = {"data_interval_start": midnight.subtract(days=1), "data_interval_end": midnight}
        today = {"data_interval_start": midnight, "data_interval_end": midnight.add(days=1)}
        ids = ground_truth(sandbox, 2, midnight.subtract(hours=3))
        assert new_run(**yesterday).try_once(operator(selector=everything))["counts"] == counts(done=2)
        sandbox.humans("Label")
        sandbox.humans("Review_1")
        assert new_run(**today).try_once(operator(selector=everything))["counts"] == counts(done=2)
        assert sandbox.applied(MOVE) == dict.fromkeys(ids, 2)


class TestSelector:
    WINDOW = {"updated_after": DAY, "updated_before": NEXT_DAY}  # noqa: RUF012 - a constant

    def test_selector_receives_task_and_selects(self, sandbox, run):
        wide = ground_truth(sandbox, 2, labels=[BOX], prefix="wide")
        narrow = {**BOX, "bbox2d": {**BOX["bbox2d"], "wnorm": 0.125}}
        ground_truth(sandbox, 3, labels=[narrow], prefix="narrow")
        seen = []

        def too_wide(task) -> bool:
            seen.append((task.name.split("-")[0], task.stage_name))
            return task.series[0]["boundingBoxes"][0]["wNorm"] > 0.4

        manifest = run.try_once(operator(selector=too_wide, **self.WINDOW))
        assert manifest["counts"] == counts(done=2)
        assert set(manifest["task_ids"]) == set(wide)
        assert sorted(seen) == [("narrow", "Ground Truth")] * 3 + [("wide", "Ground Truth")] * 2

    def test_selector_raising_fails_task_alone(self, sandbox, run):
        ids = ground_truth(sandbox, 4)

        def selector(task) -> bool:
            if task.task_id == ids[1]:
                raise LookupError("no such rule")
            return True

        with pytest.raises(RedBrickTasksFailedError, match="LookupError: no such rule"):
            run.try_once(operator(selector=selector, **self.WINDOW))
        assert run.xcoms["manifest"]["counts"] == counts(done=3, failed=1)
        assert set(sandbox.applied(MOVE)) == set(ids) - {ids[1]}

    @pytest.mark.parametrize("answer", [None, 1, "yes", [], everything])
    def test_selector_returning_non_bool_fails_task_alone(self, sandbox, run, answer):
        ids = ground_truth(sandbox, 2)
        manifest = run.try_once(
            operator(
                selector=lambda task: answer if task.task_id == ids[0] else True,
                fail_on="never",
                **self.WINDOW,
            )
        )
        assert manifest["counts"] == counts(done=1, failed=1)
        assert "must return True or False" in manifest["failed"][0]["reason"]
        assert manifest["failed"][0]["task_id"] == ids[0]
        assert set(sandbox.applied(MOVE)) == {ids[1]}

    def test_failed_listing_reopens_nothing(self, sandbox, run):
        ground_truth(sandbox, 450)
        sandbox.fault_once("http_500", "genericTasks", skip=1, times=10)
        with pytest.raises(RedBrickAPIError):
            run.try_once(operator(selector=everything, **self.WINDOW))
        assert sandbox.applied(MOVE) == {}


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({}, r"Give either task_ids or a selector\."),
            ({"task_ids": [str(uuid.uuid4())], "selector": everything}, r"Give either task_ids or a selector\."),
            ({"task_ids": [str(uuid.uuid4())], "project_id": ""}, "project_id must not be empty"),
            ({"task_ids": "{{ ti.xcom_pull('x') }}"}, "task_ids must be a list"),
            ({"task_ids": ["17"]}, r"task_ids\[0\]"),
            (
                {"task_ids": [str(uuid.uuid4())], "updated_after": DAY},
                "updated_after and updated_before need a selector",
            ),
            ({"selector": everything, "updated_after": "yesterday", "updated_before": DAY}, "updated_after must be"),
            ({"selector": everything, "updated_after": "", "updated_before": DAY}, "updated_after must be a date"),
            (
                {"selector": everything, "updated_after": NEXT_DAY, "updated_before": DAY},
                r"The time range from updated_after \(.*\) to updated_before \(.*\) is empty",
            ),
            ({"selector": "everything", "updated_after": DAY, "updated_before": NEXT_DAY}, "selector must be callable"),
        ],
    )
    def test_invalid_parameters_send_no_request(self, sandbox, run, options, words):
        ground_truth(sandbox, 1)
        with pytest.raises(RedBrickInputError, match=words):
            run.try_once(operator(**options))
        assert sandbox.stats()["requests"] == 0


class TestFaults:
    @pytest.mark.parametrize("fault", ["drop_after", "drop_before", "http_503", "html", "rate_limit"])
    def test_lost_answer_is_resolved_without_retry(self, sandbox, run, quick, fault):
        ids = ground_truth(sandbox, 30)
        sandbox.fault_once(fault, MOVE, skip=1)
        assert run.try_once(operator(task_ids=ids))["counts"] == counts(done=30)
        assert sandbox.applied(MOVE) == dict.fromkeys(ids, 1)

    @pytest.mark.parametrize("fault", ["gql_error", "not_ok", "gql_partial"])
    @pytest.mark.parametrize("by_selector", [True, False])
    def test_retry_reopens_refused_tasks(self, *, sandbox, run, alone, fault, by_selector):
        ids = ground_truth(sandbox, 30)
        options = {"selector": everything, **TestSelector.WINDOW} if by_selector else {"task_ids": ids}
        sandbox.fault_once(fault, MOVE, skip=4, times=5)
        with pytest.raises(RedBrickTasksFailedError, match="25 done, 0 already done, 0 skipped, 5 failed"):
            run.try_once(operator(**options))
        assert len(sandbox.applied(MOVE)) == 25
        expected = counts(done=5) if by_selector else counts(done=5, already_done=25)
        assert run.try_once(operator(**options))["counts"] == expected
        assert sandbox.applied(MOVE) == dict.fromkeys(ids, 1)

    def test_failure_reason_is_server_message(self, sandbox, run):
        ids = ground_truth(sandbox, 1)
        sandbox.fault_once("gql_error", MOVE)
        with pytest.raises(RedBrickTasksFailedError, match="sandbox fault: nothing was executed"):
            run.try_once(operator(task_ids=ids))
        assert ids[0] in str(run.xcoms["manifest"]["failed"])

    @pytest.mark.parametrize("by_selector", [True, False])
    def test_retries_after_any_fault_reopen_once(self, sandbox, finish, midway_fault, by_selector):
        ids = ground_truth(sandbox, 12)
        midway_fault(MOVE)
        options = {"selector": everything, **TestSelector.WINDOW} if by_selector else {"task_ids": ids}
        manifests = finish(lambda: operator(**options))
        assert sandbox.applied(MOVE) == dict.fromkeys(ids, 1)
        last = manifests[-1]["counts"]
        assert last["failed"] == 0
        if not by_selector:
            assert last["done"] + last["already_done"] == 12

    @pytest.mark.parametrize("by_selector", [True, False])
    def test_retry_after_kill_reopens_the_rest(self, sandbox, run, killed_attempt, by_selector):
        ids = ground_truth(sandbox, 60)
        options = {"selector": everything, **TestSelector.WINDOW} if by_selector else {"task_ids": ids}
        killed_attempt(operator(**options), after_change=30)
        moved = len(sandbox.applied(MOVE))
        assert 30 <= moved < 60
        manifest = run.try_once(operator(**options))
        assert manifest["counts"] == counts(done=60 - moved, already_done=0 if by_selector else moved)
        assert sandbox.applied(MOVE) == dict.fromkeys(ids, 1)

    def test_retry_skips_task_outside_ground_truth(self, sandbox, run, alone):
        ids = ground_truth(sandbox, 2)
        sandbox.fault_once("gql_error", MOVE, times=2)
        with pytest.raises(RedBrickTasksFailedError):
            run.try_once(operator(task_ids=ids))
        elsewhere = sandbox.seed_tasks(1)
        manifest = run.try_once(operator(task_ids=[*ids, *elsewhere]))
        assert manifest["counts"] == counts(done=2, skipped=1)

    def test_unreadable_task_after_lost_answer_is_unknown_until_retry(self, sandbox, run):
        ids = ground_truth(sandbox, 1)
        sandbox.fault_once("drop_after", MOVE)
        sandbox.fault_once("http_500", "task", skip=1, times=1000)
        with pytest.raises(RedBrickTasksFailedError, match="Whether it was applied is not known"):
            run.try_once(operator(task_ids=ids))
        sandbox.faults("")
        assert run.try_once(operator(task_ids=ids))["counts"] == counts(already_done=1)
        assert sandbox.applied(MOVE) == {ids[0]: 1}
