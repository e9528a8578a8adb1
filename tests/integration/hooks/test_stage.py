"""``RedBrickStageQueue`` and ``reopen``, with a running sandbox."""

from __future__ import annotations

import gzip
import json
import logging
from collections.abc import Mapping

import nibabel as nib
import numpy as np
import pytest
import requests
from label_samples import BOX
from sandbox_calls import ASSIGN, data

from airflow_provider_redbrick.client.operations.project import RedBrickProject
from airflow_provider_redbrick.engine.outcomes import Status
from airflow_provider_redbrick.exceptions import (
    RedBrickAPIError,
    RedBrickInputError,
    RedBrickNotReadError,
    RedBrickTasksFailedError,
)
from airflow_provider_redbrick.hooks.redbrick import RedBrickHook
from airflow_provider_redbrick.labels.legacy import image_bounding_boxes
from redbrick_sandbox.demo_project import DEMO_STAGES

PUT = "putManualLabelingTaskAndLabels"
REVIEW = "putExpertReviewTask"
CLAIM = "assignTasksMultipleUsers"
MOVE = "moveTaskToStart"
ALICE, BOB = "alice@example.com", "bob@example.com"
KEY = "API:0a9c6e10-5b1d-4c8e-9f00-0000000000a0"
UNKNOWN = "00000000-0000-4000-8000-000000000000"
FLAT_BOX = {"xnorm": 0.1, "ynorm": 0.2, "wnorm": 0.3, "hnorm": 0.4}
SERIES = [{"boundingBoxes": [BOX]}]
BAD = [{"boundingBoxes": [{**BOX, "category": "findng"}]}]


def masked(sandbox, task_id):
    """Return the highest value in a task's stored mask."""
    query = """query ($o: UUID!, $p: UUID!, $t: UUID!) { task(orgId: $o, projectId: $p, taskId: $t) {
        latestTaskData { labelsMap(presigned: true) { labelName } } } }"""
    ids = {"o": sandbox.org_id, "p": sandbox.project_id, "t": task_id}
    (entry,) = sandbox.graphql(query, ids)["task"]["latestTaskData"]["labelsMap"]
    content = requests.get(entry["labelName"], timeout=30).content
    content = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    return int(np.asanyarray(nib.Nifti1Image.from_bytes(content).dataobj).max())


@pytest.fixture
def hook(sandbox, quick):
    """A hook that backs off for milliseconds instead of seconds."""
    return RedBrickHook()


@pytest.fixture
def label(hook):
    return hook.stage("Label")


@pytest.fixture
def review(hook):
    return hook.stage("Review_1")


@pytest.fixture
def give(sandbox):
    """Assign tasks to a person or to the key, as an admin."""

    def assign(ids, email=None):
        data(sandbox, ASSIGN, ids=list(ids), emails=[email] if email else None, me=email is None, refresh=True)

    return assign


def statuses(outcomes) -> dict[str, str]:
    return {task_id: outcome.status.value for task_id, outcome in outcomes.items()}


def ids_of(tasks) -> list[str]:
    return [task.task_id for task in tasks]


