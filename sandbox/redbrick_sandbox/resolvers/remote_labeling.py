"""Fields for programs that label, from the first generation of the API.

Programs work in remote-labeling stages. `putLabels` belongs to both generations: one field with two forms, which have
only the project's arguments in common.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from redbrick_sandbox import listing, presenters, state_machine
from redbrick_sandbox.demo_project import FIRST_TAXONOMY, PATHS
from redbrick_sandbox.resolvers import tasks
from redbrick_sandbox.sandbox import Arguments, Request, scope
from redbrick_sandbox.transitions import RefusalError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redbrick_sandbox.sandbox import Project, Sandbox
    from redbrick_sandbox.store import Record
    from redbrick_sandbox.transitions import Stage

_OLD_FORM = ("dpId", "stageName", "subName", "labels", "taxonomyName", "taxonomyVersion", "tdType")


def _scope(request: Request, arguments: Arguments) -> tuple[Sandbox, Project, Stage]:
    sandbox, project = scope(request, arguments)
    return sandbox, project, project.flow.remote(arguments["stageName"])


def _output_type(place: Stage) -> str:
    return str(place.config.get("outputType") or "IMAGE_BBOX")


def _stage(request: Request, arguments: Arguments) -> dict[str, Any]:
    _, _, place = _scope(request, arguments)
    made = _output_type(place)
    return {
        "inputType": made.partition("_")[0],
        "outputType": made,
        "outputTaxonomyName": FIRST_TAXONOMY["name"],
        "outputTaxonomyVersion": FIRST_TAXONOMY["version"],
    }


def _waiting(project: Project, place: Stage) -> listing.Query:
    return listing.in_stage(project, place.name).where("tasks.state <> ?", state_machine.COMPLETED)


def _stage_stat(request: Request, arguments: Arguments) -> dict[str, Any]:
    sandbox, project, place = _scope(request, arguments)
    return {"currentTaskCount": listing.count(sandbox, _waiting(project, place))}


def _tasks_to_label(request: Request, arguments: Arguments) -> list[dict[str, Any]]:
    sandbox, project, place = _scope(request, arguments)
    page = listing.page(sandbox, _waiting(project, place), arguments["numTasks"], None)
    return [_task(sandbox, record) for record in page.records]


def _task(sandbox: Sandbox, record: Record) -> dict[str, Any]:
    named = sandbox.store.row("SELECT sub_name FROM versions WHERE td_id = ?", (record.version,))
    return {
        "stageName": record.task.stage,
        "taskId": record.task.task_id,
        "subName": named["sub_name"] if named else None,
        "modelName": None,
        "createdAt": record.created_at,
        "dpId": record.dp_id,
        "taxonomy": FIRST_TAXONOMY,
        "datapoint": lambda: presenters.datapoint(sandbox, record.dp_id),
    }


def _put_labels(request: Request, arguments: Arguments) -> dict[str, Any]:
    given = {name for name, value in arguments.items() if value is not None} - {"orgId", "projectId"}
    old = given.intersection(_OLD_FORM)
    if not old and "taskId" in given:
        return tasks.put_labels(request, arguments)
    missing = [name for name in _OLD_FORM if name not in old]
    others = sorted(given - old)
    if not old:
        raise RefusalError("putLabels needs a taskId or, in its older form, dpId and labels")
    if missing or others:
        words = [f"needs {', '.join(missing)}"] if missing else []
        words += [f"does not take {', '.join(others)}"] if others else []
        raise RefusalError(f"putLabels with {', '.join(sorted(old))} is the older form, which {' and '.join(words)}")
    return _put_old_labels(request, arguments)


def _put_old_labels(request: Request, arguments: Arguments) -> dict[str, Any]:
    sandbox, project, place = _scope(request, arguments)
    record = _of_datapoint(sandbox, project, arguments["dpId"])
    state_machine.require_waiting(record.task, place.name)
    _check(place, arguments)
    doing = sandbox.doing()
    labels = [{key: value for key, value in label.items() if value is not None} for label in arguments["labels"]]
    version = sandbox.add_version(
        record.task.task_id, place.name, doing, json.dumps(labels), sub_name=arguments["subName"]
    )
    step = state_machine.Step(record.task._replace(updated_at=doing.now))
    sandbox.apply(project, record, step, version=version)
    request.touched.append(record.task.task_id)
    return {"ok": True, "message": None}


def _of_datapoint(sandbox: Sandbox, project: Project, dp_id: str) -> Record:
    query = "SELECT task_id FROM tasks WHERE project_id = ? AND dp_id = ?"
    found = sandbox.store.row(query, (project.project_id, dp_id))
    if found is None:
        raise RefusalError(f"there is no data point {dp_id} in project {project.project_id}")
    return sandbox.record(project, found["task_id"])


def _check(place: Stage, arguments: Arguments) -> None:
    """Refuse labels that do not match the output type and taxonomy of the stage."""
    made = _output_type(place)
    if arguments["tdType"] != made:
        raise RefusalError(f"stage {place.name!r} makes {made} labels, not {arguments['tdType']}")
    wanted = (FIRST_TAXONOMY["name"], FIRST_TAXONOMY["version"])
    named = (arguments["taxonomyName"], arguments["taxonomyVersion"])
    if named != wanted:
        raise RefusalError(f"stage {place.name!r} labels by {_taxonomy(wanted)}, not by {_taxonomy(named)}")
    if not arguments["subName"].strip():
        raise RefusalError("subName must not be empty")
    for index, label in enumerate(arguments["labels"]):
        paths = label["category"] if label else []
        if not paths:
            raise RefusalError(f"labels[{index}] has no category")
        for path in paths:
            if tuple(path) not in PATHS:
                raise RefusalError(
                    f"labels[{index}].category: {path} is not a path from the root to a leaf of {_taxonomy(wanted)}"
                )


def _taxonomy(named: Sequence[Any]) -> str:
    return f"taxonomy {named[0]!r} version {named[1]}"


def _put_task(request: Request, arguments: Arguments) -> dict[str, Any]:
    finished = arguments["finishedTask"]
    sandbox, project, place = _scope(request, finished)
    record = sandbox.record(project, finished["taskId"])
    step = state_machine.hand_on(project.flow, record.task, place.name, sandbox.doing())
    labels = sandbox.store.row(
        "SELECT td_id FROM versions WHERE task_id = ? AND sub_name = ? ORDER BY seq DESC LIMIT 1",
        (record.task.task_id, finished["newSubName"]),
    )
    if labels is None:
        raise RefusalError(f"no labels have been put for task {record.task.task_id} under {finished['newSubName']!r}")
    sandbox.apply(project, record, step, version=labels["td_id"])
    request.touched.append(record.task.task_id)
    return {"ok": True}


QUERIES = {"stage": _stage, "stageStat": _stage_stat, "tasksToLabelRemote": _tasks_to_label}
MUTATIONS = {"putLabels": _put_labels, "putRemoteLabelingTask": _put_task}
