"""``RedBrickAutoReviewOperator``, with a running sandbox."""

from __future__ import annotations

import os
import signal

import pytest
from fixtures import counts, eventually

from airflow_provider_redbrick.exceptions import RedBrickInputError, RedBrickTasksFailedError
from airflow_provider_redbrick.operators.auto_review import RedBrickAutoReviewOperator, Review

REVIEW = "putExpertReviewTask"
PUT = "putManualLabelingTaskAndLabels"
ASSIGN = "assignTasksMultipleUsers"
BOB = "bob@example.com"
UNKNOWN = "00000000-0000-4000-8000-000000000000"
BOX = {"pointTopLeft": {"xNorm": 0.5, "yNorm": 0.5}, "wNorm": 0.1, "hNorm": 0.1, "category": "finding"}
FLAT_BOX = {"xnorm": 0.5, "ynorm": 0.5, "wnorm": 0.1, "hnorm": 0.1}
CORRECTED = [{"boundingBoxes": [BOX]}]


def operator(reviewer=None, **options) -> RedBrickAutoReviewOperator:
    return RedBrickAutoReviewOperator(task_id="review", **{"stage_name": "Review_1", "reviewer": reviewer, **options})


@pytest.fixture
def to_review(sandbox):
    """Create tasks in review that a person has labeled."""

    def make(count: int, **options) -> list[str]:
        return sandbox.seed_tasks(count, stage="Review_1", **options)

    return make


class TestDecisions:
    @pytest.mark.parametrize("answer", [True, Review.accept()])
    def test_accept_moves_task_forward(self, *, sandbox, run, to_review, whereabouts, trail, answer):
        ids = to_review(3)
        before = whereabouts()
        manifest = run.try_once(operator(lambda _task: answer))
        assert manifest["counts"] == counts(done=3)
        assert manifest["operation"] == "auto_review"
        assert sandbox.applied(REVIEW) == dict.fromkeys(ids, 1)
        assert sandbox.applied(PUT) == {}
        after = whereabouts()
        assert {after[task_id].stage for task_id in ids} == {"END"}
        assert [after[task_id].labels for task_id in ids] == [before[task_id].labels for task_id in ids]
        assert trail(ids[0]).outputs[-1][:2] == ("Review_1", True)

    @pytest.mark.parametrize("answer", [False, Review.reject()])
    def test_reject_returns_task_to_labeler(self, *, sandbox, run, to_review, whereabouts, trail, answer):
        ids = to_review(3)
        labelers = [trail(task_id).outputs[0][2] for task_id in ids]
        before = whereabouts()
        assert run.try_once(operator(lambda _task: answer))["counts"] == counts(done=3)
        after = whereabouts()
        assert {(after[task_id].stage, after[task_id].state) for task_id in ids} == {("Label", "ASSIGNED")}
        assert len({after[task_id].owner for task_id in ids}) == len(set(labelers)) == 3
        assert "key" not in {after[task_id].owner for task_id in ids}
        assert [after[task_id].labels for task_id in ids] == [before[task_id].labels for task_id in ids]

    def test_correct_replaces_labels_and_accepts(self, sandbox, run, to_review, whereabouts, trail):
        ids = to_review(3)
        assert run.try_once(operator(lambda _task: Review.correct(CORRECTED)))["counts"] == counts(done=3)
        assert sandbox.applied(PUT) == dict.fromkeys(ids, 1)
        assert sandbox.applied(REVIEW) == {}
        for task in whereabouts().values():
            assert task.stage == "END"
            assert [label["bbox2d"] for label in task.labels] == [FLAT_BOX]
        assert trail(ids[0]).outputs[-1][:2] == ("Review_1", True)

    def test_correct_with_classification_is_stored(self, sandbox, run, to_review):
        (task_id,) = to_review(1)
        correction = Review.correct(classification={"attributes": {"abnormal": True}})
        assert run.try_once(operator(lambda _task: correction))["counts"] == counts(done=1)
        assert [label["studyclassify"] for label in sandbox.task(task_id)["labels"]] == [True]

    def test_leave_releases_task_to_people(self, sandbox, run, to_review, whereabouts):
        ids = to_review(2)
        before = whereabouts()
        assert run.try_once(operator(lambda _task: Review.leave()))["counts"] == counts(skipped=2)
        assert whereabouts() == before
        assert sandbox.applied(REVIEW) == sandbox.applied(PUT) == {}
        assert sandbox.humans("Review_1")["done"] == len(ids)

    def test_mixed_decisions_are_applied(self, sandbox, run, to_review, whereabouts):
        ids = to_review(40)
        decisions = [Review.accept(), Review.reject(), Review.correct(CORRECTED), Review.leave()]
        wanted = {task_id: decisions[i % 4] for i, task_id in enumerate(ids)}
        manifest = run.try_once(operator(lambda task: wanted[task.task_id]))
        assert manifest["counts"] == counts(done=30, skipped=10)
        stages = {"accept": "END", "reject": "Label", "correct": "END", "leave": "Review_1"}
        found = whereabouts()
        assert {i: found[i].stage for i in ids} == {i: stages[wanted[i].decision] for i in ids}
        assert set(sandbox.applied(PUT)) == set(ids[2::4])

    @pytest.mark.parametrize("decision", ["accept", "reject"])
    def test_review_comments_are_stored(self, sandbox, run, to_review, trail, decision):
        (task_id,) = to_review(1)
        run.try_once(operator(lambda _task: Review(decision, "Zweite Läsion fehlt?")))
        assert trail(task_id).comments == ["Zweite Läsion fehlt?"]

    def test_reviewer_receives_labels(self, sandbox, run, to_review):
        to_review(1, labels=[{"category": "finding", "attributes": [], "bbox2d": FLAT_BOX}])
        seen = []
        run.try_once(operator(lambda task: seen.append(task) or Review.leave()))
        (box,) = seen[0].series[0]["boundingBoxes"]
        assert (box["category"], box["pointTopLeft"]["xNorm"]) == ("finding", 0.5)
        assert len(seen[0].item_urls) == 1


