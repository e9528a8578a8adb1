"""Compare masks merged by the provider with masks merged by the public redbrick-sdk.

Each voxel must have the same instances. The numbers that stand for overlaps may differ.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from sdk import label_corpus

from airflow_provider_redbrick.annotations.masks import take_masks
from airflow_provider_redbrick.hooks.files import open_file
from airflow_provider_redbrick.labels.nifti import read_volume

SDK_PYTHON = os.environ.get("REDBRICK_SDK_PYTHON")
DRIVER = Path(label_corpus.__file__).with_name("merge_with_sdk.py")
SHAPE = (9, 8, 7)
JOBS = 40

pytestmark = [
    pytest.mark.sdk,
    pytest.mark.skipif(
        not SDK_PYTHON,
        reason="REDBRICK_SDK_PYTHON is not set: it names the Python of an environment with redbrick-sdk",
    ),
]


def _volume(draw: random.Random, values: list[int]) -> np.ndarray:
    """Return a volume with blocks of the values, some of which overlap."""
    data = np.zeros(SHAPE, np.uint16)
    for value in values:
        low = [draw.randrange(size - 2) for size in SHAPE]
        data[tuple(slice(start, start + draw.randint(2, 5)) for start in low)] = value
    return data


def _series(draw: random.Random, folder: Path, number: int) -> dict[str, Any]:
    """Return a series with two to five masks of one or several instances, with and without overlaps."""
    binary = number % 2 == 0
    instances = draw.sample(range(1, 400), draw.randint(2, 5))
    paths = []
    for index, instance in enumerate(instances):
        own = [instance] if binary or draw.random() < 0.5 else draw.sample(instances, 2)
        path = folder / f"{number}-{index}.nii.gz"
        nib.save(nib.Nifti1Image(_volume(draw, own), np.eye(4)), path)
        paths.append(str(path))
    if binary:
        segments = {str(i): {"category": "lesion", "mask": p} for i, p in zip(instances, paths, strict=True)}
        return {"binaryMask": True, "segmentations": paths, "segmentMap": segments}
    return {"segmentations": paths, "segmentMap": {str(instance): "lesion" for instance in instances}}


def _merged_by_provider(series: dict[str, Any]) -> dict[str, Any]:
    masked = take_masks({"series": [series]}, open_file)
    file = masked.masks[0].file
    assert file is not None
    voxels = read_volume(file, "merged").voxels.ravel(order="F").tolist()
    segments = masked.body["series"][0]["segmentMap"]
    return {"voxels": voxels, "groups": {key: each.get("overlappingGroups", []) for key, each in segments.items()}}


def _instances_by_voxel(result: dict[str, Any]) -> list[set[str]]:
    """Return the instances at each voxel."""
    stands_for: dict[int, set[str]] = {}
    for instance, groups in result["groups"].items():
        for value in (int(instance), *groups):
            stands_for.setdefault(value, set()).add(instance)
    return [stands_for[value] if value else set() for value in result["voxels"]]


def test_merged_masks_equal_sdk_masks(tmp_path):
    draw = random.Random(20261125)
    all_series = [_series(draw, tmp_path, number) for number in range(JOBS)]
    jobs = [
        {
            "files": series["segmentations"],
            "instances": dict.fromkeys(series["segmentMap"]),
            "binary": series.get("binaryMask", False),
            "masks": {key: each["mask"] for key, each in series["segmentMap"].items() if isinstance(each, dict)},
        }
        for series in all_series
    ]
    (tmp_path / "jobs.json").write_text(json.dumps(jobs), encoding="utf-8")
    # The SDK writes to the home directory of the user, or to the active virtual environment.
    kept = {key: value for key, value in os.environ.items() if key not in ("VIRTUAL_ENV", "PYTHONPATH")}
    done = subprocess.run(
        [str(SDK_PYTHON), str(DRIVER), str(tmp_path / "jobs.json"), str(tmp_path / "merged.json")],
        capture_output=True,
        text=True,
        timeout=120,
        env={**kept, "HOME": str(tmp_path)},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    theirs = json.loads((tmp_path / "merged.json").read_text(encoding="utf-8"))
    ours = [_merged_by_provider(series) for series in all_series]
    assert [_instances_by_voxel(result) for result in ours] == [_instances_by_voxel(result) for result in theirs]
    assert sum(any(result["groups"].values()) for result in ours) >= JOBS // 4  # there was something to tell apart
