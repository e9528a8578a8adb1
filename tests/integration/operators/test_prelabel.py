"""``RedBrickPrelabelOperator`` in label stages, with a running sandbox."""

from __future__ import annotations

import logging
import os
import re
import signal
import threading
import time

import pendulum
import pytest
import requests
from airflow.providers.common.compat.sdk import AirflowTaskTimeout
from fixtures import counts, eventually
from label_samples import BOX

from airflow_provider_redbrick.actions import candidates
from airflow_provider_redbrick.exceptions import RedBrickInputError, RedBrickTasksFailedError
from airflow_provider_redbrick.labels.models import BoundingBox, Series, TaskLabels
from airflow_provider_redbrick.operators.prelabel import RedBrickPrelabelOperator
from airflow_provider_redbrick.operators.upload_tasks import RedBrickUploadTasksOperator

PUT = "putManualLabelingTaskAndLabels"
ASSIGN = "assignTasksMultipleUsers"
ALICE, BOB = "alice@example.com", "bob@example.com"
FLAT_BOX = {"xnorm": 0.1, "ynorm": 0.2, "wnorm": 0.3, "hnorm": 0.4}
FLAT = [{"category": "finding", "attributes": [], "bbox2d": FLAT_BOX}]
MODES = ("submit", "draft", "draft_and_release")


def model(_task) -> list[dict]:
    return [{"boundingBoxes": [dict(BOX)]}]


MODELS = [Series(boundingBoxes=[BoundingBox(**BOX)])]


def operator(labeler=model, **options) -> RedBrickPrelabelOperator:
    return RedBrickPrelabelOperator(task_id="model", **{"stage_name": "Label", "labeler": labeler, **options})


def owner(sandbox, task_id: str) -> str | None:
    """Return who holds a task: an email, "key", or None."""
    found = sandbox.task(task_id)["owner"]
    return "key" if found and found.startswith("API:") else found


@pytest.fixture
def hours_later(monkeypatch):
    """Let an hour pass between runs."""
    return lambda: monkeypatch.setattr(candidates, "ABANDONED_AFTER", pendulum.duration(seconds=0))


