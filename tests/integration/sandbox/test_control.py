"""Test the control routes: tasks, simulated people, board, counters, reset and settings."""

from __future__ import annotations

import json
import time

import pytest
from requests import HTTPError
from sandbox_calls import BOX, REOPEN, claim, data, submit
from sandbox_process import SandboxError, SandboxProcess

from redbrick_sandbox.behaviors import VALUES
from redbrick_sandbox.demo_project import DEMO_STAGES


def test_create_many_tasks_is_fast(sandbox):
    started = time.monotonic()
    ids = sandbox.seed_tasks(5000)
    assert time.monotonic() - started < 5
    assert len(set(ids)) == 5000
    assert sandbox.count("Label") == 5000


def test_create_tasks_in_any_stage(sandbox):
    (review,) = sandbox.seed_tasks(1, stage="Review_1", assignee="carol@example.com", labels=[BOX])
    (truth,) = sandbox.seed_tasks(1, stage="Output")
    (skipped,) = sandbox.seed_tasks(1, assignee="bob@example.com", state="SKIPPED")
    found = sandbox.task(review)
    assert (found["stage"], found["state"], found["owner"]) == ("Review_1", "ASSIGNED", "carol@example.com")
    assert found["labels"] == [BOX]
    assert sandbox.stage_of(truth) == "END"
    assert sandbox.task(skipped)["state"] == "SKIPPED"


@pytest.mark.parametrize(
    "options",
    [
        {"stage": "Nowhere"},
        {"stage": "Failed_Review_1"},
        {"assignee": "who@example.com"},
        {"ground_truth": True, "assignee": "bob@example.com"},
        {"updated_at": "yesterday-ish"},
        {"colour": "red"},
        {"project_id": "00000000-0000-4000-8000-00000000dead"},
    ],
)
def test_create_tasks_with_invalid_options_is_refused(sandbox, options):
    with pytest.raises(SandboxError):
        sandbox.seed_tasks(1, **options)
    assert sandbox.count() == 0


def test_humans_label_and_review(sandbox):
    mine = sandbox.seed_tasks(1, assignee="API key")
    free = sandbox.seed_tasks(9)
    alices = sandbox.seed_tasks(1, assignee="alice@example.com", labels=[BOX])
    done = sandbox.humans("Label", 4)
    assert done == {"done": 4, "accepted": 0, "rejected": 0, "task_ids": [*alices, *free[:3]]}
    assert sandbox.task(alices[0])["labels"] == [BOX]
    assert sandbox.task(free[0])["labels"][0]["bbox2d"]
    sandbox.humans("Label")
    assert sandbox.task(mine[0])["stage"] == "Label"
    judged = sandbox.humans("Review_1", accept_ratio=0.7)
    assert (judged["done"], judged["accepted"], judged["rejected"]) == (10, 7, 3)
    assert sandbox.count("END") == 7
    # Work of people does not count as applied mutations.
    assert sandbox.stats()["applied"] == {}


def test_humans_correct_rejected_tasks(sandbox):
    (task_id,) = sandbox.seed_tasks(1, ground_truth=True, labels=[BOX])
    data(sandbox, REOPEN, t=task_id)
    sandbox.humans("Label")
    (label,) = sandbox.task(task_id)["labels"]
    assert label["bbox2d"]["wnorm"] < BOX["bbox2d"]["wnorm"]
    assert {"name": "confirmed", "value": True} in label["attributes"]


def test_rejected_task_returns_to_its_labeler(sandbox):
    (task_id,) = sandbox.seed_tasks(1, assignee="bob@example.com")
    sandbox.humans("Label")
    sandbox.humans("Review_1", accept_ratio=0)
    found = sandbox.task(task_id)
    assert (found["stage"], found["state"], found["owner"]) == ("Label", "ASSIGNED", "bob@example.com")


def test_humans_submit_given_labels(sandbox):
    (task_id,) = sandbox.seed_tasks(1)
    sandbox.humans("Label", labels=[BOX])
    assert sandbox.task(task_id)["labels"] == [BOX]


def test_humans_in_other_stages_are_refused(sandbox):
    with pytest.raises(SandboxError, match="no label or review stage 'Output'"):
        sandbox.humans("Output")
    with pytest.raises(SandboxError, match="stage"):
        sandbox.control("humans", {})


def test_board_lists_stages_and_cards(sandbox):
    sandbox.seed_tasks(2)
    sandbox.seed_tasks(1, assignee="alice@example.com", labels=[BOX])
    sandbox.seed_tasks(1, assignee="API key")
    sandbox.seed_tasks(3, ground_truth=True)
    board = sandbox.board()
    stages = {stage["title"]: stage for stage in board["stages"]}
    assert (board["project"], board["project_id"]) == ("Sandbox Demo", sandbox.project_id)
    assert stages["Ground Truth"]["count"] == 3
    assert stages["Label"]["by_person"] == {"unassigned": 2, "alice@example.com": 1, "API key": 1}
    card = stages["Label"]["cards"][2]
    assert (card["assignee"], card["state"], card["labels"]) == ("alice@example.com", "ASSIGNED", [BOX])
    assert [len(stage["cards"]) for stage in board["stages"]] == [0, 4, 0, 0, 3]


