"""Manifest, report and ``fail_on``, which all operators on tasks share."""

from __future__ import annotations

import io
import json
import logging

import pytest
from fixtures import counts

from airflow_provider_redbrick.client.transport.retry import shared_rate_limiter
from airflow_provider_redbrick.engine import outcomes
from airflow_provider_redbrick.exceptions import RedBrickError, RedBrickInputError, RedBrickTasksFailedError
from airflow_provider_redbrick.hooks.redbrick import RedBrickHook
from airflow_provider_redbrick.operators.auto_review import RedBrickAutoReviewOperator, Review
from airflow_provider_redbrick.operators.prelabel import RedBrickPrelabelOperator
from airflow_provider_redbrick.operators.put_labels import RedBrickPutLabelsOperator

PUT = "putManualLabelingTaskAndLabels"
KEYS = {
    "schema_version",
    "operation",
    "org_id",
    "project_id",
    "stage_name",
    "counts",
    "failed",
    "task_ids",
    "report",
}
SERIES = [
    {
        "boundingBoxes": [
            {
                "pointTopLeft": {"xNorm": 0.123456789, "yNorm": 0.2},
                "wNorm": 0.3,
                "hNorm": 0.4,
                "category": "finding",
            }
        ]
    }
]
BAD = [{"boundingBoxes": [{"category": "finding"}]}]


def put(ids, *, bad=(), **options) -> RedBrickPutLabelsOperator:
    tasks = [{"taskId": task_id, "series": BAD if task_id in bad else SERIES} for task_id in ids]
    return RedBrickPutLabelsOperator(task_id="put", **{"stage_name": "Label", "tasks": tasks, **options})


def prelabel(**options) -> RedBrickPrelabelOperator:
    return RedBrickPrelabelOperator(task_id="model", stage_name="Label", labeler=lambda _task: SERIES, **options)


def review(**options) -> RedBrickAutoReviewOperator:
    options = {"reviewer": lambda _task: True, **options}
    return RedBrickAutoReviewOperator(task_id="review", stage_name="Review_1", **options)


def test_failed_tasks_are_retried_when_the_server_asks_for_it(sandbox, run):
    """A request was given up because of the rate, and tasks failed with it."""
    ids = sandbox.seed_tasks(2, stage="Label")
    settings = RedBrickHook().settings
    limiter = shared_rate_limiter((settings.url, settings.credential), None)
    limiter.pause(300, most=0)
    with pytest.raises(RedBrickTasksFailedError) as raised:
        run.try_once(put(ids, bad=ids[:1]))
    assert 290 < int(raised.value.retry_after) <= 300


