"""Export ground truth of a sandbox with the public redbrick-sdk, unmodified, into files; run by its own interpreter.

    python tasks_json_with_sdk.py '<the sandbox's ready line>' <a folder>

Writes `tasks.json` and masks into the folder. Its name is handed on as it is: the paths of masks begin with it.
"""

from __future__ import annotations

import json
import sys

import redbrick


def main():
    ready = json.loads(sys.argv[1])
    project = redbrick.get_project(
        org_id=ready["org_id"], project_id=ready["project_id"], api_key=ready["api_key"], url=ready["url"]
    )
    tasks = list(project.export.export_tasks(only_ground_truth=True, concurrency=100, destination=sys.argv[2]))
    print(len(tasks))


if __name__ == "__main__":
    main()