class TestReading:
    def test_count_returns_server_count(self, sandbox, hook, label):
        sandbox.seed_tasks(3)
        sandbox.seed_tasks(2, ground_truth=True)
        assert label.count() == 3
        assert [hook.stage(name).count() for name in ("Ground Truth", "Output", "END", "Review_1")] == [2, 2, 2, 0]

    def test_tasks_are_listed_by_filter(self, sandbox, label):
        free, bobs = sandbox.seed_tasks(2), sandbox.seed_tasks(2, assignee=BOB)
        draft = sandbox.seed_tasks(1, assignee=ALICE, state="STAGED")
        assert ids_of(label.tasks()) == free + bobs + draft
        assert ids_of(label.tasks(unassigned=True)) == ids_of(label.tasks(state="UNASSIGNED")) == free
        assert ids_of(label.tasks(assignee=BOB)) == bobs
        assert ids_of(label.tasks(state="STAGED")) == draft
        assert ids_of(label.tasks(assignee=BOB, state="STAGED")) == []
        (task,) = label.tasks(assignee=ALICE)
        assert (task.stage_name, task.state, task.assignee.email) == ("Label", "STAGED", ALICE)

    def test_find_by_name_and_prefix(self, sandbox, label):
        ids = sandbox.seed_tasks(11, prefix="study")
        sandbox.seed_tasks(1, stage="Review_1", prefix="study")
        assert ids_of(label.find("study-000001")) == ids[:1]
        assert ids_of(label.find("study-00001", prefix=True)) == ids[9:]
        assert label.find("study-00001") == label.find("tudy", prefix=True) == []

    @pytest.mark.parametrize("quoted", ['"', '""', '"8"', '"8', '8"', 'a "b" c', '"a" "b"'])
    def test_find_name_with_quotes(self, sandbox, label, quoted):
        (one,) = sandbox.seed_tasks(1, prefix=quoted)
        sandbox.seed_tasks(11, prefix="8")
        name = f"{quoted}-000001"
        assert ids_of(label.find(quoted, prefix=True)) == ids_of(label.find(name)) == [one]
        label.submit({one: SERIES})
        assert label.find(name) == []

    def test_find_by_id_returns_nothing(self, sandbox, label):
        ids = sandbox.seed_tasks(3)
        assert label.find(ids[0]) == label.find(ids[0][:8], prefix=True) == []

    def test_tasks_moved_during_listing_are_returned_once(self, sandbox, label, seen_twice):
        ids = sandbox.seed_tasks(60, priority=0.5)
        assert sorted(ids_of(RedBrickHook().stage("Label").tasks())) == sorted(ids)
        assert len(ids_of(RedBrickHook().stage("Label").find("task", prefix=True))) == 60
        assert len(seen_twice) == 2

    def test_listed_task_without_labels_raises_not_read(self, sandbox, label):
        """Picking unlabeled tasks must not overwrite what people have labeled."""
        sandbox.seed_tasks(1, labels=[{"category": "finding", "attributes": [], "bbox2d": FLAT_BOX}])
        for task in (*label.tasks(), *label.find("task", prefix=True)):
            for name in ("labels", "labels_map", "series", "classification", "items", "item_urls", "series_info"):
                assert getattr(task, name) is None
                assert name in task.unread
            assert task.labels_by is task.labels_at is task.labels_id is None
            for question in ("has_labels", "has_masks", "masks", "mask_paths"):
                with pytest.raises(RedBrickNotReadError, match=rf"{task.task_id}: labels.* not read.*read\(task_ids\)"):
                    getattr(task, question)
            with pytest.raises(RedBrickNotReadError, match="labels_by was not read"):
                task.saved_by(KEY)
            assert not task.held_by(KEY)
            assert task.is_queued_in("Label")
            assert task.metadata == {}

    def test_task_read_in_full_has_all_fields(self, sandbox, label):
        flat = [{"category": "finding", "attributes": [], "bbox2d": FLAT_BOX}]
        with_labels, without = sandbox.seed_tasks(30, labels=flat), sandbox.seed_tasks(2)
        read = list(label.read([task.task_id for task in label.tasks(unassigned=True)]))
        assert ids_of(read) == with_labels + without
        assert [task.task_id for task in read if not task.has_labels] == without
        assert read[0].series == ({"boundingBoxes": [BOX]},)
        assert read[-1].series == ({},)
        assert read[-1].labels == ()
        assert read[-1].classification is None
        assert read[0].unread == {"created_at", "assigned_at", "saved_at"}

    def test_read_returns_tasks_of_any_stage_in_order(self, sandbox, label):
        review = sandbox.seed_tasks(1, stage="Review_1")
        assert [task.stage_name for task in label.read(review)] == ["Review_1"]
        assert list(label.read([])) == []
        with pytest.raises(RedBrickAPIError, match=UNKNOWN):
            list(label.read([*review, UNKNOWN]))

    def test_mine_returns_held_tasks_with_labels(self, sandbox, label, give):
        ids = sandbox.seed_tasks(30, labels=[{"category": "finding", "attributes": [], "bbox2d": FLAT_BOX}])
        give(ids[2:])
        mine = label.mine()
        assert ids_of(mine) == ids[2:]
        assert mine[0].series == ({"boundingBoxes": [BOX]},)
        assert len(mine[0].item_urls) == 1

    def test_mine_with_unreadable_task_raises(self, sandbox, label, give):
        give(sandbox.seed_tasks(2))
        sandbox.fault_once("gql_partial", "task", times=2)
        with pytest.raises(RedBrickAPIError, match="RedBrick answered with an error"):
            label.mine()

    @pytest.mark.parametrize(
        "filters",
        [
            {"assignee": " "},
            {"state": "DRAFT"},
            {"unassigned": True, "assignee": BOB},
            {"unassigned": True, "state": "STAGED"},
        ],
        ids=repr,
    )
    def test_tasks_with_contradictory_filters_are_refused(self, sandbox, label, filters):
        with pytest.raises(RedBrickInputError):
            label.tasks(**filters)
        assert sandbox.stats()["requests"] == 0


