"""The ledger's verdicts, under any order of late requests, stale reads and other actors."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from airflow_provider_redbrick.client.models.task import Task, User
from airflow_provider_redbrick.engine.ledger import Evidence, Ledger, Verdict, Write

SETTLE_S = 30.0
ME, ALICE = User("API:key"), User("alice")

seconds = st.floats(0.0, 12.0)
delays = st.floats(0.0, SETTLE_S)


class OneWrite(RuleBasedStateMachine):
    """One write to one task of a server that applies requests late, whose reads are behind, and that others use."""

    def __init__(self) -> None:
        super().__init__()
        self.time = 0.0
        self.write = Write(SETTLE_S)
        self.applied_at: list[float] = []
        self.others_came_at: float | None = None

    def apply(self, at: float) -> None:
        """Apply a request of the run. It has no effect once another actor has changed the task."""
        if self.others_came_at is None or at < self.others_came_at:
            self.applied_at.append(at)

    def shown(self, at: float) -> Evidence:
        """Return what the task shows at a time."""
        if self.others_came_at is not None and self.others_came_at <= at:
            return Evidence.OTHER
        return Evidence.EFFECT if any(applied <= at for applied in self.applied_at) else Evidence.BEFORE

    @rule(passes=seconds)
    def wait(self, passes: float) -> None:
        self.time += passes

    @rule()
    def send_and_get_answer(self) -> None:
        if self.others_came_at is None:
            self.apply(self.time)
            self.write.acknowledge(self.time)

    @rule(late=delays)
    def send_and_lose_answer(self, late: float) -> None:
        self.apply(self.time + late)
        self.write.lose(self.time)

    @rule()
    def lose_request(self) -> None:
        self.write.lose(self.time)

    @rule(does=st.integers(0, 3))
    def change_by_another_actor(self, does: int) -> None:
        if does or self.others_came_at is not None:
            return
        self.others_came_at = self.time
        self.applied_at = [at for at in self.applied_at if at < self.time]

    @rule(lag=delays)
    def read(self, lag: float) -> None:
        if not self.write.pending_since and self.write.acknowledged_at is None:
            return
        # A read that is sent settle_s after the last write shows it.
        is_behind = self.time < self.write.conclusive_at
        evidence = self.shown(self.time - lag if is_behind else self.time)
        was_acknowledged = self.write.acknowledged_at is not None
        verdict = self.write.judge(evidence, self.time)
        if verdict is Verdict.APPLIED:
            assert was_acknowledged or any(at <= self.time for at in self.applied_at)
        if verdict is Verdict.NOT_APPLIED:
            assert not self.applied_at
        if verdict is Verdict.SUPERSEDED:
            assert self.others_came_at is not None
        if not is_behind:
            assert verdict is not Verdict.PENDING

    @invariant()
    def knows_when_reads_are_conclusive(self) -> None:
        assert all(since + SETTLE_S <= self.write.conclusive_at for since in self.write.pending_since)


OneWrite.TestCase.settings = settings(max_examples=400, stateful_step_count=40, deadline=None)
test_verdicts_are_true = OneWrite.TestCase


def place(stage: str = "Label", assignee: User | None = None) -> Task:
    return Task("t", stage_name=stage, state="ASSIGNED" if assignee else "UNASSIGNED", assignee=assignee)


class Clock:
    """A clock that a test sets."""

    now = 0.0


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def ledger(clock):
    return Ledger(settle_s=SETTLE_S, now=lambda: clock.now)


def test_acknowledged_claim_stands_against_stale_read(ledger, clock):
    ledger.begin({"t": place()})
    ledger.acknowledge("t", 0.0, "Label")
    assert ledger.is_claimed(place(), SETTLE_S - 1, me=ME.user_id)
    clock.now = SETTLE_S
    assert not ledger.is_claimed(place(), SETTLE_S, me=ME.user_id)
    assert not ledger.is_open("t")


def test_read_that_shows_another_holder_ends_claim_and_opens_task(ledger):
    ledger.begin({"t": place()})
    ledger.acknowledge("t", 0.0, "Label")
    assert not ledger.is_claimed(place(assignee=ALICE), 1.0, me=ME.user_id)
    assert ledger.is_open("t")
    assert ledger.due_at() == SETTLE_S


def test_claim_without_answer_is_open_until_it_is_accounted_for(ledger, clock):
    ledger.begin({"t": place()})
    ledger.lose(["t"], 0.0)
    clock.now = 2.0
    ledger.lose(["t"], 2.0)
    assert ledger.due_at() == 2.0 + SETTLE_S
    # A read shows one effect. The other request may still be applied.
    ledger.see_effect("t")
    assert ledger.is_open("t")
    assert set(ledger.take_open_assignments()) == {"t"}
    assert not ledger.is_open("t")


def test_read_of_open_task_waits_for_its_acknowledged_requests_too(ledger, clock):
    ledger.begin({"t": place()})
    ledger.lose(["t"], 0.0)
    ledger.acknowledge("t", 2.0, "Label")
    assert ledger.due_at() == 2.0 + SETTLE_S
    clock.now = 3.0
    ledger.wrote("t", lambda _task: True)
    assert ledger.due_at() == 3.0 + SETTLE_S
    ledger.begin({"t": place()}, transfers=True)
    ledger.acknowledge("t", 4.0, "Label")
    assert ledger.due_at() == 4.0 + SETTLE_S
    ledger.take_open_assignments()
    assert ledger.due_at() is None


def test_task_with_late_change_waits_and_is_not_forgotten(ledger):
    ledger.expect_late_change("t", place(assignee=ME))
    assert ledger.must_wait("t")
    ledger.forget(["t"])
    assert ledger.is_open("t")
    ledger.take_open_assignments()
    assert not ledger.must_wait("t")
    ledger.forget(["t"])
    assert ledger.assignment("t") is None


def test_refused_change_of_unclaimed_task_opens_nothing(ledger):
    ledger.doubt_holder("t")
    assert not ledger.is_open("t")
    assert ledger.due_at() is None


def test_first_read_of_task_is_what_it_is_returned_to(ledger):
    ledger.begin({"t": place(assignee=ALICE)})
    ledger.begin({"t": place(assignee=ME)}, transfers=True)
    record = ledger.assignment("t")
    assert record.before.assignee == ALICE
    assert record.current is record.transfer
