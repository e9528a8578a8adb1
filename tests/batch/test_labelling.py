"""Putting converted labels on tasks."""

from __future__ import annotations

from contextlib import suppress
from types import SimpleNamespace

import pytest

from airflow_provider_redbrick.api.models import Task, User
from airflow_provider_redbrick.api.workflow import Stage
from airflow_provider_redbrick.batch.converting import Converted
from airflow_provider_redbrick.batch.labelling import put, submit_existing
from airflow_provider_redbrick.batch.masks import Mask, take_masks
from airflow_provider_redbrick.exceptions import RedBrickInputError

ME = User("API:me")


class Work:
    """A stage's work whose project notes what is sent."""

    me = ME.user_id
    stage = Stage("Label", "manual-labeling")

    def __init__(self):
        self.sent = []
        self.stored = 0
        self.project = SimpleNamespace(
            files=self,
            put_labels=lambda stage, task_id, labels, **how: self.sent.append((stage.name, task_id, labels, how)),
            submit_existing=lambda stage, task_id: self.sent.append((stage.name, task_id)),
        )

    def carry(self, labels, labels_map, *, task_id):
        self.stored += 1
        return {"labels": labels, "map": labels_map}


def at(stage="Label", state="ASSIGNED", **facts):
    return Task("t", stage_name=stage, state=state, **facts)


def test_submitting_shows_in_the_task_having_left():
    work = Work()
    for change in (put(work, at(), Converted([]), finished=True), submit_existing(work, at())):
        assert not change.applied(at())
        assert change.applied(at(state="COMPLETED"))
        assert change.applied(at("Review_1", "UNASSIGNED"))


def test_a_draft_shows_in_new_labels_of_this_key():
    change = put(Work(), at(labels_id="v1", labels_by=ME), Converted([]), finished=False)
    assert not change.applied(at(labels_id="v1", labels_by=ME))
    assert not change.applied(at(labels_id="v2", labels_by=User("ada")))
    assert not change.applied(at(labels_id="v2", labels_by=None))
    assert change.applied(at(labels_id="v2", labels_by=ME, state="STAGED"))


def test_what_is_sent():
    work = Work()
    put(work, at(), Converted([]), finished=False, elapsed_ms=12).call()
    submit_existing(work, at()).call()
    sent = {"labels": [], "map": []}
    assert work.sent == [("Label", "t", sent, {"finished": False, "elapsed_ms": 12}), ("Label", "t")]


def test_what_is_stored_is_stored_once_however_often_it_is_sent():
    work = Work()
    change = put(work, at(), Converted([]), finished=True)
    change.call()
    change.call()
    assert (len(work.sent), work.stored) == (2, 1)


# ------------------------------------------------------------------ labels that do not fit the task


def test_of_two_masks_that_the_server_gives_for_one_series_neither_is_opened():
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
        (with_masks(None, "b"), Converted([], (Mask(0, None, "x"),)), "series 0: 'x' is no file here"),
        (with_masks("a", "b"), Converted([], (Mask(0, None, "a"),)), "series 1 has a segmentation mask"),
        (with_masks("a", "b"), Converted([], (Mask(0, None, "b"),)), "series 0: 'b' is no file here"),
        (at(series_info=({}, {})), Converted([{"volumeindex": 2}]), "its labels are for series 2, but it has 2"),
        (at(series_info=({},)), Converted([], (Mask(1, None, "a"),)), "its labels are for series 1, but it has 1"),
    ],
)
def test_what_does_not_fit_is_not_sent(task, converted, words):
    outcome = put(Work(), task, converted, finished=True)
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
def test_masks_stay_where_the_labels_say_so_and_go_where_they_say_so(converted, kept):
    work = Work()
    put(work, with_masks("a", "b"), converted, finished=True).call()
    assert [entry and entry["labelName"] for entry in work.sent[0][2]["map"]] == kept


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
def test_labels_are_on_the_items_of_their_own_series(info, items):
    """The conversion counts items through all series, two and three of them here; a task has its own."""
    labels = [{"volumeindex": 0, "globalitemsindex": 1}, {"volumeindex": 1, "globalitemsindex": 4}]
    converted = Converted([*labels, {"volumeindex": 1, "globalitemsindex": 2}, {"point": {}}], starts=(0, 2))
    placed = converted.on_items_of(info)
    assert [label.get("globalitemsindex") for label in placed] == [*items, None]
