"""Changes by people during lost answers, killed workers and pauses between attempts are kept."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import replace

import pendulum
import pytest
from chaos.works import ASSIGN, PEOPLE, PUT, REOPEN, REVIEW, box
from fixtures import alarm, counts
from sandbox_calls import BOX

from airflow_provider_redbrick.assignments import assign
from airflow_provider_redbrick.client.operations.project import RedBrickProject
from airflow_provider_redbrick.client.transport.clock import ServerClock
from airflow_provider_redbrick.exceptions import RedBrickStoppedError, RedBrickTasksFailedError
from airflow_provider_redbrick.operators.auto_review import RedBrickAutoReviewOperator
from airflow_provider_redbrick.operators.balance_assignments import RedBrickBalanceAssignmentsOperator
from airflow_provider_redbrick.operators.prelabel import RedBrickPrelabelOperator
from airflow_provider_redbrick.operators.put_labels import RedBrickPutLabelsOperator
from airflow_provider_redbrick.operators.reopen_ground_truth import RedBrickReopenGroundTruthOperator

_, BOB, CAROL = PEOPLE
PUT_ANYWHERE = "putLabels"
LABELS = {"series": [{"boundingBoxes": [box("study-1")]}]}
NOTHING = {"series": []}
WRONG = {"series": [{"boundingBoxes": [{"category": "none such"}]}]}


def put(ids, **options):
    tasks = [{"taskId": task_id, **LABELS} for task_id in ids]
    return RedBrickPutLabelsOperator(task_id="work", stage_name="Label", **{"tasks": tasks, **options})


def prelabel(answer=LABELS, **options):
    defaults = {"task_id": "work", "stage_name": "Label", "labeler": lambda _task: answer}
    return RedBrickPrelabelOperator(**{**defaults, **options})


def reopen(**options):
    return RedBrickReopenGroundTruthOperator(task_id="work", **options)


def failing(run, operator):
    """Run an attempt that fails because of its tasks; return its counts and its error message."""
    with pytest.raises(RedBrickTasksFailedError) as caught:
        run.try_once(operator)
    return run.xcoms["manifest"]["counts"], str(caught.value)


@pytest.fixture
def meanwhile(sandbox):
    """Run an action as soon as the server has received a root field."""
    threads = []

    def when(root_field, action) -> None:
        def wait() -> None:
            while not sandbox.stats()["root_fields"].get(root_field):
                time.sleep(0.005)
            action()

        threads.append(threading.Thread(target=wait, daemon=True))
        threads[-1].start()

    yield when
    for thread in threads:
        thread.join(10)


@pytest.fixture
def hours(monkeypatch):
    """Advance the clock that decides which claims are abandoned: ``hours.append(2)``."""
    passed = []

    now = ServerClock.now
    monkeypatch.setattr(ServerClock, "now", lambda clock: now(clock).add(hours=sum(passed)))
    return passed


class TestUnreadableHistory:
    """If the history of earlier attempts cannot be read, nothing is repeated."""

    @pytest.mark.parametrize("fault", ["http_500", "html", "gql_error", "gql_partial"])
    def test_task_sent_back_by_reviewer_is_not_submitted_again(self, sandbox, run, quick, fault):
        ids = sandbox.seed_tasks(2)
        tasks = [{"taskId": ids[0], **LABELS}, {"taskId": ids[1], **WRONG}]
        failing(run, put(ids, tasks=tasks))
        sandbox.humans("Review_1", accept_ratio=0.0)
        sandbox.fault_once(fault, "task", skip=1, times=2 if fault == "gql_partial" else 1)
        found, _ = failing(run, put(ids, tasks=tasks))
        assert (found, sandbox.applied(PUT)) == (counts(failed=2), {ids[0]: 1})
        failing(run, put(ids, tasks=tasks))
        assert run.xcoms["manifest"]["counts"] == counts(already_done=1, failed=1)
        assert sandbox.applied(PUT) == {ids[0]: 1}

    def test_task_corrected_by_people_is_not_reopened_again(self, sandbox, run, quick):
        ids = sandbox.seed_tasks(1, ground_truth=True)
        run.try_once(reopen(task_ids=ids))
        sandbox.humans("Label")
        sandbox.humans("Review_1")
        sandbox.fault_once("http_500", "task", skip=1)
        found, message = failing(run, reopen(task_ids=ids))
        assert (found, sandbox.applied(REOPEN)) == (counts(failed=1), {ids[0]: 1})
        assert "The history of earlier attempts could not be read, and nothing was sent" in message

    def test_task_is_not_reopened_again_by_second_run_of_same_interval(self, sandbox, new_run, quick):
        ids = sandbox.seed_tasks(1, ground_truth=True)
        now = pendulum.now("UTC")
        window = {"updated_after": now.subtract(hours=1), "updated_before": now.add(hours=1)}
        new_run().try_once(reopen(selector=lambda _task: True, **window))
        sandbox.humans("Label")
        sandbox.humans("Review_1")
        sandbox.fault_once("http_500", "task", skip=2)
        found, _ = failing(new_run(), reopen(selector=lambda _task: True, **window))
        assert (found, sandbox.applied(REOPEN)) == (counts(failed=1), {ids[0]: 1})


class TestLostAnswers:
    """A task in its old stage may have been changed and sent back before it was read."""

    def test_submission_rejected_at_once_is_done(self, sandbox, run, quick, meanwhile):
        ids = sandbox.seed_tasks(1)
        sandbox.fault_once("drop_after", PUT)
        sandbox.fault_once("slow", "task", skip=1)  # the read, until which the reviewer is done
        meanwhile(PUT, lambda: sandbox.humans("Review_1", accept_ratio=0.0))
        assert run.try_once(put(ids))["counts"] == counts(done=1)
        assert sandbox.applied(PUT) == {ids[0]: 1}
        assert sandbox.stage_of(ids[0]) == "Label"

    def test_rejection_followed_by_new_labels_is_done(self, sandbox, run, quick, meanwhile):
        ids = sandbox.seed_tasks(1, stage="Review_1", labels=[BOX])
        sandbox.fault_once("drop_after", REVIEW)
        sandbox.fault_once("slow", "task", skip=1)
        meanwhile(REVIEW, lambda: sandbox.humans("Label"))
        review = RedBrickAutoReviewOperator(task_id="work", stage_name="Review_1", reviewer=lambda _task: False)
        assert run.try_once(review)["counts"] == counts(done=1)
        assert sandbox.applied(REVIEW) == {ids[0]: 1}

    def test_reopening_followed_by_correction_is_done(self, sandbox, run, quick, meanwhile):
        ids = sandbox.seed_tasks(1, ground_truth=True)
        sandbox.fault_once("drop_after", REOPEN)
        sandbox.fault_once("slow", "task", skip=1)
        meanwhile(REOPEN, lambda: (sandbox.humans("Label"), sandbox.humans("Review_1")))
        assert run.try_once(reopen(task_ids=ids))["counts"] == counts(done=1)
        assert (sandbox.applied(REOPEN), sandbox.stage_of(ids[0])) == ({ids[0]: 1}, "END")

    def test_earlier_submission_is_no_evidence_for_later_one(self, sandbox, new_run, quick):
        """The key submitted the task before, it was sent back, and now the request itself is lost."""
        ids = sandbox.seed_tasks(1)
        new_run().try_once(put(ids))
        sandbox.humans("Review_1", accept_ratio=0.0)
        sandbox.fault_once("drop_before", PUT)
        assert new_run().try_once(put(ids))["counts"] == counts(done=1)
        assert (sandbox.applied(PUT), sandbox.stage_of(ids[0])) == ({ids[0]: 2}, "Review_1")

    @pytest.mark.parametrize("fault", ["drop_before", "drop_after"])
    def test_labels_saved_by_person_meanwhile_are_not_replaced(self, sandbox, run, quick, meanwhile, fault):
        ids = sandbox.seed_tasks(1)
        theirs = [{**BOX, "bbox2d": {"xnorm": 0.5, "ynorm": 0.5, "wnorm": 0.1, "hnorm": 0.1}}]
        sandbox.fault_once(fault, PUT_ANYWHERE)
        sandbox.fault_once("slow", "task", skip=1)
        meanwhile(PUT_ANYWHERE, lambda: sandbox.humans("Label", labels=theirs))
        made = run.try_once(prelabel(stage_name=None, task_ids=ids, write="anywhere", overwrite=False))
        assert made["counts"] == counts(skipped=1)
        assert sandbox.task(ids[0])["labels"][0]["bbox2d"] == theirs[0]["bbox2d"]
        assert sandbox.applied(PUT_ANYWHERE).get(ids[0], 0) == (fault == "drop_after")


class TestDrafts:
    @pytest.mark.parametrize("options", [{"overwrite": True}, {"answer": NOTHING}], ids=["overwrite", "nothing found"])
    def test_unreleased_draft_is_released_by_next_attempt(self, sandbox, run, impatient, options):
        ids = sandbox.seed_tasks(1)
        sandbox.fault_once("http_500", ASSIGN, skip=1, times=50)
        failing(run, prelabel(write="draft_and_release", **options))
        assert sandbox.task(ids[0])["state"] == "STAGED"
        sandbox.faults("")
        run.try_once(prelabel(write="draft_and_release", **options))
        assert (sandbox.task(ids[0])["owner"], sandbox.task(ids[0])["state"]) == (None, "UNASSIGNED")

    def test_empty_draft_is_not_predicted_again(self, sandbox, new_run):
        sandbox.seed_tasks(2)
        asked = []

        def labeler(task):
            asked.append(task.task_id)
            return NOTHING

        for _ in range(3):
            new_run().try_once(prelabel(labeler=labeler, write="draft_and_release"))
        assert len(asked) == 2

    @pytest.mark.parametrize("write", ["draft", None])
    def test_draft_with_unknown_outcome_stays_with_key(self, sandbox, run, quick, write):
        ids = sandbox.seed_tasks(1)
        operator = (lambda: prelabel(write=write, task_ids=ids)) if write else (lambda: put(ids, finalize=False))
        sandbox.fault_once("drop_after", PUT)
        sandbox.fault_once("http_500", "task", skip=2, times=1000)
        found, _ = failing(run, operator())
        sandbox.faults("")
        assert (found, sandbox.task(ids[0])["state"]) == (counts(unknown=1), "STAGED")
        assert run.try_once(operator())["counts"] == counts(already_done=1)
        assert (sandbox.task(ids[0])["state"], sandbox.applied(PUT)) == ("STAGED", {ids[0]: 1})


@pytest.mark.parametrize("options", [{"overwrite": True}, {"answer": NOTHING}], ids=["overwrite", "nothing found"])
def test_tasks_sent_back_to_key_do_not_use_up_limit(sandbox, new_run, hours, options):
    sandbox.seed_tasks(2)
    new_run().try_once(prelabel(limit=2, **options))
    assert sandbox.humans("Review_1", accept_ratio=0.0)["rejected"] == 2
    sandbox.seed_tasks(3)
    hours.append(2)
    assert new_run().try_once(prelabel(limit=2, **options))["counts"] == counts(done=2)


def test_task_taken_from_person_is_returned_by_any_attempt(sandbox, run, impatient):
    def labeler(_task):
        raise ValueError("no model")

    ids = sandbox.seed_tasks(2, assignee=BOB)
    operator = {"labeler": labeler, "task_ids": ids, "take_from_people": True}
    sandbox.fault_once("http_500", ASSIGN, skip=1, times=50)  # the claim succeeds, the release does not
    failing(run, prelabel(**operator))
    assert sandbox.task(ids[0])["owner"] not in {None, BOB}
    sandbox.faults("")
    failing(run, prelabel(**operator))
    assert [sandbox.task(task_id)["owner"] for task_id in ids] == [BOB, BOB]


def balance():
    return RedBrickBalanceAssignmentsOperator(task_id="work", stage_name="Label", emails=[BOB, CAROL], rebalance=True)


class TestBalance:
    def test_task_started_after_read_is_not_moved(self, sandbox, run, monkeypatch, holders):
        ids = sandbox.seed_tasks(4, assignee=BOB)
        monkeypatch.setattr("airflow_provider_redbrick.assignments.assign.is_fresh", lambda _read_at: False)
        read_batch = assign.read_batch

        def begun(project, task_ids):
            found = read_batch(project, task_ids)
            tasks = {each: replace(task, state="IN_PROGRESS") for each, task in found.tasks.items()}
            return replace(found, tasks=tasks)

        monkeypatch.setattr(assign, "read_batch", begun)
        assert run.try_once(balance())["counts"] == counts(skipped=2)
        assert holders("Label") == dict.fromkeys(ids, BOB)
        assert sandbox.stats()["applied"] == {}

    def test_task_submitted_meanwhile_is_not_reported_assigned(self, sandbox, run, tap):
        sandbox.seed_tasks(4, assignee=BOB)
        done = []

        def before(text):
            if f"{ASSIGN}(" in text and not done:
                done.append(sandbox.humans("Label"))

        tap.before = before
        assert run.try_once(balance())["counts"] == counts(skipped=2)


def test_stopped_work_sends_no_waiting_request(sandbox, run):
    """Otherwise drafts would be saved again after the next attempt has saved them."""
    ids = sandbox.seed_tasks(2)
    sandbox.fault_once("rate_limit_after", PUT, times=2)
    operator = put(ids, finalize=False)
    with pytest.raises(RedBrickStoppedError), alarm(0.7, RedBrickStoppedError("stopped")):
        run.try_once(operator)
    sent = sandbox.stats()["root_fields"][PUT]
    time.sleep(2.5)
    assert (sandbox.stats()["root_fields"][PUT], sandbox.applied(PUT)) == (sent, {})


def test_task_listed_twice_is_reopened_once(sandbox, run, monkeypatch):
    ids = sandbox.seed_tasks(60, ground_truth=True)
    listed = RedBrickProject.list_tasks

    def twice(self, *args, **kwargs):
        tasks = list(listed(self, *args, **kwargs))
        return iter([*tasks, tasks[0]])

    monkeypatch.setattr(RedBrickProject, "list_tasks", twice)
    window = {"updated_after": "2000-01-01", "updated_before": pendulum.now("UTC").add(hours=1)}
    assert run.try_once(reopen(selector=lambda _task: True, **window))["counts"] == counts(done=60)
    assert sandbox.applied(REOPEN) == dict.fromkeys(ids, 1)


def test_claims_of_killed_attempt_are_released_when_labels_are_invalid(sandbox, run, tap):
    ids = sandbox.seed_tasks(2)

    def killed(text):
        if f"{PUT}(" in text:
            os._exit(9)

    worker = os.fork()
    if worker == 0:
        tap.before = killed
        run.try_once(put(ids))
        os._exit(0)
    os.waitpid(worker, 0)
    run.tries = 1
    assert None not in {sandbox.task(task_id)["owner"] for task_id in ids}
    failing(run, put(ids, tasks=[{"taskId": task_id, **WRONG} for task_id in ids]))
    assert [sandbox.task(task_id)["owner"] for task_id in ids] == [None, None]