class TestTaskSelection:
    def test_queue_is_labeled_completely(self, sandbox, run):
        ids = sandbox.seed_tasks(60)
        manifest = run.try_once(operator())
        assert manifest["counts"] == counts(done=60)
        assert manifest["operation"] == "prelabel"
        assert sandbox.applied(PUT) == sandbox.applied(ASSIGN) == dict.fromkeys(ids, 1)

    @pytest.mark.parametrize("options", [{}, {"overwrite": True}])
    def test_limit_counts_task_moved_during_listing_once(self, sandbox, run, seen_twice, options):
        ids = [*sandbox.seed_tasks(30, priority=0.5), *sandbox.seed_tasks(30)]
        manifest = run.try_once(operator(limit=60, **options))
        assert manifest["counts"] == counts(done=60)
        assert (sorted(manifest["task_ids"]), len(seen_twice)) == (sorted(ids), 1)

    def test_limit_bounds_labeled_tasks(self, sandbox, run, holders):
        ids = sandbox.seed_tasks(40)
        assert run.try_once(operator(limit=30))["counts"] == counts(done=30)
        assert sandbox.applied(PUT) == dict.fromkeys(ids[:30], 1)
        assert set(holders("Label").values()) == {None}

    @pytest.mark.parametrize("limit", ["2", 2])
    def test_limit_as_text_is_parsed(self, sandbox, run, limit):
        sandbox.seed_tasks(3)
        assert run.try_once(operator(limit=limit))["counts"] == counts(done=2)

    def test_empty_queue_succeeds(self, sandbox, run):
        assert run.try_once(operator())["counts"] == counts()

    def test_task_ids_select_given_tasks(self, sandbox, run):
        ids = sandbox.seed_tasks(6)
        assert run.try_once(operator(task_ids=[ids[4], ids[1], ids[4]]))["counts"] == counts(done=2)
        assert sandbox.applied(PUT) == {ids[1]: 1, ids[4]: 1}

    def test_queue_excludes_tasks_of_people(self, sandbox, run):
        theirs = sandbox.seed_tasks(2, assignee=BOB)
        free = sandbox.seed_tasks(2)
        assert run.try_once(operator())["counts"] == counts(done=2)
        assert sandbox.applied(PUT) == dict.fromkeys(free, 1)
        assert [owner(sandbox, task_id) for task_id in theirs] == [BOB, BOB]

    def test_given_task_of_person_needs_take_from_people(self, sandbox, run, new_run):
        ids = sandbox.seed_tasks(1, assignee=BOB)
        assert run.try_once(operator(task_ids=ids))["counts"] == counts(skipped=1)
        assert owner(sandbox, ids[0]) == BOB
        manifest = new_run().try_once(operator(task_ids=ids, take_from_people=True))
        assert manifest["counts"] == counts(done=1)

    def test_task_taken_without_result_returns_to_person(self, sandbox, run):
        ids = sandbox.seed_tasks(2, assignee=BOB)
        run.try_once(operator(lambda _task: None, task_ids=ids, take_from_people=True))
        assert [owner(sandbox, task_id) for task_id in ids] == [BOB, BOB]

    def test_small_and_empty_pages_are_read(self, sandbox, run, monkeypatch, quick):
        sandbox.behavior(max_page=30)
        ids = sandbox.seed_tasks(70)
        sandbox.fault_once("empty_page", "genericTasks", skip=3)
        assert run.try_once(operator())["counts"] == counts(done=70)
        assert sandbox.applied(PUT) == dict.fromkeys(ids, 1)

    def test_failed_page_raises(self, sandbox, run, quick):
        sandbox.seed_tasks(3)
        sandbox.fault_once("http_500", "genericTasks", times=50)
        with pytest.raises(Exception, match="HTTP 500"):
            run.try_once(operator())
        assert sandbox.stats()["applied"] == {}


class TestLabelerInput:
    def test_labeler_receives_name_metadata_items_and_labels(self, sandbox, run):
        labels = [{"category": "finding", "attributes": [], "bbox2d": FLAT_BOX}]
        (task_id,) = sandbox.seed_tasks(1, prefix="scan", labels=labels, images=True)
        seen = []
        run.try_once(operator(seen.append, task_ids=[task_id]))
        (task,) = seen
        assert task.task_id == task_id
        assert task.name == sandbox.task(task_id)["name"]
        assert isinstance(dict(task.metadata), dict)
        assert len(task.item_urls) == len(task.items) > 0
        session = requests.Session()
        session.trust_env = False
        assert session.get(task.item_urls[0], timeout=10).status_code == 200
        (series, *_) = task.series
        (box,) = series["boundingBoxes"]
        assert box["category"] == "finding"
        assert box["pointTopLeft"]["xNorm"] == 0.1

    def test_labeler_receives_empty_series_for_new_task(self, sandbox, run):
        sandbox.seed_tasks(1)
        seen = []
        run.try_once(operator(seen.append))
        assert not seen[0].has_labels
        assert seen[0].classification is None

    def test_labeler_may_return_received_series(self, sandbox, run):
        (task_id,) = sandbox.seed_tasks(1, labels=FLAT)
        run.try_once(operator(lambda task: task.series, task_ids=[task_id]))
        assert [label["bbox2d"] for label in sandbox.task(task_id)["labels"]] == [FLAT_BOX]


