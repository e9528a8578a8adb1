"""Outcomes, and the manifest that adds them up."""

from __future__ import annotations

import json

import pytest
from fixtures import counts
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_redbrick.batch.outcome import Outcome, Status, Tally, already_done, done, failed, skipped

UNKNOWN = Outcome("u", Status.UNKNOWN, "who knows")


def tally(*outcomes):
    counting = Tally()
    for outcome in outcomes:
        counting.add(outcome)
    return counting


def manifest(counting):
    return counting.manifest(operation="put_labels", org_id="o", project_id="p", stage_name="Label", report=None)


@given(st.lists(st.sampled_from(Status), max_size=40))
def test_counts_add_up_to_what_was_handed_in(statuses):
    found = manifest(tally(*(Outcome(str(i), status) for i, status in enumerate(statuses))))
    assert sum(found["counts"].values()) == len(statuses)
    assert found["counts"] == {status.value: statuses.count(status) for status in Status}


def test_the_manifest_is_plain_json_with_these_keys():
    found = manifest(tally(done("a"), already_done("b", "x"), skipped("c", "y"), failed("d", "z", name="study")))
    assert json.loads(json.dumps(found)) == {
        "schema_version": 1,
        "operation": "put_labels",
        "org_id": "o",
        "project_id": "p",
        "stage_name": "Label",
        "counts": counts(done=1, already_done=1, skipped=1, failed=1),
        "failed": [{"task_id": "d", "name": "study", "reason": "z"}],
        "task_ids": ["a", "b"],
        "report": None,
    }


def test_the_manifest_stays_small():
    many = tally(*(failed(str(i), "x" * 10_000) for i in range(2000)), *(done(str(i)) for i in range(2000)))
    found = manifest(many)
    assert found["counts"] == counts(done=2000, failed=2000)
    assert [entry["task_id"] for entry in found["failed"]] == [str(i) for i in range(50)]
    assert found["task_ids"] == [str(i) for i in range(1000)]
    assert len(json.dumps(found)) < 64_000


def test_what_is_not_known_is_counted_apart_and_named():
    counting = tally(done("a"), UNKNOWN)
    found = manifest(counting)
    assert (found["counts"]["done"], found["counts"]["failed"], found["counts"]["unknown"]) == (1, 0, 1)
    assert [each["task_id"] for each in found["failed"]] == counting.unknown == ["u"]
    assert found["task_ids"] == ["a"]


def test_a_manifest_does_not_change_afterwards():
    counting = tally(done("a"))
    found = manifest(counting)
    counting.add(failed("b", "x"))
    assert found["counts"]["failed"] == 0
    assert found["failed"] == []


@pytest.mark.parametrize(
    ("outcomes", "any_", "all_"),
    [
        ([], False, False),
        ([done("a")], False, False),
        ([skipped("a", "x")], False, False),
        ([already_done("a", "x")], False, False),
        ([done("a"), failed("b", "x")], True, False),
        ([skipped("a", "x"), failed("b", "x")], True, True),
        ([already_done("a", "x"), failed("b", "x")], True, False),
        ([failed("a", "x"), failed("b", "x")], True, True),
        ([done("a"), UNKNOWN], True, False),
        ([skipped("a", "x"), UNKNOWN], True, True),
    ],
)
def test_when_outcomes_fail_the_airflow_task(outcomes, any_, all_):
    counting = tally(*outcomes)
    assert (counting.fails("any"), counting.fails("all"), counting.fails("never")) == (any_, all_, False)


def test_rows_of_the_report():
    assert done("a", name="study", assignee="ada@example.com").to_row() == {
        "task_id": "a",
        "name": "study",
        "status": "done",
        "reason": "",
        "assignee": "ada@example.com",
    }
    assert failed("b", ValueError("the reason")).to_row()["reason"] == "the reason"


def test_a_detail_cannot_change_what_happened():
    row = Outcome("a", Status.FAILED, "broken", detail={"status": "done", "task_id": "b"}).to_row()
    assert (row["task_id"], row["status"], row["reason"]) == ("a", "failed", "broken")