class TestStageSelection:
    def test_stage_added_later_is_found(self, sandbox, hook):
        project = hook.project()
        assert project.stage("Label").name == "Label"
        sandbox.change_stages(json.loads(json.dumps(DEMO_STAGES).replace("Review_1", "Review_2")))
        assert project.stage("Review_2").is_review
        with pytest.raises(RedBrickInputError, match="no stage 'Review_1'; its stages are: Input, Label, Review_2"):
            project.stage("Review_1")

    def test_known_stage_is_not_read_again(self, sandbox, hook):
        queue = hook.stage("Label")
        for _ in range(3):
            queue.count()
        assert sandbox.stats()["root_fields"] == {"project": 1, "tasksPaged": 3}

    def test_unknown_stage_is_refused(self, sandbox, hook):
        with pytest.raises(RedBrickInputError, match="no stage 'Labl'; its stages are: Input, Label, Review_1"):
            hook.stage("Labl").count()

    @pytest.mark.parametrize("name", ["", " ", None])
    def test_blank_stage_name_is_refused(self, sandbox, hook, name):
        with pytest.raises(RedBrickInputError, match="stage_name must not be empty"):
            hook.stage(name)
        assert sandbox.stats()["requests"] == 0

    @pytest.mark.parametrize(
        ("stage", "words"),
        [("END", "Tasks in Ground Truth are finished"), ("Input", "Tasks only pass through 'Input'")],
    )
    def test_stage_without_queue_is_refused(self, sandbox, hook, stage, words):
        queue = hook.stage(stage)
        ids = sandbox.seed_tasks(1, ground_truth=True)
        for work in (
            lambda: queue.claim(1),
            lambda: queue.submit({ids[0]: SERIES}),
            lambda: queue.accept(ids),
            lambda: queue.assign(ids, BOB),
            lambda: queue.release(ids),
        ):
            with pytest.raises(RedBrickInputError, match=words):
                work()
        assert sandbox.stats()["applied"] == {}

    def test_submit_and_review_need_matching_stage(self, sandbox, label, review):
        with pytest.raises(
            RedBrickInputError,
            match=r"'Review_1' is a review stage\. Use correct\(\) to replace and accept labels there",
        ):
            review.submit({UNKNOWN: SERIES})
        for work in (
            lambda: label.accept([UNKNOWN]),
            lambda: label.reject([UNKNOWN]),
            lambda: label.correct({UNKNOWN: SERIES}),
        ):
            with pytest.raises(RedBrickInputError, match="'Label' is not a review stage"):
                work()

    def test_remote_labeling_stage_is_refused(self, sandbox, hook):
        stages = [
            {"stageName": "Input", "brickName": "labelset-input", "routing": {"nextStageName": "Model"}},
            {"stageName": "Model", "brickName": "remote-labeling", "routing": {"nextStageName": "Label"}},
            {"stageName": "Label", "brickName": "manual-labeling", "routing": {"nextStageName": "Output"}},
            {"stageName": "Output", "brickName": "labelset-output", "routing": {"nextStageName": "END"}},
        ]
        other = sandbox.add_project(stages)
        (task_id,) = sandbox.seed_tasks(1, project_id=other, stage="Model")
        queue = hook.stage("Model", project_id=other)
        assert queue.count() == 1
        for work in (lambda: queue.claim(1), lambda: queue.submit({task_id: SERIES})):
            with pytest.raises(RedBrickInputError, match=r"remote-labeling stage\. Use RedBrickPrelabelOperator there"):
                work()

    def test_stage_of_other_project_is_used(self, sandbox, hook):
        other = sandbox.add_project()
        sandbox.seed_tasks(1)
        ids = sandbox.seed_tasks(2, project_id=other)
        assert ids_of(hook.stage("Label", project_id=other).tasks()) == ids
        assert ids_of(hook.stage("Label", project_id=other, org_id=sandbox.org_id).claim(1)) == ids[:1]

    def test_consensus_project_refuses_claim_assign_and_release(self, sandbox, hook):
        other = sandbox.add_project(consensus=True)
        (task_id,) = sandbox.seed_tasks(1, project_id=other)
        queue = hook.stage("Label", project_id=other)
        for work in (
            lambda: queue.claim(1),
            lambda: queue.assign([task_id], BOB),
            lambda: queue.release([task_id]),
        ):
            with pytest.raises(RedBrickInputError, match="In a consensus project several people label each task"):
                work()
        with pytest.raises(RedBrickTasksFailedError, match="in stage 'Label' is not assigned to you"):
            queue.submit({task_id: SERIES})
        data(sandbox, ASSIGN, p=other, ids=[task_id], me=True)
        assert statuses(queue.submit({task_id: SERIES})) == {task_id: "done"}
        assert set(sandbox.applied(CLAIM).values()) == {1}