class TestModes:
    def test_write_submit_moves_task_forward(self, sandbox, run):
        ids = sandbox.seed_tasks(2)
        assert run.try_once(operator())["counts"] == counts(done=2)
        for task_id in ids:
            assert sandbox.stage_of(task_id) == "Review_1"
            assert [label["bbox2d"] for label in sandbox.task(task_id)["labels"]] == [FLAT_BOX]

    def test_write_draft_keeps_task_with_key(self, sandbox, run):
        ids = sandbox.seed_tasks(2)
        assert run.try_once(operator(write="draft"))["counts"] == counts(done=2)
        for task_id in ids:
            assert (sandbox.task(task_id)["state"], owner(sandbox, task_id)) == ("STAGED", "key")
            assert sandbox.task(task_id)["labels"]

    def test_write_draft_and_release_unassigns_task(self, sandbox, run):
        ids = sandbox.seed_tasks(30)
        assert run.try_once(operator(write="draft_and_release"))["counts"] == counts(done=30)
        for task_id in ids:
            assert (sandbox.stage_of(task_id), owner(sandbox, task_id)) == ("Label", None)
            assert sandbox.task(task_id)["labels"]
        assert sandbox.humans("Label", 30)["done"] == 30

    @pytest.mark.parametrize(
        "answer",
        [{"series": model(None)}, model(None), tuple(model(None)), {"labels": FLAT}, MODELS, TaskLabels(series=MODELS)],
    )
    def test_labeler_may_return_each_label_form(self, sandbox, run, answer):
        (task_id,) = sandbox.seed_tasks(1)
        assert run.try_once(operator(lambda _task: answer))["counts"] == counts(done=1)
        assert [label["bbox2d"] for label in sandbox.task(task_id)["labels"]] == [FLAT_BOX]

    def test_labeler_duration_is_sent_as_time_spent(self, sandbox, run):
        (task_id,) = sandbox.seed_tasks(1)
        run.try_once(operator(lambda task: time.sleep(0.03) or model(task)))
        query = """query ($o: UUID!, $p: UUID!, $t: UUID!) { task(orgId: $o, projectId: $p, taskId: $t) {
            genericEvents { ... on TaskEvent { outputEvent { timeSpentMs } } } } }"""
        ids = {"o": sandbox.org_id, "p": sandbox.project_id, "t": task_id}
        events = sandbox.graphql(query, ids)["task"]["genericEvents"]
        assert [e["outputEvent"]["timeSpentMs"] >= 30 for e in events if e.get("outputEvent")] == [True]


def picky(bad_ids, misbehave):
    """A labeler that returns None, raises, or returns invalid labels for some tasks."""
    return lambda task: misbehave() if task.task_id in bad_ids else model(task)


def boom() -> None:
    raise RuntimeError("no such weight file")


BAD_ANSWERS = {
    "True": True,
    "empty list": [],
    "empty object": {},
    "text": "box",
    "number": 3,
    "wrong shape": [{"boundingBoxes": [{"wNorm": 1}]}],
    "NaN": [{"boundingBoxes": [{**BOX, "wNorm": float("nan")}]}],
    "masks": [{"segmentations": "a.nii.gz"}],
}


