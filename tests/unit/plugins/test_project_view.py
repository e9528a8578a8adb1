"""Tests of the page's view model."""

from __future__ import annotations

import pendulum
import pytest
from airflow.providers.common.compat.sdk import AirflowNotFoundException

from airflow_provider_redbrick.client.models.workflow import Stage
from airflow_provider_redbrick.exceptions import (
    RedBrickAnswerError,
    RedBrickAuthError,
    RedBrickConnectionError,
    RedBrickInputError,
    RedBrickNotFoundError,
    RedBrickRateLimitError,
)
from airflow_provider_redbrick.plugins.access import BusyError
from airflow_provider_redbrick.plugins.project_view import (
    MAX_PEOPLE,
    MAX_RUNS,
    AssigneeCounts,
    ProjectData,
    TaskActivity,
    error_payload,
    history_path,
    project_payload,
    read_manifest,
    run_rows,
)

STAGES = [
    Stage("Input", "labelset-input"),
    Stage("Label", "manual-labeling"),
    Stage("Review_1", "expert-review"),
    Stage("Failed_Review_1", "feedback"),
    Stage("Output", "labelset-output"),
    Stage("Odd", "never-heard-of"),
]


def project_data(counts=None, held=None, address="https://app.redbrickai.com/x"):
    return ProjectData("org", "project", "Hearts", address, STAGES, counts or {}, held or {})


def test_payload_lists_stages_in_workflow_order():
    payload = project_payload(project_data({"Label": 12, "Review_1": 3, "Output": 40}), {}, now=9)
    assert [(stage["title"], stage["kind"], stage["count"]) for stage in payload["stages"]] == [
        ("Label", "label", 12),
        ("Review_1", "review", 3),
        ("Ground Truth", "truth", 40),
        ("Odd", "other", 0),
    ]
    assert payload["state"] == "ok"


def test_pass_through_stages_are_shown_while_they_have_tasks():
    payload = project_payload(project_data({"Input": 1, "Failed_Review_1": 2}), {}, now=9)
    assert {"Input", "Failed_Review_1"} <= {stage["title"] for stage in payload["stages"]}


def label_stage(held, count):
    payload = project_payload(project_data({"Label": count}, {"Label": held}), {}, now=9)
    return next(stage for stage in payload["stages"] if stage["title"] == "Label")


def test_shares_are_sorted_with_unassigned_last():
    held = AssigneeCounts({"bob@x": 2, "alice@x": 6}, unassigned=4, looked_at=12)
    assert label_stage(held, 12)["held"] == [
        {"name": "alice@x", "count": 6, "share": 1.0},
        {"name": "bob@x", "count": 2, "share": 0.333},
        {"name": "unassigned", "count": 4, "share": 0.667},
    ]
    assert label_stage(held, 12)["looked_at"] is None


def test_long_queue_reports_the_listed_tasks():
    assert label_stage(AssigneeCounts({}, unassigned=1000, looked_at=1000), 4000)["looked_at"] == 1000


def test_further_assignees_are_summed_up():
    held = AssigneeCounts({f"p{i:02}": 100 - i for i in range(30)}, looked_at=2565)
    payload = label_stage(held, 2565)["held"]
    assert len(payload) == MAX_PEOPLE + 1
    assert payload[-1]["name"] == "22 more people"
    assert sum(entry["count"] for entry in payload) == 2565
    assert max(entry["share"] for entry in payload) == 1.0


@pytest.mark.parametrize("address", ["javascript:alert(1)", "data:text/html,x", "", "//x"])
def test_payload_drops_addresses_that_are_not_http(address):
    assert project_payload(project_data(address=address), {}, now=9)["project"]["address"] == ""


# ------------------------------------------------------------------------------------------ history


@pytest.mark.parametrize("samples", [[], [(100, 3)], [(100, 3), (100, 4)]])
def test_history_path_needs_two_points_in_time(samples):
    assert history_path(samples) is None


def test_history_path_has_steps():
    assert history_path([(0, 0), (50, 10), (100, 5)]) == {
        "path": "M0 24.00H100V0.00H200V12.00",
        "low": 0,
        "high": 10,
        "begin": 0,
        "end": 100,
    }


