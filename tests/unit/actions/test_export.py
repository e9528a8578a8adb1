"""Tests of exporting tasks: order, concurrency, failures and the row format."""

from __future__ import annotations

import io
import json
import threading
from types import SimpleNamespace

import pytest

from airflow_provider_redbrick import exceptions as err
from airflow_provider_redbrick.actions.export import export, to_row
from airflow_provider_redbrick.client.models.task import Task
from airflow_provider_redbrick.client.operations.task_reads import StoredTask

WORKERS = 3


def stored(number):
    """A task with one mask, whose URL is the task's number."""
    masks = ({"seriesIndex": 0, "labelName": f"path/{number}"},)
    return StoredTask(Task(f"t{number}", labels=(), labels_map=masks), None, {f"path/{number}": str(number)})


def project(fetch):
    """A project whose masks come from ``fetch(number)``."""
    files = SimpleNamespace(fetch_mask=lambda url: io.BytesIO(fetch(int(url))))
    return SimpleNamespace(client=SimpleNamespace(max_concurrency=WORKERS), files=files)


def test_export_fetches_masks_concurrently_and_keeps_order():
    together = threading.Barrier(WORKERS)

    def fetch(number):
        together.wait(timeout=20)
        return f"mask {number}".encode()

    kept = {}
    lines = export(project(fetch), map(stored, range(9)), lambda name, mask: kept.update({name: mask.getvalue()}))
    assert [json.loads(row.line)["taskId"] for row in lines] == [f"t{i}" for i in range(9)]
    assert kept == {f"masks/t{i}/0.nii": f"mask {i}".encode() for i in range(9)}


def test_export_reads_few_tasks_ahead():
    taken, ahead = [], []

    def tasks():
        for number in range(60):
            taken.append(number)
            yield stored(number)

    for written, _ in enumerate(export(project(lambda _: b""), tasks(), lambda *_: None)):
        ahead.append(len(taken) - written)
    assert len(taken) == 60
    assert max(ahead) <= 2 * WORKERS + 1


def test_export_with_failing_task_ends_and_skips_the_rest():
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


def test_export_after_stop_stores_no_mask():
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


def test_export_with_failing_mask_storage_raises():
    def full(*_):
        raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space left"):
        list(export(project(lambda _: b""), [stored(1)], full))


def test_export_with_nan_raises_error_with_task_id():
    task = Task("t1", labels=({"category": "x", "point": {"xnorm": float("nan"), "ynorm": 0.5}},))
    with pytest.raises(err.RedBrickAnswerError, match="task t1"):
        list(export(project(None), [StoredTask(task, None, {})], None))


# ------------------------------------------------------------------ rows


def items_of(items, *indices):
    info = tuple({"itemsIndices": row} for row in indices)
    return [row.get("items") for row in to_row(_task(items, info), None, {})["series"]]


def _task(items, info):
    return Task("t", "name", items=tuple(items), series_info=info, series=({},) * max(1, len(info)))


def test_to_row_keeps_item_order_within_series():
    assert items_of("abcd", [3, 1], [0, 2]) == [["b", "d"], ["a", "c"]]


@pytest.mark.parametrize("indices", [([0, 1], None), ([0, 1], []), (None, [2])])
def test_to_row_with_incomplete_division_puts_items_in_first_series(indices):
    assert items_of("abc", *indices) == [["a", "b", "c"], None]


def test_to_row_without_division_has_one_series():
    assert items_of("ab") == [["a", "b"]]


def test_export_with_missing_items_raises_error_with_task_id():
    task = Task("t1", items=("a",), series_info=({"itemsIndices": [7]},), labels=())
    with pytest.raises(err.RedBrickAnswerError, match="task t1"):
        list(export(project(None), [StoredTask(task, None, {})], None))


def test_to_row_series_known_from_labels_only_has_no_items():
    task = Task("t", items=("a",), series_info=({"itemsIndices": [0]},), series=({}, {"boundingBoxes": []}))
    assert to_row(task, None, {})["series"] == [{"items": ["a"]}, {"boundingBoxes": []}]


def test_to_row_keeps_priority_0():
    assert to_row(Task("t", priority=0), None, {})["priority"] == 0
    assert "priority" not in to_row(Task("t"), None, {})
