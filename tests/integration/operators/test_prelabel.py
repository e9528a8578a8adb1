"""Labelling new tasks with a model, on a running server."""

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


def operator(labeler=model, **options) -> RedBrickPrelabelOperator:
    return RedBrickPrelabelOperator(task_id="model", **{"stage_name": "Label", "labeler": labeler, **options})


def owner(sandbox, task_id: str) -> str | None:
    """Who holds a task: an e-mail, "key", or None."""
    found = sandbox.task(task_id)["owner"]
    return "key" if found and found.startswith("API:") else found


@pytest.fixture
def hours_later(monkeypatch):
    """Let an hour pass between runs."""
    return lambda: monkeypatch.setattr(candidates, "ABANDONED_AFTER", pendulum.duration(seconds=0))


class TestWhichTasks:
    def test_the_whole_queue(self, sandbox, run):
        ids = sandbox.seed_tasks(60)
        manifest = run.try_once(operator())
        assert manifest["counts"] == counts(done=60)
        assert manifest["operation"] == "prelabel"
        assert sandbox.applied(PUT) == sandbox.applied(ASSIGN) == dict.fromkeys(ids, 1)

    @pytest.mark.parametrize("options", [{}, {"overwrite": True}])
    def test_a_limit_counts_a_task_once_that_moves_while_it_is_listed(self, sandbox, run, seen_twice, options):
        ids = [*sandbox.seed_tasks(30, priority=0.5), *sandbox.seed_tasks(30)]
        manifest = run.try_once(operator(limit=60, **options))
        assert manifest["counts"] == counts(done=60)
        assert (sorted(manifest["task_ids"]), len(seen_twice)) == (sorted(ids), 1)

    def test_a_limit(self, sandbox, run, holders):
        ids = sandbox.seed_tasks(40)
        assert run.try_once(operator(limit=30))["counts"] == counts(done=30)
        assert sandbox.applied(PUT) == dict.fromkeys(ids[:30], 1)
        assert set(holders("Label").values()) == {None}

    @pytest.mark.parametrize("limit", ["2", 2])
    def test_a_limit_may_come_from_a_template(self, sandbox, run, limit):
        sandbox.seed_tasks(3)
        assert run.try_once(operator(limit=limit))["counts"] == counts(done=2)

    def test_an_empty_queue_is_no_failure(self, sandbox, run):
        assert run.try_once(operator())["counts"] == counts()

    def test_given_tasks(self, sandbox, run):
        ids = sandbox.seed_tasks(6)
        assert run.try_once(operator(task_ids=[ids[4], ids[1], ids[4]]))["counts"] == counts(done=2)
        assert sandbox.applied(PUT) == {ids[1]: 1, ids[4]: 1}

    def test_peoples_tasks_are_not_in_the_queue(self, sandbox, run):
        theirs = sandbox.seed_tasks(2, assignee=BOB)
        free = sandbox.seed_tasks(2)
        assert run.try_once(operator())["counts"] == counts(done=2)
        assert sandbox.applied(PUT) == dict.fromkeys(free, 1)
        assert [owner(sandbox, task_id) for task_id in theirs] == [BOB, BOB]

    def test_a_persons_given_task_stays_theirs_unless_told(self, sandbox, run, new_run):
        ids = sandbox.seed_tasks(1, assignee=BOB)
        assert run.try_once(operator(task_ids=ids))["counts"] == counts(skipped=1)
        assert owner(sandbox, ids[0]) == BOB
        manifest = new_run().try_once(operator(task_ids=ids, take_from_people=True))
        assert manifest["counts"] == counts(done=1)

    def test_a_taken_task_goes_back_to_its_person_when_nothing_came_of_it(self, sandbox, run):
        ids = sandbox.seed_tasks(2, assignee=BOB)
        run.try_once(operator(lambda _task: None, task_ids=ids, take_from_people=True))
        assert [owner(sandbox, task_id) for task_id in ids] == [BOB, BOB]

    def test_small_pages_and_empty_ones(self, sandbox, run, monkeypatch, quick):
        sandbox.settings(max_page=30)
        ids = sandbox.seed_tasks(70)
        sandbox.fault_once("empty_page", "genericTasks", skip=3)
        assert run.try_once(operator())["counts"] == counts(done=70)
        assert sandbox.applied(PUT) == dict.fromkeys(ids, 1)

    def test_a_page_that_fails_is_not_the_end_of_the_queue(self, sandbox, run, quick):
        sandbox.seed_tasks(3)
        sandbox.fault_once("http_500", "genericTasks", times=50)
        with pytest.raises(Exception, match="HTTP 500"):
            run.try_once(operator())
        assert sandbox.stats()["applied"] == {}


