"""Labels that the server's conversion drops, and labels on missing items, fail their task."""

from __future__ import annotations

import json

import pytest
from fixtures import counts
from label_samples import BOX
from pydicom.data import get_testdata_file

from airflow_provider_redbrick.client.operations.account import RedBrickClient
from airflow_provider_redbrick.exceptions import RedBrickTasksFailedError
from airflow_provider_redbrick.hooks.redbrick import RedBrickHook
from airflow_provider_redbrick.operators.auto_review import RedBrickAutoReviewOperator, Review
from airflow_provider_redbrick.operators.prelabel import RedBrickPrelabelOperator
from airflow_provider_redbrick.operators.put_labels import RedBrickPutLabelsOperator
from airflow_provider_redbrick.operators.upload_tasks import RedBrickUploadTasksOperator

CT, MR = get_testdata_file("CT_small.dcm"), get_testdata_file("MR_small.dcm")
FLAT = {"category": "finding", "attributes": [], "bbox2d": {"xnorm": 0, "ynorm": 0, "wnorm": 1, "hnorm": 1}}
CUBOID = {"category": "volume", "point1": {"i": 1, "j": 2, "k": 3}, "point2": {"i": 4, "j": 5, "k": 6}}
LOST = "RedBrick's conversion differs from the labels: "


def put(stage, labels, **options):
    tasks = [{"taskId": task_id, **body} for task_id, body in labels.items()]
    return RedBrickPutLabelsOperator(task_id="t", stage_name=stage, tasks=tasks, **options)


def draft(stage, labels):
    return put(stage, labels, finalize=False)


def from_file(stage, labels, tmp_path):
    path = tmp_path / "labels.jsonl"
    path.write_text("".join(json.dumps({"taskId": task_id, **body}) + "\n" for task_id, body in labels.items()))
    return RedBrickPutLabelsOperator(task_id="t", stage_name=stage, labels_path=str(path))


def prelabel(write):
    def make(stage, labels):
        answer = lambda task: labels[task.task_id]  # noqa: E731
        options = {"task_ids": list(labels), "write": write, "stage_name": stage}
        return RedBrickPrelabelOperator(task_id="t", labeler=answer, **options)

    return make


def correct(stage, labels):
    answer = lambda task: Review.correct(**labels[task.task_id])  # noqa: E731
    return RedBrickAutoReviewOperator(task_id="t", stage_name=stage, task_ids=list(labels), reviewer=answer)


def reviews(stage, labels):
    listed = [{"taskId": task_id, **body} for task_id, body in labels.items()]
    return RedBrickAutoReviewOperator(task_id="t", stage_name=stage, reviews=listed)


IN_LABEL = {
    "put": put,
    "put a draft": draft,
    "submit": prelabel("submit"),
    "draft": prelabel("draft"),
    "release": prelabel("draft_and_release"),
    "anywhere": prelabel("anywhere"),
}
IN_REVIEW = {"correct": correct, "reviews": reviews, "put in review": put}
EVERY = {**{name: ("Label", make) for name, make in IN_LABEL.items()}}
EVERY |= {name: ("Review_1", make) for name, make in IN_REVIEW.items()}


@pytest.fixture(params=EVERY, ids=[name.replace(" ", "_") for name in EVERY])
def way(request):
    return EVERY[request.param]


def changes(sandbox):
    """Return the tasks that were changed by more than claims and releases."""
    applied = sandbox.stats()["applied"]
    return {
        task_id for task_id, made in applied.items() if made.keys() - {"assignTasksMultipleUsers", "updateTaskItems"}
    }


