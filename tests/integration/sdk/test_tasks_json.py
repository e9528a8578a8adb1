"""Test that the `tasks.json` of the public redbrick-sdk restores the same labels and masks."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import pytest
from fixtures import Run, counts
from sandbox_process import SandboxProcess
from sdk import label_corpus, parity

from airflow_provider_redbrick.client.operations.account import RedBrickClient
from airflow_provider_redbrick.client.operations.project import RedBrickProject
from airflow_provider_redbrick.client.operations.task_reads import read_again
from airflow_provider_redbrick.client.transport.endpoint import graphql_url
from airflow_provider_redbrick.client.transport.http import Transport
from airflow_provider_redbrick.client.transport.sessions import Credential
from airflow_provider_redbrick.labels.nifti import read_volume
from airflow_provider_redbrick.operators.put_labels import RedBrickPutLabelsOperator
from airflow_provider_redbrick.operators.reopen_ground_truth import RedBrickReopenGroundTruthOperator

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_redbrick.client.models.task import Task

SDK_PYTHON = os.environ.get("REDBRICK_SDK_PYTHON")
DRIVER = Path(label_corpus.__file__).with_name("tasks_json_with_sdk.py")
PUT = "putManualLabelingTaskAndLabels"
TASKS, SEED = 150, 20240601
SHAPE = (6, 5, 4)

pytestmark = [
    pytest.mark.sdk,
    pytest.mark.skipif(
        not SDK_PYTHON,
        reason="REDBRICK_SDK_PYTHON is not set: it names the Python of an environment with redbrick-sdk",
    ),
]

Shown = list[set[int]]
"""The instances at each voxel of a mask."""


@dataclass(frozen=True)
class Story:
    """Tasks and masks before the export and after the import of its file."""

    before: dict[str, Task]
    after: dict[str, Task]
    masks_before: dict[str, list[Shown]]
    masks_after: dict[str, list[Shown]]
    exported: list[dict[str, Any]]
    manifest: dict[str, Any]
    applied: dict[str, int]


# ---------------------------------------------------------------- the tasks


def _without_segments(task: label_corpus.CorpusTask) -> label_corpus.CorpusTask:
    """Return a task without segments, because its mask files do not exist."""
    labels = [label for label in task.labels if label_corpus.kind_of(label) != label_corpus.SEGMENT]
    return replace(task, labels=labels, labels_map=[])


def _block(low: int, high: int, value: int) -> np.ndarray:
    data = np.zeros(SHAPE, np.uint16)
    data[low:high, low:high, low:high] = value
    return data


def _series_with_masks(folder: Path) -> list[list[dict[str, Any]]]:
    """Return the series of three tasks: one mask, overlapping masks, and a mask of the second series."""

    def saved(name: str, data: np.ndarray) -> str:
        nib.save(nib.Nifti1Image(data, np.eye(4)), folder / name)
        return str(folder / name)

    lesion = {"category": "lesion", "attributes": {"confirmed": True}}
    one = saved("one.nii.gz", np.maximum(_block(0, 3, 7), _block(2, 4, 300)))
    left, right = saved("left.nii.gz", _block(0, 3, 1)), saved("right.nii.gz", _block(2, 4, 1))
    plain = {"segmentations": one, "segmentMap": {"7": lesion, "300": {"category": "organ"}}}
    over = {
        "binaryMask": True,
        "segmentMap": {"7": {**lesion, "mask": left}, "300": {"category": "organ", "mask": right}},
    }
    point = {"point": {"xNorm": 0.5, "yNorm": 0.25}, "category": "landmark"}
    return [[plain], [over], [{"landmarks": [point]}, plain]]


def _make_tasks(sandbox: SandboxProcess, folder: Path) -> list[str]:
    """Create ground truth tasks with all label kinds and with masks."""
    corpus = [_without_segments(task) for task in label_corpus.sound_tasks(TASKS, SEED)]
    ids = [parity._create(sandbox, task, ground_truth=True) for task in corpus]
    wanted = _series_with_masks(folder)
    blank = [label_corpus.CorpusTask(f"masked {number}", []) for number in range(len(wanted))]
    blank = [replace(task, series_info=_division(series)) for task, series in zip(blank, wanted, strict=True)]
    masked = [parity._create(sandbox, task, ground_truth=False) for task in blank]
    tasks = [{"taskId": task_id, "series": series} for task_id, series in zip(masked, wanted, strict=True)]
    Run().try_once(RedBrickPutLabelsOperator(task_id="masks", stage_name="Label", tasks=tasks))
    sandbox.humans("Review_1")
    return [*ids, *masked]


def _division(series: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"itemsIndices": [2 * number, 2 * number + 1], "name": f"S {number}"} for number in range(len(series))]


# ---------------------------------------------------------------- export and import


def _export(sandbox: SandboxProcess, folder: Path) -> Path:
    # The SDK writes to the home directory of the user, or to the active virtual environment.
    kept = {key: value for key, value in os.environ.items() if key not in ("VIRTUAL_ENV", "PYTHONPATH")}
    done = subprocess.run(
        [str(SDK_PYTHON), str(DRIVER), json.dumps(sandbox.ready), "exported"],
        capture_output=True,
        text=True,
        timeout=120,
        env={**kept, "HOME": str(folder), "NO_PROXY": "localhost", "no_proxy": "localhost"},
        cwd=folder,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return folder / "exported" / "tasks.json"


def _reopen_without_labels(sandbox: SandboxProcess, ids: list[str]) -> None:
    Run().try_once(RedBrickReopenGroundTruthOperator(task_id="reopen", task_ids=ids))
    for task_id in ids:
        nothing = {"t": task_id, "labels": "[]", "map": []}
        sandbox.graphql(parity.PUT_LABELS, {"o": sandbox.org_id, "p": sandbox.project_id, **nothing})


def _masks(project: RedBrickProject, tasks: dict[str, Task]) -> dict[str, list[Shown]]:
    """Return the instances at each voxel of the masks, for tasks with masks."""
    return {
        task_id: [
            _shown(project, path, str(read_again(project, task_id).mask_urls[path]), task.labels or ())
            for path in task.masks.values()
        ]
        for task_id, task in tasks.items()
        if task.masks
    }


def _shown(project: RedBrickProject, path: str, url: str, labels: Any) -> Shown:
    stands_for: dict[int, set[int]] = {0: set()}
    for segment in (label["dicom"] for label in labels if label.get("dicom")):
        for value in (segment["instanceid"], *(segment.get("groupids") or ())):
            stands_for.setdefault(value, set()).add(segment["instanceid"])
    with project.files.fetch_mask(url) as file:
        return [stands_for[value] for value in read_volume(file, path).voxels.ravel().tolist()]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("files")
    with SandboxProcess() as sandbox, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_CONN_REDBRICK_DEFAULT", sandbox.airflow_conn_uri)
        client = RedBrickClient(Transport(graphql_url(sandbox.url), Credential(sandbox.api_key)))
        project = RedBrickProject(client, sandbox.org_id, sandbox.project_id)
        ids = _make_tasks(sandbox, folder)
        before = parity._read_ours(project, ids)
        masks_before = _masks(project, before)
        path = _export(sandbox, folder)
        _reopen_without_labels(sandbox, ids)
        assert not any(task.has_labels for task in parity._read_ours(project, ids).values())
        done_before = sandbox.applied(PUT)
        # Some of these labels are not in the project's taxonomy.
        put = RedBrickPutLabelsOperator(task_id="put", stage_name="Label", labels_path=str(path), validate="off")
        manifest = Run().try_once(put)
        after = parity._read_ours(project, ids)
        yield Story(
            before=before,
            after=after,
            masks_before=masks_before,
            masks_after=_masks(project, after),
            exported=json.loads(path.read_text(encoding="utf-8")),
            manifest=manifest,
            applied={task_id: times - done_before.get(task_id, 0) for task_id, times in sandbox.applied(PUT).items()},
        )
        client.close()


# ---------------------------------------------------------------- comparison


def test_each_task_of_the_file_is_put_once(story):
    assert len(story.exported) == TASKS + 3
    assert story.manifest["counts"] == counts(done=TASKS + 3)
    assert story.applied == dict.fromkeys(story.before, 1)


def test_labels_round_trip_is_equal(story):
    changed = []
    for task_id, task in story.before.items():
        found = parity._differences(_plain(task), _plain(story.after[task_id]), "")
        changed += [f"{task.name}{at}: was {old!r}, is {new!r}" for at, old, new in found]
    assert changed == [], "\n".join([f"{len(changed)} changes", *changed[:20]])


def _plain(task: Task) -> dict[str, Any]:
    """Return the labels of a task without ids, mask names and mask counts."""
    told = parity._without_ids(task)
    for series in told["series"]:
        series.pop("segmentations", None)
        for segment in series.get("segmentMap", {}).values():
            segment.pop("mask", None)
            segment.pop("overlappingGroups", None)
    return told


def test_masks_round_trip_is_equal(story):
    assert len(story.masks_before) == 3
    assert story.masks_after == story.masks_before
    shown = [instances for masks in story.masks_before.values() for mask in masks for instances in mask]
    assert sum(len(instances) == 2 for instances in shown) == 1  # the corner in which two blocks overlap


def test_file_refers_to_masks_in_given_folder(story):
    told = json.dumps(story.exported)
    assert '"exported/segmentations/' in told
    assert '"binaryMask": true' in told
