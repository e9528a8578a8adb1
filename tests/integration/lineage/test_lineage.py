"""Tests of each operator's OpenLineage lineage, before and after the run."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import pytest
from label_samples import BOX

from airflow_provider_redbrick.exceptions import RedBrickTasksFailedError
from airflow_provider_redbrick.lineage import Dataset, file_dataset
from airflow_provider_redbrick.operators.auto_review import RedBrickAutoReviewOperator
from airflow_provider_redbrick.operators.balance_assignments import RedBrickBalanceAssignmentsOperator
from airflow_provider_redbrick.operators.export_tasks import RedBrickExportTasksOperator
from airflow_provider_redbrick.operators.list_tasks import RedBrickListTasksOperator
from airflow_provider_redbrick.operators.prelabel import RedBrickPrelabelOperator
from airflow_provider_redbrick.operators.put_labels import RedBrickPutLabelsOperator
from airflow_provider_redbrick.operators.reopen_ground_truth import RedBrickReopenGroundTruthOperator
from airflow_provider_redbrick.operators.upload_tasks import RedBrickUploadTasksOperator

# Installed with an extra, which the oldest supported Airflow does not have.
Serde = pytest.importorskip("openlineage.client.serde").Serde

TASK_INSTANCE = SimpleNamespace()


def labeler(_task):
    return [{"boundingBoxes": [BOX]}]


def prelabel(**options):
    return RedBrickPrelabelOperator(task_id="t", **{"stage_name": "Label", "labeler": labeler, **options})


@pytest.fixture
def names(sandbox):
    """Return dataset names. A stage is named without its project."""
    project = f"{sandbox.project_id}/"

    def of(datasets) -> list[str]:
        assert {d.namespace for d in datasets} <= {f"redbrick://{sandbox.org_id}", "file"}
        return [d.name.removeprefix(project) for d in datasets]

    return of


def rows(dataset) -> int | None:
    facet = (dataset.outputFacets or {}).get("outputStatistics")
    return facet and facet.rowCount


@pytest.mark.parametrize(
    ("make", "seeds", "inputs", "outputs"),
    [
        (prelabel, {}, ["Label"], ["Review_1"]),
        (lambda: prelabel(write="draft_and_release"), {}, ["Label"], ["Label"]),
        (
            lambda: RedBrickPutLabelsOperator(
                task_id="t", stage_name="Label", tasks=[{"name": "task-000001", "series": labeler(None)}]
            ),
            {},
            ["Label"],
            ["Review_1"],
        ),
        (
            lambda: RedBrickAutoReviewOperator(task_id="t", stage_name="Review_1", reviewer=lambda _task: True),
            {"stage": "Review_1"},
            ["Review_1"],
            ["Ground Truth", "Label"],
        ),
        (
            lambda: RedBrickBalanceAssignmentsOperator(task_id="t", stage_name="Label", emails=["bob@example.com"]),
            {},
            ["Label"],
            ["Label"],
        ),
        (
            lambda: RedBrickReopenGroundTruthOperator(
                task_id="t", selector=lambda _task: True, updated_after="2000-01-01", updated_before="2100-01-01"
            ),
            {"ground_truth": True},
            ["Ground Truth"],
            ["Label"],
        ),
        (lambda: RedBrickListTasksOperator(task_id="t", stage_name="Label"), {}, ["Label"], []),
    ],
    ids=["prelabel", "draft", "put_labels", "auto_review", "balance", "reopen", "list"],
)
def test_datasets_before_and_after_the_run(sandbox, run, names, *, make, seeds, inputs, outputs):
    sandbox.seed_tasks(1, **seeds)
    operator = make()
    before = operator.get_openlineage_facets_on_start()
    assert names(before.inputs) == inputs
    run.try_once(operator)
    after = operator.get_openlineage_facets_on_complete(TASK_INSTANCE)
    assert names(after.inputs) == inputs
    assert sorted(names(after.outputs)) == sorted(outputs)
    facet = after.run_facets["redbrick"]
    assert facet.counts.get("done", facet.counts.get("tasks")) == 1
    assert [rows(output) for output in after.outputs] == ([1] if len(outputs) == 1 else [None] * len(outputs))
    # The facet is sent as JSON.
    assert json.loads(Serde.to_json(facet))["operation"] == operator.operation


def test_write_anywhere_reports_project_and_model(sandbox, run, names):
    ids = sandbox.seed_tasks(3)
    operator = prelabel(stage_name=None, task_ids=ids, write="anywhere", model_name="lungs", model_version="2.1")
    run.try_once(operator)
    after = operator.get_openlineage_facets_on_complete(TASK_INSTANCE)
    assert names(after.inputs) == names(after.outputs) == [sandbox.project_id]
    assert after.run_facets["redbrick"].model == {"name": "lungs", "version": "2.1"}
    assert after.run_facets["redbrick"].counts["done"] == 3


def test_failure_reports_counts_of_completed_tasks(sandbox, run, names):
    sandbox.seed_tasks(3)
    answers = iter([labeler(None), "no labels at all", labeler(None)])
    operator = prelabel(labeler=lambda _task: next(answers))
    with pytest.raises(RedBrickTasksFailedError):
        run.try_once(operator)
    after = operator.get_openlineage_facets_on_failure(TASK_INSTANCE)
    assert names(after.outputs) == ["Review_1"]
    counts = after.run_facets["redbrick"].counts
    assert (counts["done"], counts["failed"]) == (2, 1)


def test_files_are_datasets(sandbox, run, names, tmp_path):
    sandbox.seed_tasks(2, ground_truth=True)
    folder = tmp_path / "out"
    export = RedBrickExportTasksOperator(task_id="t", export_path=str(folder))
    run.try_once(export)
    lineage = export.get_openlineage_facets_on_complete(TASK_INSTANCE)
    assert (names(lineage.inputs), names(lineage.outputs)) == (["Ground Truth"], [str(folder)])
    assert rows(lineage.outputs[0]) == 2

    tasks = tmp_path / "tasks.jsonl"
    tasks.write_text('{"name": "study", "items": "a.dcm"}')
    storage = "0a9c6e10-5b1d-4c8e-9f00-00000000abcd"
    upload = RedBrickUploadTasksOperator(task_id="t", tasks_path=str(tasks), storage_id=storage)
    run.try_once(upload)
    lineage = upload.get_openlineage_facets_on_complete(TASK_INSTANCE)
    assert (names(lineage.inputs), names(lineage.outputs)) == ([str(tasks)], [sandbox.project_id])


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("s3://aws_default@bucket/a/b.jsonl", Dataset("s3://bucket", "a/b.jsonl")),
        ("gs://bucket/a", Dataset("gs://bucket", "a")),
        ("file:///data/a.jsonl", Dataset("file", "/data/a.jsonl")),
        ("/data/a.jsonl", Dataset("file", "/data/a.jsonl")),
    ],
)
def test_file_dataset_omits_the_connection(path, place):
    assert file_dataset(path) == place


def test_missing_openlineage_gives_no_lineage(sandbox, run, monkeypatch):
    sandbox.seed_tasks(1)
    monkeypatch.setitem(sys.modules, "airflow.providers.openlineage.extractors", None)
    monkeypatch.delitem(sys.modules, "airflow_provider_redbrick.lineage_facets", raising=False)
    operator = prelabel()
    assert operator.get_openlineage_facets_on_start() is None
    assert run.try_once(operator)["counts"]["done"] == 1
    assert operator.get_openlineage_facets_on_complete(TASK_INSTANCE) is None