class TestLostLabels:
    def test_lost_labels_fail_task_with_both_counts(self, sandbox, new_run, way):
        stage, make = way
        sandbox.behavior(conversion="omit")
        lost, empty = sandbox.seed_tasks(2, stage=stage, labels=[FLAT])
        run = new_run()
        with pytest.raises(RedBrickTasksFailedError):
            run.try_once(make(stage, {lost: {"series": [{"boundingBoxes": [BOX, BOX]}]}, empty: {"series": []}}))
        assert run.xcoms["manifest"]["counts"] == counts(done=1, failed=1)
        (failure,) = run.xcoms["manifest"]["failed"]
        assert failure["task_id"] == lost
        assert f"{LOST}series 0, boundingBoxes: 2 given, 0 converted" in failure["reason"]
        assert "othing was sent" in failure["reason"]
        assert changes(sandbox) == {empty}
        assert len(sandbox.task(lost)["labels"]) == 1

    @pytest.mark.parametrize("conversion", ["complete", "omit-empty", "omit"])
    def test_empty_labels_replace_existing_labels(self, sandbox, run, way, conversion):
        stage, make = way
        sandbox.behavior(conversion=conversion)
        ids = sandbox.seed_tasks(3, stage=stage, labels=[FLAT])
        given = [{"series": []}, {"series": [{}]}, {"series": [{"boundingBoxes": []}]}]
        assert run.try_once(make(stage, dict(zip(ids, given, strict=True))))["counts"] == counts(done=3)
        assert [sandbox.task(task_id)["labels"] for task_id in ids] == [[], [], []]

    def test_unknown_label_types_fail_task(self, sandbox, new_run, way):
        stage, make = way
        sandbox.behavior(conversion="drop-unknown")
        lost, known = sandbox.seed_tasks(2, stage=stage)
        both = {"series": [{}, {"boundingBoxes": [BOX], "cuboids": [CUBOID]}]}
        run = new_run()
        with pytest.raises(RedBrickTasksFailedError):
            run.try_once(make(stage, {lost: both, known: {"series": [{"boundingBoxes": [BOX]}]}}))
        (failure,) = run.xcoms["manifest"]["failed"]
        assert f"{LOST}series 1, cuboids: 1 given, 0 converted" in failure["reason"]
        assert changes(sandbox) == {known}

    def test_unknown_keys_with_validate_off_fail_task(self, sandbox, run):
        sandbox.behavior(conversion="drop-unknown")
        (task_id,) = sandbox.seed_tasks(1)
        with pytest.raises(RedBrickTasksFailedError, match=r"series 0, boxes: 2 given, 0 converted"):
            run.try_once(put("Label", {task_id: {"series": [{"boxes": [BOX, BOX]}]}}, validate="off"))
        assert changes(sandbox) == set()

    @pytest.mark.parametrize(
        ("body", "words"),
        [
            ({"labels": [FLAT, FLAT]}, "series 0, boundingBoxes: 2 given, 0 converted"),
            ({"classification": {"attributes": {}}}, "classification: 1 given, 0 converted"),
        ],
        ids=["older", "classification"],
    )
    def test_lost_legacy_labels_and_classifications_fail_task(self, sandbox, run, body, words):
        sandbox.behavior(conversion="omit")
        (task_id,) = sandbox.seed_tasks(1)
        with pytest.raises(RedBrickTasksFailedError, match=words):
            run.try_once(put("Label", {task_id: body}))
        assert changes(sandbox) == set()

    def test_lost_labels_of_file_fail_task(self, sandbox, run, tmp_path):
        sandbox.behavior(conversion="omit")
        (task_id,) = sandbox.seed_tasks(1)
        with pytest.raises(RedBrickTasksFailedError, match=r"line 1: .*boundingBoxes: 1 given, 0 converted"):
            run.try_once(from_file("Label", {task_id: {"series": [{"boundingBoxes": [BOX]}]}}, tmp_path))
        assert changes(sandbox) == set()

    def test_lost_labels_of_hook_fail_task(self, sandbox):
        sandbox.behavior(conversion="omit")
        (task_id,) = sandbox.seed_tasks(1)
        queue = RedBrickHook().stage("Label")
        with pytest.raises(RedBrickTasksFailedError, match="boundingBoxes: 1 given, 0 converted"):
            queue.submit({task_id: [{"boundingBoxes": [BOX]}]})
        assert changes(sandbox) == set()

    @pytest.mark.parametrize(
        ("conversion", "series", "words"),
        [
            ("omit", {"boundingBoxes": [BOX]}, "series 0, boundingBoxes: 1 given, 0 converted"),
            ("drop-unknown", {"cuboids": [CUBOID]}, "series 0, cuboids: 1 given, 0 converted"),
        ],
    )
    def test_lost_labels_of_upload_fail_task(self, sandbox, run, conversion, series, words):
        sandbox.behavior(conversion=conversion)
        tasks = [{"name": "a", "series": [{"items": CT, **series}]}, {"name": "b", "items": CT}]
        with pytest.raises(RedBrickTasksFailedError, match=words):
            run.try_once(RedBrickUploadTasksOperator(task_id="u", tasks=tasks))
        assert run.xcoms["manifest"]["counts"] == counts(done=1, failed=1)
        assert sandbox.count() == 1

    def test_upload_of_empty_labels_as_ground_truth_is_created(self, sandbox, run):
        sandbox.behavior(conversion="omit")
        tasks = [{"name": "a", "series": [{"items": CT, "boundingBoxes": []}], "isGroundTruth": True}]
        assert run.try_once(RedBrickUploadTasksOperator(task_id="u", tasks=tasks))["counts"] == counts(done=1)


