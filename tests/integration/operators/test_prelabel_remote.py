"""``RedBrickPrelabelOperator`` in remote-labeling stages of first-generation servers."""

from __future__ import annotations

import pytest
from fixtures import counts
from label_samples import BOX

from airflow_provider_redbrick.exceptions import RedBrickInputError, RedBrickTasksFailedError
from airflow_provider_redbrick.operators.prelabel import RedBrickPrelabelOperator
from airflow_provider_redbrick.sensors.stage_queue import RedBrickStageQueueSensor

STAGE = "Model_Predict"
PUT, FINISH = "putLabels", "putRemoteLabelingTask"


def stages(output="IMAGE_BBOX"):
    return [
        {"stageName": "Input", "brickName": "labelset-input", "routing": {"nextStageName": STAGE}},
        {
            "stageName": STAGE,
            "brickName": "remote-labeling",
            "routing": {"nextStageName": "Label"},
            "stageConfig": {"outputType": output},
        },
        {"stageName": "Label", "brickName": "manual-labeling", "routing": {"nextStageName": "Output"}},
        {"stageName": "Output", "brickName": "labelset-output", "routing": {"nextStageName": "END"}},
    ]


@pytest.fixture
def project_id(sandbox):
    return sandbox.add_project(stages())


@pytest.fixture
def waiting(sandbox, project_id):
    """Tasks that wait in the remote-labeling stage."""
    return sandbox.seed_tasks(7, project_id=project_id, stage=STAGE)


def predict(task):
    assert task.item_urls
    return {"series": [{"boundingBoxes": [{**BOX, "attributes": {"score": 0.5}}]}]}


def prelabel(project_id, labeler=predict, **options):
    return RedBrickPrelabelOperator(task_id="p", stage_name=STAGE, project_id=project_id, labeler=labeler, **options)


class TestSubmit:
    def test_remote_queue_is_labeled_completely(self, sandbox, run, project_id, waiting):
        assert run.try_once(prelabel(project_id))["counts"] == counts(done=7)
        assert sandbox.applied(PUT) == sandbox.applied(FINISH) == dict.fromkeys(waiting, 1)
        assert "assignTasksMultipleUsers" not in sandbox.stats()["root_fields"]
        task = sandbox.task(waiting[0], project_id=project_id)
        assert task["stage"] == "Label"
        (label,) = task["labels"]
        assert label["category"] == [["object", "finding"]]
        assert label["bbox2d"] == {"xnorm": 0.1, "ynorm": 0.2, "wnorm": 0.3, "hnorm": 0.4}
        assert label["attributes"] == [{"name": "score", "value": 0.5}]

    def test_limit_and_task_ids_select_tasks(self, sandbox, run, new_run, project_id, waiting):
        assert run.try_once(prelabel(project_id, limit=2))["counts"] == counts(done=2)
        assert new_run().try_once(prelabel(project_id, task_ids=waiting[4:5]))["counts"] == counts(done=1)
        assert set(sandbox.applied(FINISH)) == {*waiting[:2], waiting[4]}

    def test_queue_beyond_one_page_with_skipped_tasks_is_read(self, sandbox, run, project_id, monkeypatch):
        ids = sandbox.seed_tasks(90, project_id=project_id, stage=STAGE)
        monkeypatch.setenv("AIRFLOW_CONN_REDBRICK_DEFAULT", f"{sandbox.airflow_conn_uri}&page_size=20")
        left = set(ids[:40])
        made = run.try_once(prelabel(project_id, lambda task: None if task.task_id in left else predict(task)))
        assert made["counts"] == counts(done=50, skipped=40)
        assert set(sandbox.applied(FINISH)) == set(ids) - left

    def test_queue_beyond_listing_limit_processes_first_page(self, sandbox, run, project_id, monkeypatch):
        sandbox.seed_tasks(60, project_id=project_id, stage=STAGE)
        sandbox.behavior(max_page=30)
        monkeypatch.setenv("AIRFLOW_CONN_REDBRICK_DEFAULT", f"{sandbox.airflow_conn_uri}&page_size=20")
        made = run.try_once(prelabel(project_id, lambda task: None))
        assert made["counts"]["skipped"] == 20

    def test_legacy_labels_are_submitted(self, sandbox, run, project_id, waiting):
        label = {
            "category": [["object", "anatomy", "vessel"]],
            "bbox2d": {"xnorm": 0, "ynorm": 0, "wnorm": 1, "hnorm": 1},
        }
        run.try_once(prelabel(project_id, lambda task: {"labels": [label]}, limit=1))
        (stored,) = sandbox.task(waiting[0], project_id=project_id)["labels"]
        assert stored["category"] == [["object", "anatomy", "vessel"]]

    def test_video_labels_are_sent(self, sandbox, run):
        project_id = sandbox.add_project(stages("VIDEO_BBOX"))
        (task_id,) = sandbox.seed_tasks(1, project_id=project_id, stage=STAGE)
        box = {
            **BOX,
            "category": ["measurement", "bend"],
            "video": {"frameIndex": 3, "trackId": "t", "keyFrame": False},
        }
        run.try_once(prelabel(project_id, lambda task: [{"boundingBoxes": [box]}]))
        (stored,) = sandbox.task(task_id, project_id=project_id)["labels"]
        assert stored["category"] == [["object", "measurement", "bend"]]
        assert {key: stored[key] for key in ("frameindex", "trackid", "keyframe", "end")} == {
            "frameindex": 3,
            "trackid": "t",
            "keyframe": False,
            "end": True,
        }

    def test_sensor_counts_waiting_tasks(self, sandbox, run, project_id, waiting):
        wait = RedBrickStageQueueSensor(task_id="w", stage_name=STAGE, project_id=project_id, at_least=7, timeout=5)
        run.try_once(wait)
        # The second look confirms the first one, which may be stale.
        assert sandbox.stats()["root_fields"]["stageStat"] == 2


