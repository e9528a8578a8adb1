"""``RedBrickBalanceAssignmentsOperator``, with a running sandbox."""

from __future__ import annotations

import json
import logging
from collections import Counter
from math import ceil

import pytest
from fixtures import counts

from airflow_provider_redbrick.client.operations.project import RedBrickProject
from airflow_provider_redbrick.exceptions import RedBrickError, RedBrickInputError, RedBrickTasksFailedError
from airflow_provider_redbrick.hooks.redbrick import RedBrickHook
from airflow_provider_redbrick.operators.balance_assignments import RedBrickBalanceAssignmentsOperator

ALICE, BOB, CAROL, OLIVIA = (f"{name}@example.com" for name in ("alice", "bob", "carol", "olivia"))
ASSIGN = "assignTasksMultipleUsers"


def operator(**options) -> RedBrickBalanceAssignmentsOperator:
    options = {"stage_name": "Label", "emails": [ALICE, BOB, CAROL], **options}
    return RedBrickBalanceAssignmentsOperator(task_id="share", **options)


def queues(holders, stage: str = "Label") -> dict[str | None, int]:
    return dict(Counter(holders(stage).values()))


def nothing_assigned(sandbox) -> bool:
    return not sandbox.applied(ASSIGN)


class TestBalance:
    def test_balance_shares_unassigned_tasks_evenly(self, sandbox, run, holders):
        ids = sandbox.seed_tasks(10)
        manifest = run.try_once(operator())
        assert sorted(queues(holders).values()) == [3, 3, 4]
        assert manifest["counts"] == counts(done=10)
        assert set(manifest["task_ids"]) == set(ids)
        assert manifest["operation"] == "balance_assignments"
        assert manifest["stage_name"] == "Label"
        assert sandbox.applied(ASSIGN) == dict.fromkeys(ids, 1)

    def test_balance_counts_held_tasks(self, sandbox, run, holders):
        sandbox.seed_tasks(6, assignee=ALICE)
        sandbox.seed_tasks(2, assignee=BOB, state="STAGED")
        sandbox.seed_tasks(7)
        run.try_once(operator())
        assert queues(holders) == {ALICE: 6, BOB: 5, CAROL: 4} or queues(holders) == {ALICE: 6, BOB: 4, CAROL: 5}

    def test_balance_ignores_other_stages(self, sandbox, run, holders):
        sandbox.seed_tasks(9, stage="Review_1", assignee=BOB)
        sandbox.seed_tasks(6)
        run.try_once(operator(emails=[BOB, CAROL]))
        assert queues(holders) == {BOB: 3, CAROL: 3}
        assert queues(holders, "Review_1") == {BOB: 9}

    def test_balance_with_weights_shares_proportionally(self, sandbox, run, holders):
        sandbox.seed_tasks(12)
        run.try_once(operator(weights={ALICE: 0.5, "BOB@example.com": 1, CAROL: "1.5"}))
        assert queues(holders) == {ALICE: 2, BOB: 4, CAROL: 6}

    def test_balance_with_weight_0_assigns_nothing_new(self, sandbox, run, holders):
        sandbox.seed_tasks(1, assignee=ALICE)
        sandbox.seed_tasks(8)
        run.try_once(operator(weights={ALICE: 0}))
        assert queues(holders) == {ALICE: 1, BOB: 4, CAROL: 4}

    def test_balance_with_ceiling_leaves_rest_unassigned(self, sandbox, run, holders):
        sandbox.seed_tasks(4, assignee=ALICE)
        sandbox.seed_tasks(6)
        manifest = run.try_once(operator(ceiling="3"))
        assert queues(holders) == {ALICE: 4, BOB: 3, CAROL: 3}
        assert manifest["counts"]["done"] == 6
        ids = sandbox.seed_tasks(2)
        manifest = run.try_once(operator(ceiling=3))
        assert manifest["counts"] == counts(skipped=2)
        assert [holders("Label")[task_id] for task_id in ids] == [None, None]

    def test_balance_with_ceiling_reports_left_over_tasks(self, sandbox, run, tmp_path):
        sandbox.seed_tasks(4)
        report = tmp_path / "deep" / "report.jsonl"
        manifest = run.try_once(operator(emails=[ALICE], ceiling=1, report_path=str(report)))
        rows = [json.loads(line) for line in report.read_text().splitlines()]
        assert Counter(row["status"] for row in rows) == {"done": 1, "skipped": 3}
        assert {row.get("assigned_to") for row in rows if row["status"] == "done"} == {ALICE}
        assert {row["reason"] for row in rows if row["status"] == "skipped"} == {"no person has room for it"}
        assert manifest["report"] == str(report)

    def test_balance_keeps_tasks_of_other_people(self, sandbox, run, holders):
        mine = sandbox.seed_tasks(2, assignee=OLIVIA)
        keys = sandbox.seed_tasks(2, assignee="API key")
        sandbox.seed_tasks(4)
        run.try_once(operator(emails=[ALICE, BOB], rebalance=True))
        assert Counter(queues(holders).values()) == {2: 4}
        assert {holders("Label")[task_id] for task_id in mine} == {OLIVIA}
        assert {holders("Label")[task_id] for task_id in keys}.isdisjoint({ALICE, BOB, None})

    def test_balance_skips_open_issues(self, sandbox, run, holders):
        problem = sandbox.seed_tasks(1, state="PROBLEM")
        run.try_once(operator())
        assert holders("Label") == {problem[0]: None}

    def test_balance_skips_tasks_in_transition(self, sandbox, run):
        sandbox.seed_tasks(3)
        sandbox.settings(transition_ms=60_000)
        left = sandbox.humans("Label", 2)["task_ids"]
        manifest = run.try_once(operator())
        assert manifest["counts"]["done"] == 1
        assert not set(manifest["task_ids"]) & set(left)

    def test_balance_is_deterministic(self, sandbox, new_run, holders):
        seen = []
        for _ in range(2):
            sandbox.reset()
            sandbox.seed_tasks(3, assignee=BOB)
            sandbox.seed_tasks(3, priority=0.9)
            sandbox.seed_tasks(11)
            new_run().try_once(operator(weights={ALICE: 2}))
            seen.append(holders("Label"))
        assert seen[0] == seen[1]

    def test_balance_again_changes_nothing(self, sandbox, new_run):
        ids = sandbox.seed_tasks(7)
        new_run().try_once(operator())
        for rebalance in (False, True):
            manifest = new_run().try_once(operator(rebalance=rebalance))
            assert sum(manifest["counts"].values()) == 0
        assert sandbox.applied(ASSIGN) == dict.fromkeys(ids, 1)

    def test_balance_of_empty_queue_succeeds(self, sandbox, run):
        manifest = run.try_once(operator())
        assert manifest["counts"] == counts()
        assert manifest["task_ids"] == []

    def test_balance_in_review_stage(self, sandbox, run, holders):
        sandbox.seed_tasks(4, stage="Review_1")
        run.try_once(operator(stage_name="Review_1", emails=[BOB, CAROL]))
        assert queues(holders, "Review_1") == {BOB: 2, CAROL: 2}

    def test_balance_in_other_project(self, sandbox, run, holders):
        other = sandbox.add_project()
        sandbox.seed_tasks(2)
        sandbox.seed_tasks(4, project_id=other)
        manifest = run.try_once(operator(emails=[BOB], project_id=other))
        assert manifest["project_id"] == other
        assert set(holders("Label").values()) == {None}
        assert list(holders("Label", project_id=other).values()) == [BOB] * 4

    def test_balance_matches_emails_ignoring_case(self, sandbox, run, holders):
        sandbox.seed_tasks(4, assignee=ALICE)
        sandbox.seed_tasks(4)
        run.try_once(operator(emails=["Alice@Example.com", BOB]))
        assert queues(holders) == {ALICE: 4, BOB: 4}

    def test_balance_counts_task_moved_during_listing_once(self, sandbox, run, holders, seen_twice):
        ids = sandbox.seed_tasks(60, priority=0.5)
        manifest = run.try_once(operator())
        assert manifest["counts"] == counts(done=60)
        assert queues(holders) == dict.fromkeys([ALICE, BOB, CAROL], 20)
        assert set(manifest["task_ids"]) == set(ids)