class TestClaim:
    def test_claim_returns_first_tasks_in_full(self, sandbox, label, holders):
        bobs = sandbox.seed_tasks(2, assignee=BOB)
        free = sandbox.seed_tasks(4, labels=[{"category": "finding", "attributes": [], "bbox2d": FLAT_BOX}])
        tasks = label.claim(3)
        assert ids_of(tasks) == free[:3]
        assert holders("Label") == {**dict.fromkeys(bobs, BOB), **dict.fromkeys(free[:3], KEY), free[3]: None}
        assert tasks[0].series == ({"boundingBoxes": [BOX]},)
        assert (tasks[0].assignee.user_id, len(tasks[0].item_urls)) == (KEY, 1)

    def test_claim_beyond_queue_returns_remaining_tasks(self, sandbox, label):
        ids = sandbox.seed_tasks(2)
        assert ids_of(label.claim(10)) == ids
        assert label.claim(10) == []
        assert ids_of(label.mine()) == ids

    def test_claim_many_takes_few_requests(self, sandbox, label):
        ids = sandbox.seed_tasks(70)
        assert ids_of(label.claim(60)) == ids[:60]

    def test_claim_of_task_taken_meanwhile_leaves_it(self, sandbox, label, holders, monkeypatch, give):
        ids = sandbox.seed_tasks(3)
        sent = RedBrickProject.claim

        def late(project, task_ids):
            given = sent(project, task_ids)
            give(ids[1:2], BOB)
            return given

        monkeypatch.setattr(RedBrickProject, "claim", late)
        assert ids_of(label.claim(3)) == [ids[0], ids[2]]
        assert holders("Label") == {ids[0]: KEY, ids[1]: BOB, ids[2]: KEY}

    @pytest.mark.parametrize("fault", ["drop_before", "drop_after", "http_503"])
    def test_claim_with_lost_answer_is_resolved(self, sandbox, label, fault):
        ids = sandbox.seed_tasks(3)
        sandbox.fault_once(fault, CLAIM)
        assert ids_of(label.claim(3)) == ids
        assert sandbox.applied(CLAIM) == dict.fromkeys(ids, 1)

    def test_claim_refused_by_server_raises(self, sandbox, label, holders):
        ids = sandbox.seed_tasks(2)
        sandbox.fault_once("gql_error", CLAIM)
        with pytest.raises(RedBrickTasksFailedError, match=r"claim: of 2 tasks .* 2 failed"):
            label.claim(2)
        assert holders("Label") == dict.fromkeys(ids)

    def test_claimed_task_that_cannot_be_read_is_released(self, sandbox, label, holders, caplog):
        ids = sandbox.seed_tasks(3)
        sandbox.fault_once("gql_partial", "task", times=2)
        with caplog.at_level(logging.WARNING, "airflow_provider_redbrick.hooks.stage"):
            claimed = ids_of(label.claim(3))
        assert len(claimed) == 2
        (lost,) = set(ids) - set(claimed)
        assert holders("Label") == {**dict.fromkeys(claimed, KEY), lost: None}
        assert (
            f"Task {lost} was not claimed: It could not be claimed: it could not be read after its claim" in caplog.text
        )

    def test_claim_with_failed_read_releases_all(self, sandbox, label, holders):
        ids = sandbox.seed_tasks(3)
        sandbox.fault_once("gql_error", "task")
        with pytest.raises(RedBrickTasksFailedError, match="could not be read after its claim"):
            label.claim(3)
        assert holders("Label") == dict.fromkeys(ids)

    @pytest.mark.parametrize("count", [0, -1, None, True, "many", 1.5])
    def test_claim_with_invalid_count_is_refused(self, sandbox, label, count):
        with pytest.raises(RedBrickInputError, match="count must be a whole number of at least 1"):
            label.claim(count)
        assert sandbox.stats()["requests"] == 0


