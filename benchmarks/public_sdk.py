"""Do the works as in the public SDK's documentation, with the SDK's Python."""

from __future__ import annotations

from itertools import cycle
from typing import TYPE_CHECKING, Any

import redbrick
from redbrick.common.enums import TaskFilters

from benchmarks.labels import labelled
from benchmarks.measuring import serve

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.measuring import Job


def _project(job: Job) -> Any:
    return redbrick.get_project(
        org_id=job["org_id"], project_id=job["project_id"], api_key=job["api_key"], url=job["url"]
    )


def _put_labels(job: Job) -> Callable[[], int]:
    tasks = [labelled(task_id) for task_id in job["task_ids"]]
    return lambda: len(tasks) - len(_project(job).labeling.put_tasks("Label", tasks))


def _review(job: Job) -> Callable[[], int]:
    tasks = [{"taskId": task_id} for task_id in job["task_ids"]]
    return lambda: len(tasks) - len(_project(job).review.put_tasks("Review_1", tasks, review_result=True))


def _reopen(job: Job) -> Callable[[], int]:
    def work() -> int:
        _project(job).labeling.move_tasks_to_start(job["task_ids"])
        return len(job["task_ids"])

    return work


def _assign(job: Job) -> Callable[[], int]:
    def work() -> int:
        project = _project(job)
        waiting = list(project.export.list_tasks(search=TaskFilters.UNASSIGNED, stage_name="Label", limit=None))
        given = 0
        for task, email in zip(waiting, cycle(job["members"]), strict=False):
            given += len(project.labeling.assign_tasks([task["taskId"]], email=email))
        return given

    return work


def _list(job: Job) -> Callable[[], int]:
    return lambda: len(list(_project(job).export.list_tasks(search=TaskFilters.QUEUED, stage_name="Label", limit=None)))


def _export(job: Job) -> Callable[[], int]:
    folder = f"{job['folder']}/sdk"
    return lambda: sum(1 for _ in _project(job).export.export_tasks(only_ground_truth=True, destination=folder))


_WORKS = {
    "put_labels": _put_labels,
    "review": _review,
    "reopen": _reopen,
    "assign": _assign,
    "list": _list,
    "export": _export,
}


def prepare(job: Job) -> Callable[[], int]:
    """Return a function that does the work."""
    return _WORKS[job["work"]](job)


def warm_up(job: Job) -> None:
    """Use everything once: the session, the project, a listing."""
    list(_project(job).export.list_tasks(search=TaskFilters.QUEUED, stage_name="Label", limit=1))


if __name__ == "__main__":
    serve(prepare, warm_up)