class TestWhatTheLabelerSees:
    def test_name_metadata_images_and_labels(self, sandbox, run):
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

    def test_a_new_task_has_empty_series(self, sandbox, run):
        sandbox.seed_tasks(1)
        seen = []
        run.try_once(operator(seen.append))
        assert not seen[0].has_labels
        assert seen[0].classification is None

    def test_what_it_sees_can_be_handed_back(self, sandbox, run):
        (task_id,) = sandbox.seed_tasks(1, labels=FLAT)
        run.try_once(operator(lambda task: task.series, task_ids=[task_id]))
        assert [label["bbox2d"] for label in sandbox.task(task_id)["labels"]] == [FLAT_BOX]


class TestModes:
    def test_submit(self, sandbox, run):
        ids = sandbox.seed_tasks(2)
        assert run.try_once(operator())["counts"] == counts(done=2)
        for task_id in ids:
            assert sandbox.stage_of(task_id) == "Review_1"
            assert [label["bbox2d"] for label in sandbox.task(task_id)["labels"]] == [FLAT_BOX]

    def test_draft(self, sandbox, run):
        ids = sandbox.seed_tasks(2)
        assert run.try_once(operator(write="draft"))["counts"] == counts(done=2)
        for task_id in ids:
            assert (sandbox.task(task_id)["state"], owner(sandbox, task_id)) == ("STAGED", "key")
            assert sandbox.task(task_id)["labels"]

    def test_draft_and_release(self, sandbox, run):
        ids = sandbox.seed_tasks(30)
        assert run.try_once(operator(write="draft_and_release"))["counts"] == counts(done=30)
        for task_id in ids:
            assert (sandbox.stage_of(task_id), owner(sandbox, task_id)) == ("Label", None)
            assert sandbox.task(task_id)["labels"]
        assert sandbox.humans("Label", 30)["done"] == 30

    @pytest.mark.parametrize("answer", [{"series": model(None)}, model(None), tuple(model(None)), {"labels": FLAT}])
    def test_what_a_labeler_may_return(self, sandbox, run, answer):
        (task_id,) = sandbox.seed_tasks(1)
        assert run.try_once(operator(lambda _task: answer))["counts"] == counts(done=1)
        assert [label["bbox2d"] for label in sandbox.task(task_id)["labels"]] == [FLAT_BOX]

    def test_the_time_a_model_takes_is_told(self, sandbox, run):
        (task_id,) = sandbox.seed_tasks(1)
        run.try_once(operator(lambda task: time.sleep(0.03) or model(task)))
        query = """query ($o: UUID!, $p: UUID!, $t: UUID!) { task(orgId: $o, projectId: $p, taskId: $t) {
            genericEvents { ... on TaskEvent { outputEvent { timeSpentMs } } } } }"""
        ids = {"o": sandbox.org_id, "p": sandbox.project_id, "t": task_id}
        events = sandbox.graphql(query, ids)["task"]["genericEvents"]
        assert [e["outputEvent"]["timeSpentMs"] >= 30 for e in events if e.get("outputEvent")] == [True]