def test_history_path_of_empty_queue_is_at_the_bottom():
    assert history_path([(0, 0), (10, 0)])["path"] == "M0 24.00H200V24.00"


def test_history_path_of_many_samples_stays_short_and_shows_the_whole_range():
    samples = [(at, 7 if at == 5_001 else at % 3) for at in range(10_000)]
    course = history_path(samples)
    assert course["path"].count("H") == 200
    assert course["path"].endswith("H200V24.00")
    assert (course["low"], course["high"]) == (0, 7)


def test_payload_history_ends_with_the_current_queue():
    history = {"Ground Truth": [(0, 1)], "Label": [(100, 8)], "Review_1": [(0, 4), (50, 3), (120, 9)]}
    payload = project_payload(project_data({"Review_1": 5, "Output": 2}), history, now=100)
    courses = {stage["title"]: stage["course"] for stage in payload["stages"]}
    # Without an earlier sample there is no line.
    assert (courses["Label"], courses["Odd"]) == (None, None)
    ends = {"begin": 0, "end": 100}
    assert courses["Ground Truth"] == {"path": "M0 12.00H200V0.00", "low": 1, "high": 2, **ends}
    assert courses["Review_1"] == {"path": "M0 4.80H100V9.60H200V0.00", "low": 3, "high": 5, **ends}


# -------------------------------------------------------------------------------------------- runs

NOON = pendulum.datetime(2026, 1, 1, 12)


def activity(task_id="prelabel", minutes=0, state="success", mapped=False, run_id="r1", **counts):
    return TaskActivity("dag", run_id, task_id, mapped, NOON.add(minutes=minutes), state, "put_labels", "Label", counts)


def test_run_rows_sum_up_mapped_instances():
    rows = run_rows([activity(mapped=True, minutes=i, done=10, already_done=0, failed=i % 2) for i in range(4)])
    assert [(row["mapped"], row["counts"]) for row in rows] == [
        (True, [{"name": "done", "number": 40}, {"name": "failed", "number": 2}])
    ]
    assert rows[0]["at"].startswith("2026-01-01T12:03")
    assert rows[0]["operation"] == "put labels"


def test_run_row_with_one_failure_is_failed():
    assert run_rows([activity(state="failed"), activity(minutes=1)])[0]["state"] == "failed"


def test_run_rows_are_the_latest_first_and_limited():
    rows = run_rows([activity(run_id=f"r{i}", minutes=i, done=1) for i in range(40)])
    assert [row["run_id"] for row in rows] == [f"r{i}" for i in range(39, 39 - MAX_RUNS, -1)]


@pytest.mark.parametrize("value", [None, 3, "text", ["id"], {}, {"counts": 3}, {"counts": None, "operation": "x"}])
def test_read_manifest_returns_none_for_other_values(value):
    assert read_manifest(value) is None


def test_read_manifest_skips_counts_that_are_no_numbers():
    value = {"operation": "prelabel", "stage_name": None, "counts": {"done": 3, "failed": "many", "odd": True}}
    assert read_manifest(value) == ("prelabel", "", {"done": 3})


# ----------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (AirflowNotFoundException("The conn_id `x` isn't defined"), "no_connection"),
        (RedBrickInputError("No project_id: give it"), "bad_settings"),
        (RedBrickAuthError("HTTP 401", status=401), "wrong_key"),
        (RedBrickNotFoundError("There is no project"), "no_project"),
        (RedBrickConnectionError("refused"), "no_answer"),
        (RedBrickRateLimitError("HTTP 429"), "no_answer"),
        (RedBrickAnswerError("not JSON"), "no_answer"),
        (BusyError(), "busy"),
    ],
)
def test_error_payload_has_state_and_message(error, state):
    payload = error_payload(error)
    assert payload["state"] == state
    assert payload["message"]


def test_error_payload_hides_text_of_unexpected_errors():
    payload = error_payload(KeyError("canary"))
    assert payload["state"] == "broken"
    assert "canary" not in payload["message"]
    assert "KeyError" in payload["message"]