@pytest.mark.parametrize("write", MODES)
class TestPartialFailure:
    def test_labeler_returning_none_skips_task(self, sandbox, run, write):
        ids = sandbox.seed_tasks(5)
        manifest = run.try_once(operator(picky(ids[1:3], lambda: None), write=write))
        assert manifest["counts"] == counts(done=3, skipped=2)
        for task_id in ids[1:3]:
            task = sandbox.task(task_id)
            assert (task["state"], task["owner"], task["labels"]) == ("UNASSIGNED", None, [])
        assert set(sandbox.applied(PUT)) == {ids[0], ids[3], ids[4]}

    def test_labeler_raising_fails_task_alone(self, sandbox, run, write):
        ids = sandbox.seed_tasks(5)
        with pytest.raises(RedBrickTasksFailedError, match="no such weight file"):
            run.try_once(operator(picky(ids[1:3], boom), write=write))
        assert run.xcoms["manifest"]["counts"] == counts(done=3, failed=2)
        assert {f["task_id"] for f in run.xcoms["manifest"]["failed"]} == set(ids[1:3])
        assert [owner(sandbox, task_id) for task_id in ids[1:3]] == [None, None]

    def test_invalid_labels_fail_task_alone(self, sandbox, run, write):
        ids = sandbox.seed_tasks(len(BAD_ANSWERS) + 2)
        answers = dict(zip(ids[1:], BAD_ANSWERS.values(), strict=False))
        with pytest.raises(RedBrickTasksFailedError):
            run.try_once(operator(lambda task: answers.get(task.task_id, model(task)), write=write))
        assert run.xcoms["manifest"]["counts"] == counts(done=2, failed=len(BAD_ANSWERS))
        assert sandbox.applied(PUT) == {ids[0]: 1, ids[-1]: 1}
        assert {owner(sandbox, task_id) for task_id in answers if task_id != ids[-1]} == {None}

    @pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
    @pytest.mark.usefixtures("one_by_one")
    def test_stop_releases_claims(self, sandbox, run, holders, write, stop):
        ids = sandbox.seed_tasks(60)
        calls = []

        def labeler(task):
            calls.append(task.task_id)
            if len(calls) == 40:
                eventually(lambda: len(sandbox.applied(PUT)) == 24)
                raise stop
            # The third is skipped, so that the first 25 do not fill a whole release request.
            return None if len(calls) == 3 else model(task)

        with pytest.raises(stop):
            run.try_once(operator(labeler, write=write))
        owners = holders("Label")
        kept = 24 if write == "draft" else 0
        assert sum(1 for who in owners.values() if who is not None) == kept
        assert len(sandbox.applied(PUT)) == 24
        manifest = run.try_once(operator(picky(ids[2:3], lambda: None), write=write))
        assert sandbox.applied(PUT) == dict.fromkeys(set(ids) - {ids[2]}, 1)
        assert manifest["counts"]["done"] == 35

    def test_airflow_timeout_releases_claims(self, sandbox, run, write):
        ids = sandbox.seed_tasks(3)

        def slow(_task):
            raise AirflowTaskTimeout

        with pytest.raises(AirflowTaskTimeout):
            run.try_once(operator(slow, write=write))
        assert [owner(sandbox, task_id) for task_id in ids] == [None] * 3