def picky(bad_ids, misbehave):
    """A labeler that misbehaves for some tasks."""
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
class TestNotEveryTask:
    def test_none_leaves_a_task_alone(self, sandbox, run, write):
        ids = sandbox.seed_tasks(5)
        manifest = run.try_once(operator(picky(ids[1:3], lambda: None), write=write))
        assert manifest["counts"] == counts(done=3, skipped=2)
        for task_id in ids[1:3]:
            task = sandbox.task(task_id)
            assert (task["state"], task["owner"], task["labels"]) == ("UNASSIGNED", None, [])
        assert set(sandbox.applied(PUT)) == {ids[0], ids[3], ids[4]}

    def test_what_it_raises_fails_that_task_only(self, sandbox, run, write):
        ids = sandbox.seed_tasks(5)
        with pytest.raises(RedBrickTasksFailedError, match="no such weight file"):
            run.try_once(operator(picky(ids[1:3], boom), write=write))
        assert run.xcoms["manifest"]["counts"] == counts(done=3, failed=2)
        assert {f["task_id"] for f in run.xcoms["manifest"]["failed"]} == set(ids[1:3])
        assert [owner(sandbox, task_id) for task_id in ids[1:3]] == [None, None]

    def test_invalid_labels_fail_that_task_only(self, sandbox, run, write):
        ids = sandbox.seed_tasks(len(BAD_ANSWERS) + 2)
        answers = dict(zip(ids[1:], BAD_ANSWERS.values(), strict=False))
        with pytest.raises(RedBrickTasksFailedError):
            run.try_once(operator(lambda task: answers.get(task.task_id, model(task)), write=write))
        assert run.xcoms["manifest"]["counts"] == counts(done=2, failed=len(BAD_ANSWERS))
        assert sandbox.applied(PUT) == {ids[0]: 1, ids[-1]: 1}
        assert {owner(sandbox, task_id) for task_id in answers if task_id != ids[-1]} == {None}

    @pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
    @pytest.mark.usefixtures("one_by_one")
    def test_a_stop_releases_what_was_claimed(self, sandbox, run, holders, write, stop):
        ids = sandbox.seed_tasks(60)
        calls = []

        def labeler(task):
            calls.append(task.task_id)
            if len(calls) == 40:
                eventually(lambda: len(sandbox.applied(PUT)) == 24)
                raise stop
            # The third is left alone, so that the first 25 do not fill a whole request of releases.
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

    def test_airflows_own_timeout_releases_too(self, sandbox, run, write):
        ids = sandbox.seed_tasks(3)

        def slow(_task):
            raise AirflowTaskTimeout

        with pytest.raises(AirflowTaskTimeout):
            run.try_once(operator(slow, write=write))
        assert [owner(sandbox, task_id) for task_id in ids] == [None] * 3


