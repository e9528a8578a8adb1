"""Tests of putting converted labels on tasks."""

from __future__ import annotations

from contextlib import suppress
from types import SimpleNamespace

import pytest

from airflow_provider_redbrick.actions.put_labels import put, submit_existing
from airflow_provider_redbrick.annotations.conversion import Converted
from airflow_provider_redbrick.annotations.masks import Mask, take_masks
from airflow_provider_redbrick.client.models.task import Task, User
from airflow_provider_redbrick.client.models.workflow import Stage
from airflow_provider_redbrick.exceptions import RedBrickInputError

ME = User("API:me")


class FakePipeline:
    """Fake pipeline whose project records what is sent."""

    me = ME.user_id
    stage = Stage("Label", "manual-labeling")
    release_after_save = False

    def __init__(self):
        self.sent = []
        self.stored = 0
        self.project = SimpleNamespace(
            files=self,
            put_labels=lambda stage, task_id, labels, **how: self.sent.append((stage.name, task_id, labels, how)),
            submit_existing=lambda stage, task_id: self.sent.append((stage.name, task_id)),
        )

    def label_variables(self, labels, labels_map, *, task_id):
        self.stored += 1
        return {"labels": labels, "map": labels_map}


def at(stage="Label", state="ASSIGNED", **facts):
    return Task("t", stage_name=stage, state=state, **facts)


def test_submit_is_applied_once_the_task_has_left_the_stage():
    pipeline = FakePipeline()
    for change in (put(pipeline, at(), Converted([]), finished=True), submit_existing(pipeline, at())):
        assert not change.applied(at())
        assert change.applied(at(state="COMPLETED"))
        assert change.applied(at("Review_1", "UNASSIGNED"))


def test_draft_is_applied_once_the_task_has_new_labels_by_this_key():
    change = put(FakePipeline(), at(labels_id="v1", labels_by=ME), Converted([]), finished=False)
    assert not change.applied(at(labels_id="v1", labels_by=ME))
    assert not change.applied(at(labels_id="v2", labels_by=User("ada")))
    assert not change.applied(at(labels_id="v2", labels_by=None))
    assert change.applied(at(labels_id="v2", labels_by=ME, state="STAGED"))


def test_put_and_submit_existing_send_their_mutations():
    pipeline = FakePipeline()
    put(pipeline, at(), Converted([]), finished=False, elapsed_ms=12).call()
    submit_existing(pipeline, at()).call()
    sent = {"labels": [], "map": []}
    assert pipeline.sent == [("Label", "t", sent, {"finished": False, "elapsed_ms": 12}), ("Label", "t")]


def test_put_sent_twice_stores_files_once():
    pipeline = FakePipeline()
    change = put(pipeline, at(), Converted([]), finished=True)
    change.call()
    change.call()
    assert (len(pipeline.sent), pipeline.stored) == (2, 1)


# ------------------------------------------------------------------ labels that do not fit the task


def test_take_masks_with_two_stored_masks_of_one_series_opens_neither():
    entries = ({"labelName": "/etc/a.nii", "seriesIndex": 0}, {"labelName": "stored/b.nii", "seriesIndex": 0})
    opened = []
    for path in ("/etc/a.nii", "stored/b.nii", "mine.nii"):
        with suppress(RedBrickInputError):
            take_masks({"series": [{"segmentations": path}]}, opened.append, at(labels_map=entries).mask_paths)
    assert opened == ["mine.nii"]


def with_masks(*paths):
    return at(labels_map=tuple(path and {"labelName": path, "seriesIndex": i} for i, path in enumerate(paths)))


@pytest.mark.parametrize(
    ("task", "converted", "words"),
    [
        (with_masks("a"), Converted([]), "series 0 has a segmentation mask, which these labels would remove"),
        (with_masks(None, "b"), Converted([], (Mask(0, None, "x"),)), "series 0: 'x' is not a local file"),
        (with_masks("a", "b"), Converted([], (Mask(0, None, "a"),)), "series 1 has a segmentation mask"),
        (with_masks("a", "b"), Converted([], (Mask(0, None, "b"),)), "series 0: 'b' is not a local file"),
        (at(series_info=({}, {})), Converted([{"volumeindex": 2}]), "its labels are for series 2, but it has 2"),
        (at(series_info=({},)), Converted([], (Mask(1, None, "a"),)), "its labels are for series 1, but it has 1"),
    ],
)
def test_put_with_mismatching_labels_fails_and_sends_nothing(task, converted, words):
    outcome = put(FakePipeline(), task, converted, finished=True)
    assert outcome.status.value == "failed"
    assert words in outcome.reason
    assert outcome.reason.endswith("nothing was sent")


@pytest.mark.parametrize(
    ("converted", "kept"),
    [
        (Converted([], (Mask(0, None, "a"), Mask(1, None, "b"))), ["a", "b"]),
        (Converted([], (Mask(1, None, "b"),), frozenset({0})), [None, "b"]),
        (Converted([], (), frozenset({0, 1})), []),
    ],
)
def test_put_keeps_and_removes_masks_as_the_labels_say(converted, kept):
    pipeline = FakePipeline()
    put(pipeline, with_masks("a", "b"), converted, finished=True).call()
    assert [entry and entry["labelName"] for entry in pipeline.sent[0][2]["map"]] == kept


# ------------------------------------------------------------------ items


@pytest.mark.parametrize(
    ("info", "items"),
    [
        (({"itemsIndices": [4, 2]}, {"itemsIndices": [0, 1, 3]}), [4, 3, 0]),
        (({"itemsIndices": [0, 1, 2]},), [1, 2, 0]),
        (({}, {}), [1, 2, 0]),
        ((), [1, 2, 0]),
    ],
)
def test_on_items_of_places_labels_on_items_of_their_series(info, items):
    """The conversion numbers items across all series (2 and 3 items here); a task has its own order."""
    labels = [{"volumeindex": 0, "globalitemsindex": 1}, {"volumeindex": 1, "globalitemsindex": 4}]
    converted = Converted([*labels, {"volumeindex": 1, "globalitemsindex": 2}, {"point": {}}], starts=(0, 2))
    placed = converted.on_items_of(info)
    assert [label.get("globalitemsindex") for label in placed] == [*items, None]
