"""Validation of labels against the taxonomy, with a running sandbox."""

from __future__ import annotations

import json
import logging
from types import SimpleNamespace

import pytest
from fixtures import counts
from label_samples import BOX

from airflow_provider_redbrick.client.operations.project import RedBrickProject
from airflow_provider_redbrick.exceptions import (
    RedBrickAPIError,
    RedBrickInputError,
    RedBrickNotFoundError,
    RedBrickTasksFailedError,
)
from airflow_provider_redbrick.operators.auto_review import RedBrickAutoReviewOperator, Review
from airflow_provider_redbrick.operators.prelabel import RedBrickPrelabelOperator
from airflow_provider_redbrick.operators.put_labels import RedBrickPutLabelsOperator

PUT = "putManualLabelingTaskAndLabels"
ASSIGN = "assignTasksMultipleUsers"
CONVERT = "validateAndConvertToImportFormat"
UNKNOWN = "00000000-0000-4000-8000-000000000000"
GOOD = [{"boundingBoxes": [BOX]}]
BAD = [{"boundingBoxes": [BOX, {**BOX, "category": "findng"}]}]
WORDS = "series 0, boundingBoxes[1], category: unknown category 'findng'; did you mean 'finding'?"


def put(labels, **options) -> RedBrickPutLabelsOperator:
    tasks = [{"taskId": task_id, "series": series} for task_id, series in labels.items()]
    return RedBrickPutLabelsOperator(task_id="put", stage_name="Label", tasks=tasks, **options)


def prelabel(labels, **options) -> RedBrickPrelabelOperator:
    def labeler(task):
        return labels[task.task_id]

    return RedBrickPrelabelOperator(task_id="model", stage_name="Label", labeler=labeler, **options)


def correct(labels, **options) -> RedBrickAutoReviewOperator:
    def reviewer(task):
        return Review.correct(labels[task.task_id])

    return RedBrickAutoReviewOperator(task_id="review", stage_name="Review_1", reviewer=reviewer, **options)


OPERATORS = {"put": (put, "Label"), "prelabel": (prelabel, "Label"), "correct": (correct, "Review_1")}


@pytest.fixture(params=OPERATORS)
def operator(request, sandbox):
    """An operator that sends labels: ``make({task_id: series})``, with ``seed(count)`` for its tasks."""
    make, stage = OPERATORS[request.param]
    options = {} if stage == "Label" else {"stage": stage}
    return SimpleNamespace(make=make, stage=stage, seed=lambda count: sandbox.seed_tasks(count, **options))


@pytest.fixture
def warnings(caplog):
    """The warnings that were logged about labels."""
    caplog.set_level(logging.WARNING, logger="airflow_provider_redbrick.annotations.conversion")
    return lambda: [
        r.getMessage() for r in caplog.records if r.name == "airflow_provider_redbrick.annotations.conversion"
    ]


@pytest.fixture
def taxonomy(monkeypatch):
    """Replace the project's taxonomy."""

    def give(data) -> None:
        monkeypatch.setattr("airflow_provider_redbrick.client.operations.project._taxonomy", lambda found: data)

    return give