class TestLabelledTasks:
    @pytest.fixture
    def mixed(self, sandbox):
        """Tasks with and without labels: ``(labelled, new)``."""
        return sandbox.seed_tasks(2, labels=FLAT), sandbox.seed_tasks(2)

    def test_are_left_alone_in_a_queue(self, sandbox, run, mixed):
        labelled, new = mixed
        run.try_once(operator())
        assert sandbox.applied(PUT) == dict.fromkeys(new, 1)
        assert [owner(sandbox, task_id) for task_id in labelled] == [None, None]

    def test_do_not_use_up_the_limit(self, sandbox, run, mixed):
        run.try_once(operator(limit=1))
        assert sandbox.applied(PUT) == {mixed[1][0]: 1}

    @pytest.mark.parametrize("fault", ["http_500", "gql_error", "html"])
    def test_a_look_that_fails_is_taken_again_and_fails_no_try(self, sandbox, run, mixed, fault):
        sandbox.fault_once(fault, "task")
        assert run.try_once(operator())["counts"] == counts(done=2, skipped=2)
        assert sandbox.applied(PUT) == dict.fromkeys(mixed[1], 1)

    def test_are_labelled_again_when_told(self, sandbox, run, mixed):
        assert run.try_once(operator(overwrite=True))["counts"] == counts(done=4)
        assert set(sandbox.applied(PUT)) == {*mixed[0], *mixed[1]}

    def test_are_labelled_again_when_given(self, sandbox, run, mixed):
        assert run.try_once(operator(task_ids=mixed[0]))["counts"] == counts(done=2)

    def test_are_left_alone_when_given_and_told(self, sandbox, run, mixed):
        rows = [*mixed[0], *mixed[1]]
        assert run.try_once(operator(task_ids=rows, overwrite=False))["counts"] == counts(done=2, skipped=2)
        assert set(sandbox.applied(PUT)) == set(mixed[1])

    @pytest.mark.parametrize("write", MODES)
    def test_a_second_run_labels_nothing_again(self, sandbox, run, new_run, write):
        ids = sandbox.seed_tasks(4)
        run.try_once(operator(write=write))
        assert new_run().try_once(operator(write=write))["counts"]["done"] == 0
        assert sandbox.applied(PUT) == dict.fromkeys(ids, 1)

    @pytest.mark.parametrize("overwrite", [None, True])
    def test_what_a_reviewer_sends_back_to_the_key_is_not_labelled_in_circles(
        self, sandbox, run, new_run, hours_later, overwrite
    ):
        ids = sandbox.seed_tasks(3)
        run.try_once(operator())
        assert sandbox.humans("Review_1", accept_ratio=0)["rejected"] == 3
        assert [owner(sandbox, task_id) for task_id in ids] == ["key"] * 3
        run.try_once(operator(overwrite=overwrite))
        new_run().try_once(operator(overwrite=overwrite))
        hours_later()
        new_run().try_once(operator(overwrite=overwrite))
        assert sandbox.applied(PUT) == dict.fromkeys(ids, 1)

    def test_what_came_back_does_not_use_up_the_limit(self, sandbox, run, new_run, hours_later):
        sandbox.seed_tasks(2)
        run.try_once(operator())
        sandbox.humans("Review_1", accept_ratio=0)
        new = sandbox.seed_tasks(2)
        hours_later()
        assert new_run().try_once(operator(limit=2))["counts"] == counts(done=2)
        assert all(sandbox.stage_of(task_id) == "Review_1" for task_id in new)


