"""Test the state machine without server, storage and clock."""

from __future__ import annotations

import pytest

from redbrick_sandbox import demo_project, state_machine
from redbrick_sandbox.state_machine import Doing
from redbrick_sandbox.transitions import Flow, RefusalError, stage_from

ANN, BEN, KEY = "user-ann", "user-ben", "API:key"
T0, T1 = "2024-05-01T00:00:00.000000+00:00", "2024-05-01T00:00:01.000000+00:00"


def flow_of(*stages, consensus=False):
    return Flow(tuple(stage_from(stage) for stage in stages), consensus)


def stage(name, brick, config=None, **routing):
    return {"stageName": name, "brickName": brick, "routing": routing, "stageConfig": config or {}}


DEMO = flow_of(*demo_project.DEMO_STAGES)
TWO_REVIEWS = flow_of(
    stage("Input", "labelset-input", nextStageName="QA"),
    stage("QA", "manual-labeling", nextStageName="Check it, please"),
    stage("Check it, please", "expert-review", passed="Second", failed="Back_1"),
    stage("Back_1", "feedback", feedbackStageName="QA"),
    stage("Second", "expert-review", passed="Done", failed="Back_2"),
    stage("Back_2", "feedback", feedbackStageName="QA"),
    stage("Done", "labelset-output", nextStageName="END"),
)
NO_REVIEW = flow_of(
    stage("Input", "labelset-input", nextStageName="Label"),
    stage("Label", "manual-labeling", nextStageName="Output"),
    stage("Output", "labelset-output", nextStageName="END"),
)


def doing(actor=KEY, must_hold=True, now=T0, arrival=None):
    return Doing(actor, now, arrival or now, must_hold)


def new(flow=DEMO, **options):
    return state_machine.create(flow, "task-1", doing(), **options).task


def submitted(flow, task, actor=KEY, stage="Label", now=T0):
    held = state_machine.assign(flow, task, [actor], doing(now=now)).task
    step = state_machine.submit(flow, held, stage, doing(actor, now=now))
    return state_machine.arrive(flow, step.task, now).task


def kinds(step):
    return [fact.kind for fact in step.facts]


def test_new_task_waits_in_first_label_stage():
    step = state_machine.create(DEMO, "task-1", doing())
    assert (step.task.stage, step.task.state, step.task.holders) == ("Label", "UNASSIGNED", ())
    assert kinds(step) == ["create", "input"]
    assert step.facts[0].data["currentStageName"] == "Input"


def test_create_ground_truth():
    task = new(ground_truth=True)
    assert (task.stage, task.state) == ("END", None)


def test_pre_assignment_applies_once():
    task = new(pre_assign={"Label": (ANN,), "Review_1": (BEN,)})
    assert (task.state, task.holders) == ("ASSIGNED", (ANN,))
    done = state_machine.submit(DEMO, task, "Label", doing(ANN)).task
    in_review = state_machine.arrive(DEMO, done, T0).task
    assert in_review.holders == (BEN,)
    assert state_machine.reopen(DEMO, _accepted(in_review, BEN), doing()).task.holders == ()


def _accepted(task, actor):
    step = state_machine.review(DEMO, task, "Review_1", doing(actor), accept=True)
    return state_machine.arrive(DEMO, step.task, T0).task


def test_task_passes_all_stages():
    task = submitted(DEMO, new(), ANN)
    assert (task.stage, task.state) == ("Review_1", "UNASSIGNED")
    task = state_machine.assign(DEMO, task, [BEN], doing()).task
    rejected = state_machine.review(DEMO, task, "Review_1", doing(BEN), accept=False)
    assert [f.data.get("outputBool") for f in rejected.facts if f.kind == "output"] == [False]
    task = state_machine.arrive(DEMO, rejected.task, T0).task
    assert (task.stage, task.state, task.holders) == ("Label", "ASSIGNED", (ANN,))
    assert (task.review_state, task.cycle) == ("FAILED", 1)
    task = state_machine.submit(DEMO, task, "Label", doing(ANN)).task
    task = state_machine.arrive(DEMO, task, T0).task
    task = _accepted(state_machine.assign(DEMO, task, [BEN], doing()).task, BEN)
    assert (task.stage, task.state, task.holders, task.review_state) == ("END", None, (), "PASSED")
    reopened = state_machine.reopen(DEMO, task, doing(KEY, now=T1))
    assert (reopened.task.stage, reopened.task.state, reopened.task.holders) == ("Label", "UNASSIGNED", ())
    assert reopened.facts[0].data["currentStageName"] == "END"
    assert reopened.facts[0].data["nextStageName"] == "Label"
    assert reopened.facts[0].actor == KEY


