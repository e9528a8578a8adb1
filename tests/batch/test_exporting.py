"""Tasks on their way into an export: in order, several at a time, never many, and stopped at the first that fails."""

from __future__ import annotations

import io
import json
import threading
from types import SimpleNamespace

import pytest

from airflow_provider_redbrick import exceptions as err
from airflow_provider_redbrick.api.exports import StoredTask
from airflow_provider_redbrick.api.models import Task
from airflow_provider_redbrick.batch.exporting import export, row_of

WORKERS = 3


def stored(number):
    """A task with one mask, whose URL is the task's number."""
    masks = ({"seriesIndex": 0, "labelName": f"path/{number}"},)
    return StoredTask(Task(f"t{number}", labels=(), labels_map=masks), None, {f"path/{number}": str(number)})


def project(fetch):
    """A project whose masks come from ``fetch(number)``."""
    files = SimpleNamespace(fetch_mask=lambda url: io.BytesIO(fetch(int(url))))
    return SimpleNamespace(client=SimpleNamespace(max_concurrency=WORKERS), files=files)


def test_masks_are_fetched_several_at_a_time_and_lines_come_in_order():
    together = threading.Barrier(WORKERS)

    def fetch(number):
        together.wait(timeout=20)
        return f"mask {number}".encode()

    kept = {}
    lines = export(project(fetch), map(stored, range(9)), lambda name, mask: kept.update({name: mask.getvalue()}))
    assert [json.loads(each.line)["taskId"] for each in lines] == [f"t{i}" for i in range(9)]
    assert kept == {f"masks/t{i}/0.nii": f"mask {i}".encode() for i in range(9)}


def test_tasks_are_not_read_far_ahead_of_their_lines():
    taken, ahead = [], []

    def tasks():
        for number in range(60):
            taken.append(number)
            yield stored(number)

    for written, _ in enumerate(export(project(lambda _: b""), tasks(), lambda *_: None)):
        ahead.append(len(taken) - written)
    assert len(taken) == 60
    assert max(ahead) <= 2 * WORKERS + 1


def test_one_that_fails_ends_it_and_the_rest_is_left_alone():
    fetched = []

    def fetch(number):
        fetched.append(number)
        if number == 4:
            raise err.RedBrickRefusedError("Storage answered HTTP 404.", status=404)
        return b""

    lines = []
    with pytest.raises(err.RedBrickRefusedError, match="mask of series 0 of task t4: Storage answered HTTP 404"):
        lines.extend(export(project(fetch), map(stored, range(100)), lambda *_: None))
    assert len(lines) == 4
    assert len(fetched) <= 4 + 3 * WORKERS


def test_nothing_is_kept_any_more_once_it_was_stopped():
    begun, go_on, kept = threading.Event(), threading.Event(), []

    def fetch(number):
        if number:
            begun.set()
            go_on.wait(timeout=20)
        return b""

    lines = export(project(fetch), map(stored, range(2)), lambda name, _: kept.append(name))
    next(lines)
    assert begun.wait(timeout=20)
    threading.Timer(0.2, go_on.set).start()
    lines.close()
    assert kept == ["masks/t0/0.nii"]


def test_what_keeps_masks_may_fail_too():
    def full(*_):
        raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space left"):
        list(export(project(lambda _: b""), [stored(1)], full))


def test_numbers_that_json_has_no_word_for_are_an_error_that_names_the_task():
    task = Task("t1", labels=({"category": "x", "point": {"xnorm": float("nan"), "ynorm": 0.5}},))
    with pytest.raises(err.RedBrickAnswerError, match="task t1"):
        list(export(project(None), [StoredTask(task, None, {})], None))


# ------------------------------------------------------------------ rows


def items_of(items, *indices):
    info = tuple({"itemsIndices": each} for each in indices)
    return [each.get("items") for each in row_of(_task(items, info), None, {})["series"]]


def _task(items, info):
    return Task("t", "name", items=tuple(items), series_info=info, series=({},) * max(1, len(info)))


def test_items_are_in_the_order_of_the_tasks_by_series():
    assert items_of("abcd", [3, 1], [0, 2]) == [["b", "d"], ["a", "c"]]


@pytest.mark.parametrize("indices", [([0, 1], None), ([0, 1], []), (None, [2])])
def test_without_a_complete_division_all_items_are_in_the_first_series(indices):
    assert items_of("abc", *indices) == [["a", "b", "c"], None]


def test_without_any_division_there_is_one_series():
    assert items_of("ab") == [["a", "b"]]


def test_items_that_are_not_there_are_an_error_that_names_the_task():
    task = Task("t1", items=("a",), series_info=({"itemsIndices": [7]},), labels=())
    with pytest.raises(err.RedBrickAnswerError, match="task t1"):
        list(export(project(None), [StoredTask(task, None, {})], None))


def test_a_series_that_only_labels_tell_of_has_no_items():
    task = Task("t", items=("a",), series_info=({"itemsIndices": [0]},), series=({}, {"boundingBoxes": []}))
    assert row_of(task, None, {})["series"] == [{"items": ["a"]}, {"boundingBoxes": []}]


def test_a_priority_of_0_is_one():
    assert row_of(Task("t", priority=0), None, {})["priority"] == 0
    assert "priority" not in row_of(Task("t"), None, {})