@pytest.mark.parametrize("answer", [lambda found: found[::-1], lambda found: [found[0]] * len(found)])
@pytest.mark.parametrize("with_id", [True, False])
def test_converted_labels_of_other_task_are_refused(*, sandbox, new_run, monkeypatch, answer, with_id):
    """Both when tasks are labeled, and when they are created and the answer has only names."""
    real = RedBrickClient.convert_labels

    def convert(self, tasks):
        found = answer(real(self, tasks))
        return [{key: value for key, value in task.items() if with_id or key != "taskId"} for task in found]

    monkeypatch.setattr(RedBrickClient, "convert_labels", convert)
    ids = sandbox.seed_tasks(2)
    series = [{"boundingBoxes": [BOX]}]
    new = [{"name": name, "series": [{"items": CT, **series[0]}]} for name in ("a", "b")]
    for operator in (
        put("Label", {task_id: {"series": series} for task_id in ids}),
        RedBrickUploadTasksOperator(task_id="u", tasks=new),
    ):
        run = new_run()
        with pytest.raises(RedBrickTasksFailedError, match="RedBrick's conversion is for another task"):
            run.try_once(operator)
        assert "another task" in run.xcoms["manifest"]["failed"][-1]["reason"]
        assert sum(run.xcoms["manifest"]["counts"].values()) == 2
    assert ids[1] not in changes(sandbox)


def test_converted_labels_without_series_are_refused(sandbox, run, monkeypatch):
    real = RedBrickClient.convert_labels

    def convert(self, tasks):
        found = real(self, tasks)
        for task in found:
            for each in task["labels"]:
                del each["volumeindex"]
        return found

    monkeypatch.setattr(RedBrickClient, "convert_labels", convert)
    first, second = sandbox.seed_tasks(2)
    box = {"boundingBoxes": [BOX]}
    with pytest.raises(RedBrickTasksFailedError, match="series 1, boundingBoxes: 1 given, 0 converted"):
        run.try_once(put("Label", {first: {"series": [box]}, second: {"series": [{}, box]}}))
    assert changes(sandbox) == {first}