def test_correction_and_acceptance_are_distinguishable():
    task = state_machine.assign(DEMO, submitted(DEMO, new()), [KEY], doing()).task
    corrected = state_machine.submit(DEMO, task, "Review_1", doing())
    accepted = state_machine.review(DEMO, task, "Review_1", doing(), accept=True)
    for step, result, verdict in ((corrected, False, "CORRECTED"), (accepted, True, "PASSED")):
        facts = {fact.kind: fact.data for fact in step.facts}
        assert facts["state"]["reviewResultAfter"] is result
        assert facts["output"]["outputBool"] is True
        assert facts["done"]["review_state"] == verdict


def test_draft_keeps_its_assignee():
    held = state_machine.assign(DEMO, new(), [ANN], doing()).task
    draft = state_machine.save(DEMO, held, "Label", doing(ANN, now=T1)).task
    assert (draft.stage, draft.state, draft.holders, draft.updated_at) == ("Label", "STAGED", (ANN,), T1)
    assert state_machine.assign(DEMO, draft, [ANN], doing()).facts == ()
    assert state_machine.assign(DEMO, draft, [BEN], doing()).task.state == "ASSIGNED"
    assert state_machine.assign(DEMO, draft, [], doing()).task.state == "UNASSIGNED"


def test_arrival_waits_for_transition_time():
    held = state_machine.assign(DEMO, new(), [ANN], doing()).task
    leaving = state_machine.submit(DEMO, held, "Label", doing(ANN, arrival=T1)).task
    assert (leaving.stage, leaving.state) == ("Label", "COMPLETED")
    assert state_machine.arrive(DEMO, leaving, T0).task == leaving
    with pytest.raises(RefusalError, match="already been completed"):
        state_machine.submit(DEMO, leaving, "Label", doing(ANN))
    assert state_machine.assign(DEMO, leaving, [BEN], doing()) is None
    arrived = state_machine.arrive(DEMO, leaving, "2024-06-01T00:00:00.000000+00:00").task
    assert (arrived.stage, arrived.updated_at) == ("Review_1", T1)


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda task: state_machine.submit(DEMO, task, "Label", doing(KEY)), "not assigned to you"),
        (
            lambda task: state_machine.submit(DEMO, task, "Review_1", doing(KEY)),
            "is in stage 'Label', not in 'Review_1'",
        ),
        (
            lambda task: state_machine.submit(DEMO, task, "Labels", doing(KEY)),
            "no stage 'Labels'; the project has 'Input'",
        ),
        (lambda task: state_machine.submit(DEMO, task, "Output", doing(KEY)), "is not a label or review stage"),
        (lambda task: state_machine.review(DEMO, task, "Label", doing(KEY), accept=True), "not a review stage"),
        (lambda task: state_machine.reopen(DEMO, task, doing(KEY)), "not in ground truth"),
        (lambda task: state_machine.move(DEMO, task, "Failed_Review_1", doing(KEY)), "cannot be sent"),
        (lambda task: state_machine.assign(DEMO, task, [ANN, BEN], doing(KEY)), "more than one assignee"),
    ],
)
def test_refusal_message_has_reason(act, words):
    with pytest.raises(RefusalError, match=words):
        act(new())