class TestFixedResult:
    def test_review_result_true_accepts_given_tasks(self, sandbox, run, to_review, trail):
        ids = to_review(3)
        manifest = run.try_once(operator(review_result=True, task_ids=ids[:2], comment="fine"))
        assert manifest["counts"] == counts(done=2)
        assert [sandbox.stage_of(task_id) for task_id in ids] == ["END", "END", "Review_1"]
        assert trail(ids[0]).comments == ["fine"]
        assert sandbox.applied(PUT) == {}

    def test_review_result_false_rejects_given_tasks(self, sandbox, run, to_review, trail):
        ids = to_review(2)
        manifest = run.try_once(operator(review_result=False, task_ids=ids, comment="again"))
        assert manifest["counts"] == counts(done=2)
        assert {sandbox.stage_of(task_id) for task_id in ids} == {"Label"}
        assert trail(ids[1]).comments == ["again"]

    def test_review_result_skips_moved_and_fails_unknown_tasks(self, sandbox, run, to_review):
        (here,) = to_review(1)
        (there,) = sandbox.seed_tasks(1)
        with pytest.raises(RedBrickTasksFailedError, match="no such task"):
            run.try_once(operator(review_result=True, task_ids=[here, there, UNKNOWN]))
        assert run.xcoms["manifest"]["counts"] == counts(done=1, skipped=1, failed=1)
        assert sandbox.stage_of(there) == "Label"


