"""Export tasks of a sandbox with the unmodified public redbrick-sdk. Run by the SDK's own interpreter.

    python export_with_sdk.py '<ready line of the sandbox>' <directory for files> [<task id> ...]

Writes `exported.json` into the directory: the SDK's version, all tasks in ground truth as exported (labels only,
without images and masks), and for each given task id the error of its separate export.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import redbrick


def main():
    ready, files = json.loads(sys.argv[1]), Path(sys.argv[2])
    project = redbrick.get_project(
        org_id=ready["org_id"], project_id=ready["project_id"], api_key=ready["api_key"], url=ready["url"]
    )
    options = {"without_masks": True, "without_json": True, "destination": str(files)}
    tasks = list(project.export.export_tasks(only_ground_truth=True, concurrency=100, **options))
    errors = {}
    for task_id in sys.argv[3:]:
        try:
            list(project.export.export_tasks(task_id=task_id, **options))
        except Exception as error:  # noqa: BLE001 - which errors there are is the question
            errors[task_id] = f"{type(error).__name__}: {error}"
        else:
            errors[task_id] = None
    exported = {"sdk": redbrick.version(), "tasks": tasks, "errors": errors}
    (files / "exported.json").write_text(json.dumps(exported), encoding="utf-8")


if __name__ == "__main__":
    main()