class TestSubmit:
    @pytest.mark.parametrize(
        ("labels", "kind"),
        [
            (SERIES, "bbox2d"),
            ({"series": SERIES}, "bbox2d"),
            ({"classification": {"attributes": {"abnormal": True}}}, "studyclassify"),
            ({"labels": [{"category": "finding", "attributes": [], "bbox2d": FLAT_BOX}]}, "bbox2d"),
            (image_bounding_boxes([{"category": [["object", "finding"]], "bbox2d": FLAT_BOX}]), "bbox2d"),
        ],
    )
    def test_submit_accepts_all_label_forms(self, sandbox, label, labels, kind):
        (task_id,) = sandbox.seed_tasks(1)
        (task,) = label.claim(1)
        assert statuses(label.submit({task.task_id: labels})) == {task_id: "done"}
        found = sandbox.task(task_id)
        assert found["stage"] == "Review_1"
        assert [kind in each for each in found["labels"]] == [True]

    def test_submit_many_takes_few_requests(self, sandbox, label):
        ids = sandbox.seed_tasks(50)
        tasks = label.claim(50)
        before = sandbox.stats()["requests"]
        assert statuses(label.submit({task.task_id: SERIES for task in tasks})) == dict.fromkeys(ids, "done")
        assert sandbox.applied(PUT) == dict.fromkeys(ids, 1)
        # Two conversions, two reads, and requests whose number does not grow with the tasks.
        assert sandbox.stats()["requests"] - before <= 50 + 8

    def test_submit_claims_unassigned_and_skips_assigned_tasks(self, sandbox, label, caplog):
        (free,), (bobs,) = sandbox.seed_tasks(1), sandbox.seed_tasks(1, assignee=BOB)
        (there,) = sandbox.seed_tasks(1, stage="Review_1")
        with caplog.at_level(logging.WARNING, "airflow_provider_redbrick.hooks.stage"):
            outcomes = label.submit(dict.fromkeys([free, bobs, there], SERIES))
        assert statuses(outcomes) == {free: "done", bobs: "skipped", there: "skipped"}
        assert outcomes[there].reason == "it is in Review_1, not waiting in Label"
        assert sandbox.applied(PUT) == {free: 1}
        assert sandbox.task(bobs)["owner"] == BOB
        # Scripts may ignore the returned outcomes, so the skip is also logged.
        assert f"submit: task {bobs} was skipped: it is in Label, assigned to {BOB}" in caplog.text

    def test_submit_with_one_failure_processes_the_rest(self, sandbox, label):
        ids = sandbox.seed_tasks(3)
        labels = {ids[0]: SERIES, ids[1]: BAD, ids[2]: SERIES}
        with pytest.raises(RedBrickTasksFailedError) as caught:
            label.submit(labels)
        words = str(caught.value)
        assert words.startswith("submit: of 3 tasks 2 done, 0 already done, 0 skipped, 1 failed, 0 unknown. Task ")
        assert f"Task {ids[1]}: Its labels cannot be sent: " in words
        assert "did you mean 'finding'?" in words
        assert [sandbox.stage_of(task_id) for task_id in ids] == ["Review_1", "Label", "Review_1"]
        assert sandbox.task(ids[1])["owner"] is None

    def test_submit_failure_keeps_earlier_claim(self, sandbox, label):
        (task,) = sandbox.seed_tasks(1) and label.claim(1)
        with pytest.raises(RedBrickTasksFailedError):
            label.submit({task.task_id: BAD})
        assert ids_of(label.mine()) == [task.task_id]

    @pytest.mark.parametrize("fault", ["drop_before", "drop_after", "http_500", "http_503", "html"])
    def test_submit_with_lost_answer_is_resolved(self, sandbox, label, fault):
        ids = sandbox.seed_tasks(4)
        sandbox.fault_once(fault, PUT)
        assert statuses(label.submit(dict.fromkeys(ids, SERIES))) == dict.fromkeys(ids, "done")
        assert sandbox.applied(PUT) == dict.fromkeys(ids, 1)

    def test_submit_again_skips_moved_tasks(self, sandbox, label):
        (task_id,) = sandbox.seed_tasks(1)
        label.submit({task_id: SERIES})
        (outcome,) = label.submit({task_id: SERIES}).values()
        assert outcome.status is Status.SKIPPED
        assert outcome.reason == "it is in Review_1, not waiting in Label"

    def test_submit_with_validate_warn_sends_invalid_labels(self, sandbox, hook):
        (task_id,) = sandbox.seed_tasks(1)
        assert statuses(hook.stage("Label", validate="off").submit({task_id: BAD})) == {task_id: "done"}

    @pytest.mark.parametrize(
        ("labels", "words"),
        [
            (None, "labels must be an object with labels by task id, not NoneType"),
            ([{"taskId": UNKNOWN, "series": SERIES}], "labels must be an object with labels by task id, not list"),
            ({"": SERIES}, "A key of labels must be a UUID, not ''"),
            (
                {"AAAAAAAA-0000-4000-8000-000000000000": SERIES, "aaaaaaaa-0000-4000-8000-000000000000": SERIES},
                "two entries",
            ),
            ({UNKNOWN: None}, rf"labels\['{UNKNOWN}'\]: labels must be an object with 'series'"),
            ({UNKNOWN: {"boundingBoxes": [BOX]}}, r"not dict with \['boundingBoxes'\]"),
        ],
    )
    def test_submit_of_non_labels_sends_no_request(self, sandbox, label, review, labels, words):
        for send in (label.submit, label.save_draft, review.correct):
            with pytest.raises(RedBrickInputError, match=words):
                send(labels)
        assert sandbox.stats()["requests"] == 0

    def test_unknown_validate_mode_is_refused(self, sandbox, hook):
        with pytest.raises(RedBrickInputError, match="validate must be one of 'strict', 'warn', 'off', not 'lax'"):
            hook.stage("Label", validate="lax")