class TestListedReviews:
    """``reviews``: a list with one decision per task."""

    def test_reviews_apply_each_decision(self, sandbox, run, to_review, whereabouts, trail):
        accepted, rejected, corrected, classified, other = to_review(5)
        before = whereabouts()
        reviews = [
            {"taskId": accepted, "reviewVal": True},
            {"taskId": rejected, "reviewVal": False, "comment": "There is no box."},
            {"taskId": corrected, "series": CORRECTED},
            {"taskId": classified, "classification": {"attributes": {"abnormal": True}}, "comment": None},
        ]
        assert run.try_once(operator(reviews=reviews))["counts"] == counts(done=4)
        assert sandbox.applied(REVIEW) == {accepted: 1, rejected: 1}
        assert sandbox.applied(PUT) == {corrected: 1, classified: 1}
        after = whereabouts()
        stages = [after[task_id].stage for task_id in (accepted, rejected, corrected, classified)]
        assert stages == ["END", "Label", "END", "END"]
        assert after[accepted].labels == before[accepted].labels
        assert trail(rejected).comments == ["There is no box."]
        assert [label["bbox2d"] for label in after[corrected].labels] == [FLAT_BOX]
        assert [label["studyclassify"] for label in after[classified].labels] == [True]
        assert after[other] == before[other]

    def test_reviews_with_empty_series_clear_labels(self, sandbox, run, to_review):
        (task_id,) = to_review(1)
        assert run.try_once(operator(reviews=[{"taskId": task_id, "series": []}]))["counts"] == counts(done=1)
        assert (sandbox.stage_of(task_id), sandbox.task(task_id)["labels"]) == ("END", [])

    def test_reviews_skip_moved_and_fail_unknown_tasks(self, sandbox, run, to_review):
        (here,) = to_review(1)
        (there,) = sandbox.seed_tasks(1)
        reviews = [{"taskId": task_id, "reviewVal": True} for task_id in (here, there, UNKNOWN)]
        with pytest.raises(RedBrickTasksFailedError, match="no such task"):
            run.try_once(operator(reviews=reviews))
        assert run.xcoms["manifest"]["counts"] == counts(done=1, skipped=1, failed=1)
        assert sandbox.stage_of(there) == "Label"

    def test_reviews_applied_earlier_are_already_done(self, sandbox, run, to_review):
        ids = to_review(2)
        review = operator(reviews=[{"taskId": ids[0], "reviewVal": False}, {"taskId": ids[1], "series": CORRECTED}])
        assert run.try_once(review)["counts"] == counts(done=2)
        assert run.try_once(review)["counts"] == counts(already_done=2)
        assert sandbox.applied(REVIEW) == {ids[0]: 1}

    def test_reviews_render_templates_except_in_labels(self, sandbox, run, to_review):
        ids = to_review(2)
        series = [{"boundingBoxes": [{**BOX, "attributes": {"note": "100 {% of {{ it }}"}}]}]
        review = operator(
            reviews=[
                {"taskId": "{{ params.first }}", "reviewVal": True, "comment": "By {{ params.who }}."},
                {"taskId": "{{ params.second }}", "series": series},
            ]
        )
        review.render_template_fields({"params": {"first": ids[0], "second": ids[1], "who": "rule 3"}})
        assert review.reviews == [
            {"taskId": ids[0], "reviewVal": True, "comment": "By rule 3."},
            {"taskId": ids[1], "series": series},
        ]
        assert run.try_once(review)["counts"] == counts(done=2)
        (label,) = sandbox.task(ids[1])["labels"]
        assert label["attributes"][0]["value"] == "100 {% of {{ it }}"

    @pytest.mark.parametrize(
        ("entries", "words"),
        [
            ("{{ reviews }}", "reviews must be a list, not the text"),
            ({"taskId": UNKNOWN, "reviewVal": True}, "reviews must be a list, not dict"),
            ([UNKNOWN], r"reviews\[0\] must be an object, not str"),
            ([{"reviewVal": True}], r"reviews\[0\].taskId must be a UUID, not None"),
            ([{"taskId": "", "reviewVal": True}], r"reviews\[0\].taskId must be a UUID, not ''"),
            ([{"taskId": UNKNOWN}], r"reviews\[0\].reviewVal must be True or False, not None"),
            ([{"taskId": UNKNOWN, "reviewVal": None}], r"reviews\[0\].reviewVal must be True or False, not None"),
            ([{"taskId": UNKNOWN, "reviewVal": "True"}], r"reviews\[0\].reviewVal must be True or False, not 'True'"),
            ([{"taskId": UNKNOWN, "reviewVal": 1}], r"reviews\[0\].reviewVal must be True or False, not 1"),
            ([{"taskId": UNKNOWN, "comment": "fine"}], r"reviews\[0\].reviewVal must be True or False, not None"),
            ([{"taskId": UNKNOWN, "reviewVal": True, "comment": " "}], r"reviews\[0\].comment must not be empty"),
            ([{"taskId": UNKNOWN, "reviewVal": True, "series": []}], r"reviews\[0\] has both reviewVal and series"),
            ([{"taskId": UNKNOWN, "reviewVal": False, "classification": {}}], "reviewVal and classification"),
            ([{"taskId": UNKNOWN, "series": [], "comment": "see"}], r"reviews\[0\]: the API takes no comment with"),
            ([{"taskId": UNKNOWN, "series": "[]"}], r"reviews\[0\]: 'series' must be a list of objects"),
            ([{"taskId": UNKNOWN, "series": [1]}], r"reviews\[0\]: 'series' must be a list of objects"),
            ([{"taskId": UNKNOWN, "classification": []}], r"reviews\[0\].classification must be an object"),
            (
                [{"taskId": UNKNOWN, "review_val": True}],
                r"reviews\[0\] has unknown keys: review_val\. Known keys are: taskId",
            ),
            ([{"taskId": UNKNOWN, "labels": []}], r"reviews\[0\] has unknown keys: labels"),
            (
                [{"taskId": UNKNOWN, "reviewVal": True}, {"taskId": UNKNOWN.upper(), "reviewVal": True}],
                rf"reviews\[1\] repeats task {UNKNOWN}\. Nothing was sent",
            ),
        ],
    )
    def test_reviews_with_invalid_entry_send_no_request(self, sandbox, run, entries, words):
        with pytest.raises(RedBrickInputError, match=words):
            run.try_once(operator(reviews=entries))
        assert sandbox.stats()["requests"] == 0

    @pytest.mark.parametrize(
        "other",
        [{"reviewer": bool}, {"review_result": False}, {"comment": "fine"}, {"task_ids": [UNKNOWN]}, {"limit": 1}],
        ids=lambda other: next(iter(other)),
    )
    def test_reviews_with_other_selection_are_refused(self, sandbox, run, other):
        with pytest.raises(RedBrickInputError, match=f"reviews cannot be combined with {next(iter(other))}"):
            run.try_once(operator(reviews=[{"taskId": UNKNOWN, "reviewVal": True}], **other))
        assert sandbox.stats()["requests"] == 0