class TestLabeledTasks:
    @pytest.fixture
    def mixed(self, sandbox):
        """Tasks with and without labels: ``(labeled, new)``."""
        return sandbox.seed_tasks(2, labels=FLAT), sandbox.seed_tasks(2)

    def test_labeled_tasks_of_queue_are_skipped(self, sandbox, run, mixed):
        labeled, new = mixed
        run.try_once(operator())
        assert sandbox.applied(PUT) == dict.fromkeys(new, 1)
        assert [owner(sandbox, task_id) for task_id in labeled] == [None, None]

    def test_labeled_tasks_do_not_count_toward_limit(self, sandbox, run, mixed):
        run.try_once(operator(limit=1))
        assert sandbox.applied(PUT) == {mixed[1][0]: 1}

    @pytest.mark.parametrize("fault", ["http_500", "gql_error", "html"])
    def test_failed_label_check_is_retried(self, sandbox, run, mixed, fault):
        sandbox.fault_once(fault, "task")
        assert run.try_once(operator())["counts"] == counts(done=2, skipped=2)
        assert sandbox.applied(PUT) == dict.fromkeys(mixed[1], 1)

    def test_labeled_tasks_are_relabeled_with_overwrite(self, sandbox, run, mixed):
        assert run.try_once(operator(overwrite=True))["counts"] == counts(done=4)
        assert set(sandbox.applied(PUT)) == {*mixed[0], *mixed[1]}

    def test_labeled_given_tasks_are_relabeled(self, sandbox, run, mixed):
        assert run.try_once(operator(task_ids=mixed[0]))["counts"] == counts(done=2)

    def test_labeled_given_tasks_without_overwrite_are_skipped(self, sandbox, run, mixed):
        rows = [*mixed[0], *mixed[1]]
        assert run.try_once(operator(task_ids=rows, overwrite=False))["counts"] == counts(done=2, skipped=2)
        assert set(sandbox.applied(PUT)) == set(mixed[1])

    @pytest.mark.parametrize("write", MODES)
    def test_second_run_labels_nothing_again(self, sandbox, run, new_run, write):
        ids = sandbox.seed_tasks(4)
        run.try_once(operator(write=write))
        assert new_run().try_once(operator(write=write))["counts"]["done"] == 0
        assert sandbox.applied(PUT) == dict.fromkeys(ids, 1)

    @pytest.mark.parametrize("overwrite", [None, True])
    def test_task_rejected_to_key_is_not_relabeled(self, sandbox, run, new_run, hours_later, overwrite):
        ids = sandbox.seed_tasks(3)
        run.try_once(operator())
        assert sandbox.humans("Review_1", accept_ratio=0)["rejected"] == 3
        assert [owner(sandbox, task_id) for task_id in ids] == ["key"] * 3
        run.try_once(operator(overwrite=overwrite))
        new_run().try_once(operator(overwrite=overwrite))
        hours_later()
        new_run().try_once(operator(overwrite=overwrite))
        assert sandbox.applied(PUT) == dict.fromkeys(ids, 1)

    def test_task_rejected_to_key_does_not_count_toward_limit(self, sandbox, run, new_run, hours_later):
        sandbox.seed_tasks(2)
        run.try_once(operator())
        sandbox.humans("Review_1", accept_ratio=0)
        new = sandbox.seed_tasks(2)
        hours_later()
        assert new_run().try_once(operator(limit=2))["counts"] == counts(done=2)
        assert all(sandbox.stage_of(task_id) == "Review_1" for task_id in new)


