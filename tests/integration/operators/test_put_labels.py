"""``RedBrickPutLabelsOperator`` with ``tasks``, with a running sandbox."""

from __future__ import annotations

import contextlib
import json
import tempfile
from pathlib import Path

import pytest
from airflow.providers.common.compat.sdk import literal
from fixtures import StateStore, counts
from label_samples import BOX

from airflow_provider_redbrick.client.operations.project import RedBrickProject
from airflow_provider_redbrick.exceptions import RedBrickError, RedBrickInputError, RedBrickTasksFailedError
from airflow_provider_redbrick.operators.auto_review import RedBrickAutoReviewOperator, Review
from airflow_provider_redbrick.operators.prelabel import RedBrickPrelabelOperator
from airflow_provider_redbrick.operators.put_labels import RedBrickPutLabelsOperator

PUT = "putManualLabelingTaskAndLabels"
SUBMIT = "putManualLabelingTask"
ASSIGN = "assignTasksMultipleUsers"
ALICE, BOB = "alice@example.com", "bob@example.com"
UNKNOWN = "00000000-0000-4000-8000-000000000000"
FLAT_BOX = {"xnorm": 0.1, "ynorm": 0.2, "wnorm": 0.3, "hnorm": 0.4}


def operator(tasks, **options) -> RedBrickPutLabelsOperator:
    return RedBrickPutLabelsOperator(task_id="put", **{"stage_name": "Label", "tasks": tasks, **options})


def labeled(ids, key: str = "taskId") -> list[dict]:
    return [{key: value, "series": [{"boundingBoxes": [dict(BOX)]}]} for value in ids]


@pytest.fixture
def refused(sandbox, run):
    """Check that an operator refuses its input without a request, and return the message."""

    def attempt(put) -> str:
        before = sandbox.stats()["requests"]
        with pytest.raises(RedBrickInputError) as caught:
            run.try_once(put)
        assert sandbox.stats()["requests"] == before
        return str(caught.value)

    return attempt


ODD_TEXTS = {
    "a category": (
        {"series": [{"boundingBoxes": [{**BOX, "category": "a\0"}]}]},
        "series[0].boundingBoxes[0].category has",
    ),
    "an attribute": (
        {"series": [{"boundingBoxes": [{**BOX, "attributes": {"note": "\ud800"}}]}]},
        "series[0].boundingBoxes[0].attributes.note has",
    ),
    "an attribute's name": (
        {"series": [{"boundingBoxes": [{**BOX, "attributes": {"\udcff": True}}]}]},
        "series[0].boundingBoxes[0].attributes: the key has",
    ),
    "a comment": (
        {"series": [{"boundingBoxes": [{**BOX, "comment": {"text": "\0"}}]}]},
        "boundingBoxes[0].comment.text has",
    ),
    "a classification": ({"classification": {"attributes": {"x": ["ok", "\0"]}}}, "classification.attributes.x[1] has"),
    "a mask's path": ({"series": [{"segmentations": "m\0.nii", "segmentMap": {"1": "lesion"}}]}, "segmentations has"),
    "a segment": ({"series": [{"segmentations": "m.nii", "segmentMap": {"1": "le\0"}}]}, "series[0].segmentMap.1 has"),
    "the older labels": (
        {"labels": [{"category": "\0", "attributes": [], "bbox2d": FLAT_BOX}]},
        "labels[0].category has",
    ),
}