class TestOwnership:
    def test_task_of_person_is_skipped(self, sandbox, run, to_review, whereabouts):
        ids = to_review(2, assignee=BOB)
        before = whereabouts()
        assert run.try_once(operator(review_result=True, task_ids=ids))["counts"] == counts(skipped=2)
        assert run.try_once(operator(lambda _task: True))["counts"] == counts()
        assert whereabouts() == before

    def test_task_of_person_is_taken_with_take_from_people(self, sandbox, run, to_review):
        ids = to_review(2, assignee=BOB)
        manifest = run.try_once(operator(review_result=True, task_ids=ids, take_from_people=True))
        assert manifest["counts"] == counts(done=2)

    def test_review_without_claim_fails_with_server_message(self, sandbox, run, to_review, whereabouts):
        to_review(2)
        with pytest.raises(RedBrickTasksFailedError, match="in stage 'Review_1' is not assigned to you"):
            run.try_once(operator(lambda _task: True, claim=False))
        assert {task.stage for task in whereabouts().values()} == {"Review_1"}

    def test_limit_bounds_reviewed_tasks(self, sandbox, run, to_review, whereabouts):
        ids = to_review(5)
        assert run.try_once(operator(lambda _task: True, limit=2))["counts"] == counts(done=2)
        assert [whereabouts()[task_id].stage for task_id in ids] == ["END"] * 2 + ["Review_1"] * 3

    def test_task_past_sampled_review_is_skipped(self, sandbox, run):
        ids = sandbox.seed_tasks(1, ground_truth=True)
        assert run.try_once(operator(review_result=False, task_ids=ids))["counts"] == counts(skipped=1)
        assert sandbox.stage_of(ids[0]) == "END"