class TestConcurrentWorkers:
    def test_task_claimed_by_person_first_is_skipped(self, sandbox, run, give):
        ids = sandbox.seed_tasks(60)

        def labeler(task):
            if task.task_id == ids[0]:
                give(ids[58], BOB)
            return model(task)

        assert run.try_once(operator(labeler))["counts"] == counts(done=59, skipped=1)
        assert owner(sandbox, ids[58]) == BOB
        assert ids[58] not in sandbox.applied(PUT)

    def test_task_claimed_by_other_run_first_is_skipped(self, sandbox, run):
        ids = sandbox.seed_tasks(60)
        claim = """mutation ($o: UUID!, $p: UUID!, $t: [UUID!]!) { assignTasksMultipleUsers(
            orgId: $o, projectId: $p, taskIds: $t, currentUser: true, refresh: true) { taskId } }"""

        def labeler(task):
            if task.task_id == ids[0]:
                sandbox.graphql(claim, {"o": sandbox.org_id, "p": sandbox.project_id, "t": [ids[58]]})
            return model(task)

        assert run.try_once(operator(labeler))["counts"] == counts(done=59, skipped=1)
        assert owner(sandbox, ids[58]) == "key"
        assert ids[58] not in sandbox.applied(PUT)

    @pytest.mark.parametrize("write", MODES)
    def test_claimed_task_reassigned_to_person_is_not_changed(self, sandbox, run, give, write):
        ids = sandbox.seed_tasks(3)

        def labeler(task):
            give(ids[1], BOB)
            return model(task)

        with pytest.raises(RedBrickTasksFailedError, match="assigned to another user"):
            run.try_once(operator(labeler, write=write))
        assert run.xcoms["manifest"]["counts"] == counts(done=2, failed=1)
        assert owner(sandbox, ids[1]) == BOB
        assert sandbox.task(ids[1])["labels"] == []

    def test_concurrent_runs_submit_each_task_once(self, sandbox, new_run, holders):
        ids = sandbox.seed_tasks(60)
        manifests, problems = [], []

        def work():
            try:
                manifests.append(new_run().try_once(operator(fail_on="never")))
            except Exception as error:  # noqa: BLE001 - shown below
                problems.append(error)

        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert problems == []
        assert set(sandbox.applied(PUT).values()) == {1}
        assert set(holders("Label").values()) <= {None}
        rest = [task_id for task_id in ids if task_id not in sandbox.applied(PUT)]
        assert new_run().try_once(operator())["counts"] == counts(done=len(rest))
        assert sandbox.applied(PUT) == dict.fromkeys(ids, 1)

    def test_claims_of_killed_run_are_taken_over_after_an_hour(self, sandbox, killed_attempt, new_run, hours_later):
        ids = sandbox.seed_tasks(3)
        killed_attempt(operator(lambda _task: os.kill(os.getpid(), signal.SIGKILL)))
        assert [owner(sandbox, task_id) for task_id in ids] == ["key"] * 3
        assert new_run().try_once(operator())["counts"] == counts()
        hours_later()
        assert new_run().try_once(operator())["counts"] == counts(done=3)
        assert sandbox.applied(PUT) == dict.fromkeys(ids, 1)

    @pytest.mark.parametrize("write", ["draft", "draft_and_release"])
    def test_drafts_that_stay_with_key_are_not_released_by_other_runs(
        self, *, sandbox, run, new_run, hours_later, write
    ):
        ids = sandbox.seed_tasks(3)
        run.try_once(operator(write="draft"))
        assert new_run().try_once(operator(write=write))["counts"] == counts()
        hours_later()
        assert new_run().try_once(operator(write=write))["counts"] == counts()
        given = operator(write=write, task_ids=ids, overwrite=False)
        assert new_run().try_once(given)["counts"] == counts(skipped=3)
        assert [owner(sandbox, task_id) for task_id in ids] == ["key"] * 3
        assert sandbox.applied(PUT) == dict.fromkeys(ids, 1)

    def test_retry_resumes_claims_of_killed_attempt(self, sandbox, run, killed_attempt):
        ids = sandbox.seed_tasks(3)
        killed_attempt(operator(lambda _task: os.kill(os.getpid(), signal.SIGKILL)))
        assert run.try_once(operator())["counts"] == counts(done=3)
        assert sandbox.applied(PUT) == dict.fromkeys(ids, 1)

    @pytest.mark.parametrize("given", [False, True])
    def test_retry_releases_claims_it_skips(self, sandbox, run, killed_attempt, given):
        ids = sandbox.seed_tasks(3)
        which = {"task_ids": ids} if given else {}
        killed_attempt(operator(lambda _task: os.kill(os.getpid(), signal.SIGKILL), **which))
        assert run.try_once(operator(lambda _task: None, **which))["counts"] == counts(skipped=3)
        assert [owner(sandbox, task_id) for task_id in ids] == [None] * 3

    def test_retry_keeps_tasks_held_before_run(self, sandbox, run, new_run):
        ids = sandbox.seed_tasks(2, assignee="API key")
        run = new_run()
        run.tries, run.started = 1, run.started.add(seconds=5)
        assert run.try_once(operator())["counts"] == counts()
        assert [owner(sandbox, task_id) for task_id in ids] == ["key"] * 2

    def test_given_task_of_key_is_released_if_skipped(self, sandbox, run):
        ids = sandbox.seed_tasks(2, assignee="API key")
        assert run.try_once(operator(lambda _task: None, task_ids=ids))["counts"] == counts(skipped=2)
        assert [owner(sandbox, task_id) for task_id in ids] == [None] * 2