class TestUnstorableText:
    """Text that cannot be stored fails its task, with the field's name, before anything is sent."""

    @pytest.mark.parametrize("body", ODD_TEXTS, ids=lambda name: name.replace(" ", "_"))
    @pytest.mark.parametrize("validate", ["strict", "off"])
    def test_unstorable_text_in_labels_fails_task(self, sandbox, run, body, validate):
        bad, good = sandbox.seed_tasks(2)
        labels, words = ODD_TEXTS[body]
        with pytest.raises(RedBrickTasksFailedError):
            run.try_once(operator([{"taskId": bad, **labels}, *labeled([good])], validate=validate))
        (failed,) = run.xcoms["manifest"]["failed"]
        assert failed["task_id"] == bad
        assert f"{words} characters that cannot be sent or stored" in failed["reason"]
        assert sandbox.applied(PUT) == {good: 1}
        assert bad not in sandbox.applied(ASSIGN)

    def test_unstorable_text_from_labeler_fails_task(self, sandbox, run):
        bad, good = sandbox.seed_tasks(2)
        box = {bad: {**BOX, "category": "a\ud800"}, good: BOX}
        made = RedBrickPrelabelOperator(
            task_id="p", stage_name="Label", labeler=lambda task: [{"boundingBoxes": [box[task.task_id]]}]
        )
        with pytest.raises(RedBrickTasksFailedError, match=r"series\[0\].boundingBoxes\[0\].category has characters"):
            run.try_once(made)
        assert sandbox.applied(PUT) == {good: 1}

    def test_unstorable_text_in_correction_or_comment_fails_task(self, sandbox, run):
        ids = sandbox.seed_tasks(2, stage="Review_1")
        answers = iter(
            [
                lambda: Review.correct([{"boundingBoxes": [{**BOX, "comment": "\0"}]}]),
                lambda: Review.reject("\ud800"),
            ]
        )
        made = RedBrickAutoReviewOperator(task_id="r", stage_name="Review_1", reviewer=lambda _task: next(answers)())
        with pytest.raises(RedBrickTasksFailedError):
            run.try_once(made)
        reasons = " ".join(row["reason"] for row in run.xcoms["manifest"]["failed"])
        assert "series[0].boundingBoxes[0].comment has characters" in reasons
        assert "the comment of a review has characters" in reasons
        assert all(sandbox.stage_of(task_id) == "Review_1" for task_id in ids)

    def test_unstorable_text_in_name_is_refused(self, refused):
        assert "'name' has characters that cannot be sent or stored" in refused(operator(labeled(["a\0"], "name")))

    def test_unstorable_text_in_comment_parameter_is_refused(self, refused):
        made = RedBrickAutoReviewOperator(
            task_id="r", stage_name="Review_1", task_ids=[UNKNOWN], review_result=True, comment="\ud800"
        )
        assert "the comment of a review has characters" in refused(made)


class TestLabels:
    def test_series_are_submitted(self, sandbox, run):
        ids = sandbox.seed_tasks(3)
        manifest = run.try_once(operator(labeled(ids)))
        assert manifest["counts"] == counts(done=3)
        assert sandbox.applied(PUT) == dict.fromkeys(ids, 1)
        for task_id in ids:
            task = sandbox.task(task_id)
            assert (task["stage"], task["owner"]) == ("Review_1", None)
            assert [label["bbox2d"] for label in task["labels"]] == [FLAT_BOX]

    def test_legacy_labels_are_submitted_unchanged(self, sandbox, run):
        (task_id,) = sandbox.seed_tasks(1)
        labels = [{"category": "finding", "attributes": [], "bbox2d": FLAT_BOX}]
        assert run.try_once(operator([{"taskId": task_id, "labels": labels}]))["counts"] == counts(done=1)
        assert sandbox.task(task_id)["labels"] == labels

    def test_classification_alone_is_submitted(self, sandbox, run):
        (task_id,) = sandbox.seed_tasks(1)
        entry = {"taskId": task_id, "classification": {"attributes": {"abnormal": True}}}
        assert run.try_once(operator([entry]))["counts"] == counts(done=1)
        (label,) = sandbox.task(task_id)["labels"]
        assert label["studyclassify"] is True

    def test_empty_series_clears_labels(self, sandbox, run):
        (task_id,) = sandbox.seed_tasks(1, labels=[{"category": "finding", "bbox2d": FLAT_BOX}])
        assert run.try_once(operator([{"taskId": task_id, "series": []}]))["counts"] == counts(done=1)
        assert sandbox.task(task_id)["labels"] == []

    def test_export_keys_besides_labels_are_ignored(self, sandbox, run):
        (task_id,) = sandbox.seed_tasks(1)
        series = [{"name": "ct", "items": "a.dcm", "metaData": {}, "boundingBoxes": [dict(BOX)], "landmarks": None}]
        entry = {"taskId": task_id, "name": "x", "series": series, "status": "ASSIGNED", "createdBy": "another user"}
        assert run.try_once(operator([entry]))["counts"] == counts(done=1)
        assert len(sandbox.task(task_id)["labels"]) == 1

    def test_large_labels_are_stored_as_file_and_read_back(self, sandbox, run):
        (task_id,) = sandbox.seed_tasks(1)
        points = [{"point": {"xNorm": i / 2000, "yNorm": 0.5}, "category": "landmark"} for i in range(1200)]
        run.try_once(operator([{"taskId": task_id, "series": [{"landmarks": points}]}]))
        stored = sandbox.task(task_id)
        assert stored["labels"] == []
        assert stored["latestTaskData"]["labelsDataPath"]

        seen = []

        def reviewer(task):
            seen.extend(task.series[0]["landmarks"])
            return Review.leave()

        run.tries = 0
        run.try_once(RedBrickAutoReviewOperator(task_id="look", stage_name="Review_1", reviewer=reviewer))
        assert [label["point"]["xNorm"] for label in seen] == [i / 2000 for i in range(1200)]

    def test_failed_label_file_upload_changes_nothing(self, sandbox, run, quick):
        (task_id,) = sandbox.seed_tasks(1)
        points = [{"point": {"xNorm": 0.1, "yNorm": 0.5}, "category": "landmark"}] * 1001
        sandbox.fault_once("http_500", "presignUploads")
        put = operator([{"taskId": task_id, "series": [{"landmarks": points}]}])
        with pytest.raises(RedBrickTasksFailedError, match="presignUploads"):
            run.try_once(put)
        assert sandbox.applied(PUT) == {}
        assert run.try_once(put)["counts"] == counts(done=1)
        assert sandbox.applied(PUT) == {task_id: 1}