BAD_ANSWERS = {
    "None": None,
    "text": "accept",
    "number": 1,
    "list": CORRECTED,
    "class": Review,
    "wrong labels": Review.correct([{"boxes": []}]),
    "no list": Review.correct("series"),
    "NaN": Review.correct([{"boundingBoxes": [{**BOX, "wNorm": float("nan")}]}]),
}


class TestBadReviewers:
    def test_reviewer_returning_non_decision_fails_task_alone(self, sandbox, run, to_review, whereabouts):
        ids = to_review(len(BAD_ANSWERS) + 2)
        answers = dict(zip(ids[1:-1], BAD_ANSWERS.values(), strict=True))
        with pytest.raises(RedBrickTasksFailedError):
            run.try_once(operator(lambda task: answers.get(task.task_id, True)))
        assert run.xcoms["manifest"]["counts"] == counts(done=2, failed=len(BAD_ANSWERS))
        assert sandbox.applied(REVIEW) == {ids[0]: 1, ids[-1]: 1}
        assert sandbox.applied(PUT) == {}
        found = whereabouts()
        assert {(found[task_id].stage, found[task_id].owner) for task_id in answers} == {("Review_1", None)}

    def test_reviewer_raising_fails_task_alone(self, sandbox, run, to_review):
        ids = to_review(3)

        def reviewer(task):
            if task.task_id == ids[1]:
                raise RuntimeError("cannot decide")
            return False

        with pytest.raises(RedBrickTasksFailedError, match="cannot decide"):
            run.try_once(operator(reviewer))
        assert run.xcoms["manifest"]["counts"] == counts(done=2, failed=1)
        assert (sandbox.stage_of(ids[1]), sandbox.task(ids[1])["owner"]) == ("Review_1", None)

    @pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
    @pytest.mark.usefixtures("one_by_one")
    def test_stop_releases_claims(self, sandbox, run, to_review, holders, stop):
        ids = to_review(30)
        calls = []

        def reviewer(task):
            calls.append(task)
            if len(calls) == 28:
                eventually(lambda: len(sandbox.applied(REVIEW)) == 25)
                raise stop
            return True

        with pytest.raises(stop):
            run.try_once(operator(reviewer))
        assert sandbox.applied(REVIEW) == dict.fromkeys(ids[:25], 1)
        assert set(holders("Review_1").values()) == {None}
        assert run.try_once(operator(reviewer))["counts"] == counts(done=5)
        assert sandbox.applied(REVIEW) == dict.fromkeys(ids, 1)

    @pytest.mark.parametrize(
        "contradiction",
        [
            {"decision": "maybe"},
            {"decision": "accept", "series": CORRECTED},
            {"decision": "reject", "classification": {}},
            {"decision": "leave", "series": []},
            {"decision": "correct"},
            {"decision": "correct", "series": CORRECTED, "comment": "see the box"},
        ],
        ids=repr,
    )
    def test_contradictory_review_is_refused(self, contradiction):
        with pytest.raises(RedBrickInputError):
            Review(**contradiction)


