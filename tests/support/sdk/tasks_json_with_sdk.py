"""Export ground truth with the unmodified public redbrick-sdk to files. Run by the SDK's own interpreter.

    python tasks_json_with_sdk.py '<ready line of the sandbox>' <directory>

Writes `tasks.json` and masks into the directory. The directory is passed unchanged: the paths of masks start with it.
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