def test_reset_clears_counters(sandbox):
    ids = sandbox.seed_tasks(2)
    claim(sandbox, *ids)
    submit(sandbox, ids[0])
    stats = sandbox.stats()
    assert stats["requests"] == 2
    assert stats["root_fields"] == {"assignTasksMultipleUsers": 1, "putManualLabelingTaskAndLabels": 1}
    assert stats["applied"] == {
        ids[0]: {"assignTasksMultipleUsers": 1, "putManualLabelingTaskAndLabels": 1},
        ids[1]: {"assignTasksMultipleUsers": 1},
    }
    sandbox.add_project(name="another")
    sandbox.faults("http_500=1")
    sandbox.settings(latency_ms=5)
    sandbox.reset()
    assert sandbox.stats() == {"requests": 0, "root_fields": {}, "applied": {}}
    assert sandbox.count() == 0
    assert sandbox.settings()["latency_ms"] == 0
    assert sandbox.seed_tasks(2) == ids


def test_settings_can_be_changed(sandbox):
    assert sandbox.settings(latency_ms=1)["latency_ms"] == 1
    for wrong in ({"latency_ms": -1}, {"latency_ms": True}, {"colour": 1}, {"demo_tasks": 3}):
        with pytest.raises(SandboxError):
            sandbox.settings(**wrong)


def test_command_line_options_set_settings():
    options = {"fault": "http_503=0.5,seed=1", "behavior": "conversion=omit"}
    with SandboxProcess(latency_ms=80, transition_ms=50, seed=7, **options) as one:
        assert one.settings() == {
            "latency_ms": 80,
            "transition_ms": 50,
            "demo_tasks": 0,
            "seed": 7,
            "fault": options["fault"],
        }
        assert one.behavior()["conversion"] == "omit"
        one.faults("")
        started = time.monotonic()
        one.count()
        assert time.monotonic() - started >= 0.08


def test_behaviors_can_be_changed(sandbox):
    defaults = {name: values[0] for name, values in VALUES.items()}
    assert sandbox.behavior() == defaults
    changed = sandbox.behavior(conversion="drop-unknown", read_lag=0.5)
    assert changed == {**defaults, "conversion": "drop-unknown", "read_lag": "0.5"} == sandbox.behavior()
    for wrong in ({"conversion": "half"}, {"conversion": 1}, {"colour": "red"}):
        with pytest.raises(SandboxError, match="conversion"):
            sandbox.behavior(**wrong)
    sandbox.reset()
    assert sandbox.behavior() == defaults


def test_unknown_behavior_prevents_start():
    for spec in ("conversion", "conversion=half", "x=1", "conversion=omit,conversion=omit"):
        with pytest.raises(SandboxError, match="--behavior: "), SandboxProcess(behavior=spec):
            pass


def test_add_project(sandbox):
    project = sandbox.add_project(name="Second")
    ids = sandbox.seed_tasks(2, project_id=project)
    assert sandbox.count(project_id=project) == 2
    assert sandbox.count() == 0
    assert sandbox.task(ids[0]) is None
    with pytest.raises(SandboxError, match="same name"):
        sandbox.add_project([{"stageName": "A", "brickName": "manual-labeling"}] * 2)
    with pytest.raises(SandboxError, match="needs a label, a review or a remote-labeling stage"):
        sandbox.add_project([{"stageName": "A", "brickName": "labelset-input"}])


def test_keys_replace_accepted_keys(sandbox):
    sandbox.accept_keys(sandbox.api_key, "another")
    assert sandbox.count() == 0
    sandbox.accept_keys("another")
    with pytest.raises(HTTPError, match="401"):
        sandbox.count()
    with pytest.raises(SandboxError, match="must be text"):
        sandbox.accept_keys("")
    sandbox.reset()
    assert sandbox.count() == 0


def test_stages_with_tasks_cannot_be_removed(sandbox):
    sandbox.seed_tasks(1)
    renamed = json.loads(json.dumps(DEMO_STAGES).replace("Review_1", "Review_2"))
    sandbox.change_stages(renamed)
    assert [stage["name"] for stage in sandbox.board()["stages"]] == [stage["stageName"] for stage in renamed]
    (task_id,) = sandbox.humans("Label")["task_ids"]
    assert sandbox.stage_of(task_id) == "Review_2"
    with pytest.raises(SandboxError, match="there are tasks in Review_2"):
        sandbox.change_stages(list(DEMO_STAGES))