class TestRefusedInput:
    @pytest.mark.parametrize(
        "options",
        [
            {"write": "publish"},
            {"labeler": None},
            {"labeler": "model"},
            {"limit": 0},
            {"limit": -1},
            {"limit": "many"},
            {"limit": ""},
            {"limit": True},
            {"limit": 1, "task_ids": ["0a9c6e10-5b1d-4c8e-9f00-000000000009"]},
            {"task_ids": ""},
            {"task_ids": "0a9c6e10-5b1d-4c8e-9f00-000000000009"},
            {"task_ids": [""]},
            {"task_ids": [None]},
            {"task_ids": ["x"]},
            {"stage_name": ""},
            {"fail_on": ""},
            {"report_path": ""},
            {"project_id": ""},
            {"org_id": ""},
        ],
        ids=repr,
    )
    def test_invalid_parameters_send_no_request(self, sandbox, run, options):
        with pytest.raises(RedBrickInputError):
            run.try_once(operator(**options))
        assert sandbox.stats()["requests"] == 0

    @pytest.mark.parametrize("stage", ["Ground Truth", "Output", "END", "Input", "Failed_Review_1", "label"])
    def test_stages_without_labeling_are_refused(self, sandbox, run, stage):
        with pytest.raises(RedBrickInputError):
            run.try_once(operator(stage_name=stage))
        assert sandbox.stats()["applied"] == {}


@pytest.fixture
def labeled_once(sandbox, whereabouts):
    """Check that each task was labeled once and is in the state that its mode leaves it in."""

    def check(ids, write, *, draft_owners=("key",)) -> None:
        assert sandbox.applied(PUT) == dict.fromkeys(ids, 1)
        stage = "Review_1" if write == "submit" else "Label"
        owners = draft_owners if write == "draft" else (None,)
        found = whereabouts()
        assert {found[task_id].stage for task_id in ids} == {stage}
        assert {found[task_id].owner for task_id in ids} <= set(owners)
        assert {len(found[task_id].labels) for task_id in ids} == {1}

    return check


def finishes(finish, ids, write, *, given: bool) -> None:
    manifests = finish(lambda: operator(write=write, task_ids=ids if given else None))
    tried = [manifest["counts"] for manifest in manifests if manifest]
    if given:
        assert all(sum(each.values()) == len(ids) for each in tried)
        assert tried[-1]["done"] + tried[-1]["already_done"] == len(ids)
    assert sum(each["done"] for each in tried) <= len(ids)


def test_retry_processes_the_rest(sandbox, midway_fault, finish, labeled_once):
    ids = sandbox.seed_tasks(8)
    midway_fault(PUT)
    finishes(finish, ids, "submit", given=True)
    labeled_once(ids, "submit")


@pytest.mark.parametrize("fault", ["http_500", "drop_before", "drop_after", "gql_error", "rate_limit"])
def test_retry_releases_what_could_not_be_released(sandbox, finish, quick, labeled_once, fault):
    ids = sandbox.seed_tasks(4)
    sandbox.fault_once(fault, ASSIGN, skip=1, times=20)
    finishes(finish, ids, "draft_and_release", given=False)
    labeled_once(ids, "draft_and_release")


