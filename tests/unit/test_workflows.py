"""The CI and release workflows and their permissions."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = {path.name: yaml.safe_load(path.read_text()) for path in (ROOT / ".github/workflows").glob("*.yml")}
JOBS = {f"{name}: {key}": job for name, flow in WORKFLOWS.items() for key, job in flow["jobs"].items()}
SIGNING = {title: job for title, job in JOBS.items() if job.get("permissions", {}).get("id-token") == "write"}
every_job = pytest.mark.parametrize("job", JOBS.values(), ids=list(JOBS))


def commands(job):
    return [step["run"] for step in job["steps"] if "run" in step]


@every_job
def test_actions_are_pinned_to_what_was_looked_at(job):
    used = [step["uses"] for step in job["steps"] if "uses" in step]
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", one) for one in used), used


@every_job
def test_nothing_that_a_stranger_writes_becomes_a_command(job):
    assert not any("github.event" in line or "github.head_ref" in line for line in commands(job))


@pytest.mark.parametrize("job", SIGNING.values(), ids=list(SIGNING))
def test_who_signs_and_publishes_installs_only_what_is_pinned_by_its_hash(job):
    assert not any(".ci/run" in line or "make " in line for line in commands(job))
    assert all("--require-hashes" in line for line in commands(job) if "pip install" in line)


@pytest.mark.parametrize("flow", WORKFLOWS.values(), ids=list(WORKFLOWS))
def test_jobs_may_read_unless_they_say_what_more(flow):
    assert flow["permissions"] == {"contents": "read"}


def test_every_supported_airflow_is_tested_and_all_that_is_installed_is_audited():
    jobs = WORKFLOWS["ci.yml"]["jobs"]
    run = re.search(r"^for version in (.*); do$", (ROOT / ".ci/run").read_text(), re.MULTILINE)
    versions = run.group(1).split()
    assert {"lowest", "highest"} < set(versions)
    assert [one["end"] for one in jobs["compat"]["strategy"]["matrix"]["include"]] == versions
    assert commands(jobs["audit"]) == ["make audit"]
    audited = re.search(r"^audit:.*?for file in ([^;]*);", (ROOT / "Makefile").read_text(), re.MULTILINE | re.DOTALL)
    pinned = {path.stem for path in (ROOT / "requirements").glob("*.txt")} - {"audit", "build", "uv"}
    # Earlier versions of Airflow are tested with packages of their time, vulnerable ones among them.
    assert set(audited[1].split()) == {name for name in pinned if not name.startswith("airflow-")}


def test_new_examples_are_looked_for_every_week_and_stop_nobodys_change():
    fuzz = WORKFLOWS["ci.yml"]["jobs"]["fuzz"]
    assert commands(fuzz) == ["make fuzz"]
    assert fuzz["if"] == "github.event_name == 'schedule'"