class TestOthersAtTheSameQueue:
    def test_a_person_who_is_faster_keeps_the_task(self, sandbox, run, give):
        ids = sandbox.seed_tasks(60)

        def labeler(task):
            if task.task_id == ids[0]:
                give(ids[58], BOB)
            return model(task)

        assert run.try_once(operator(labeler))["counts"] == counts(done=59, skipped=1)
        assert owner(sandbox, ids[58]) == BOB
        assert ids[58] not in sandbox.applied(PUT)

    def test_another_run_with_the_same_key_that_is_faster_keeps_the_task(self, sandbox, run):
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
    def test_a_person_who_is_given_a_claimed_task_keeps_it(self, sandbox, run, give, write):
        ids = sandbox.seed_tasks(3)

        def labeler(task):
            give(ids[1], BOB)
            return model(task)

        with pytest.raises(RedBrickTasksFailedError, match="assigned to another user"):
            run.try_once(operator(labeler, write=write))
        assert run.xcoms["manifest"]["counts"] == counts(done=2, failed=1)
        assert owner(sandbox, ids[1]) == BOB
        assert sandbox.task(ids[1])["labels"] == []

    def test_two_runs_at_once_submit_nothing_twice(self, sandbox, new_run, holders):
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

    def test_another_run_waits_an_hour_for_what_a_killed_try_claimed(self, sandbox, killed_try, new_run, hours_later):
        ids = sandbox.seed_tasks(3)
        killed_try(operator(lambda _task: os.kill(os.getpid(), signal.SIGKILL)))
        assert [owner(sandbox, task_id) for task_id in ids] == ["key"] * 3
        assert new_run().try_once(operator())["counts"] == counts()
        hours_later()
        assert new_run().try_once(operator())["counts"] == counts(done=3)
        assert sandbox.applied(PUT) == dict.fromkeys(ids, 1)

    def test_another_run_hands_over_the_drafts_that_a_killed_one_left(self, sandbox, run, new_run, hours_later):
        ids = sandbox.seed_tasks(3)
        run.try_once(operator(write="draft"))
        assert new_run().try_once(operator(write="draft_and_release"))["counts"] == counts()
        hours_later()
        assert new_run().try_once(operator(write="draft"))["counts"] == counts()
        assert [owner(sandbox, task_id) for task_id in ids] == ["key"] * 3
        assert new_run().try_once(operator(write="draft_and_release"))["counts"] == counts(already_done=3)
        assert [owner(sandbox, task_id) for task_id in ids] == [None] * 3
        assert sandbox.applied(PUT) == dict.fromkeys(ids, 1)

    def test_so_does_one_that_is_given_the_same_tasks_again(self, sandbox, run, new_run):
        ids = sandbox.seed_tasks(3)
        run.try_once(operator(write="draft"))
        again = operator(write="draft_and_release", task_ids=ids, overwrite=False)
        assert new_run().try_once(again)["counts"] == counts(already_done=3)
        assert [owner(sandbox, task_id) for task_id in ids] == [None] * 3
        assert sandbox.applied(PUT) == dict.fromkeys(ids, 1)

    def test_a_retry_takes_up_what_a_killed_try_claimed(self, sandbox, run, killed_try):
        ids = sandbox.seed_tasks(3)
        killed_try(operator(lambda _task: os.kill(os.getpid(), signal.SIGKILL)))
        assert run.try_once(operator())["counts"] == counts(done=3)
        assert sandbox.applied(PUT) == dict.fromkeys(ids, 1)

    @pytest.mark.parametrize("given", [False, True])
    def test_a_retry_releases_what_a_killed_try_claimed_and_it_leaves_alone(self, sandbox, run, killed_try, given):
        ids = sandbox.seed_tasks(3)
        which = {"task_ids": ids} if given else {}
        killed_try(operator(lambda _task: os.kill(os.getpid(), signal.SIGKILL), **which))
        assert run.try_once(operator(lambda _task: None, **which))["counts"] == counts(skipped=3)
        assert [owner(sandbox, task_id) for task_id in ids] == [None] * 3

    def test_a_retry_leaves_alone_what_the_key_held_before_the_run(self, sandbox, run, new_run):
        ids = sandbox.seed_tasks(2, assignee="API key")
        run = new_run()
        run.tries = 1
        assert run.try_once(operator())["counts"] == counts()
        assert [owner(sandbox, task_id) for task_id in ids] == ["key"] * 2

    def test_given_tasks_of_the_key_stay_with_it_when_left_alone(self, sandbox, new_run):
        ids = sandbox.seed_tasks(2, assignee="API key")
        run = new_run()
        for _ in range(2):
            assert run.try_once(operator(lambda _task: None, task_ids=ids))["counts"] == counts(skipped=2)
        assert [owner(sandbox, task_id) for task_id in ids] == ["key"] * 2


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
    def test_before_any_request(self, sandbox, run, options):
        with pytest.raises(RedBrickInputError):
            run.try_once(operator(**options))
        assert sandbox.stats()["requests"] == 0

    @pytest.mark.parametrize("stage", ["Ground Truth", "Output", "END", "Input", "Failed_Review_1", "label"])
    def test_stages_nobody_labels_in(self, sandbox, run, stage):
        with pytest.raises(RedBrickInputError):
            run.try_once(operator(stage_name=stage))
        assert sandbox.stats()["applied"] == {}


@pytest.fixture
def labelled_once(sandbox, whereabouts):
    """Check that every task was labelled once and is where its mode leaves it."""

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


def test_a_retry_finishes_the_rest(sandbox, midway_fault, finish, labelled_once):
    ids = sandbox.seed_tasks(8)
    midway_fault(PUT)
    finishes(finish, ids, "submit", given=True)
    labelled_once(ids, "submit")