class TestRefusedInput:
    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"review_result": True},
            {"review_result": False, "limit": 3},
            {"review_result": None, "task_ids": [UNKNOWN]},
            {"review_result": "False", "task_ids": [UNKNOWN]},
            {"review_result": 1, "task_ids": [UNKNOWN]},
            {"review_result": True, "task_ids": [""]},
            {"reviewer": bool, "review_result": True, "task_ids": [UNKNOWN]},
            {"reviewer": bool, "review_result": False},
            {"reviewer": bool, "comment": "lost"},
            {"reviewer": "accept"},
            {"reviewer": bool, "limit": 1, "task_ids": [UNKNOWN]},
            {"reviewer": bool, "limit": 0},
            {"reviewer": bool, "stage_name": " "},
            {"reviewer": bool, "fail_on": None},
        ],
        ids=repr,
    )
    def test_invalid_parameters_send_no_request(self, sandbox, run, options):
        with pytest.raises(RedBrickInputError):
            run.try_once(operator(**options))
        assert sandbox.stats()["requests"] == 0

    def test_label_stage_is_refused_with_review_stages(self, sandbox, run):
        ids = sandbox.seed_tasks(1)
        with pytest.raises(RedBrickInputError, match=r"'Label' is a label stage\. The review stages are: Review_1"):
            run.try_once(operator(review_result=True, task_ids=ids, stage_name="Label"))
        assert sandbox.stats()["applied"] == {}

    @pytest.mark.parametrize("stage", ["Ground Truth", "Output", "END", "Input", "Failed_Review_1", "review_1"])
    def test_stages_without_reviews_are_refused(self, sandbox, run, to_review, stage):
        ids = to_review(1)
        with pytest.raises(RedBrickInputError):
            run.try_once(operator(review_result=True, task_ids=ids, stage_name=stage))
        assert sandbox.stats()["applied"] == {}


JOBS = {
    "accept": (REVIEW, "END", lambda _task: Review.accept("ok")),
    "reject": (REVIEW, "Label", lambda _task: Review.reject("not ok")),
    "correct": (PUT, "END", lambda _task: Review.correct(CORRECTED)),
}


def finishes(finish, reviewer, ids, *, given: bool) -> None:
    manifests = finish(lambda: operator(reviewer, task_ids=ids if given else None))
    tried = [manifest["counts"] for manifest in manifests if manifest]
    if given:
        assert all(sum(each.values()) == len(ids) for each in tried)
        assert tried[-1]["done"] + tried[-1]["already_done"] == len(ids)
    assert sum(each["done"] for each in tried) <= len(ids)


def test_retry_processes_the_rest(sandbox, to_review, midway_fault, finish):
    ids = to_review(8)
    midway_fault(REVIEW)
    finishes(finish, JOBS["accept"][2], ids, given=True)
    assert sandbox.applied(REVIEW) == dict.fromkeys(ids, 1)