@pytest.mark.parametrize(
    ("write", "given"),
    [("submit", False), ("draft", True), ("draft_and_release", True), ("draft_and_release", False)],
    ids=["submit-queue", "draft-given", "draft_and_release-given", "draft_and_release-queue"],
)
class TestRetry:
    def test_retry_after_fault_processes_the_rest(self, *, sandbox, write, given, core_fault, finish, labeled_once):
        ids = sandbox.seed_tasks(8)
        core_fault(PUT)
        finishes(finish, ids, write, given=given)
        # A draft whose result is unknown was released.
        labeled_once(ids, write, draft_owners=("key", None))

    def test_retry_after_kill_between_changes_processes_the_rest(
        self, *, sandbox, write, given, killed_attempt, finish, labeled_once
    ):
        ids = sandbox.seed_tasks(40)
        which = {"task_ids": ids} if given else {}
        killed_attempt(operator(write=write, **which), after_change=10)
        (manifest,) = finish(lambda: operator(write=write, **which))
        labeled_once(ids, write)
        if given:
            assert manifest["counts"]["done"] + manifest["counts"]["already_done"] == 40

    def test_retry_after_kill_in_labeler_processes_the_rest(
        self, *, sandbox, write, given, killed_attempt, finish, labeled_once
    ):
        ids = sandbox.seed_tasks(40)
        which = {"task_ids": ids} if given else {}
        calls = []

        def labeler(task):
            calls.append(task)
            if len(calls) == 30:
                os.kill(os.getpid(), signal.SIGKILL)
            return model(task)

        killed_attempt(operator(labeler, write=write, **which))
        finish(lambda: operator(write=write, **which))
        labeled_once(ids, write)

    def test_retries_after_any_fault_label_once(self, *, sandbox, write, given, finish, quick, labeled_once):
        seed = {"submit": 11, "draft": 12, "draft_and_release": 13}[write] + 100 * given
        print(f"seed={seed}")
        ids = sandbox.seed_tasks(60)
        sandbox.faults(f"http_503=0.1,drop_before=0.05,drop_after=0.05,rate_limit=0.05,seed={seed}")
        finish(lambda: operator(write=write, task_ids=ids if given else None), faults_stay=True)
        sandbox.faults("")
        labeled_once(ids, write, draft_owners=("key", None))

    def test_retry_during_slow_transition_labels_once(
        self, *, sandbox, write, given, finish, quick, pairs, labeled_once
    ):
        sandbox.settings(transition_ms=100)
        ids = sandbox.seed_tasks(8)
        sandbox.fault_once("drop_after", PUT, times=3)
        sandbox.fault_once("gql_error", PUT, skip=5)
        finish(lambda: operator(write=write, task_ids=ids if given else None))
        time.sleep(0.15)
        labeled_once(ids, write)


@pytest.mark.parametrize("words", ["cannot read {}", "cannot read it"])
@pytest.mark.usefixtures("sandbox")
def test_task_name_with_control_characters_is_escaped_in_log(run, caplog, capsys, tmp_path, words):
    """Any uploader can choose a name. It must not forge log lines or control a terminal."""
    (tmp_path / "a.dcm").write_bytes(b"x")
    name = "scan\n[2024-05-01] INFO - all tasks are done\x1b[2J\x9b2J\u2028INFO"
    upload = RedBrickUploadTasksOperator(task_id="t", tasks=[{"name": name, "items": [str(tmp_path / "a.dcm")]}])
    (task_id,) = run.try_once(upload)["task_ids"]

    def labeler(task):
        assert task.name == name
        raise OSError(words.format(task.name))

    with caplog.at_level(logging.DEBUG), pytest.raises(RedBrickTasksFailedError) as raised:
        run.try_once(operator(labeler))
    printed = capsys.readouterr()
    logged = caplog.text + printed.out + printed.err
    for about in (f"Task {task_id} (", f"The labeler raised for task {task_id} ("):
        lines = [line for line in logged.splitlines() if about in line]
        assert lines
        assert all("all tasks are done" in line for line in lines)
    assert not any(line.startswith("[2024-05-01]") for line in logged.splitlines())
    assert not re.search("[\x1b\x9b\u2028]", logged)
    assert len(str(raised.value).splitlines()) == 1
    assert run.xcoms["manifest"]["failed"][0]["name"] == name


def test_log_names_labeler_exception(sandbox, run, caplog):
    sandbox.seed_tasks(1)
    with caplog.at_level(logging.ERROR), pytest.raises(RedBrickTasksFailedError):
        run.try_once(operator(lambda _task: boom()))
    assert any("The labeler raised" in record.message and record.exc_info for record in caplog.records)


def test_retry_with_limit_resumes_claims_first(sandbox, run):
    ids = sandbox.seed_tasks(6)
    with pytest.raises(RedBrickTasksFailedError):
        run.try_once(operator(picky(ids[1:2], boom), limit=3))
    run.try_once(operator(limit=3))
    assert ids[1] in sandbox.applied(PUT)
    assert set(sandbox.applied(PUT).values()) == {1}
