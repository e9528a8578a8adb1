"""Runs that are cleared, and runs in another order: an export has the window that it had, and no later one."""

from __future__ import annotations

import json
from pathlib import Path

import pendulum
import pytest
from airflow_versions import BEFORE_3_3

pytestmark = pytest.mark.skipif(BEFORE_3_3, reason="how this Airflow's DAG.test makes its run is another story")

DAY = pendulum.datetime(2026, 5, 1)


def rows(exported) -> list[str]:
    return [json.loads(line)["taskId"] for line in Path(exported["uri"]).read_text().splitlines()]


@pytest.fixture
def finish(sandbox):
    """Let a number of tasks become ground truth."""
    return lambda number: sandbox.seed_tasks(number, ground_truth=True)


@pytest.fixture
def run_on(run_dag, tmp_path):
    """Run a DAG on one day after the other."""
    return lambda dag_id, day: run_dag(dag_id, conf={"folder": str(tmp_path)}, at=day)


@pytest.mark.parametrize("dag", ["exported_in_rounds", "exported_one_after_the_other"])
def test_a_cleared_run_exports_the_same_again(run_on, run_again, finish, dag):
    for day in range(2):
        ids = finish(5 - day)
        ran = run_on(dag, DAY.add(days=day))
        first = ran.returned("export")
        assert rows(first) == ids
        again = run_again(ran)
        assert again.state == "success"
        assert rows(again.returned("export")) == ids
        assert again.returned("export") == first
    # What changed after a window is in the next one, whenever the one before was exported again.
    later = finish(2)
    assert rows(run_again(ran).returned("export")) == ids
    assert rows(run_on(dag, DAY.add(days=2)).returned("export")) == later


def test_so_does_a_run_without_a_date(run_without_date, run_again, finish, tmp_path):
    """As an event or a person starts it."""
    ids, runs = {}, {}
    for day in range(3):
        ids[day] = finish(day + 1)
        when = {"run_after": DAY.add(days=day), "conf": {"folder": str(tmp_path)}}
        runs[day] = run_without_date("exported_in_rounds", **when)
    for day in (1, 2):
        assert rows(run_again(runs[day]).returned("export")) == ids[day]
    for file in Path(runs[1].returned("export")["uri"]).parent.iterdir():
        file.unlink()
    assert rows(run_again(runs[1]).returned("export")) == [*ids[1], *ids[2]]


def test_only_the_export_is_cleared(run_on, run_again, finish):
    ids = finish(5)
    ran = run_on("exported_in_rounds", DAY)
    assert rows(run_again(ran, "export").returned("export")) == ids


def test_an_earlier_run_that_is_cleared_later_has_its_own_window(run_on, run_again, finish):
    ids, runs = {}, {}
    for day in range(3):
        ids[day] = finish(day + 1)
        runs[day] = run_on("exported_in_rounds", DAY.add(days=day))
    for day in (1, 0, 2, 1):
        assert rows(run_again(runs[day]).returned("export")) == ids[day]
    newest = finish(1)
    assert rows(run_on("exported_in_rounds", DAY.add(days=9)).returned("export")) == newest


def test_a_clock_that_moves_back_does_not_export_twice(run_on, run_again, finish, sandbox):
    """The server's clock is read from responses, to about a second."""
    ids, runs = {}, {}
    for day, offset in enumerate((0, -2, -2, 0)):
        sandbox.behavior(clock_offset=offset)
        ids[day] = finish(day + 1)
        runs[day] = run_on("exported_in_rounds", DAY.add(days=day))
        assert rows(runs[day].returned("export")) == ids[day]
    for day in (1, 3, 2):
        assert rows(run_again(runs[day]).returned("export")) == ids[day]


def test_without_its_folder_a_cleared_run_goes_on_from_the_run_before(run_on, run_again, finish):
    finish(1)
    run_on("exported_in_rounds", DAY)
    ids = finish(5)
    ran = run_on("exported_in_rounds", DAY.add(days=1))
    later = finish(2)
    run_on("exported_in_rounds", DAY.add(days=2))
    for file in Path(ran.returned("export")["uri"]).parent.iterdir():
        file.unlink()
    assert rows(run_again(ran).returned("export")) == [*ids, *later]


def test_what_has_changed_since_is_exported_as_it_is_now(run_on, run_again, finish, sandbox):
    ids = finish(3)
    ran = run_on("exported_in_rounds", DAY)
    sandbox.graphql(
        """mutation ($o: UUID!, $p: UUID!, $t: UUID!) { putLabels(orgId: $o, projectId: $p, taskId: $t,
        labelsData: "[]") { ok } }""",
        {"o": sandbox.org_id, "p": sandbox.project_id, "t": ids[0]},
    )
    assert sorted(rows(run_again(ran).returned("export"))) == sorted(ids)
    assert rows(run_on("exported_in_rounds", DAY.add(days=1)).returned("export")) == ids[:1]


def test_mapped_exports_have_a_window_each(run_dag, run_again, finish, sandbox, tmp_path):
    for day in range(3):
        finished, reviewed = finish(3), sandbox.seed_tasks(2, stage="Review_1")
        ran = run_dag("exported_by_stage", conf={"folder": str(tmp_path)}, at=DAY.add(days=day))
        for again in (ran, run_again(ran)):
            assert again.state == "success"
            assert [rows(again.returned("export", index)) for index in (0, 1)] == [reviewed, finished]
    for index in (0, 1):
        for file in Path(ran.returned("export", index)["uri"]).parent.iterdir():
            file.unlink()
    again = run_again(ran)
    assert [rows(again.returned("export", index)) for index in (0, 1)] == [reviewed, finished]


def test_active_learning_trains_on_the_same_round_again(run_dag, run_again, finish, tmp_path):
    ids = finish(3)
    first = run_dag("active_learning", conf={"folder": str(tmp_path), "enough": 3})
    assert first.returned("train")["trained_on"] == 3
    again = run_again(first)
    assert (again.state, again.states()["train"]) == ("success", "success")
    assert again.returned("train") == first.returned("train")
    assert rows(again.returned("export")) == ids


def test_a_listing_that_lags_is_made_up_for_by_the_next_run(run_on, finish, sandbox):
    sandbox.behavior(read_lag=300)
    ids = finish(3)
    assert rows(run_on("exported_one_after_the_other", DAY).returned("export")) == []
    sandbox.behavior(read_lag=0)
    # The runs share a folder, so each is read before the next one.
    for day, exported in ((1, ids), (2, [])):
        assert rows(run_on("exported_one_after_the_other", DAY.add(days=day)).returned("export")) == exported


def test_a_manifest_that_cannot_be_read_is_no_window(run_on, run_again, finish):
    ids = finish(2)
    ran = run_on("exported_in_rounds", DAY)
    for content in ("", "[]", "{", '{"export": 1}'):
        (Path(ran.returned("export")["uri"]).parent / "manifest.json").write_text(content)
        assert rows(run_again(ran).returned("export")) == ids