class TestLazyMappings:
    """A mapping other than a dict may reuse one object or file for all of its values."""

    class Answers(Mapping):
        def __init__(self, ids, answer):
            self.ids, self.answer = ids, answer

        def __iter__(self):
            return iter(self.ids)

        def __len__(self):
            return len(self.ids)

        def __getitem__(self, key):
            return self.answer(self.ids.index(key) + 1)

    @pytest.mark.parametrize(
        ("stage", "method"), [("Label", "submit"), ("Label", "save_draft"), ("Review_1", "correct")]
    )
    def test_mapping_reusing_one_object_is_copied_per_task(self, sandbox, hook, stage, method):
        ids, box = sandbox.seed_tasks(4, stage=stage), dict(BOX)
        answer = {"series": [{"boundingBoxes": [box]}]}

        def changed(number):
            box["wNorm"] = number / 100
            return answer

        getattr(hook.stage(stage), method)(self.Answers(ids, changed))
        stored = [sandbox.task(task_id)["labels"][0]["bbox2d"]["wnorm"] for task_id in ids]
        assert stored == [0.01, 0.02, 0.03, 0.04]

    @pytest.mark.parametrize(
        ("stage", "method"), [("Label", "submit"), ("Label", "save_draft"), ("Review_1", "correct")]
    )
    def test_mapping_reusing_one_mask_file_is_copied_per_task(self, *, sandbox, hook, stage, method, tmp_path):
        ids, path = sandbox.seed_tasks(3, stage=stage), tmp_path / "m.nii.gz"

        def written(number):
            nib.save(nib.Nifti1Image(np.full((2, 2, 2), number, np.uint8), np.eye(4)), path)
            return [{"segmentations": str(path), "segmentMap": {str(number): "lesion"}}]

        getattr(hook.stage(stage), method)(self.Answers(ids, written))
        assert [masked(sandbox, task_id) for task_id in ids] == [1, 2, 3]

    def test_stored_mask_path_is_not_opened_locally(self, *, sandbox, hook, label, tmp_path, monkeypatch):
        (task_id,) = sandbox.seed_tasks(1)
        mask = nib.Nifti1Image(np.full((2, 2, 2), 1, np.uint8), np.eye(4))
        label.save_draft({task_id: [{"segmentations": mask, "segmentMap": {"1": "lesion"}}]})
        stored = next(entry["labelName"] for entry in sandbox.task(task_id)["latestTaskData"]["labelsMap"])
        monkeypatch.chdir(tmp_path)
        (tmp_path / stored).parent.mkdir(parents=True)
        nib.save(nib.Nifti1Image(np.full((2, 2, 2), 2, np.uint8), np.eye(4)), tmp_path / stored)
        answer = [{"segmentations": stored, "segmentMap": {"1": "lesion"}}]
        label.save_draft(self.Answers([task_id], lambda _: answer))
        assert masked(sandbox, task_id) == 1


class TestDraft:
    def test_draft_stays_assigned_to_key(self, sandbox, label):
        (task_id,) = sandbox.seed_tasks(1)
        assert statuses(label.save_draft({task_id: SERIES})) == {task_id: "done"}
        task = sandbox.task(task_id)
        assert (task["stage"], task["state"], task["owner"]) == ("Label", "STAGED", KEY)
        assert task["labels"][0]["bbox2d"] == FLAT_BOX

    def test_draft_in_review_stage_keeps_review_open(self, sandbox, review):
        (task_id,) = sandbox.seed_tasks(1, stage="Review_1")
        assert statuses(review.save_draft({task_id: SERIES})) == {task_id: "done"}
        assert sandbox.stage_of(task_id) == "Review_1"


