"""The benchmarks run and measure completed work. The durations are not checked."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
FIELDS = "work n ours_s sdk_s limit_s ours_requests sdk_requests ours_peak_mb sdk_peak_mb"
TASKS = 6
LATENCY_S = 0.05


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The table that was printed, and the rows that were saved."""
    results = tmp_path_factory.mktemp("benchmarks") / "results.json"
    options = ["--sizes", str(TASKS), "--runs", "1", "--without-sdk", "--results", str(results)]
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks", *options], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr[-4000:]
    return run.stdout, json.loads(results.read_text())


def test_every_work_has_a_row_of_all_fields(done):
    _, rows = done
    assert [row["work"] for row in rows] == ["put_labels", "review", "reopen", "assign", "list", "export"]
    for row in rows:
        assert list(row) == FIELDS.split()
        assert row["n"] == TASKS
        assert row["ours_s"] > 0
        assert row["ours_requests"] > 0
        assert (row["sdk_s"], row["sdk_requests"], row["sdk_peak_mb"]) == (None, None, None)


def test_the_limit_is_round_trips_times_the_latency(done):
    """So few tasks fit in one request of each kind, so only sequential round trips remain."""
    _, rows = done
    rounds = {row["work"]: round(row["limit_s"] / LATENCY_S) for row in rows}
    assert rounds == {"put_labels": 4, "review": 3, "reopen": 2, "assign": 3, "list": 2, "export": 2}


def test_what_was_printed_is_for_people(done):
    words, rows = done
    assert len([line for line in words.splitlines() if f"  {TASKS}  " in line]) == len(rows)
    assert "The sandbox itself answers" in words