class TestMissingItems:
    @pytest.fixture
    def divided(self, sandbox):
        """Create tasks with two series, of two items and of one."""

        def make(stage, count):
            ids = sandbox.seed_tasks(count, stage=stage)
            change = """mutation ($o: UUID!, $p: UUID!, $t: UUID!, $i: [SeriesInfoInput!]) { updateTaskItems(
                orgId: $o, projectId: $p, taskId: $t, storageId: "22222222-2222-2222-2222-222222222222",
                items: ["a.dcm", "b.dcm", "c.dcm"], seriesInfo: $i) { ok } }"""
            info = [{"itemsIndices": [0, 1]}, {"itemsIndices": [2]}]
            for task_id in ids:
                sandbox.graphql(change, {"o": sandbox.org_id, "p": sandbox.project_id, "t": task_id, "i": info})
            return ids

        return make

    def on_item(self, number):
        return {"boundingBoxes": [BOX, {**BOX, "video": {"frameIndex": 0, "seriesItemIndex": number}}]}

    def test_label_on_missing_item_names_both_counts(self, sandbox, new_run, divided, way):
        stage, make = way
        beyond, last = divided(stage, 2)
        run = new_run()
        with pytest.raises(RedBrickTasksFailedError):
            run.try_once(make(stage, {beyond: {"series": [self.on_item(2)]}, last: {"series": [self.on_item(1)]}}))
        (failure,) = run.xcoms["manifest"]["failed"]
        assert failure["task_id"] == beyond
        words = "series 0, boundingBoxes[1], video.seriesItemIndex: 2 is out of range, since the series has 2 items"
        assert words in failure["reason"]
        assert changes(sandbox) == {last}
        assert [label.get("globalitemsindex") for label in sandbox.task(last)["labels"]] == [None, 1]

    @pytest.mark.parametrize(
        ("body", "words"),
        [
            (
                {
                    "series": [
                        {},
                        {
                            "landmarks": [
                                {
                                    "point": {"xNorm": 0, "yNorm": 0},
                                    "category": "landmark",
                                    "video": {"seriesItemIndex": 1},
                                }
                            ]
                        },
                    ]
                },
                r"series 1, landmarks\[0\], video.seriesItemIndex: 1 is out of range, since the series has 1 item,",
            ),
            (
                {"series": [{"instanceClassifications": [{"fileIndex": 2, "values": {}}]}]},
                r"series 0, instanceClassifications\[0\], fileIndex: 2 is out of range, since the series has 2 items",
            ),
            (
                {"series": [{"classifications": [{"attributes": {}, "video": {"seriesItemIndex": 9}}]}]},
                r"series 0, classifications\[0\], video.seriesItemIndex: 9 is out of range",
            ),
            ({"labels": [FLAT, {**FLAT, "globalitemsindex": 3}]}, r"labels\[1\], globalitemsindex: 3"),
            (
                {"labels": [{**FLAT, "globalitemsindex": 2, "volumeindex": 0}]},
                r"labels\[0\], globalitemsindex: 2 is no item of series 0",
            ),
        ],
        ids=["the_next_series", "file", "classification", "older", "older_in_another_series"],
    )
    @pytest.mark.parametrize("make", [put, prelabel("submit"), prelabel("anywhere")], ids=["put", "submit", "anywhere"])
    def test_label_on_missing_item_of_each_type_is_refused(self, *, sandbox, run, divided, make, body, words):
        (task_id,) = divided("Label", 1)
        with pytest.raises(RedBrickTasksFailedError, match=words):
            run.try_once(make("Label", {task_id: body}))
        assert changes(sandbox) == set()

    @pytest.mark.parametrize("storage", [None, "22222222-2222-2222-2222-222222222222"], ids=["files", "stored"])
    @pytest.mark.parametrize(
        ("first", "words"),
        [
            ({"boundingBoxes": [{**BOX, "video": {"seriesItemIndex": 2}}]}, r"boundingBoxes\[0\], video.seriesItemIn"),
            ({"instanceClassifications": [{"fileIndex": 2, "values": {}}]}, r"instanceClassifications\[0\], fileInd"),
        ],
        ids=["item", "file"],
    )
    def test_upload_with_label_on_missing_item_is_refused(self, sandbox, run, first, words, storage):
        tasks = [
            {"name": "a", "series": [{"items": [CT, MR], **first}, {"items": MR}]},
            {"name": "b", "items": CT},
        ]
        with pytest.raises(
            RedBrickTasksFailedError, match=f"series 0, {words}.*: 2 is out of range, since the series has 2"
        ):
            run.try_once(RedBrickUploadTasksOperator(task_id="u", tasks=tasks, storage_id=storage))
        assert sandbox.count() == 1

    def test_label_on_frame_of_multiframe_item_is_accepted(self, sandbox, run, divided):
        (task_id,) = divided("Label", 1)
        series = [{}, {"instanceClassifications": [{"fileIndex": 40, "values": {}}]}]
        assert run.try_once(put("Label", {task_id: {"series": series}}))["counts"] == counts(done=1)
