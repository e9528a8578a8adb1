"""Progress lines, with a clock that the test controls."""

from __future__ import annotations

import logging
import re
from functools import partial

import pytest

from airflow_provider_redbrick.operators.base import EVERY, Progress
from airflow_provider_redbrick.operators.prelabel import RedBrickPrelabelOperator


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def lines(progress, clock, *, tasks, seconds_each):
    """Complete tasks at a fixed interval, and return the progress lines by task number."""
    found = {}
    for number in range(1, tasks + 1):
        clock.now += seconds_each
        if line := progress.after():
            found[number] = line
    return found


def test_progress_line_has_count_rate_and_time_left():
    clock = Clock()
    assert lines(Progress(100, every=5, clock=clock), clock, tasks=11, seconds_each=1) == {
        5: "5 of 100 tasks, 1.0 a second, 1 min 35 s left",
        10: "10 of 100 tasks, 1.0 a second, 1 min 30 s left",
    }


@pytest.mark.parametrize(
    ("total", "left"), [(40, "2 s left"), (12_345, "25 min 41 s left"), (100_000, "3 h 28 min left"), (20, "")]
)
def test_progress_time_left_is_rounded(total, left):
    clock = Clock()
    found = lines(Progress(total, every=2.5, clock=clock), clock, tasks=20, seconds_each=0.125)
    assert found == {20: f"20 of {total} tasks, 8.0 a second, {left}".removesuffix(", ")}


def test_progress_without_total_omits_time_left():
    clock = Clock()
    found = lines(Progress(every=5, clock=clock), clock, tasks=80, seconds_each=0.0625)
    assert found == {80: "80 tasks so far, 16.0 a second"}


def test_progress_of_burst_is_one_line():
    clock = Clock()
    progress = Progress(1000, every=5, clock=clock)
    clock.now += 60
    assert [progress.after(), *(progress.after() for _ in range(99))].count(None) == 99


def test_progress_of_short_run_is_silent():
    clock = Clock()
    assert lines(Progress(4, clock=clock), clock, tasks=4, seconds_each=EVERY / 5) == {}


def test_operator_logs_progress_and_summary(sandbox, run, caplog, capfd, monkeypatch):
    caplog.set_level(logging.INFO)
    sandbox.seed_tasks(30)
    sandbox.seed_tasks(3, assignee="alice@example.com", prefix="theirs")

    def prelabel(**options):
        return RedBrickPrelabelOperator(task_id="t", stage_name="Label", labeler=lambda _task: None, **options)

    def said() -> list[str]:
        # Airflow versions differ in where an operator's log goes; some write to both places.
        printed, logged = capfd.readouterr().out, [line for line in caplog.messages if line.startswith("prelabel: ")]
        caplog.clear()
        words = "\n".join(logged) or printed
        return re.findall(r"prelabel: .*?(?= *\[airflow\.task|$)", words, re.MULTILINE)

    run.try_once(prelabel())
    ended = ["prelabel: 30 tasks: 0 done, 0 already done, 30 skipped, 0 failed, 0 unknown"]
    ended += ["prelabel: 30 skipped: the labeler returned no labels"]
    assert said() == ended
    monkeypatch.setattr("airflow_provider_redbrick.operators.base.Progress", partial(Progress, every=1e-9))
    run.try_once(prelabel())
    *between, first, second = said()
    assert [first, second] == ended
    assert between[9].startswith("prelabel: 10 of 30 tasks, ")