def test_task_of_another_user_is_refused():
    held = state_machine.assign(DEMO, new(), [ANN], doing()).task
    with pytest.raises(RefusalError, match="assigned to another user"):
        state_machine.submit(DEMO, held, "Label", doing(KEY))
    free = state_machine.submit(DEMO, held, "Label", doing(KEY, must_hold=False)).task
    assert free.labelers["Label"] == (KEY,)


def test_assign_without_refresh_takes_only_unassigned():
    held = state_machine.assign(DEMO, new(), [ANN], doing(), refresh=False).task
    assert held.holders == (ANN,)
    assert state_machine.assign(DEMO, held, [BEN], doing(), refresh=False) is None


def test_two_review_stages_with_custom_names():
    task = submitted(TWO_REVIEWS, new(TWO_REVIEWS), ANN, "QA")
    assert task.stage == "Check it, please"
    held = state_machine.assign(TWO_REVIEWS, task, [BEN], doing()).task
    step = state_machine.review(TWO_REVIEWS, held, "Check it, please", doing(BEN), accept=True)
    task = state_machine.arrive(TWO_REVIEWS, step.task, T0).task
    assert task.stage == "Second"
    held = state_machine.assign(TWO_REVIEWS, task, [BEN], doing()).task
    step = state_machine.review(TWO_REVIEWS, held, "Second", doing(BEN), accept=False)
    task = state_machine.arrive(TWO_REVIEWS, step.task, T0).task
    assert (task.stage, task.holders) == ("QA", (ANN,))


def test_submit_without_review_stage_ends_in_ground_truth():
    assert submitted(NO_REVIEW, new(NO_REVIEW), ANN).stage == "END"


@pytest.mark.parametrize(("share", "least", "most"), [(0, 0, 0), (0.3, 20, 40), (1, 100, 100)])
def test_sampled_review_is_stable_and_keeps_its_share(share, least, most):
    sampled = flow_of(
        stage("Input", "labelset-input", nextStageName="Label"),
        stage("Label", "manual-labeling", nextStageName="Review_1"),
        stage("Review_1", "expert-review", {"reviewPercent": share}, passed="Output", failed="Label"),
        stage("Output", "labelset-output", nextStageName="END"),
    )

    def held():
        return [number for number in range(100) if sampled.rest("Review_1", f"task-{number}") == "Review_1"]

    assert least <= len(held()) <= most
    assert held() == held()


def test_circular_workflow_is_refused():
    circle = flow_of(
        stage("Label", "manual-labeling", nextStageName="A"),
        stage("A", "feedback", feedbackStageName="B"),
        stage("B", "feedback", feedbackStageName="A"),
    )
    with pytest.raises(RefusalError, match="circle"):
        circle.rest("A", "task-1")


def test_consensus_waits_for_all_assignees():
    several = flow_of(*demo_project.DEMO_STAGES, consensus=True)
    task = state_machine.assign(several, new(several), [ANN, BEN], doing()).task
    assert task.holders == (ANN, BEN)
    first = state_machine.submit(several, task, "Label", doing(ANN))
    assert (first.task.stage, first.task.state, first.task.arrives_at) == ("Label", "ASSIGNED", None)
    with pytest.raises(RefusalError, match="you have already completed"):
        state_machine.submit(several, first.task, "Label", doing(ANN))
    second = state_machine.submit(several, first.task, "Label", doing(BEN))
    task = state_machine.arrive(several, second.task, T0).task
    assert task.stage == "Review_1"
    held = state_machine.assign(several, task, [KEY], doing()).task
    back = state_machine.review(several, held, "Review_1", doing(KEY), accept=False)
    assert state_machine.arrive(several, back.task, T0).task.holders == (ANN, BEN)


def test_move_to_any_stage():
    task = state_machine.assign(DEMO, new(), [ANN], doing()).task
    for target, state in (("Review_1", "UNASSIGNED"), ("END", None), ("ARCHIVED", None)):
        moved = state_machine.move(DEMO, task, target, doing()).task
        assert (moved.stage, moved.state, moved.holders) == (target, state, ())