@pytest.mark.parametrize("fault", ["http_500", "drop_before", "drop_after", "gql_error", "rate_limit"])
def test_a_retry_hands_over_what_could_not_be_released(sandbox, finish, quick, labelled_once, fault):
    ids = sandbox.seed_tasks(4)
    sandbox.fault_once(fault, ASSIGN, skip=1, times=20)
    finishes(finish, ids, "draft_and_release", given=False)
    labelled_once(ids, "draft_and_release")


@pytest.mark.parametrize(
    ("write", "given"),
    [("submit", False), ("draft", True), ("draft_and_release", True), ("draft_and_release", False)],
    ids=["submit-queue", "draft-given", "draft_and_release-given", "draft_and_release-queue"],
)
class TestRetry:
    def test_finishes_the_rest(self, *, sandbox, write, given, core_fault, finish, labelled_once):
        ids = sandbox.seed_tasks(8)
        core_fault(PUT)
        finishes(finish, ids, write, given=given)
        # A draft whose result is unknown was released.
        labelled_once(ids, write, draft_owners=("key", None))

    def test_after_a_kill_between_changes(self, *, sandbox, write, given, killed_try, finish, labelled_once):
        ids = sandbox.seed_tasks(40)
        which = {"task_ids": ids} if given else {}
        killed_try(operator(write=write, **which), after_change=10)
        (manifest,) = finish(lambda: operator(write=write, **which))
        labelled_once(ids, write)
        if given:
            assert manifest["counts"]["done"] + manifest["counts"]["already_done"] == 40

    def test_after_a_kill_in_the_model(self, *, sandbox, write, given, killed_try, finish, labelled_once):
        ids = sandbox.seed_tasks(40)
        which = {"task_ids": ids} if given else {}
        calls = []

        def labeler(task):
            calls.append(task)
            if len(calls) == 30:
                os.kill(os.getpid(), signal.SIGKILL)
            return model(task)

        killed_try(operator(labeler, write=write, **which))
        finish(lambda: operator(write=write, **which))
        labelled_once(ids, write)

    def test_whatever_goes_wrong(self, *, sandbox, write, given, finish, quick, labelled_once):
        seed = {"submit": 11, "draft": 12, "draft_and_release": 13}[write] + 100 * given
        print(f"seed={seed}")
        ids = sandbox.seed_tasks(60)
        sandbox.faults(f"http_503=0.1,drop_before=0.05,drop_after=0.05,rate_limit=0.05,seed={seed}")
        finish(lambda: operator(write=write, task_ids=ids if given else None), faults_stay=True)
        sandbox.faults("")
        labelled_once(ids, write, draft_owners=("key", None))

    def test_slow_transitions(self, *, sandbox, write, given, finish, quick, pairs, labelled_once):
        sandbox.settings(transition_ms=100)
        ids = sandbox.seed_tasks(8)
        sandbox.fault_once("drop_after", PUT, times=3)
        sandbox.fault_once("gql_error", PUT, skip=5)
        finish(lambda: operator(write=write, task_ids=ids if given else None))
        time.sleep(0.15)
        labelled_once(ids, write)


@pytest.mark.parametrize("words", ["cannot read {}", "cannot read it"])
@pytest.mark.usefixtures("sandbox")
def test_no_name_writes_lines_of_its_own_into_the_log(run, caplog, capsys, tmp_path, words):
    """Names come from any uploader: they must neither pass for lines of a log nor command a terminal."""
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


def test_the_log_names_what_was_raised(sandbox, run, caplog):
    sandbox.seed_tasks(1)
    with caplog.at_level(logging.ERROR), pytest.raises(RedBrickTasksFailedError):
        run.try_once(operator(lambda _task: boom()))
    assert any("The labeler raised" in record.message and record.exc_info for record in caplog.records)


def test_a_retry_with_a_limit_takes_up_what_is_left_first(sandbox, run):
    ids = sandbox.seed_tasks(6)
    with pytest.raises(RedBrickTasksFailedError):
        run.try_once(operator(picky(ids[1:2], boom), limit=3))
    run.try_once(operator(limit=3))
    assert ids[1] in sandbox.applied(PUT)
    assert set(sandbox.applied(PUT).values()) == {1}