class TestReviews:
    def test_accept_moves_task_forward(self, sandbox, review):
        ids = sandbox.seed_tasks(2, stage="Review_1")
        before = [sandbox.task(task_id)["labels"] for task_id in ids]
        assert statuses(review.accept(ids)) == dict.fromkeys(ids, "done")
        assert [sandbox.task(task_id)["labels"] for task_id in ids] == before
        assert {sandbox.stage_of(task_id) for task_id in ids} == {"END"}

    def test_reject_returns_task_to_labeler(self, sandbox, review):
        ids = sandbox.seed_tasks(2, stage="Review_1")
        assert statuses(review.reject(ids, comment="There is no box.")) == dict.fromkeys(ids, "done")
        assert {sandbox.stage_of(task_id) for task_id in ids} == {"Label"}
        assert sandbox.applied(REVIEW) == dict.fromkeys(ids, 1)

    def test_correct_replaces_labels_and_accepts(self, sandbox, review):
        (task_id,) = sandbox.seed_tasks(1, stage="Review_1")
        assert statuses(review.correct({task_id: SERIES})) == {task_id: "done"}
        task = sandbox.task(task_id)
        assert (task["stage"], task["labels"][0]["bbox2d"]) == ("END", FLAT_BOX)
        assert sandbox.applied(REVIEW) == {}

    def test_review_comments_are_stored(self, sandbox, review):
        (task_id,) = sandbox.seed_tasks(1, stage="Review_1")
        review.accept([task_id], comment="fine")
        document = """query ($o: UUID!, $p: UUID!, $t: UUID!) { task(orgId: $o, projectId: $p, taskId: $t) {
            genericEvents { ... on Comment { textVal } } } }"""
        events = data(sandbox, document, t=task_id)["genericEvents"]
        assert [event["textVal"] for event in events if event] == ["fine"]

    def test_review_of_unknown_task_fails_alone(self, sandbox, review):
        (task_id,) = sandbox.seed_tasks(1, stage="Review_1")
        with pytest.raises(RedBrickTasksFailedError, match=r"accept: of 2 tasks 1 done.*There is no such task"):
            review.accept([task_id, UNKNOWN])
        assert sandbox.stage_of(task_id) == "END"

    @pytest.mark.parametrize("task_ids", [UNKNOWN, "", None, [""], [None], ["{{ task }}"]])
    def test_review_with_invalid_input_sends_no_request(self, sandbox, review, task_ids):
        for work in (review.accept, review.reject, review.release, lambda ids: review.assign(ids, BOB)):
            with pytest.raises(RedBrickInputError):
                work(task_ids)
        with pytest.raises(RedBrickInputError, match="comment must not be empty"):
            review.reject([UNKNOWN], comment=" ")
        assert sandbox.stats()["requests"] == 0


class TestAssign:
    def test_assign_replaces_any_holder(self, sandbox, label, holders):
        ids = [*sandbox.seed_tasks(1), *sandbox.seed_tasks(1, assignee=ALICE), *sandbox.seed_tasks(1, assignee=BOB)]
        outcomes = label.assign(ids, BOB.upper())
        assert statuses(outcomes) == {ids[0]: "done", ids[1]: "done", ids[2]: "already_done"}
        assert holders("Label") == dict.fromkeys(ids, BOB)
        assert sandbox.applied(CLAIM) == dict.fromkeys(ids[:2], 1)

    def test_assign_many_takes_few_requests(self, sandbox, label, holders):
        ids = sandbox.seed_tasks(60)
        label.assign(ids, BOB)
        assert set(holders("Label").values()) == {BOB}
        assert sandbox.stats()["root_fields"][CLAIM] == 3

    def test_assign_skips_tasks_of_other_stages(self, sandbox, label, hook):
        (there,) = sandbox.seed_tasks(1, stage="Review_1")
        (outcome,) = label.assign([there], BOB).values()
        assert outcome.reason == "it is in Review_1, not waiting in Label"
        with pytest.raises(RedBrickTasksFailedError, match="There is no such task"):
            label.assign([UNKNOWN], BOB)

    def test_assign_with_lost_answer_is_resolved(self, sandbox, label):
        ids = sandbox.seed_tasks(3)
        sandbox.fault_once("drop_after", CLAIM)
        assert statuses(label.assign(ids, BOB)) == dict.fromkeys(ids, "done")
        assert sandbox.applied(CLAIM) == dict.fromkeys(ids, 1)

    @pytest.mark.parametrize("email", ["", " ", None])
    def test_assign_with_blank_email_is_refused(self, sandbox, label, email):
        ids = sandbox.seed_tasks(1, assignee=BOB)
        with pytest.raises(RedBrickInputError, match="email must not be empty"):
            label.assign(ids, email)
        assert sandbox.stats()["requests"] == 0

    def test_assign_to_person_without_access_is_refused(self, sandbox, label, review):
        with pytest.raises(
            RedBrickInputError, match=r"Not members of the project: zoe@example.com. Its members are: a"
        ):
            label.assign(sandbox.seed_tasks(1), "zoe@example.com")
        with pytest.raises(RedBrickInputError, match=f"No access to stage Review_1: {ALICE}"):
            review.assign(sandbox.seed_tasks(1, stage="Review_1"), ALICE)
        assert sandbox.stats()["applied"] == {}