@pytest.mark.parametrize(
    ("job", "given"),
    [(JOBS["accept"], False), (JOBS["reject"], True), (JOBS["reject"], False), (JOBS["correct"], True)],
    ids=["accept-queue", "reject-given", "reject-queue", "correct-given"],
)
class TestRetry:
    @pytest.fixture
    def reviewed_once(self, sandbox, whereabouts, trail, job):
        """Check that each task was reviewed once and is in the stage that its review leads to."""
        mutation, stage, _ = job

        def check(ids) -> None:
            assert sandbox.applied(mutation) == dict.fromkeys(ids, 1)
            found = whereabouts()
            assert {found[task_id].stage for task_id in ids} == {stage}
            assert "key" not in {found[task_id].owner for task_id in ids}
            if mutation == REVIEW:
                assert len(trail(ids[0]).comments) == 1

        return check

    def test_retry_after_fault_processes_the_rest(self, *, to_review, job, given, core_fault, finish, reviewed_once):
        ids = to_review(8)
        core_fault(job[0])
        finishes(finish, job[2], ids, given=given)
        reviewed_once(ids)

    def test_retry_after_kill_between_changes_processes_the_rest(
        self, *, to_review, job, given, killed_attempt, finish, reviewed_once
    ):
        ids = to_review(40)
        killed_attempt(operator(job[2], task_ids=ids if given else None), after_change=10)
        finishes(finish, job[2], ids, given=given)
        reviewed_once(ids)

    def test_retry_after_kill_in_reviewer_processes_the_rest(
        self, *, to_review, job, given, killed_attempt, finish, reviewed_once
    ):
        ids = to_review(40)
        calls = []

        def reviewer(task):
            calls.append(task)
            if len(calls) == 30:
                os.kill(os.getpid(), signal.SIGKILL)
            return job[2](task)

        killed_attempt(operator(reviewer, task_ids=ids if given else None))
        finishes(finish, job[2], ids, given=given)
        reviewed_once(ids)

    def test_retries_after_any_fault_review_once(self, *, sandbox, to_review, job, given, finish, quick, reviewed_once):
        seed = {"END": 21, "Label": 22}[job[1]] + 100 * given
        print(f"seed={seed}")
        ids = to_review(60)
        sandbox.faults(f"http_503=0.1,drop_before=0.05,drop_after=0.05,rate_limit=0.05,seed={seed}")
        finish(lambda: operator(job[2], task_ids=ids if given else None), faults_stay=True)
        sandbox.faults("")
        reviewed_once(ids)


class TestRetryOfGivenTasks:
    def test_retry_of_rejected_task_is_already_done(self, sandbox, run, to_review):
        ids = to_review(2)
        reject = operator(review_result=False, task_ids=ids)
        assert run.try_once(reject)["counts"] == counts(done=2)
        assert run.try_once(reject)["counts"] == counts(already_done=2)

    def test_retry_does_not_reject_returned_task_again(self, sandbox, run, to_review):
        ids = to_review(2)
        reject = operator(review_result=False, task_ids=ids)
        run.try_once(reject)
        sandbox.humans("Label")
        assert {sandbox.stage_of(task_id) for task_id in ids} == {"Review_1"}
        assert run.try_once(reject)["counts"] == counts(already_done=2)
        assert sandbox.applied(REVIEW) == dict.fromkeys(ids, 1)

    def test_other_run_reviews_returned_task(self, sandbox, run, new_run, to_review):
        ids = to_review(2)
        run.try_once(operator(review_result=False, task_ids=ids))
        sandbox.humans("Label")
        assert new_run().try_once(operator(review_result=True, task_ids=ids))["counts"] == counts(done=2)

    def test_retry_releases_claims_it_does_not_process(self, sandbox, run, to_review, killed_attempt, whereabouts):
        ids = to_review(2)
        killed_attempt(operator(lambda _task: os.kill(os.getpid(), signal.SIGKILL), task_ids=ids))
        assert {task.owner for task in whereabouts().values()} == {"key"}
        assert run.try_once(operator(lambda _task: Review.leave(), task_ids=ids))["counts"] == counts(skipped=2)
        assert {task.owner for task in whereabouts().values()} == {None}


def test_decision_of_person_during_review_is_not_done(sandbox, run):
    (task_id,) = sandbox.seed_tasks(1, stage="Review_1")

    def reject_too_late(task):
        # An admin reassigns the task and accepts it.
        sandbox.graphql(
            """mutation ($o: UUID!, $p: UUID!, $t: UUID!) { assignTasksMultipleUsers(orgId: $o, projectId: $p,
            taskIds: [$t], emails: ["bob@example.com"], currentUser: false, refresh: true) { taskId } }""",
            {"o": sandbox.org_id, "p": sandbox.project_id, "t": task.task_id},
        )
        sandbox.humans("Review_1")
        return False

    operator = RedBrickAutoReviewOperator(
        task_id="review", stage_name="Review_1", reviewer=reject_too_late, task_ids=[task_id]
    )
    manifest = run.try_once(operator)
    assert manifest["counts"] == counts(skipped=1)
    assert sandbox.stage_of(task_id) == "END"
