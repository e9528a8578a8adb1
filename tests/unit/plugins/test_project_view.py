"""What the page shows of what was read."""

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
    course,
    read_manifest,
    show,
    show_runs,
    trouble,
)

STAGES = [
    Stage("Input", "labelset-input"),
    Stage("Label", "manual-labeling"),
    Stage("Review_1", "expert-review"),
    Stage("Failed_Review_1", "feedback"),
    Stage("Output", "labelset-output"),
    Stage("Odd", "never-heard-of"),
]


def facts(counts=None, held=None, address="https://app.redbrickai.com/x"):
    return ProjectData("org", "project", "Hearts", address, STAGES, counts or {}, held or {})


def test_stages_are_columns_in_the_order_of_the_workflow():
    shown = show(facts({"Label": 12, "Review_1": 3, "Output": 40}), {})
    assert [(stage["title"], stage["kind"], stage["count"]) for stage in shown["stages"]] == [
        ("Label", "label", 12),
        ("Review_1", "review", 3),
        ("Ground Truth", "truth", 40),
        ("Odd", "other", 0),
    ]
    assert shown["state"] == "ok"


def test_stages_that_tasks_only_pass_are_shown_while_some_are_there():
    shown = show(facts({"Input": 1, "Failed_Review_1": 2}), {})
    assert {"Input", "Failed_Review_1"} <= {stage["title"] for stage in shown["stages"]}


def column(held, count):
    shown = show(facts({"Label": count}, {"Label": held}), {})
    return next(stage for stage in shown["stages"] if stage["title"] == "Label")


def test_shares_are_sorted_with_unassigned_last():
    held = AssigneeCounts({"bob@x": 2, "alice@x": 6}, unassigned=4, looked_at=12)
    assert column(held, 12)["held"] == [
        {"name": "alice@x", "count": 6, "share": 1.0},
        {"name": "bob@x", "count": 2, "share": 0.333},
        {"name": "unassigned", "count": 4, "share": 0.667},
    ]
    assert column(held, 12)["looked_at"] is None


def test_a_long_queue_says_how_far_it_was_looked_at():
    assert column(AssigneeCounts({}, unassigned=1000, looked_at=1000), 4000)["looked_at"] == 1000


def test_many_people_are_summed_up_and_none_is_lost():
    held = AssigneeCounts({f"p{i:02}": 100 - i for i in range(30)}, looked_at=2565)
    shown = column(held, 2565)["held"]
    assert len(shown) == MAX_PEOPLE + 1
    assert shown[-1]["name"] == "22 more people"
    assert sum(each["count"] for each in shown) == 2565
    assert max(each["share"] for each in shown) == 1.0


@pytest.mark.parametrize("address", ["javascript:alert(1)", "data:text/html,x", "", "//x"])
def test_only_web_addresses_become_links(address):
    assert show(facts(address=address), {})["project"]["address"] == ""


# ------------------------------------------------------------------------------------------ the course


@pytest.mark.parametrize("samples", [[], [(100, 3)], [(100, 3), (100, 4)]])
def test_a_line_needs_two_moments(samples):
    assert course(samples) is None


def test_a_line_goes_in_steps_from_left_to_right():
    assert course([(0, 0), (50, 10), (100, 5)]) == {
        "path": "M0 24.00H50.00V0.00H100.00V12.00",
        "low": 0,
        "high": 10,
        "begin": 0,
        "end": 100,
    }


def test_an_empty_queue_is_a_line_at_the_bottom():
    assert course([(0, 0), (10, 0)])["path"] == "M0 24.00H100.00V24.00"


def test_a_course_belongs_to_its_stage():
    shown = show(facts(), {"Ground Truth": [(0, 1), (9, 2)]})
    assert {stage["title"]: stage["course"] is not None for stage in shown["stages"]} == {
        "Label": False,
        "Review_1": False,
        "Ground Truth": True,
        "Odd": False,
    }


# -------------------------------------------------------------------------------------------- the runs

NOON = pendulum.datetime(2026, 1, 1, 12)


def moved(task_id="prelabel", minutes=0, state="success", mapped=False, run_id="r1", **counts):
    return TaskActivity("dag", run_id, task_id, mapped, NOON.add(minutes=minutes), state, "put_labels", "Label", counts)


def test_mapped_tasks_are_one_row():
    rows = show_runs([moved(mapped=True, minutes=i, done=10, already_done=0, failed=i % 2) for i in range(4)])
    assert [(row["mapped"], row["counts"]) for row in rows] == [
        (True, [{"name": "done", "number": 40}, {"name": "failed", "number": 2}])
    ]
    assert rows[0]["at"].startswith("2026-01-01T12:03")
    assert rows[0]["operation"] == "put labels"


def test_one_that_failed_shows():
    assert show_runs([moved(state="failed"), moved(minutes=1)])[0]["state"] == "failed"


def test_the_latest_come_first_and_not_all():
    rows = show_runs([moved(run_id=f"r{i}", minutes=i, done=1) for i in range(40)])
    assert [row["run_id"] for row in rows] == [f"r{i}" for i in range(39, 39 - MAX_RUNS, -1)]


@pytest.mark.parametrize("value", [None, 3, "text", ["id"], {}, {"counts": 3}, {"counts": None, "operation": "x"}])
def test_what_is_no_manifest(value):
    assert read_manifest(value) is None


def test_a_manifest_is_read_and_nonsense_in_it_is_not():
    value = {"operation": "prelabel", "stage_name": None, "counts": {"done": 3, "failed": "many", "odd": True}}
    assert read_manifest(value) == ("prelabel", "", {"done": 3})


# ----------------------------------------------------------------------------------------- what is wrong


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
def test_every_trouble_has_its_state_and_words(error, state):
    shown = trouble(error)
    assert shown["state"] == state
    assert shown["message"]


def test_trouble_unexpected_error_hides_its_text():
    shown = trouble(KeyError("canary"))
    assert shown["state"] == "broken"
    assert "canary" not in shown["message"]
    assert "KeyError" in shown["message"]