class TestTaskSelection:
    def test_task_by_exact_name_is_found(self, sandbox, run):
        ids = sandbox.seed_tasks(12, prefix="scan")
        names = [sandbox.task(task_id)["name"] for task_id in ids]
        assert run.try_once(operator(labeled([names[3]], "name")))["counts"] == counts(done=1)
        assert sandbox.applied(PUT) == {ids[3]: 1}

    def test_task_by_name_prefix_is_not_found(self, sandbox, run):
        sandbox.seed_tasks(2, prefix="scan")
        with pytest.raises(RedBrickTasksFailedError, match="no task has the name 'scan'"):
            run.try_once(operator(labeled(["scan"], "name")))
        assert sandbox.applied(PUT) == {}

    def test_unknown_name_fails_alone(self, sandbox, run):
        ids = sandbox.seed_tasks(2)
        with pytest.raises(RedBrickTasksFailedError):
            run.try_once(operator([*labeled(ids), *labeled(["nowhere"], "name")]))
        manifest = run.xcoms["manifest"]
        assert manifest["counts"] == counts(done=2, failed=1)
        assert [(f["name"], "no task has the name" in f["reason"]) for f in manifest["failed"]] == [("nowhere", True)]

    def test_ambiguous_name_fails_task(self, sandbox, run, monkeypatch):
        ids = sandbox.seed_tasks(2)
        monkeypatch.setattr(RedBrickProject, "find_by_name", lambda self, names: {name: list(ids) for name in names})
        with pytest.raises(RedBrickTasksFailedError, match="2 tasks have the name 'twin'"):
            run.try_once(operator(labeled(["twin"], "name")))
        assert sandbox.stats()["applied"] == {}

    def test_task_by_name_and_by_id_is_duplicate(self, sandbox, run):
        (task_id,) = sandbox.seed_tasks(1)
        name = sandbox.task(task_id)["name"]
        with pytest.raises(RedBrickInputError, match=rf"Duplicate task: {task_id}\. Nothing was sent"):
            run.try_once(operator([*labeled([task_id]), *labeled([name], "name")]))
        assert sandbox.stats()["applied"] == {}

    def test_duplicate_task_with_invalid_entry_is_refused(self, sandbox, run):
        (task_id,) = sandbox.seed_tasks(1)
        name = sandbox.task(task_id)["name"]
        with pytest.raises(RedBrickInputError, match=rf"Duplicate task: {task_id}\. Nothing was sent"):
            run.try_once(operator([{"taskId": task_id}, *labeled([name], "name")]))
        assert sandbox.stats()["applied"] == {}

    def test_unknown_task_fails_alone(self, sandbox, run):
        (task_id,) = sandbox.seed_tasks(1)
        with pytest.raises(RedBrickTasksFailedError, match="no such task"):
            run.try_once(operator(labeled([UNKNOWN, task_id])))
        assert run.xcoms["manifest"]["counts"] == counts(done=1, failed=1)
        assert sandbox.applied(PUT) == {task_id: 1}

    def test_task_in_other_stage_is_skipped(self, sandbox, run):
        (here,) = sandbox.seed_tasks(1)
        (review,) = sandbox.seed_tasks(1, stage="Review_1", assignee=BOB)
        (truth,) = sandbox.seed_tasks(1, ground_truth=True)
        rows = report_of(run, labeled([here, review, truth]))
        assert [rows[task_id]["status"] for task_id in (here, review, truth)] == ["done", "skipped", "skipped"]
        assert "in Review_1, assigned to bob@example.com" in rows[review]["reason"]
        assert "in Ground Truth" in rows[truth]["reason"]
        assert sandbox.applied(PUT) == {here: 1}
        assert (sandbox.task(review)["stage"], sandbox.task(review)["owner"]) == ("Review_1", BOB)

    def test_task_with_open_issue_is_skipped(self, sandbox, run):
        (task_id,) = sandbox.seed_tasks(1, assignee=BOB, state="PROBLEM")
        manifest = run.try_once(operator(labeled([task_id]), take_from_people=True))
        assert manifest["counts"] == counts(skipped=1)
        assert sandbox.task(task_id)["owner"] == BOB

    def test_many_tasks_take_few_requests(self, sandbox, run):
        ids = sandbox.seed_tasks(100)
        before = sandbox.stats()["requests"]
        run.try_once(operator(labeled(ids)))
        assert sandbox.applied(PUT) == dict.fromkeys(ids, 1)
        # One request per task; per 25 tasks: convert, read, claim; once: user, stages, taxonomy.
        assert sandbox.stats()["requests"] - before <= 100 + 3 * 4 + 3


