"""A wrong key or an unknown project fails the Airflow task before any change."""

from __future__ import annotations

import json

import pytest

from airflow_provider_redbrick.exceptions import RedBrickAuthError, RedBrickNotFoundError
from airflow_provider_redbrick.hooks.redbrick import RedBrickHook
from airflow_provider_redbrick.operators.export_tasks import RedBrickExportTasksOperator
from airflow_provider_redbrick.operators.list_tasks import RedBrickListTasksOperator
from airflow_provider_redbrick.operators.prelabel import RedBrickPrelabelOperator
from airflow_provider_redbrick.operators.upload_tasks import RedBrickUploadTasksOperator

NOWHERE = "00000000-0000-4000-8000-00000000dead"
STORAGE = "11111111-1111-1111-1111-111111111111"
TASKS = [{"name": f"study-{n}", "items": "https://example.com/a.dcm"} for n in range(50)]


def upload(_path):
    return RedBrickUploadTasksOperator(task_id="t", tasks=TASKS, storage_id=STORAGE, fail_on="never")


def upload_from_a_file(path):
    (path / "tasks.json").write_text(json.dumps(TASKS))
    options = {"tasks_path": str(path / "tasks.json"), "storage_id": STORAGE}
    return RedBrickUploadTasksOperator(task_id="t", fail_on="never", **options)


def prelabel_anywhere(_path):
    options = {"write": "anywhere", "task_ids": [NOWHERE], "fail_on": "never"}
    return RedBrickPrelabelOperator(task_id="t", labeler=lambda _task: None, **options)


def export(path):
    return RedBrickExportTasksOperator(task_id="t", export_path=str(path / "out"), stage_name=None)


def list_all(_path):
    return RedBrickListTasksOperator(task_id="t")


OPERATORS = [upload, upload_from_a_file, prelabel_anywhere, export, list_all]


@pytest.mark.parametrize("make", OPERATORS)
def test_unknown_project_fails_without_retry(sandbox, run, tmp_path, make):
    operator = make(tmp_path)
    operator.project_id = NOWHERE
    before = sandbox.stats()["requests"]
    with pytest.raises(RedBrickNotFoundError):
        run.try_once(operator)
    assert sandbox.stats()["requests"] - before <= 2


@pytest.mark.parametrize("make", OPERATORS)
def test_wrong_key_fails_without_retry(sandbox, run, tmp_path, monkeypatch, make):
    uri = sandbox.airflow_conn_uri.replace(sandbox.api_key, "x" * len(sandbox.api_key))
    monkeypatch.setenv("AIRFLOW_CONN_REDBRICK_DEFAULT", uri)
    with pytest.raises(RedBrickAuthError):
        run.try_once(make(tmp_path))


def test_hook_reopen_in_unknown_project_raises(sandbox):
    with pytest.raises(RedBrickNotFoundError):
        RedBrickHook().reopen([NOWHERE], project_id=NOWHERE)
