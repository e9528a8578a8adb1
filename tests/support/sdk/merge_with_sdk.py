"""Merge masks with the public redbrick-sdk. Run by the SDK's own interpreter.

Reads a JSON list of jobs {"files", "instances", "binary", "masks"} from the file of the first argument. Writes the
merged volume (flat, first axis fastest) and the groups of each instance to the file of the second argument.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from nibabel.loadsave import load
from redbrick.utils.nifti import process_upload


def main() -> None:
    results = []
    for job in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
        instances = {int(key): groups for key, groups in job["instances"].items()}
        path, groups, error = process_upload(job["files"], instances, job["binary"], False, job["masks"])
        assert error is None, error
        voxels = np.asanyarray(load(path).dataobj).ravel(order="F").tolist()
        results.append({"voxels": voxels, "groups": {key: sorted(value or []) for key, value in groups.items()}})
    Path(sys.argv[2]).write_text(json.dumps(results), encoding="utf-8")


main()
