"""Tests of task outcomes and the manifest."""

from __future__ import annotations

import json

import pytest
from fixtures import counts
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_redbrick.engine.outcomes import Outcome, Status, Tally, already_done, done, failed, skipped

UNKNOWN = Outcome("u", Status.UNKNOWN, "who knows")


def tally(*outcomes):
    counted = Tally()
    for outcome in outcomes:
        counted.add(outcome)
    return counted


def manifest(counted):
    return counted.manifest(operation="put_labels", org_id="o", project_id="p", stage_name="Label", report=None)


@given(st.lists(st.sampled_from(Status), max_size=40))
def test_manifest_counts_add_up_to_number_of_tasks(statuses):
    found = manifest(tally(*(Outcome(str(i), status) for i, status in enumerate(statuses))))
    assert sum(found["counts"].values()) == len(statuses)
    assert found["counts"] == {status.value: statuses.count(status) for status in Status}


def test_manifest_is_json_with_documented_keys():
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


def test_manifest_with_many_tasks_stays_small():
    many = tally(*(failed(str(i), "x" * 10_000) for i in range(2000)), *(done(str(i)) for i in range(2000)))
    found = manifest(many)
    assert found["counts"] == counts(done=2000, failed=2000)
    assert [entry["task_id"] for entry in found["failed"]] == [str(i) for i in range(50)]
    assert found["task_ids"] == [str(i) for i in range(1000)]
    assert len(json.dumps(found)) < 64_000


def test_unknown_task_is_counted_separately_and_listed():
    counted = tally(done("a"), UNKNOWN)
    found = manifest(counted)
    assert (found["counts"]["done"], found["counts"]["failed"], found["counts"]["unknown"]) == (1, 0, 1)
    assert [each["task_id"] for each in found["failed"]] == counted.unknown == ["u"]
    assert found["task_ids"] == ["a"]


def test_manifest_is_not_changed_by_later_outcomes():
    counted = tally(done("a"))
    found = manifest(counted)
    counted.add(failed("b", "x"))
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
def test_fails_depends_on_fail_on_and_outcomes(outcomes, any_, all_):
    counted = tally(*outcomes)
    assert (counted.fails("any"), counted.fails("all"), counted.fails("never")) == (any_, all_, False)


def test_to_row_returns_report_columns():
    assert done("a", name="study", assignee="ada@example.com").to_row() == {
        "task_id": "a",
        "name": "study",
        "status": "done",
        "reason": "",
        "assignee": "ada@example.com",
    }
    assert failed("b", ValueError("the reason")).to_row()["reason"] == "the reason"


def test_to_row_detail_cannot_overwrite_standard_columns():
    row = Outcome("a", Status.FAILED, "broken", detail={"status": "done", "task_id": "b"}).to_row()
    assert (row["task_id"], row["status"], row["reason"]) == ("a", "failed", "broken")