class TestRebalance:
    def test_rebalance_moves_minimum_of_tasks(self, sandbox, run, holders):
        held = sandbox.seed_tasks(9, assignee=ALICE)
        manifest = run.try_once(operator(rebalance=True))
        assert queues(holders) == {ALICE: 3, BOB: 3, CAROL: 3}
        moved = sandbox.applied(ASSIGN)
        assert len(moved) == 6
        assert set(moved) <= set(held)
        assert manifest["counts"]["done"] == 6

    def test_rebalance_keeps_started_tasks(self, sandbox, run, holders):
        started = sandbox.seed_tasks(4, assignee=ALICE, state="IN_PROGRESS")
        drafts = sandbox.seed_tasks(2, assignee=ALICE, state="STAGED")
        skipped = sandbox.seed_tasks(1, assignee=ALICE, state="SKIPPED")
        sandbox.seed_tasks(2, assignee=ALICE)
        run.try_once(operator(rebalance=True))
        who = holders("Label")
        assert {who[task_id] for task_id in (*started, *drafts, *skipped)} == {ALICE}
        assert queues(holders) == {ALICE: 7, BOB: 1, CAROL: 1}

    def test_rebalance_keeps_rejected_task_with_labeler(self, sandbox, run, holders):
        back = sandbox.seed_tasks(4, assignee=ALICE)
        sandbox.humans("Label", 4)
        assert sandbox.humans("Review_1", 4, accept_ratio=0)["rejected"] == 4
        untouched = sandbox.seed_tasks(2, assignee=ALICE)
        run.try_once(operator(rebalance=True, weights={ALICE: 0}))
        who = holders("Label")
        assert {who[task_id] for task_id in back} == {ALICE}
        assert sorted(who[task_id] for task_id in untouched) == [BOB, CAROL]

    def test_rebalance_keeps_corrected_task_with_labeler(self, sandbox, run, holders):
        """The labels are the reviewer's then, and only the audit trail names the labeler."""
        ids = sandbox.seed_tasks(3, assignee=ALICE)
        sandbox.humans("Label", 3)
        box = {"pointTopLeft": {"xNorm": 0, "yNorm": 0}, "wNorm": 1, "hNorm": 1, "category": "finding"}
        review = RedBrickHook().stage("Review_1")
        review.save_draft({task_id: {"series": [{"boundingBoxes": [box]}]} for task_id in ids})
        review.reject(ids)
        assert set(holders("Label").values()) == {ALICE}
        run.try_once(operator(rebalance=True, weights={ALICE: 0}))
        assert set(holders("Label").values()) == {ALICE}

    def test_rebalance_of_unlabeled_tasks_takes_one_read(self, sandbox, run):
        sandbox.seed_tasks(40, assignee=ALICE)
        moved = run.try_once(operator(rebalance=True))["counts"]["done"]
        # One more read shows that the moved tasks are assigned.
        assert sandbox.stats()["root_fields"]["task"] == 40 + moved

    def test_rebalance_moves_task_with_model_draft(self, sandbox, run, holders):
        sandbox.seed_tasks(6, assignee=ALICE, labels=[{"category": "finding", "attributes": []}])
        run.try_once(operator(rebalance=True))
        assert queues(holders) == {ALICE: 2, BOB: 2, CAROL: 2}

    def test_rebalance_keeps_unreadable_task(self, sandbox, run, holders, caplog):
        sandbox.seed_tasks(3, assignee=ALICE)
        sandbox.fault_once("gql_partial", "task", times=2)
        run.try_once(operator(rebalance=True, weights={ALICE: 0}))
        (left,) = [task_id for task_id, who in holders("Label").items() if who == ALICE]
        assert f"Task {left} keeps its assignee, since who labeled it could not be read" in caplog.text

    def test_balance_without_rebalance_reads_no_task(self, sandbox, run):
        sandbox.seed_tasks(3, assignee=ALICE)
        run.try_once(operator())
        assert "task" not in sandbox.stats()["root_fields"]

    def test_balance_without_rebalance_moves_no_held_task(self, sandbox, run, holders):
        sandbox.seed_tasks(9, assignee=ALICE)
        run.try_once(operator())
        assert queues(holders) == {ALICE: 9}
        assert nothing_assigned(sandbox)

    def test_rebalance_with_weight_0_moves_unstarted_tasks(self, sandbox, run, holders):
        started = sandbox.seed_tasks(1, assignee=ALICE, state="IN_PROGRESS")
        sandbox.seed_tasks(4, assignee=ALICE)
        run.try_once(operator(rebalance=True, weights={ALICE: 0}))
        assert queues(holders) == {ALICE: 1, BOB: 2, CAROL: 2}
        assert holders("Label")[started[0]] == ALICE

    def test_rebalance_report_names_previous_holder(self, sandbox, run, tmp_path):
        sandbox.seed_tasks(2, assignee=ALICE)
        report = tmp_path / "report.jsonl"
        run.try_once(operator(emails=[ALICE, BOB], rebalance=True, report_path=str(report)))
        (row,) = (json.loads(line) for line in report.read_text().splitlines())
        assert (row["taken_from"], row["assigned_to"]) == (ALICE, BOB)


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"emails": [ALICE, "eve@example.com"]}, "eve@example.com"),
            ({"stage_name": "Review_1", "emails": [BOB, ALICE]}, "No access to stage Review_1: alice@example.com"),
            ({"emails": [ALICE, " "]}, r"emails\[1\] must not be empty"),
            ({"emails": [ALICE, ""]}, r"emails\[1\] must not be empty"),
            ({"emails": [ALICE, None]}, r"emails\[1\] must not be empty"),
            ({"emails": "alice@example.com"}, "emails must be a list"),
            ({"emails": None}, "emails must be a list"),
            ({"emails": [ALICE, "Alice@example.com"]}, "named twice"),
            ({"weights": {"eve@example.com": 1}}, "weights name people who are not in emails: eve@example.com"),
            (
                {"weights": {ALICE: 1, ALICE.upper(): 3}},
                "weights name a person more than once: ALICE@EXAMPLE.COM, alice",
            ),
            ({"emails": [ALICE, "b\0b@example.com"]}, r"emails\[1\] has characters that cannot be sent or stored"),
            ({"weights": {ALICE: -1}}, "weight of 'alice@example.com'"),
            ({"weights": {ALICE: float("nan")}}, "weight of 'alice@example.com'"),
            ({"weights": {ALICE: "much"}}, "weights must be numbers"),
            ({"weights": dict.fromkeys((ALICE, BOB, CAROL), 0)}, "Every weight is 0"),
            ({"weights": [1, 2, 3]}, "weights must map emails to numbers"),
            ({"ceiling": -1}, "ceiling must be a whole number of at least 0"),
            ({"ceiling": True}, "ceiling must be a whole number"),
            ({"stage_name": "Labels"}, "Input, Label, Review_1, Failed_Review_1, Ground Truth"),
            ({"stage_name": "Ground Truth"}, "Tasks in Ground Truth are finished"),
            ({"stage_name": ""}, "stage_name must not be empty"),
            ({"project_id": ""}, "project_id must not be empty"),
            ({"fail_on": "some"}, "fail_on must be one of"),
        ],
    )
    def test_invalid_parameters_assign_nothing(self, sandbox, run, options, words):
        sandbox.seed_tasks(3)
        with pytest.raises(RedBrickInputError, match=words):
            run.try_once(operator(**options))
        assert nothing_assigned(sandbox)

    def test_unknown_emails_are_named_with_members(self, sandbox, run):
        with pytest.raises(RedBrickInputError) as caught:
            run.try_once(operator(emails=["x@example.com", ALICE, "y@example.com"]))
        assert "x@example.com, y@example.com" in str(caught.value)
        assert BOB in str(caught.value)

    def test_consensus_project_is_refused(self, sandbox, run):
        project = sandbox.add_project(consensus=True)
        sandbox.seed_tasks(3, project_id=project)
        with pytest.raises(RedBrickInputError, match="consensus"):
            run.try_once(operator(project_id=project))
        assert nothing_assigned(sandbox)

    def test_a_listing_that_fails_assigns_nothing(self, sandbox, run):
        sandbox.seed_tasks(450)
        sandbox.fault_once("http_500", "genericTasks", skip=1, times=10)
        with pytest.raises(RedBrickError):
            run.try_once(operator())
        assert nothing_assigned(sandbox)