def rows_of(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


class TestManifest:
    @pytest.mark.parametrize("make", [put, lambda _: prelabel()], ids=["put_labels", "prelabel"])
    def test_manifest_has_expected_fields(self, sandbox, run, make):
        ids = sandbox.seed_tasks(3)
        operator = make(ids)
        manifest = run.try_once(operator)
        assert set(manifest) == KEYS
        assert manifest["schema_version"] == 1
        assert manifest["operation"] == operator.operation
        assert (manifest["org_id"], manifest["project_id"]) == (sandbox.org_id, sandbox.project_id)
        assert manifest["stage_name"] == "Label"
        assert manifest["counts"] == counts(done=3)
        assert sorted(manifest["task_ids"]) == sorted(ids)
        assert manifest["failed"] == []
        assert manifest["report"] is None
        assert json.loads(json.dumps(manifest)) == manifest
        assert "0.123456789" not in json.dumps(manifest)

    @pytest.mark.parametrize("make", [put, lambda _: prelabel()], ids=["put_labels", "prelabel"])
    def test_multiple_outputs_omit_fields_without_value(self, sandbox, run, make):
        """Airflow 3.0 refuses an XCom of None, which failed the task after its work was done."""
        operator = make(sandbox.seed_tasks(1))
        operator.multiple_outputs = True
        assert set(run.try_once(operator)) == KEYS - {"report"}

    def test_multiple_outputs_keep_full_manifest_of_failed_task(self, sandbox, run):
        """The pushed manifest is one XCom, so its fields may be None."""
        (task_id,) = sandbox.seed_tasks(1)
        with pytest.raises(RedBrickTasksFailedError):
            run.try_once(put([task_id], bad=[task_id], multiple_outputs=True))
        assert set(run.xcoms["manifest"]) == KEYS

    def test_manifest_of_review_has_operation_and_stage(self, sandbox, run):
        ids = sandbox.seed_tasks(2, stage="Review_1")
        manifest = run.try_once(review())
        assert set(manifest) == KEYS
        assert (manifest["operation"], manifest["stage_name"]) == ("auto_review", "Review_1")
        assert sorted(manifest["task_ids"]) == sorted(ids)

    def test_manifest_failures_are_limited(self, sandbox, run):
        ids = sandbox.seed_tasks(70)
        manifest = run.try_once(put(ids, bad=ids[:60], fail_on="never"))
        assert manifest["counts"] == counts(done=10, failed=60)
        assert len(manifest["failed"]) == 50
        assert set(manifest["failed"][0]) == {"task_id", "name", "reason"}
        assert all(len(failure["reason"]) <= 500 for failure in manifest["failed"])

    def test_manifest_task_ids_are_limited(self, sandbox, run, monkeypatch):
        assert outcomes.MAX_TASK_IDS == 1000
        monkeypatch.setattr(outcomes, "MAX_TASK_IDS", 30)
        ids = sandbox.seed_tasks(40)
        manifest = run.try_once(prelabel())
        assert manifest["counts"]["done"] == 40
        assert len(set(manifest["task_ids"])) == 30
        assert set(manifest["task_ids"]) <= set(ids)

    def test_manifest_counts_add_up(self, sandbox, run):
        ids = sandbox.seed_tasks(6)
        theirs = sandbox.seed_tasks(2, assignee="bob@example.com")
        with pytest.raises(RedBrickTasksFailedError):
            run.try_once(put([*ids, *theirs], bad=ids[:3]))
        assert run.xcoms["manifest"]["counts"] == {
            "done": 3,
            "already_done": 0,
            "skipped": 2,
            "failed": 3,
            "unknown": 0,
        }
        with pytest.raises(RedBrickTasksFailedError):
            run.try_once(put([*ids, *theirs], bad=ids[:2]))
        manifest = run.xcoms["manifest"]
        assert manifest["counts"] == counts(done=1, already_done=3, skipped=2, failed=2)
        assert sorted(manifest["task_ids"]) == sorted(ids[2:])


class TestFailOn:
    @pytest.mark.parametrize(
        ("fail_on", "bad", "fails"),
        [
            ("any", 0, False),
            ("any", 1, True),
            ("any", 3, True),
            ("all", 0, False),
            ("all", 1, False),
            ("all", 3, True),
            ("never", 1, False),
            ("never", 3, False),
        ],
    )
    def test_fail_on_decides_failure(self, sandbox, run, fail_on, bad, fails):
        ids = sandbox.seed_tasks(3)
        operator = put(ids, bad=ids[:bad], fail_on=fail_on)
        if fails:
            with pytest.raises(RedBrickTasksFailedError):
                run.try_once(operator)
            assert run.xcoms["manifest"]["counts"]["failed"] == bad
        else:
            assert run.try_once(operator)["counts"]["failed"] == bad
            assert run.xcoms == {}
        assert len(sandbox.applied(PUT)) == 3 - bad

    def test_error_names_counts_and_next_step(self, sandbox, run):
        ids = sandbox.seed_tasks(3)
        with pytest.raises(RedBrickTasksFailedError) as caught:
            run.try_once(put(ids, bad=ids[:1]))
        words = str(caught.value)
        assert "put_labels: of 3 tasks 2 done, 0 already done, 0 skipped, 1 failed" in words
        assert ids[0] in words
        assert "A retry skips completed tasks and processes the rest." in words

    def test_empty_queue_with_fail_on_all_succeeds(self, sandbox, run):
        assert run.try_once(prelabel(fail_on="all"))["counts"]["failed"] == 0

    def test_skipped_tasks_do_not_fail(self, sandbox, run):
        ids = sandbox.seed_tasks(2, assignee="bob@example.com")
        assert run.try_once(put(ids, fail_on="all"))["counts"]["skipped"] == 2


class TestReport:
    @pytest.mark.parametrize("prefix", ["", "file://"])
    def test_report_has_one_row_per_task(self, sandbox, run, tmp_path, prefix):
        ids = sandbox.seed_tasks(5)
        theirs = sandbox.seed_tasks(1, assignee="bob@example.com")
        path = tmp_path / "new" / "folder" / "report.jsonl"
        with pytest.raises(RedBrickTasksFailedError):
            run.try_once(put([*ids, *theirs], bad=ids[:2], report_path=f"{prefix}{path}"))
        assert run.xcoms["manifest"]["report"] == f"{prefix}{path}"
        rows = rows_of(path)
        assert sorted(row["task_id"] for row in rows) == sorted([*ids, *theirs])
        by_status = {status: [r for r in rows if r["status"] == status] for status in ("done", "skipped", "failed")}
        assert [len(found) for found in by_status.values()] == [3, 1, 2]
        assert all(row["reason"] for row in by_status["skipped"] + by_status["failed"])
        assert all(row["name"].startswith("task-") for row in by_status["done"] + by_status["skipped"])
        assert "0.123456789" not in path.read_text()

    def test_report_of_review_has_decision(self, sandbox, run, tmp_path):
        ids = sandbox.seed_tasks(4, stage="Review_1")
        decisions = [True, Review.reject("no box"), Review.correct(SERIES), Review.leave()]
        told = dict(zip(ids, decisions, strict=True))
        path = tmp_path / "review.jsonl"
        run.try_once(review(reviewer=lambda task: told[task.task_id], report_path=str(path)))
        rows = {row["task_id"]: (row["status"], row.get("decision"), row.get("comment")) for row in rows_of(path)}
        assert [rows[task_id] for task_id in ids] == [
            ("done", "accept", None),
            ("done", "reject", "no box"),
            ("done", "correct", None),
            ("skipped", None, None),
        ]

    def test_report_is_written_by_each_operator(self, sandbox, run, tmp_path):
        ids = sandbox.seed_tasks(2)
        run.try_once(prelabel(report_path=str(tmp_path / "prelabel.jsonl")))
        run.tries = 0
        run.try_once(review(report_path=str(tmp_path / "review.jsonl")))
        for name in ("prelabel", "review"):
            rows = rows_of(tmp_path / f"{name}.jsonl")
            assert sorted(row["task_id"] for row in rows) == sorted(ids)
            assert {row["status"] for row in rows} == {"done"}

    def test_report_is_complete_if_manifest_is_truncated(self, sandbox, run, tmp_path):
        ids = sandbox.seed_tasks(60)
        path = tmp_path / "report.jsonl"
        run.try_once(put(ids, bad=ids, fail_on="never", report_path=str(path)))
        assert len(rows_of(path)) == 60

    @pytest.mark.parametrize("make", [put, lambda _ids, **o: prelabel(**o)], ids=["put_labels", "prelabel"])
    def test_unwritable_report_changes_nothing(self, sandbox, run, tmp_path, make):
        ids = sandbox.seed_tasks(2)
        blocked = tmp_path / "file"
        blocked.write_text("")
        with pytest.raises(RedBrickInputError, match=r"report_path '.*' cannot be written: .*file"):
            run.try_once(make(ids, report_path=str(blocked / "report.jsonl")))
        assert sandbox.stats()["applied"] == {}

    def test_report_failing_midway_releases_claims(self, sandbox, run, tmp_path, monkeypatch, whereabouts):
        sandbox.seed_tasks(30)

        class FullDisk(io.StringIO):
            def write(self, text: str) -> int:
                raise OSError(28, "No space left on device")

        monkeypatch.setattr(
            "airflow_provider_redbrick.operators.base.ObjectStoragePath.open", lambda *_a, **_k: FullDisk()
        )
        operator = prelabel(report_path=str(tmp_path / "report.jsonl"))
        # The first outcome precedes the first change.
        operator.labeler = lambda _task: None
        with pytest.raises(OSError, match="No space left") as caught:
            run.try_once(operator)
        # While the error is still referenced, as in the process that reports it.
        assert caught.value.__traceback__ is not None
        assert {task.owner for task in whereabouts().values()} == {None}
        assert sandbox.applied(PUT) == {}


class TestKeyIsHidden:
    @pytest.fixture
    def leaks(self, sandbox, run, caplog, tmp_path):
        """Run an operator, and return all text that it leaves behind."""

        def look(operator) -> str:
            path = tmp_path / "report.jsonl"
            operator.report_path = str(path)
            left = []
            with caplog.at_level(logging.DEBUG):
                try:
                    left.append(run.try_once(operator))
                except RedBrickError as error:
                    left += [str(error), repr(error), vars(error), repr(error.__cause__), repr(error.__context__)]
            left += [run.xcoms, repr(operator), repr(operator.hook), repr(operator.hook.client)]
            left += [repr(operator.hook.client.transport), repr(operator.hook.project())]
            left += [{name: getattr(operator, name) for name in operator.template_fields}]
            left += [path.read_text() if path.exists() else "", caplog.text, caplog.records]
            left += [vars(record) for record in caplog.records]
            return "\n".join(map(repr, left))

        return look

    @pytest.mark.parametrize("fault", ["", "http_500", "http_503", "gql_error", "html", "drop_after", "not_ok"])
    def test_key_is_hidden_in_every_outcome(self, sandbox, leaks, quick, fault):
        ids = sandbox.seed_tasks(3)
        if fault:
            sandbox.fault_once(fault, PUT, times=30)
        text = leaks(put(ids))
        assert sandbox.api_key not in text
        assert ids[0] in text

    def test_key_is_hidden_if_wrong(self, sandbox, leaks, monkeypatch):
        wrong = "wrong-key-wrong-key-wrong-key-wrong-key-000"
        uri = sandbox.airflow_conn_uri.replace(sandbox.api_key, wrong)
        monkeypatch.setenv("AIRFLOW_CONN_REDBRICK_DEFAULT", uri)
        text = leaks(put(sandbox.seed_tasks(1)))
        assert "refused the credential" in text
        assert wrong not in text

    def test_key_is_hidden_if_host_is_unreachable(self, sandbox, leaks, monkeypatch, quick):
        uri = sandbox.airflow_conn_uri.replace(sandbox.url.rsplit(":", 1)[1], "9")
        monkeypatch.setenv("AIRFLOW_CONN_REDBRICK_DEFAULT", uri)
        text = leaks(put(["0a9c6e10-5b1d-4c8e-9f00-000000000009"]))
        assert "cannot be reached" in text
        assert sandbox.api_key not in text

    def test_key_is_hidden_in_rendered_templates(self, sandbox):
        for operator in (put([]), prelabel(), review()):
            assert "labeler" not in operator.template_fields
            assert {"redbrick_conn_id", "org_id", "project_id", "stage_name", "report_path"} <= {
                *operator.template_fields
            }


class TestOptional:
    @pytest.mark.parametrize("name", ["org_id", "project_id", "report_path"])
    @pytest.mark.parametrize("make", [lambda **o: put([], **{"tasks": ["x"], **o}), prelabel, review])
    def test_blank_optional_parameter_is_refused(self, sandbox, run, make, name):
        with pytest.raises(RedBrickInputError):
            run.try_once(make(**{name: ""}))
        assert sandbox.stats()["requests"] == 0
