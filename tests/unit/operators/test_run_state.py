"""Tests of incremental exports that follow each other, with listings that lag behind."""

from __future__ import annotations

import io
import json
from collections import Counter
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pendulum
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_redbrick.client.models.task import Task
from airflow_provider_redbrick.client.operations.task_reads import MARGIN
from airflow_provider_redbrick.operators.run_state import MOST_REMEMBERED, get_export_identity, get_window, push_overlap

NOON = pendulum.datetime(2026, 3, 14, 12)
SETTLE = 30
INDEX = "tasks.jsonl"


def at(seconds: float) -> pendulum.DateTime:
    return NOON.add(seconds=seconds)


class Folder:
    """An export folder: its files are kept in memory."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    def published(self, name: str) -> Any:
        return io.BytesIO(self.files[name]) if name in self.files else None


class Chain:
    """Runs of a DAG with one export, which starts at the watermark of the previous run."""

    def __init__(self) -> None:
        self.xcoms: dict[int, dict[str, Any]] = {}
        self.folders: dict[int, Folder] = {}

    def context(self, run: int) -> Any:
        def pull(*, task_ids, key="return_value", map_indexes=-1, include_prior_dates=False):
            runs = range(run, -1, -1) if include_prior_dates else [run]
            return next((self.xcoms[i][key] for i in runs if key in self.xcoms.get(i, {})), None)

        def push(key, value):
            self.xcoms[run][key] = json.loads(json.dumps(value))

        names = {"dag_id": "dag", "task_id": "export", "run_id": str(run), "map_index": -1}
        return {"ti": SimpleNamespace(**names, xcom_pull=pull, xcom_push=push)}

    def export(self, run: int, listed: Any, watermark: pendulum.DateTime) -> dict[str, pendulum.DateTime | None]:
        """Export as the operator does.

        :param run: the run. If it exported before, its XComs are cleared first.
        :param listed: lists the tasks that changed after a time, as ids and times.
        :param watermark: the watermark of the listing.
        :return: the exported versions.
        """
        self.xcoms[run] = {}
        context, folder = self.context(run), self.folders.setdefault(run, Folder())
        identity = get_export_identity(context)
        window = get_window(context, "export", export=identity, directory=folder, index=INDEX)
        tasks = [SimpleNamespace(task=Task(task_id, updated_at=version)) for task_id, version in listed(window.after)]
        exported = {stored.task.task_id: stored.task.updated_at for stored in window.tasks(tasks)}
        for task_id, version in exported.items():
            window.add(task_id, version, watermark)
        end = window.until or watermark
        manifest = {"updated_after": window.after and window.after.isoformat(), "watermark": end.isoformat()}
        state = {**manifest, "export": identity, "overlap": window.overlap(end).to_json()}
        lines = "".join(json.dumps({"taskId": task_id}) + "\n" for task_id in exported)
        folder.files = {"manifest.json": json.dumps(state).encode(), INDEX: lines.encode()}
        push_overlap(context, end, window.overlap(end))
        self.xcoms[run]["return_value"] = manifest
        return exported


@pytest.fixture
def chain():
    return Chain()


def watermark(seconds: float) -> pendulum.DateTime:
    """Return the watermark of a listing that was requested at a time."""
    return at(seconds - SETTLE) - MARGIN


def shows(**versions: float | None) -> Any:
    """Return a listing that shows these versions, if they are after its start."""

    def listed(after):
        times = {task_id: None if seconds is None else at(seconds) for task_id, seconds in versions.items()}
        return [(task_id, t) for task_id, t in times.items() if after is None or t is None or t >= after]

    return listed


# ------------------------------------------------------------------ all chains


class Server:
    """Tasks whose versions become visible up to SETTLE seconds late, differently for each task and listing.

    :param updates: when each task was changed, in seconds.
    :param skews: by how many seconds the clock is wrong that stamps the changes of each task.
    """

    def __init__(self, updates: list[list[int]], skews: list[int]) -> None:
        self.updates, self.skews = updates, skews

    def version(self, task: int, update: int) -> pendulum.DateTime:
        return at(update + self.skews[task])

    def listing(self, seconds: int, lags: list[int]) -> Any:
        def listed(after):
            for task, updates in enumerate(self.updates):
                visible = [update for update in updates if update <= seconds - lags[task]]
                version = self.version(task, visible[-1]) if visible else None
                if version is not None and (after is None or version >= after):
                    yield str(task), version

        return listed

    def settled(self, seconds: int) -> set[tuple[str, pendulum.DateTime]]:
        """Return the versions that each listing at this time shows, however late it is."""
        return {
            (str(task), self.version(task, update))
            for task, updates in enumerate(self.updates)
            for update, following in pairwise([*updates, 10**9])
            if update <= seconds - SETTLE and following > seconds
        }


_TIMES = st.lists(st.integers(0, 300), max_size=6, unique=True).map(sorted)


@st.composite
def _chains(draw):
    number = draw(st.integers(1, 4))
    server = Server([draw(_TIMES) for _ in range(number)], [draw(st.integers(-10, 10)) for _ in range(number)])
    lags = st.lists(st.integers(0, SETTLE), min_size=number, max_size=number)
    runs = draw(st.lists(st.integers(0, 400), min_size=1, max_size=8, unique=True).map(sorted))
    return server, [(seconds, draw(lags), draw(st.integers(0, 2))) for seconds in runs]


@given(_chains())
def test_chain_exports_each_settled_version_exactly_once(scene):
    server, runs = scene
    chain, exported = Chain(), Counter()
    for run, (seconds, lags, clock_error) in enumerate(runs):
        found = chain.export(run, server.listing(seconds, lags), watermark(seconds - clock_error))
        for task_id, version in found.items():
            assert version > max((v for t, v in exported if t == task_id), default=at(-1000)), "in another order"
            exported[task_id, version] += 1
        assert server.settled(seconds) <= set(exported)
    assert set(exported.values()) <= {1}


@given(_chains(), st.data())
def test_chain_with_cleared_runs_loses_no_version(scene, data):
    """What counts is the last export of each run, also if its folder is lost."""
    server, runs = scene
    chain, exports = Chain(), {}
    for run, (seconds, lags, _) in enumerate(runs):
        exports[run] = chain.export(run, server.listing(seconds, lags), watermark(seconds))
        if data.draw(st.booleans(), label="cleared"):
            later = seconds + data.draw(st.integers(0, 20), label="later")
            if data.draw(st.booleans(), label="folder lost"):
                del chain.folders[run]
            exports[run] = chain.export(run, server.listing(later, lags), watermark(later))
        contained = {version for export in exports.values() for version in export.items()}
        assert server.settled(seconds) <= contained | {
            # A version that was replaced between two exports of a run is not to be had any more.
            (task_id, version)
            for task_id, version in server.settled(seconds)
            if any(newer > version for t, newer in contained if t == task_id)
        }


# ------------------------------------------------------------------ single cases


def test_version_visible_late_is_exported_by_the_next_run(chain):
    assert chain.export(0, shows(), watermark(100)) == {}
    assert chain.export(1, shows(a=90), watermark(110)) == {"a": at(90)}
    assert chain.export(2, shows(a=90), watermark(115)) == {}


def test_version_is_remembered_over_several_short_runs(chain):
    exports = [chain.export(run, shows(a=95), watermark(100 + run)) for run in range(20)]
    assert exports == [{"a": at(95)}, *[{}] * 19]


def test_stale_read_of_an_older_version_is_left_out(chain):
    chain.export(0, shows(a=95), watermark(100))
    assert chain.export(1, shows(a=90), watermark(110)) == {}
    assert chain.export(2, shows(a=105), watermark(120)) == {"a": at(105)}


def test_task_without_a_version_is_exported_whenever_it_is_listed(chain):
    assert [chain.export(run, shows(a=None), watermark(100 + run)) for run in range(2)] == [{"a": None}] * 2


def test_round_that_was_not_used_is_exported_again_completely(chain):
    """The watermark is that of another task, which skipped a round."""
    chain.export(0, shows(a=95), watermark(100))
    start = chain.xcoms[0]["return_value"]
    second = chain.export(1, shows(a=95, b=101), watermark(110))
    chain.xcoms[1]["return_value"] = start
    assert chain.export(2, shows(a=95, b=101, c=111), watermark(120)) == {**second, "c": at(111)}


def test_unknown_overlap_is_exported_again(chain):
    chain.export(0, shows(a=95), watermark(100))
    chain.xcoms[0] = {"return_value": chain.xcoms[0]["return_value"]}
    assert chain.export(1, shows(a=95), watermark(110)) == {"a": at(95)}


def test_cleared_run_exports_its_tasks_again_and_the_next_run_none_of_them(chain):
    chain.export(0, shows(a=95), watermark(100))
    first = chain.export(1, shows(a=95, b=105), watermark(110))
    assert chain.export(1, shows(a=95, b=105, c=130), watermark(140)) == first == {"b": at(105)}
    assert chain.export(2, shows(b=105, c=130), watermark(150)) == {"c": at(130)}


def test_cleared_run_leaves_tasks_that_a_stale_read_hides_to_the_next_run(chain):
    chain.export(0, shows(), watermark(100))
    assert chain.export(1, shows(a=105, b=106), watermark(110)) == {"a": at(105), "b": at(106)}
    assert chain.export(1, shows(b=106), watermark(112)) == {"b": at(106)}
    assert chain.export(2, shows(a=105, b=106), watermark(120)) == {"a": at(105)}


def test_push_overlap_of_too_many_versions_repeats_the_oldest(chain, caplog):
    many = {f"{i:036}": 100 + i / 1000 for i in range(MOST_REMEMBERED + 7)}
    chain.export(0, shows(**many), watermark(101))
    assert f"{MOST_REMEMBERED + 7} tasks changed shortly before the export. The next one exports 7" in caplog.text
    assert len(json.dumps(chain.xcoms[0])) < 450_000
    assert len(chain.export(1, shows(**many), watermark(110))) == 7