class TestStrict:
    def test_strict_invalid_task_fails_alone(self, sandbox, run, operator):
        ids = operator.seed(3)
        with pytest.raises(RedBrickTasksFailedError, match="did you mean 'finding'"):
            run.try_once(operator.make({ids[0]: GOOD, ids[1]: BAD, ids[2]: GOOD}))
        manifest = run.xcoms["manifest"]
        assert manifest["counts"] == counts(done=2, failed=1)
        assert manifest["failed"][0]["task_id"] == ids[1]
        assert manifest["failed"][0]["reason"].endswith(f"cannot be sent: {WORDS}. Nothing was sent.")
        assert sandbox.applied(PUT) == {ids[0]: 1, ids[2]: 1}
        task = sandbox.task(ids[1])
        assert (task["stage"], task["state"], task["owner"]) == (operator.stage, "UNASSIGNED", None)

    def test_strict_is_default_and_precedes_claims(self, sandbox, run):
        ids = sandbox.seed_tasks(2)
        for options in ({}, {"validate": "strict"}):
            with pytest.raises(RedBrickTasksFailedError):
                run.try_once(put(dict.fromkeys(ids, BAD), **options))
        fields = sandbox.stats()["root_fields"]
        assert {PUT, ASSIGN, CONVERT}.isdisjoint(fields)
        assert sandbox.stats()["applied"] == {}

    def test_strict_message_counts_all_problems_and_names_five(self, sandbox, run, tmp_path):
        (task_id,) = sandbox.seed_tasks(1)
        path = tmp_path / "report.jsonl"
        series = [{"polygons": [{"points": [], "category": "region"}] * 7}]
        run.try_once(put({task_id: series}, report_path=str(path), fail_on="never"))
        (row,) = map(json.loads, path.read_text().splitlines())
        named = [f"series 0, polygons[{i}], points: must have at least 3 points, not 0" for i in range(5)]
        assert row["reason"] == f"Its labels cannot be sent: {'; '.join(named)}; and 2 more. Nothing was sent."

    def test_strict_retry_with_valid_labels_processes_the_rest(self, sandbox, run):
        ids = sandbox.seed_tasks(2)
        with pytest.raises(RedBrickTasksFailedError):
            run.try_once(put({ids[0]: GOOD, ids[1]: BAD}))
        manifest = run.try_once(put({ids[0]: GOOD, ids[1]: GOOD}))
        assert manifest["counts"] == counts(done=1, already_done=1)
        assert sandbox.applied(PUT) == dict.fromkeys(ids, 1)

    def test_strict_invalid_classification_fails_task(self, sandbox, run):
        (task_id,) = sandbox.seed_tasks(1)
        tasks = [{"taskId": task_id, "classification": {"attributes": {"urgency": "son"}}}]
        with pytest.raises(RedBrickTasksFailedError, match="unknown option 'son'; did you mean 'soon'"):
            run.try_once(RedBrickPutLabelsOperator(task_id="put", stage_name="Label", tasks=tasks))
        assert sandbox.stats()["applied"] == {}

    def test_strict_accepts_labels_drawn_by_people(self, sandbox, run):
        ids = sandbox.seed_tasks(10)
        assert sandbox.humans("Label", 10)["done"] == 10
        seen = []
        operator = RedBrickAutoReviewOperator(
            task_id="review",
            stage_name="Review_1",
            reviewer=lambda task: seen.append(task) or Review.correct(task.series, classification=task.classification),
        )
        assert run.try_once(operator)["counts"]["done"] == 10
        assert set(sandbox.applied(PUT)) >= set(ids)
        assert all(task.has_labels for task in seen)

    def test_strict_validates_legacy_labels(self, sandbox, run):
        (task_id,) = sandbox.seed_tasks(1)
        flat = {"category": "findng", "attributes": [], "bbox2d": {"xnorm": 0, "ynorm": 0, "wnorm": 1, "hnorm": 1}}
        put = {"task_id": "put", "stage_name": "Label", "tasks": [{"taskId": task_id, "labels": [flat]}]}
        with pytest.raises(RedBrickTasksFailedError, match=r"labels\[0\], category: .* did you mean 'finding'\?"):
            run.try_once(RedBrickPutLabelsOperator(**put))
        assert sandbox.applied(PUT) == {}
        assert run.try_once(RedBrickPutLabelsOperator(**put, validate="off"))["counts"]["done"] == 1


class TestWarn:
    def test_warn_logs_problems_and_sends_labels(self, sandbox, run, operator, warnings):
        ids = operator.seed(2)
        manifest = run.try_once(operator.make({ids[0]: GOOD, ids[1]: BAD}, validate="warn"))
        assert manifest["counts"]["done"] == 2
        assert sandbox.applied(PUT) == dict.fromkeys(ids, 1)
        assert [label["category"] for label in sandbox.task(ids[1])["labels"]] == ["finding", "findng"]
        assert warnings() == [f"Task {ids[1]}: labels are sent despite validation errors: {WORDS}"]

    def test_warn_does_not_send_malformed_labels(self, sandbox, run, warnings):
        (task_id,) = sandbox.seed_tasks(1)
        with pytest.raises(RedBrickTasksFailedError, match="cannot be written as JSON"):
            run.try_once(put({task_id: [{"boundingBoxes": [{**BOX, "wNorm": float("nan")}]}]}, validate="warn"))
        assert len(warnings()) == 1