BAD = {
    "unknown category": ({"boundingBoxes": [{**BOX, "category": "fnding"}]}, "did you mean 'finding'"),
    "no path": ({"boundingBoxes": [{**BOX, "category": ["measurement", "finding"]}]}, "unknown category"),
    "no box": (
        {"landmarks": [{"point": {"xNorm": 0, "yNorm": 0}, "category": "landmark"}]},
        "stage accepts only boxes",
    ),
    "no kind of then": (
        {"landmarks3d": [{"point": {"i": 0, "j": 0, "k": 0}, "category": "landmark"}]},
        "has no type that a remote-labeling stage accepts",
    ),
    "a classification": ({"classifications": [{"attributes": {}}]}, "has no type that"),
    "a mask": ({"segmentations": "there.nii", "segmentMap": {"1": "lesion"}}, "masks have no place"),
}


class TestBadLabels:
    @pytest.mark.parametrize(("series", "words"), BAD.values(), ids=[name.replace(" ", "_") for name in BAD])
    def test_invalid_labels_fail_task_alone(self, *, sandbox, run, project_id, waiting, series, words):
        bad = waiting[0]
        labeler = lambda task: [series] if task.task_id == bad else predict(task)  # noqa: E731
        with pytest.raises(RedBrickTasksFailedError, match=words):
            run.try_once(prelabel(project_id, labeler))
        assert set(sandbox.applied(PUT)) == set(sandbox.applied(FINISH)) == set(waiting[1:])

    def test_video_box_without_frame_fails_task(self, sandbox, run):
        project_id = sandbox.add_project(stages("VIDEO_BBOX"))
        sandbox.seed_tasks(1, project_id=project_id, stage=STAGE)
        with pytest.raises(RedBrickTasksFailedError, match="has no frameindex"):
            run.try_once(prelabel(project_id))


class TestRetry:
    @pytest.mark.parametrize("mutation", [PUT, FINISH])
    @pytest.mark.parametrize("fault", ["drop_after", "drop_before", "http_500", "gql_error", "not_ok", "html"])
    def test_retries_submit_each_task_once(
        self, *, sandbox, finish, quick, pairs, project_id, waiting, fault, mutation
    ):
        sandbox.fault_once(fault, mutation, skip=2, times=2)
        finish(lambda: prelabel(project_id))
        assert sandbox.applied(FINISH) == dict.fromkeys(waiting, 1)
        assert sandbox.count("Label", project_id=project_id) == 7

    def test_retry_after_kill_submits_the_rest(self, sandbox, killed_attempt, finish, project_id, waiting):
        killed_attempt(prelabel(project_id), after_change=5)
        finish(lambda: prelabel(project_id, task_ids=waiting))
        assert sandbox.applied(FINISH) == dict.fromkeys(waiting, 1)


class TestInput:
    @pytest.mark.parametrize("write", ["draft", "draft_and_release"])
    def test_draft_writes_are_refused(self, sandbox, run, project_id, waiting, write):
        with pytest.raises(RedBrickInputError, match=r"remote-labeling stage\. Only write='submit' works there"):
            run.try_once(prelabel(project_id, write=write))
        assert sandbox.applied(PUT) == {}