class TestCost:
    def test_balance_500_tasks_in_at_most_16_requests(self, sandbox, run, holders):
        sandbox.seed_tasks(500)
        before = sandbox.stats()["requests"]
        run.try_once(operator(emails=[ALICE, BOB]))
        assert sandbox.stats()["requests"] - before <= 16
        assert queues(holders) == {ALICE: 250, BOB: 250}

    def test_assign_requests_carry_50_ids_each(self, sandbox, run, monkeypatch):
        sandbox.seed_tasks(320)
        sizes = []
        assign = RedBrickProject.assign
        monkeypatch.setattr(
            RedBrickProject, "assign", lambda self, ids, email: (sizes.append(len(ids)), assign(self, ids, email))[1]
        )
        run.try_once(operator())
        assert max(sizes) == 50
        assert len(sizes) == 3 * ceil(107 / 50)
        assert sandbox.stats()["root_fields"][ASSIGN] == len(sizes)


class TestFaults:
    @pytest.mark.parametrize("fault", ["drop_before", "drop_after", "http_503", "html", "slow", "rate_limit"])
    def test_lost_answer_is_resolved_without_retry(self, sandbox, run, holders, fault):
        ids = sandbox.seed_tasks(160)
        sandbox.fault_once(fault, ASSIGN, skip=1)
        manifest = run.try_once(operator())
        assert manifest["counts"]["done"] == 160
        assert sorted(queues(holders).values()) == [53, 53, 54]
        assert sandbox.applied(ASSIGN) == dict.fromkeys(ids, 1)

    @pytest.mark.parametrize("fault", ["drop_before", "http_503", "gql_error", "gql_partial"])
    def test_retry_shares_tasks_left_by_failed_attempt(self, sandbox, run, holders, one_by_one, fault):
        ids = sandbox.seed_tasks(160)
        # The first person's tasks are assigned; the second's fail throughout this attempt.
        sandbox.fault_once(fault, ASSIGN, skip=2, times=3 if fault in ("drop_before", "http_503") else 1)
        with pytest.raises(RedBrickTasksFailedError, match="A retry skips completed tasks and processes the rest"):
            run.try_once(operator())
        assert run.xcoms["manifest"]["counts"] == counts(done=110, failed=50)
        assert len(sandbox.applied(ASSIGN)) == 110
        manifest = run.try_once(operator())
        assert manifest["counts"] == counts(done=50)
        assert sorted(queues(holders).values()) == [53, 53, 54]
        assert sandbox.applied(ASSIGN) == dict.fromkeys(ids, 1)

    def test_failure_reason_is_server_message(self, sandbox, run):
        sandbox.seed_tasks(3)
        sandbox.fault_once("gql_error", ASSIGN, times=3)
        with pytest.raises(RedBrickTasksFailedError, match="nothing was executed"):
            run.try_once(operator())
        assert all("nothing was executed" in entry["reason"] for entry in run.xcoms["manifest"]["failed"])
        assert len(run.xcoms["manifest"]["failed"]) == 3

    def test_assignment_with_repeatedly_lost_answers_is_done(self, sandbox, run, holders):
        ids = sandbox.seed_tasks(6)
        sandbox.fault_once("drop_after", ASSIGN, times=3)
        manifest = run.try_once(operator())
        assert manifest["counts"]["done"] == 6
        assert queues(holders) == {ALICE: 2, BOB: 2, CAROL: 2}
        assert sandbox.applied(ASSIGN) == dict.fromkeys(ids, 1)

    def test_retries_after_any_fault_end_even(self, sandbox, finish, midway_fault, holders):
        ids = sandbox.seed_tasks(170)
        midway_fault(ASSIGN)
        finish(operator)
        assert sorted(queues(holders).values()) == [56, 57, 57]
        assert sandbox.applied(ASSIGN) == dict.fromkeys(ids, 1)

    def test_retry_after_kill_assigns_the_rest(self, sandbox, run, holders, one_by_one, monkeypatch):
        ids = sandbox.seed_tasks(100)
        assign = RedBrickProject.assign
        calls = []

        def killed_at_the_second(self, task_ids, email):
            calls.append(email)
            given = assign(self, task_ids, email)
            if len(calls) == 2:
                raise KeyboardInterrupt  # the request went through, and the worker died before it could note it
            return given

        monkeypatch.setattr(RedBrickProject, "assign", killed_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            run.try_once(operator())
        monkeypatch.setattr(RedBrickProject, "assign", assign)
        manifest = run.try_once(operator())
        assert manifest["counts"]["done"] == 100 - 67
        assert sorted(queues(holders).values()) == [33, 33, 34]
        assert sandbox.applied(ASSIGN) == dict.fromkeys(ids, 1)

    def test_id_missing_in_answer_is_read(self, sandbox, run, holders, monkeypatch):
        """The task was assigned nevertheless, so no second request is sent."""
        ids = sandbox.seed_tasks(6)
        assign = RedBrickProject.assign
        monkeypatch.setattr(
            RedBrickProject, "assign", lambda self, ids, email: dict(sorted(assign(self, ids, email).items())[1:])
        )
        manifest = run.try_once(operator())
        assert manifest["counts"]["done"] == 6
        assert queues(holders) == {ALICE: 2, BOB: 2, CAROL: 2}
        assert sandbox.applied(ASSIGN) == dict.fromkeys(ids, 1)

    def test_id_not_assigned_fails_with_its_state(self, sandbox, run, monkeypatch):
        ids = sandbox.seed_tasks(3)
        assign = RedBrickProject.assign
        monkeypatch.setattr(
            RedBrickProject, "assign", lambda self, ids, email: assign(self, ids[1:], email) if ids[1:] else {}
        )
        with pytest.raises(RedBrickTasksFailedError, match=r"RedBrick did not assign it: it is in Label"):
            run.try_once(operator(emails=[ALICE]))
        assert run.xcoms["manifest"]["counts"] == {
            "done": 2,
            "already_done": 0,
            "skipped": 0,
            "failed": 1,
            "unknown": 0,
        }
        assert len(sandbox.applied(ASSIGN)) == 2
        monkeypatch.undo()
        assert set(ids) >= set(sandbox.applied(ASSIGN))

    def test_fail_on_never_returns_manifest(self, sandbox, run):
        sandbox.seed_tasks(3)
        sandbox.fault_once("gql_error", ASSIGN, times=3)
        manifest = run.try_once(operator(fail_on="never"))
        assert manifest["counts"]["failed"] == 3


class TestConcurrentPeople:
    @pytest.mark.usefixtures("one_by_one")
    def test_task_taken_before_repeated_request_is_not_reassigned(self, sandbox, run, holders, give, monkeypatch):
        ids = sandbox.seed_tasks(4)
        assign = RedBrickProject.assign
        taken = []

        def grabbed_first(self, task_ids, email):
            if not taken:
                taken.append(task_ids[0])
                give(task_ids[0], CAROL)
                sandbox.fault_once("drop_before", ASSIGN)
            return assign(self, task_ids, email)

        monkeypatch.setattr(RedBrickProject, "assign", grabbed_first)
        manifest = run.try_once(operator(emails=[ALICE, BOB]))
        assert holders("Label")[taken[0]] == CAROL
        assert manifest["counts"] == counts(done=3, skipped=1)
        assert set(sandbox.applied(ASSIGN)) == set(ids)

    @pytest.mark.xfail(
        strict=True,
        reason="Assigning overwrites the holder of a task, and the queue is not read again before it is assigned. That "
        "would take more than the 15 requests that 500 tasks may take.",
    )
    def test_task_taken_during_assignment_is_not_reassigned(self, sandbox, run, holders, give, monkeypatch):
        sandbox.seed_tasks(4)
        assign = RedBrickProject.assign
        taken = []

        def grabbed_first(self, task_ids, email):
            if email == BOB and not taken:
                taken.append(task_ids[0])
                give(task_ids[0], CAROL)
            return assign(self, task_ids, email)

        monkeypatch.setattr(RedBrickProject, "assign", grabbed_first)
        run.try_once(operator(emails=[ALICE, BOB]))
        assert holders("Label")[taken[0]] == CAROL

    def test_task_submitted_meanwhile_is_skipped(self, sandbox, run, one_by_one, monkeypatch):
        sandbox.seed_tasks(4)
        assign = RedBrickProject.assign
        gone = []

        def submitted_first(self, task_ids, email):
            if not gone:
                gone.extend(sandbox.humans("Label", 1)["task_ids"])
            return assign(self, task_ids, email)

        monkeypatch.setattr(RedBrickProject, "assign", submitted_first)
        manifest = run.try_once(operator(emails=[ALICE, BOB], fail_on="never"))
        assert gone[0] not in manifest["task_ids"]
        assert manifest["counts"]["done"] == 3
        assert manifest["counts"]["failed"] == 0, "a change by another run is not a failure"


def test_plan_and_result_tables_are_logged(sandbox, run, caplog, capsys):
    sandbox.seed_tasks(2, assignee=ALICE)
    sandbox.seed_tasks(4)
    with caplog.at_level(logging.INFO):
        run.try_once(operator())
    printed = capsys.readouterr()
    words = caplog.text + printed.out + printed.err
    plan, result = (words.index(head) for head in ("Plan for Label:", "Result:"))
    assert plan < result
    assert words.count("unassigned") >= 2
    assert sandbox.api_key not in words