class TestOff:
    def test_off_sends_labels_without_validation(self, sandbox, run, operator, warnings, monkeypatch):
        monkeypatch.delattr(RedBrickProject, "taxonomy")
        ids = operator.seed(2)
        assert run.try_once(operator.make(dict.fromkeys(ids, BAD), validate="off"))["counts"]["done"] == 2
        assert sandbox.applied(PUT) == dict.fromkeys(ids, 1)
        assert warnings() == []


class TestTaxonomyReads:
    def test_taxonomy_is_read_once_if_there_are_labels(self, sandbox, run, operator):
        ids = operator.seed(60)
        run.try_once(operator.make(dict.fromkeys(ids, GOOD)))
        # One read for the stages and one for the taxonomy; a single read if labels are known to exist.
        assert sandbox.stats()["root_fields"]["project"] == (1 if operator.make is put else 2)

    def test_taxonomy_is_not_read_without_labels(self, sandbox, run):
        ids = sandbox.seed_tasks(2, stage="Review_1")
        manifest = run.try_once(
            RedBrickAutoReviewOperator(task_id="review", stage_name="Review_1", task_ids=ids, review_result=True)
        )
        assert manifest["counts"]["done"] == 2
        new = sandbox.seed_tasks(1)
        run.try_once(
            RedBrickPrelabelOperator(task_id="model", stage_name="Label", labeler=lambda _: None, task_ids=new)
        )
        existing = sandbox.seed_tasks(1)
        run.try_once(RedBrickPutLabelsOperator(task_id="put", stage_name="Label", tasks=existing, existing_labels=True))
        assert sandbox.stats()["root_fields"]["project"] == 3

    @pytest.mark.parametrize("fault", ["http_500", "gql_error", "html"])
    def test_unreadable_taxonomy_fails_tasks(self, sandbox, run, operator, quick, fault):
        ids = operator.seed(2)
        together = operator.make is put
        sandbox.fault_once(fault, "project", skip=0 if together else 1, times=9)
        error, words = (RedBrickAPIError, "project") if together else (RedBrickTasksFailedError, "could not be checked")
        with pytest.raises(error, match=words):
            run.try_once(operator.make(dict.fromkeys(ids, GOOD)))
        assert sandbox.applied(PUT) == {}
        assert [sandbox.task(task_id)["owner"] for task_id in ids] == [None, None]
        sandbox.faults("")
        assert run.try_once(operator.make(dict.fromkeys(ids, GOOD)))["counts"]["done"] == 2

    def test_taxonomy_matches_sandbox(self, sandbox):
        from airflow_provider_redbrick.hooks.redbrick import RedBrickHook

        found = RedBrickHook().project().taxonomy
        assert found["isNew"] is True
        assert [each["category"] for each in found["objectTypes"]][:2] == ["finding", "volume"]
        with pytest.raises(RedBrickNotFoundError):
            _ = RedBrickHook().project(UNKNOWN).taxonomy

    @pytest.mark.parametrize("data", [{}, {"isNew": False, "name": "Old", "categories": [{"name": "object"}]}])
    def test_legacy_taxonomy_warns_once_and_skips_validation(self, sandbox, run, warnings, taxonomy, data):
        taxonomy(data)
        ids = sandbox.seed_tasks(30)
        assert run.try_once(put(dict.fromkeys(ids, BAD)))["counts"]["done"] == 30
        (line,) = warnings()
        assert line.startswith("Labels are not validated:")


@pytest.mark.parametrize("validate", ["", "Strict", "lenient", None, True, False])
@pytest.mark.parametrize("make", [put, prelabel, correct])
def test_unknown_validate_mode_sends_no_request(sandbox, run, make, validate):
    with pytest.raises(RedBrickInputError, match="validate must be one of 'strict', 'warn', 'off'"):
        run.try_once(make({UNKNOWN: GOOD}, validate=validate))
    assert sandbox.stats()["requests"] == 0
