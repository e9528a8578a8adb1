"""The life of a project on each kind of server that the provider handles. `docs/sandbox.md` lists the kinds."""

from __future__ import annotations

import json

import pytest
from fixtures import counts
from label_samples import BOX
from sandbox_calls import ASSIGN, data

from airflow_provider_redbrick.operators.auto_review import RedBrickAutoReviewOperator
from airflow_provider_redbrick.operators.balance_assignments import RedBrickBalanceAssignmentsOperator
from airflow_provider_redbrick.operators.export_tasks import RedBrickExportTasksOperator
from airflow_provider_redbrick.operators.list_tasks import RedBrickListTasksOperator
from airflow_provider_redbrick.operators.prelabel import RedBrickPrelabelOperator
from airflow_provider_redbrick.operators.put_labels import RedBrickPutLabelsOperator
from airflow_provider_redbrick.operators.reopen_ground_truth import RedBrickReopenGroundTruthOperator

ALICE, BOB = "alice@example.com", "bob@example.com"
PUT, REVIEW, REOPEN = "putManualLabelingTaskAndLabels", "putExpertReviewTask", "moveTaskToStart"
HANDLED = [
    {},
    {"error_path": "no"},
    {"error_data": "null"},
    {"max_page": 30},
    {"assign_answer": "empty"},
    {"assign_answer": "null"},
    {"events": "empty"},
    {"events": "anonymous"},
    {"events": "forbidden"},
    {"updated_at": "not-labels"},
    {"updated_at": "absent"},
    {"times": "z"},
    {"times": "offset"},
    {"times": "naive"},
    {"times": "epoch"},
    {"error_status": "400"},
    {"error_status": "500"},
    {"clock_offset": 300},
    {"clock_offset": -300},
    {"read_lag": 0.4},
    {"late_apply": "0.3:0.4"},
    {"late_apply": "0.3:0.4:drop"},
    {"late_apply": "0.3:0.4", "read_lag": 0.4},
]
# Reads may be behind by this time after a request was applied late.
SETTLE_SECONDS = 1.0


def model(_task) -> list[dict]:
    return [{"boundingBoxes": [dict(BOX)]}]


def held_by_key(sandbox, task_ids) -> set[str]:
    return {task_id for task_id in task_ids if (sandbox.task(task_id)["owner"] or "").startswith("API:")}


@pytest.mark.parametrize("behavior", HANDLED, ids=json.dumps)
def test_life_of_a_project_under_each_behavior(*, sandbox, new_run, tmp_path, quick, monkeypatch, behavior):
    if behavior.keys() & {"read_lag", "late_apply"}:
        monkeypatch.setenv(
            "AIRFLOW_CONN_REDBRICK_DEFAULT", f"{sandbox.airflow_conn_uri}&settle_seconds={SETTLE_SECONDS}"
        )
    submitted, drafts, put = sandbox.seed_tasks(12), sandbox.seed_tasks(3), sandbox.seed_tasks(3)
    balanced = sandbox.seed_tasks(4)
    truth = sandbox.seed_tasks(3, ground_truth=True)
    sandbox.behavior(**behavior)

    def taken_away(task):
        if task.task_id == submitted[5]:
            data(sandbox, ASSIGN, ids=[task.task_id], emails=[BOB])
        return model(task)

    prelabel = RedBrickPrelabelOperator(
        task_id="a", stage_name="Label", labeler=taken_away, task_ids=submitted, fail_on="never"
    )
    manifest = new_run().try_once(prelabel)
    done = [task_id for task_id in submitted if task_id != submitted[5]]
    assert manifest["counts"]["done"] == len(done)
    assert sandbox.applied(PUT) == dict.fromkeys(done, 1)

    draft = RedBrickPrelabelOperator(task_id="b", stage_name="Label", labeler=model, task_ids=drafts, write="draft")
    assert new_run().try_once(draft)["counts"] == counts(done=3)
    given = [{"taskId": task_id, "series": model(None)} for task_id in put]
    put_labels = RedBrickPutLabelsOperator(task_id="c", stage_name="Label", tasks=given)
    assert new_run().try_once(put_labels)["counts"] == counts(done=3)

    balance = RedBrickBalanceAssignmentsOperator(task_id="d", stage_name="Label", emails=[ALICE, BOB])
    assert new_run().try_once(balance)["counts"]["done"] == len(balanced)
    assert all(sandbox.task(task_id)["owner"] in (ALICE, BOB) for task_id in balanced)

    accepted = done[::2]
    review = RedBrickAutoReviewOperator(
        task_id="e", stage_name="Review_1", task_ids=done, reviewer=lambda task: task.task_id in accepted
    )
    assert new_run().try_once(review)["counts"] == counts(done=len(done))
    assert sandbox.applied(REVIEW) == dict.fromkeys(done, 1)
    assert {sandbox.stage_of(task_id) for task_id in accepted} == {"END"}

    reopen = RedBrickReopenGroundTruthOperator(task_id="f", task_ids=truth[:2])
    assert new_run().try_once(reopen)["counts"] == counts(done=2)
    assert sandbox.applied(REOPEN) == dict.fromkeys(truth[:2], 1)

    listed = new_run().try_once(RedBrickListTasksOperator(task_id="g", stage_name="Label"))
    assert sorted(listed) == sorted(set(submitted + drafts + balanced + truth[:2]) - set(accepted))
    export = RedBrickExportTasksOperator(task_id="h", export_path=str(tmp_path / "export"))
    assert new_run().try_once(export)["counts"]["tasks"] == len(accepted) + 1
    # Rejected tasks return to the key that labeled them.
    assert held_by_key(sandbox, submitted + put + balanced + truth) == set(done) - set(accepted)
    assert held_by_key(sandbox, drafts) == set(drafts)