class TestRelease:
    def test_release_changes_only_tasks_of_key(self, sandbox, label, holders, give):
        (mine,), (bobs,), (free,) = sandbox.seed_tasks(1), sandbox.seed_tasks(1, assignee=BOB), sandbox.seed_tasks(1)
        (there,) = sandbox.seed_tasks(1, stage="Review_1")
        give([mine])
        outcomes = label.release([mine, bobs, free, there])
        assert statuses(outcomes) == {mine: "done", bobs: "skipped", free: "skipped", there: "skipped"}
        assert outcomes[bobs].reason == f"this key does not hold it: it is in Label, assigned to {BOB}"
        assert holders("Label") == {mine: None, bobs: BOB, free: None}


class TestReopen:
    def test_reopen_returns_ground_truth_with_labels(self, sandbox, hook):
        ids = sandbox.seed_tasks(2, ground_truth=True)
        before = [sandbox.task(task_id)["labels"] for task_id in ids]
        assert statuses(hook.reopen(ids)) == dict.fromkeys(ids, "done")
        assert [sandbox.task(task_id)["labels"] for task_id in ids] == before
        assert {sandbox.stage_of(task_id) for task_id in ids} == {"Label"}

    def test_reopen_skips_tasks_in_review_and_fails_unknown(self, sandbox, hook):
        (there,) = sandbox.seed_tasks(1, stage="Review_1")
        assert statuses(hook.reopen([there])) == {there: "skipped"}
        with pytest.raises(RedBrickTasksFailedError, match=r"reopen: of 2 tasks .*There is no such task"):
            hook.reopen([there, UNKNOWN])

    def test_reopen_with_lost_answer_is_resolved(self, sandbox, hook):
        ids = sandbox.seed_tasks(3, ground_truth=True)
        sandbox.fault_once("drop_after", MOVE)
        assert statuses(hook.reopen(ids)) == dict.fromkeys(ids, "done")
        assert sandbox.applied(MOVE) == dict.fromkeys(ids, 1)

    def test_reopen_in_other_project(self, sandbox, hook):
        other = sandbox.add_project()
        ids = sandbox.seed_tasks(1, ground_truth=True, project_id=other)
        assert statuses(hook.reopen(ids, project_id=other)) == dict.fromkeys(ids, "done")

    @pytest.mark.parametrize("task_ids", [UNKNOWN, None, [""]])
    def test_reopen_with_malformed_ids_is_refused(self, sandbox, hook, task_ids):
        with pytest.raises(RedBrickInputError):
            hook.reopen(task_ids)
        assert sandbox.stats()["requests"] == 0


def test_empty_input_returns_no_outcomes(sandbox, hook, label, review):
    assert label.submit({}) == label.save_draft({}) == review.correct({}) == {}
    assert review.accept([]) == review.reject([]) == label.release([]) == label.assign([], BOB) == hook.reopen([]) == {}
    assert sandbox.stats()["applied"] == {}


def test_error_names_first_five_failures(sandbox, label):
    ids = sandbox.seed_tasks(7)
    with pytest.raises(RedBrickTasksFailedError) as caught:
        label.submit(dict.fromkeys(ids, BAD))
    assert "of 7 tasks 0 done, 0 already done, 0 skipped, 7 failed, 0 unknown." in str(caught.value)
    assert str(caught.value).count("Task ") == 5
