"""Inputs as Airflow renders them: those that are absent, and templates that its templater leaves alone."""

from __future__ import annotations

import pytest
from airflow_versions import BEFORE_3_1


@pytest.mark.skipif(BEFORE_3_1, reason="this Airflow's DAG.test maps no decorated function, nor a plain one")
@pytest.mark.parametrize("dag", ["absent_inputs", "absent_natively"])
def test_what_was_given_and_is_absent_is_never_everything(run_dag, sandbox, tmp_path, dag):
    ids = sandbox.seed_tasks(4, stage="Review_1")
    finished = sandbox.seed_tasks(2, ground_truth=True)
    ran = run_dag(dag, conf={"ids": ids[:1], "folder": str(tmp_path)})
    states = {key: str(ti.state) for key, ti in ran.instances.items()}
    failed = ["of_none", "of_skipped", "limit", "param", "decorated", "reopen", "sensor"]
    assert {name: states[name, -1] for name in failed} == dict.fromkeys(failed, "failed")
    assert states["lenient", -1] == "skipped"
    for name in ("mapped", "decorated_mapped"):
        assert [states[name, index] for index in (0, 1)] == ["success", "failed"], name
    assert [states["mapped_literal", index] for index in (0, 1, 2)] == ["success", "failed", "skipped"]
    assert [states["mapped_kwargs", index] for index in (0, 1, 2)] == ["failed", "failed", "failed"]
    assert [states["decorated_kwargs", index] for index in (0, 1, 2)] == ["success", "failed", "failed"]
    assert [states["left_out", index] for index in (0, 1)] == ["success", "skipped"]
    assert all(
        sum(ran.returned(name, 0)["counts"].values()) == 1 for name in ("mapped", "decorated_mapped", "left_out")
    )
    assert sandbox.stage_of(ids[0]) == "END"
    assert {sandbox.stage_of(task_id) for task_id in ids[1:]} == {"Review_1"}
    assert {sandbox.stage_of(task_id) for task_id in finished} == {"END"}
    assert states["path", -1] == "success"
    (folder,) = tmp_path.iterdir()
    assert (folder.name, [file.name for file in folder.iterdir()]) == ("2026-02-01", ["tasks.jsonl"])