def report_of(run, tasks, **options) -> dict[str, dict]:
    """Put labels with a report and return its rows by task id."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.jsonl"
        with contextlib.suppress(RedBrickTasksFailedError):
            run.try_once(operator(tasks, report_path=str(path), **options))
        rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert len({row["task_id"] for row in rows}) == len(rows) == len(tasks)
    return {row["task_id"]: row for row in rows}


class TestDraft:
    def test_draft_stays_assigned_to_key(self, sandbox, run):
        ids = sandbox.seed_tasks(3)
        assert run.try_once(operator(labeled(ids), finalize=False))["counts"] == counts(done=3)
        for task_id in ids:
            task = sandbox.task(task_id)
            assert (task["stage"], task["state"], task["owner"][:4]) == ("Label", "STAGED", "API:")
            assert len(task["labels"]) == 1

    def test_draft_is_submitted_later_unchanged(self, sandbox, run, new_run):
        ids = sandbox.seed_tasks(3)
        run.try_once(operator(labeled(ids), finalize=False))
        assert new_run().try_once(operator(ids, existing_labels=True))["counts"] == counts(done=3)
        assert sandbox.applied(SUBMIT) == dict.fromkeys(ids, 1)
        assert all(len(sandbox.task(task_id)["labels"]) == 1 for task_id in ids)
        assert all(sandbox.stage_of(task_id) == "Review_1" for task_id in ids)

    def test_other_run_replaces_draft(self, sandbox, run, new_run):
        (task_id,) = sandbox.seed_tasks(1)
        run.try_once(operator(labeled([task_id]), finalize=False))
        entry = {"taskId": task_id, "series": [{"boundingBoxes": [BOX, BOX]}]}
        assert new_run().try_once(operator([entry], finalize=False))["counts"] == counts(done=1)
        assert len(sandbox.task(task_id)["labels"]) == 2

    def test_retry_replaces_draft_of_earlier_operator(self, sandbox, run):
        (task_id,) = sandbox.seed_tasks(1)
        run.try_once(operator(labeled([task_id]), finalize=False))
        # The next operator of the same run, whose first attempt ended before it did anything.
        run.tries = 1
        entry = {"taskId": task_id, "series": [{"boundingBoxes": [BOX, BOX]}]}
        run.try_once(operator([entry], finalize=False))
        assert len(sandbox.task(task_id)["labels"]) == 2

    def test_retry_with_state_store_replaces_draft_of_earlier_operator(self, sandbox, new_run):
        (task_id,) = sandbox.seed_tasks(1)
        new_run(task_state_store=StateStore()).try_once(operator(labeled([task_id]), finalize=False))
        other = new_run(task_state_store=StateStore())
        with pytest.raises(RedBrickError):
            other.try_once(operator([{"taskId": task_id, "series": 1}], finalize=False))
        entry = {"taskId": task_id, "series": [{"boundingBoxes": [BOX, BOX]}]}
        assert other.try_once(operator([entry], finalize=False))["counts"] == counts(done=1)
        assert len(sandbox.task(task_id)["labels"]) == 2
        assert other.try_once(operator([entry], finalize=False))["counts"] == counts(already_done=1)


class TestExistingLabels:
    def test_existing_labels_are_submitted_unchanged(self, sandbox, run):
        ids = sandbox.seed_tasks(2, labels=[{"category": "finding", "bbox2d": FLAT_BOX}])
        before = {task_id: sandbox.task(task_id)["latestTaskData"] for task_id in ids}
        tasks = [ids[0], {"taskId": ids[1]}]
        assert run.try_once(operator(tasks, existing_labels=True))["counts"] == counts(done=2)
        assert sandbox.applied(SUBMIT) == dict.fromkeys(ids, 1)
        assert {task_id: sandbox.task(task_id)["latestTaskData"] for task_id in ids} == before

    def test_existing_labels_with_given_labels_are_refused(self, sandbox, refused):
        assert "submits the labels that tasks have. Remove the labels from tasks" in refused(
            operator(labeled(sandbox.seed_tasks(1)), existing_labels=True)
        )

    def test_existing_labels_as_draft_are_refused(self, sandbox, refused):
        refused(operator(sandbox.seed_tasks(1), existing_labels=True, finalize=False))


class TestReviewStage:
    def test_labels_in_review_stage_are_correction(self, sandbox, run, trail):
        (task_id,) = sandbox.seed_tasks(1, stage="Review_1")
        manifest = run.try_once(operator(labeled([task_id]), stage_name="Review_1"))
        assert manifest["counts"] == counts(done=1)
        task = sandbox.task(task_id)
        assert task["stage"] == "END"
        assert [label["bbox2d"] for label in task["labels"]] == [FLAT_BOX]
        stage, accepted, by = trail(task_id).outputs[-1]
        assert (stage, accepted, by[:4]) == ("Review_1", True, "API:")

    def test_existing_labels_in_review_stage_are_refused(self, sandbox, run):
        ids = sandbox.seed_tasks(1, stage="Review_1")
        with pytest.raises(RedBrickError):
            run.try_once(operator(ids, stage_name="Review_1", existing_labels=True))
        assert sandbox.stage_of(ids[0]) == "Review_1"
        assert sandbox.task(ids[0])["owner"] is None


class TestOwnership:
    def test_unowned_tasks_are_claimed(self, sandbox, run):
        ids = sandbox.seed_tasks(2)
        run.try_once(operator(labeled(ids)))
        assert sandbox.applied(ASSIGN) == dict.fromkeys(ids, 1)

    def test_put_without_claim_fails_with_server_message(self, sandbox, run):
        ids = sandbox.seed_tasks(1)
        with pytest.raises(RedBrickTasksFailedError, match="in stage 'Label' is not assigned to you"):
            run.try_once(operator(labeled(ids), claim=False))
        assert sandbox.stats()["applied"] == {}
        assert sandbox.task(ids[0])["labels"] == []

    def test_put_without_claim_submits_tasks_of_key(self, sandbox, run):
        ids = sandbox.seed_tasks(2, assignee="API key")
        assert run.try_once(operator(labeled(ids), claim=False))["counts"] == counts(done=2)
        assert sandbox.applied(ASSIGN) == {}

    def test_put_without_claim_works_if_server_needs_no_owner(self, sandbox, run):
        sandbox.behavior(ownership="free")
        ids = sandbox.seed_tasks(2)
        assert run.try_once(operator(labeled(ids), claim=False))["counts"] == counts(done=2)

    @pytest.mark.parametrize("state", ["ASSIGNED", "IN_PROGRESS", "STAGED", "SKIPPED"])
    def test_task_of_person_is_skipped(self, sandbox, run, state):
        ids = sandbox.seed_tasks(2, assignee=BOB, state=state)
        rows = report_of(run, labeled(ids))
        assert {row["status"] for row in rows.values()} == {"skipped"}
        assert all("assigned to bob@example.com" in row["reason"] for row in rows.values())
        for task_id in ids:
            task = sandbox.task(task_id)
            assert (task["owner"], task["state"], task["labels"]) == (BOB, state, [])
        assert sandbox.stats()["applied"] == {}

    def test_task_of_person_is_taken_with_take_from_people(self, sandbox, run):
        ids = sandbox.seed_tasks(2, assignee=BOB)
        manifest = run.try_once(operator(labeled(ids), take_from_people=True))
        assert manifest["counts"] == counts(done=2)
        assert all(sandbox.stage_of(task_id) == "Review_1" for task_id in ids)

    def test_claimed_task_without_result_is_released(self, sandbox, run, alone):
        ids = sandbox.seed_tasks(4)
        sandbox.fault_once("not_ok", PUT, skip=1, times=2)
        with pytest.raises(RedBrickTasksFailedError):
            run.try_once(operator(labeled(ids)))
        assert run.xcoms["manifest"]["counts"] == counts(done=2, failed=2)
        owners = {sandbox.task(f["task_id"])["owner"] for f in run.xcoms["manifest"]["failed"]}
        assert owners == {None}


BAD_LABELS = {
    "no category": {"series": [{"boundingBoxes": [{**BOX, "category": None}]}]},
    "category of a wrong shape": {"series": [{"boundingBoxes": [{**BOX, "category": {"a": 1}}]}]},
    "coordinates": {"series": [{"boundingBoxes": [{**BOX, "wNorm": "wide"}]}]},
    "NaN": {"series": [{"boundingBoxes": [{**BOX, "wNorm": float("nan")}]}]},
    "infinity": {"series": [{"boundingBoxes": [{**BOX, "wNorm": float("inf")}]}]},
    "no list": {"series": {"boundingBoxes": [BOX]}},
    "text": {"series": "series"},
    "not JSON": {"series": [{"boundingBoxes": [{**BOX, "wNorm": {1, 2}}]}]},
    "unknown key": {"series": [{"boxes": [BOX]}]},
    "nothing": {},
    "null": {"series": None},
    "two formats": {"series": [{}], "labels": []},
    "masks": {"series": [{"segmentations": "mask.nii.gz"}]},
    "mask map": {"series": [{"segmentMap": {"1": {"category": "finding"}}}]},
}


class TestInvalidLabels:
    @pytest.mark.parametrize("bad", list(BAD_LABELS.values()), ids=[name.replace(" ", "_") for name in BAD_LABELS])
    def test_invalid_task_fails_alone_and_stays_unchanged(self, sandbox, run, bad):
        ids = sandbox.seed_tasks(5)
        tasks = labeled(ids)
        tasks[2] = {"taskId": ids[2], **bad}
        rows = report_of(run, tasks)
        assert [rows[task_id]["status"] for task_id in ids] == ["done", "done", "failed", "done", "done"]
        assert rows[ids[2]]["reason"]
        assert sandbox.applied(PUT) == {task_id: 1 for task_id in ids if task_id != ids[2]}
        assert ids[2] not in sandbox.applied(ASSIGN)
        assert (sandbox.task(ids[2])["stage"], sandbox.task(ids[2])["state"]) == ("Label", "UNASSIGNED")

    def test_missing_mask_file_fails_task_with_reason(self, sandbox, run):
        (task_id,) = sandbox.seed_tasks(1)
        with pytest.raises(RedBrickTasksFailedError, match="not a local file, and not the stored mask of the task"):
            run.try_once(operator([{"taskId": task_id, **BAD_LABELS["masks"]}]))

    def test_conversion_error_of_server_is_reported_per_task(self, sandbox, run):
        ids = sandbox.seed_tasks(30)
        tasks = labeled(ids)
        for i in (0, 7, 8, 29):
            tasks[i]["series"][0]["boundingBoxes"][0]["wNorm"] = "wide"
        rows = report_of(run, tasks, validate="off")
        bad = {task_id for task_id, row in rows.items() if row["status"] == "failed"}
        assert bad == {ids[i] for i in (0, 7, 8, 29)}
        assert all("wNorm: a number is needed" in rows[task_id]["reason"] for task_id in bad)

    def test_conversion_outage_does_not_make_labels_invalid(self, sandbox, run, quick):
        ids = sandbox.seed_tasks(2)
        sandbox.fault_once("http_500", "validateAndConvertToImportFormat")
        rows = report_of(run, labeled(ids))
        assert {row["status"] for row in rows.values()} == {"failed"}
        assert all("HTTP 500" in row["reason"] and "invalid" not in row["reason"] for row in rows.values())
        assert sandbox.stats()["applied"] == {}


class TestRefusedInput:
    @pytest.mark.parametrize(
        "tasks",
        [
            None,
            "",
            "[{'taskId': ...}]",
            {"taskId": UNKNOWN},
            7,
            [7],
            [None],
            [{}],
            [""],
            ["not-a-uuid"],
            [{"taskId": ""}],
            [{"taskId": "not-a-uuid"}],
            [{"name": ""}],
            [{"name": "  "}],
            [{"name": 7}],
            [{"series": [{}]}],
            [{"taskId": UNKNOWN}, {"taskId": UNKNOWN}],
            [{"taskId": UNKNOWN}, {"taskId": UNKNOWN.upper()}],
            [{"name": "a"}, {"name": "a"}],
        ],
        ids=repr,
    )
    def test_invalid_tasks_are_refused(self, refused, tasks):
        assert refused(operator(tasks))

    @pytest.mark.parametrize("name", ["", " ", None, 7])
    def test_invalid_stage_names_are_refused(self, refused, name):
        assert "stage_name" in refused(operator(labeled([UNKNOWN]), stage_name=name))

    @pytest.mark.parametrize(
        "options",
        [{"fail_on": "sometimes"}, {"report_path": ""}, {"report_path": " "}, {"project_id": ""}, {"org_id": " "}],
        ids=repr,
    )
    def test_invalid_common_parameters_are_refused(self, refused, options):
        assert next(iter(options)) in refused(operator(labeled([UNKNOWN]), **options))

    def test_unknown_stage_names_known_stages(self, sandbox, run):
        with pytest.raises(RedBrickInputError, match="Input, Label, Review_1, Failed_Review_1, Ground Truth"):
            run.try_once(operator(labeled([UNKNOWN]), stage_name="label"))

    @pytest.mark.parametrize("name", ["Input", "Failed_Review_1"])
    def test_pass_through_stages_are_refused(self, sandbox, run, name):
        with pytest.raises(RedBrickInputError, match="wait in: Label, Review_1"):
            run.try_once(operator(labeled([UNKNOWN]), stage_name=name))

    @pytest.mark.parametrize("name", ["Ground Truth", "Output", "END"])
    def test_ground_truth_is_refused_by_every_name(self, sandbox, run, name):
        (task_id,) = sandbox.seed_tasks(1, ground_truth=True)
        with pytest.raises(RedBrickInputError, match="reopen"):
            run.try_once(operator(labeled([task_id]), stage_name=name))
        assert sandbox.stats()["applied"] == {}


JOBS = {
    "submit": (PUT, {}, lambda ids: operator(labeled(ids))),
    "draft": (PUT, {}, lambda ids: operator(labeled(ids), finalize=False)),
    "existing labels": (SUBMIT, {"labels": []}, lambda ids: operator(ids, existing_labels=True)),
    "correction": (PUT, {"stage": "Review_1"}, lambda ids: operator(labeled(ids), stage_name="Review_1")),
}


@pytest.fixture(params=list(JOBS), ids=[name.replace(" ", "_") for name in JOBS])
def job(request):
    return JOBS[request.param]


class TestRetry:
    def test_retry_after_fault_processes_the_rest(self, sandbox, midway_fault, finish):
        self.finishes(sandbox, JOBS["submit"], midway_fault, finish)

    @pytest.mark.parametrize("job", JOBS, ids=lambda name: name.replace(" ", "_"))
    def test_retry_after_fault_processes_the_rest_of_each_form(self, sandbox, job, core_fault, finish):
        self.finishes(sandbox, JOBS[job], core_fault, finish)

    @staticmethod
    def finishes(sandbox, job, fault, finish) -> None:
        mutation, seed, make = job
        ids = sandbox.seed_tasks(8, **seed)
        fault(mutation)
        manifests = finish(lambda: make(ids))
        assert sandbox.applied(mutation) == dict.fromkeys(ids, 1)
        tried = [manifest["counts"] for manifest in manifests if manifest]
        assert all(sum(each.values()) == 8 for each in tried)
        assert tried[-1]["done"] + tried[-1]["already_done"] == 8
        assert sum(each["done"] for each in tried) <= 8

    @pytest.mark.parametrize("transition_ms", [0, 150])
    def test_retry_after_kill_processes_the_rest(self, sandbox, job, killed_attempt, finish, transition_ms):
        sandbox.settings(transition_ms=transition_ms)
        mutation, seed, make = job
        ids = sandbox.seed_tasks(30, **seed)
        killed_attempt(make(ids), after_change=12)
        (manifest,) = finish(lambda: make(ids))
        assert sandbox.applied(mutation) == dict.fromkeys(ids, 1)
        # The request in flight at the kill was applied as well.
        first = manifest["counts"]["already_done"]
        assert 12 <= first < 30
        assert manifest["counts"] == counts(done=30 - first, already_done=first)

    @pytest.mark.parametrize("seed", [606])
    def test_retries_after_any_fault_put_once(self, sandbox, job, finish, quick, seed):
        mutation, options, make = job
        ids = sandbox.seed_tasks(60, **options)
        print(f"seed={seed}")
        sandbox.faults(f"http_503=0.1,drop_before=0.05,drop_after=0.05,rate_limit=0.05,seed={seed}")
        manifests = finish(lambda: make(ids), faults_stay=True)
        assert sandbox.applied(mutation) == dict.fromkeys(ids, 1)
        final = manifests[-1]["counts"]
        assert final["done"] + final["already_done"] == 60

    def test_already_done_is_reported_only_by_retry(self, sandbox, run, new_run):
        ids = sandbox.seed_tasks(2)
        run.try_once(operator(labeled(ids)))
        assert new_run().try_once(operator(labeled(ids)))["counts"] == counts(skipped=2)
        assert run.try_once(operator(labeled(ids)))["counts"] == counts(already_done=2)

    def test_change_by_person_is_not_already_done(self, sandbox, run):
        ids = sandbox.seed_tasks(2)
        sandbox.fault_once("gql_error", ASSIGN)
        with pytest.raises(RedBrickTasksFailedError):
            run.try_once(operator(labeled(ids)))
        sandbox.humans("Label")
        assert run.try_once(operator(labeled(ids)))["counts"] == counts(skipped=2)

    def test_retry_skips_task_rejected_by_reviewer(self, sandbox, run, alone):
        ids = sandbox.seed_tasks(2)
        sandbox.fault_once("not_ok", PUT)
        with pytest.raises(RedBrickTasksFailedError):
            run.try_once(operator(labeled(ids)))
        (submitted,) = sandbox.applied(PUT)
        sandbox.humans("Review_1", accept_ratio=0)
        assert sandbox.stage_of(submitted) == "Label"
        run.try_once(operator(labeled(ids)))
        assert sandbox.applied(PUT) == dict.fromkeys(ids, 1)

    @pytest.mark.xfail(
        strict=True,
        reason="Below Airflow 3.3 the start of the run stands for that of the first attempt. In a retry, "
        "a task that another operator of the same run submitted, and a reviewer rejected, counts as this operator's.",
    )
    def test_retry_processes_task_returned_to_run(self, sandbox, run):
        ids = sandbox.seed_tasks(2)
        run.try_once(operator(labeled(ids)))
        sandbox.humans("Review_1", accept_ratio=0)
        # The next operator of the same run, whose first attempt ended before it did anything.
        run.tries = 1
        run.try_once(operator(labeled(ids)))
        assert sandbox.applied(PUT) == dict.fromkeys(ids, 2)

    def test_retry_with_state_store_processes_task_returned_to_run(self, sandbox, new_run):
        ids = sandbox.seed_tasks(2)
        new_run(task_state_store=StateStore()).try_once(operator(labeled(ids)))
        sandbox.humans("Review_1", accept_ratio=0)
        other = new_run(task_state_store=StateStore())
        other.tries = 1
        assert other.try_once(operator(labeled(ids)))["counts"] == counts(done=2)
        assert sandbox.applied(PUT) == dict.fromkeys(ids, 2)

    def test_retry_releases_claims_it_cannot_process(self, sandbox, run, killed_attempt, quick, whereabouts):
        ids = sandbox.seed_tasks(25)
        killed_attempt(operator(labeled(ids)), after_change=1)
        assert "key" in {task.owner for task in whereabouts().values()}
        sandbox.fault_once("not_ok", PUT, times=25)
        with pytest.raises(RedBrickTasksFailedError):
            run.try_once(operator(labeled(ids)))
        assert {task.owner for task in whereabouts().values()} == {None}


def test_nested_upstream_output_in_labels_is_resolved(tmp_path):
    mask = tmp_path / "mask.nii.gz"  # has a method `resolve`, too, and is none
    series = [{"boundingBoxes": [literal(BOX), {**BOX, "comment": "{{ ds }}"}], "segmentations": mask}]
    tasks = [{"taskId": "{{ id }}", "series": series}]
    made = RedBrickPutLabelsOperator(task_id="put", stage_name="Label", tasks=tasks)
    made.render_template_fields({"ds": "2024-05-01", "id": "x"})
    (task,) = made.tasks
    rendered = [{"boundingBoxes": [BOX, {**BOX, "comment": "{{ ds }}"}], "segmentations": mask}]
    assert task == {"taskId": "x", "series": rendered}
    again = made.render_template({"series": rendered}, {}, None, set())
    assert again["series"] is rendered
