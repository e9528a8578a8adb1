"""Create single tasks through the API, or many at once for tests and demos.

`create` runs a task through the state machine. `create_many` writes rows directly, which is faster, with the history
that tasks would have if they had reached their stage step by step.

The images come from the packages pydicom and nibabel (see `images`). They are written to the sandbox's storage, and a
task is created for each study.
"""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from redbrick_sandbox import demo_project, state_machine
from redbrick_sandbox.actions import people_by_email
from redbrick_sandbox.clock import canonical
from redbrick_sandbox.labels import drawn_by_hand, incoming, parse_labels
from redbrick_sandbox.store import body_of, facts_as_rows, holders_text, make_id
from redbrick_sandbox.transitions import ARCHIVED, GROUND_TRUTH, RESTING, RefusalError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from redbrick_sandbox.sandbox import Project, Sandbox


_STATES = ("UNASSIGNED", "ASSIGNED", "IN_PROGRESS", "STAGED", "SKIPPED", "PROBLEM", "COMPLETED")


@dataclass(frozen=True)
class NewTask:
    """A task to create.

    `body` has further fields of the data point, by their API names. `labels` is JSON text; `labels_path` the path of an
    uploaded labels file.
    """

    name: str
    items: Sequence[str]
    storage_id: str = demo_project.REDBRICK_STORAGE
    body: Mapping[str, Any] = field(default_factory=dict)
    labels: str | None = None
    labels_path: str | None = None
    labels_map: Sequence[Mapping[str, Any] | None] = ()
    ground_truth: bool = False
    pre_assign: Mapping[str, Any] = field(default_factory=dict)
    priority: float | None = None


def check_priority(value: Any) -> None:
    """Refuse a priority that is not a number from 0 to 1."""
    if value is not None and not (isinstance(value, int | float) and 0 <= value <= 1):
        raise RefusalError(f"priority must be from 0 to 1, not {value}")


def create(sandbox: Sandbox, project: Project, new: NewTask, doing: state_machine.Doing) -> tuple[str, str]:
    """Create a task and its data point.

    :param sandbox: the sandbox that stores the task.
    :param project: the project of the task.
    :param new: the task.
    :param doing: the creator and the time.
    :return: dpId and taskId.
    :raises RefusalError: if the name is taken, or a value is invalid.
    """
    if not new.name.strip():
        raise RefusalError("a task needs a name")
    if not new.items:
        raise RefusalError(f"task {new.name!r} has no items")
    taken = "SELECT 1 FROM datapoints WHERE project_id = ? AND name = ?"
    if sandbox.store.row(taken, (project.project_id, new.name)):
        raise RefusalError(f"a task with the name {new.name!r} already exists")
    check_priority(new.priority)
    labels = incoming(sandbox, new.labels, new.labels_path)
    if labels is None and new.labels_map:
        labels = "[]", None
    if new.ground_truth and labels is None:
        raise RefusalError(f"task {new.name!r} cannot be ground truth without labels")
    task_id = make_id("task", sandbox.store.next_number("tasks"))
    dp_id = make_id("datapoint", sandbox.store.next_number("datapoints"))
    step = state_machine.create(
        project.flow,
        task_id,
        doing,
        ground_truth=new.ground_truth,
        pre_assign=_pre_assigned(project, new.pre_assign),
        priority=new.priority,
    )
    version = None
    if labels is not None:
        version = sandbox.add_version(
            task_id, project.flow.entry, doing, labels[0], path=labels[1], labels_map=new.labels_map
        )
    sandbox.store.insert("datapoints", [_datapoint_row(project, dp_id, new, doing)])
    sandbox.store.insert("tasks", [_task_row(project, dp_id, new, step.task, doing.now, version=version)])
    sandbox.store.remember(project.project_id, task_id, step.facts, version)
    return dp_id, task_id


def _pre_assigned(project: Project, given: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    wanted: dict[str, tuple[str, ...]] = {}
    for stage, emails in given.items():
        place = project.flow.find(stage)
        if place is None or not (place.is_label or place.is_review):
            raise RefusalError(f"preAssign: there is no label or review stage {stage!r}")
        named = [emails] if isinstance(emails, str) else emails
        if not isinstance(named, list) or not all(isinstance(each, str) for each in named):
            raise RefusalError(f"preAssign: stage {stage!r} takes an email or a list of emails")
        people = people_by_email(project, named)
        for person in people:
            if not project.may_work(person.user_id, stage):
                raise RefusalError(f"preAssign: {person.email} has no access to stage {stage!r}")
        if len(people) > 1 and not (project.flow.consensus and place.is_label):
            raise RefusalError(f"preAssign: stage {stage!r} takes one assignee")
        wanted[stage] = tuple(person.user_id for person in people)
    return wanted


def _datapoint_row(project: Project, dp_id: str, new: NewTask, doing: state_machine.Doing) -> dict[str, Any]:
    return {
        "dp_id": dp_id,
        "project_id": project.project_id,
        "name": new.name,
        "storage_id": new.storage_id,
        "created_at": doing.now,
        "created_by": doing.actor,
        "items": json.dumps(list(new.items)),
        "body": json.dumps(dict(new.body)),
    }


def _task_row(
    project: Project, dp_id: str, new: NewTask, task: state_machine.Task, created_at: str, *, version: str | None
) -> dict[str, Any]:
    return {
        "task_id": task.task_id,
        "project_id": project.project_id,
        "dp_id": dp_id,
        "name": new.name,
        "priority": new.priority,
        "rank": -(new.priority or 0.0),
        "created_at": created_at,
        "updated_at": task.updated_at,
        "stage": task.stage,
        "state": task.state,
        "holders": holders_text(task),
        "review_state": task.review_state,
        "arrives_at": task.arrives_at,
        "version": version,
        "body": body_of(task),
    }


@dataclass(frozen=True)
class Bulk:
    """Many similar tasks in a given state.

    Names are `<prefix>-<number>`. The numbers continue from the last task in the database.
    """

    count: int
    stage: str | None = None
    prefix: str = "task"
    assignee: str | None = None
    state: str | None = None
    updated_at: str | None = None
    labels: Sequence[Mapping[str, Any]] | None = None
    ground_truth: bool = False
    priority: float | None = None
    files: Sequence[Mapping[str, Any]] = ()


def create_many(sandbox: Sandbox, project: Project, bulk: Bulk) -> list[str]:
    """Create tasks as if they had reached their stage step by step.

    :param sandbox: the sandbox that stores the tasks.
    :param project: the project of the tasks.
    :param bulk: the tasks. If `files` is set, it has name, items and body for each task.
    :return: the task ids, in order.
    :raises RefusalError: if the stage, the state or the assignee is unknown, or a name is taken.
    """
    if bulk.state is not None and bulk.state not in _STATES:
        raise RefusalError(f"no state {bulk.state!r}; the states are {', '.join(_STATES)}")
    check_priority(bulk.priority)
    if bulk.labels is not None:
        parse_labels(json.dumps(bulk.labels), "labels")
    now = sandbox.clock.now()
    moment = canonical(bulk.updated_at) if bulk.updated_at else now
    stage = GROUND_TRUTH if bulk.ground_truth else _resting(project, bulk.stage)
    doing = state_machine.Doing(demo_project.API_KEY_USER, moment, moment)
    store = sandbox.store
    first = {name: store.next_number(name) for name in ("tasks", "datapoints", "versions", "events")}
    history = _History(project, stage)
    labels = None if bulk.labels is None else json.dumps(list(bulk.labels), separators=(",", ":"))
    if labels is None and any(place.is_label for place in history.passed):
        labels = json.dumps(drawn_by_hand(bulk.prefix), separators=(",", ":"))
    rows: dict[str, list[dict[str, Any]]] = {
        name: [] for name in ("datapoints", "tasks", "versions", "events", "completions")
    }
    for index in range(bulk.count):
        task_id = make_id("task", first["tasks"] + index)
        dp_id = make_id("datapoint", first["datapoints"] + index)
        td_id = None if labels is None else make_id("labels", first["versions"] + index)
        number = first["tasks"] + index
        one = bulk.files[index] if bulk.files else {}
        new = NewTask(
            name=str(one.get("name", f"{bulk.prefix}-{number:06d}")),
            items=one.get("items", (f"items/{bulk.prefix}-{number:06d}.dcm",)),
            body=one.get("body", {"seriesInfo": [{"itemsIndices": [0], "dataType": "dicom"}]}),
            priority=bulk.priority,
        )
        task, facts = history.of(task_id, index, doing, bulk, _holder(project, bulk, stage))
        rows["datapoints"].append(_datapoint_row(project, dp_id, new, doing))
        rows["tasks"].append(_task_row(project, dp_id, new, task, moment, version=td_id))
        if td_id is not None:
            rows["versions"].append(_version_row(td_id, task, history.labeler(task), moment, labels or "[]"))
        event_number = first["events"] + len(rows["events"])
        events, done = facts_as_rows(project.project_id, task_id, facts, td_id, event_number)
        rows["events"] += events
        rows["completions"] += done
    try:
        with store.savepoint():
            for name, many in rows.items():
                store.insert(name, many)
    except sqlite3.IntegrityError:
        raise RefusalError(f"{rows['tasks'][0]['name']!r} or a name after it is taken; use another prefix") from None
    return [row["task_id"] for row in rows["tasks"]]


def _resting(project: Project, name: str | None) -> str:
    if name is None:
        return project.flow.start
    if name in (GROUND_TRUTH, project.flow.output):
        return GROUND_TRUTH
    place = project.flow.find(name)
    if name != ARCHIVED and (place is None or place.brick not in RESTING):
        raise RefusalError(f"tasks cannot be created in {name!r}")
    return name


def _holder(project: Project, bulk: Bulk, stage: str) -> tuple[str, ...]:
    if bulk.assignee is None:
        return ()
    place = project.flow.find(stage)
    if place is None or place.is_remote:
        raise RefusalError(f"tasks in {stage!r} cannot be assigned")
    if bulk.assignee in ("API key", demo_project.API_KEY_USER):
        return (demo_project.API_KEY_USER,)
    return tuple(person.user_id for person in people_by_email(project, [bulk.assignee]))


def _version_row(td_id: str, task: state_machine.Task, labeler: str, moment: str, labels: str) -> dict[str, Any]:
    return {
        "td_id": td_id,
        "task_id": task.task_id,
        "stage": next(iter(task.labelers), task.stage),
        "created_at": moment,
        "created_by": labeler,
        "labels": labels,
        "labels_path": None,
        "labels_map": "[]",
    }


class _History:
    """History of a task up to its stage: completed stages and who completed them."""

    def __init__(self, project: Project, stage: str) -> None:
        self.flow = project.flow
        self.stage = stage
        passed = []
        place = self.flow.find(self.flow.begin())
        while place is not None and place.name != stage and place not in passed:
            passed.append(place)
            place = self.flow.find(place.leads_to(True if place.is_review else None) or GROUND_TRUTH)
        self.passed = [each for each in passed if each.is_label or each.is_review] if stage != ARCHIVED else []

    @staticmethod
    def labeler(task: state_machine.Task) -> str:
        """Return the user who labeled a task, or the API key if there was none."""
        return next((users[0] for users in task.labelers.values()), demo_project.API_KEY_USER)

    def of(
        self, task_id: str, index: int, doing: state_machine.Doing, bulk: Bulk, holder: tuple[str, ...]
    ) -> tuple[state_machine.Task, list[state_machine.Fact]]:
        """Return a task and the facts of its history, all at the same time."""
        at = doing.now
        start = {"currentStageName": self.flow.entry, "isGroundTruth": False, "priority": bulk.priority}
        facts = [state_machine.Fact("create", at, doing.actor, start)]
        labelers: dict[str, tuple[str, ...]] = {}
        for place in self.passed:
            people = (
                demo_project.LABELERS if place.is_label else [each for each in demo_project.LABELERS if each.reviews]
            )
            user_id = people[index % len(people)].user_id
            verdict = "PASSED" if place.is_review else None
            done = {"stage": place.name, "review_state": verdict, "time_ms": 0, "cycle": 0}
            left = {"currentStageName": place.name, "outputBool": True if verdict else None, "timeSpentMs": 0}
            facts += [
                state_machine.Fact("input", at, state_machine.SYSTEM, {"currentStageName": place.name}),
                state_machine.Fact("done", at, user_id, done),
                state_machine.Fact("output", at, user_id, left),
            ]
            if place.is_label:
                labelers[place.name] = (user_id,)
        facts.append(state_machine.Fact("input", at, state_machine.SYSTEM, {"currentStageName": self.stage}))
        rests = self.flow.find(self.stage) is not None
        works = tuple(state_machine.Work(user, bulk.state or state_machine.ASSIGNED, assigned_at=at) for user in holder)
        task = state_machine.Task(
            task_id,
            self.stage,
            (bulk.state or (state_machine.ASSIGNED if works else state_machine.UNASSIGNED)) if rests else None,
            works,
            updated_at=at,
            labelers=labelers,
            review_state="PASSED" if any(place.is_review for place in self.passed) else None,
        )
        return task, facts


@lru_cache(1)
def _studies(count: int) -> tuple[Any, ...]:
    # Imported here: a sandbox without demo tasks does not need the image libraries.
    from redbrick_sandbox.images import demo_studies  # noqa: PLC0415

    return tuple(demo_studies(count))


def populate(sandbox: Sandbox) -> None:
    """Create as many demo tasks as the settings require, named after their studies."""
    count = sandbox.settings.demo_tasks
    if not count:
        return
    project = sandbox.project(demo_project.ORG_ID, demo_project.PROJECT_ID)
    entries = study_entries(sandbox, project.project_id, count, named=True)
    create_many(sandbox, project, Bulk(count=len(entries), files=entries))


def study_entries(sandbox: Sandbox, project_id: str, count: int, *, named: bool = False) -> list[dict[str, Any]]:
    """Store the files of demo studies.

    :param sandbox: the sandbox that stores the files.
    :param project_id: the project, which is part of each path.
    :param count: number of studies.
    :param named: whether the tasks keep the names of the studies.
    :return: the value of `Bulk.files`: one entry with items and body per study.
    """
    return [_entry(sandbox, project_id, study, named=named) for study in _studies(count)]


def _entry(sandbox: Sandbox, project_id: str, study: Any, *, named: bool) -> dict[str, Any]:
    paths = []
    for file in study.files:
        path = f"{project_id}/items/{study.name}/{file.filename}"
        sandbox.put_file(path, file.content, "application/octet-stream")
        paths.append(path)
    body = {
        "seriesInfo": [
            {
                "name": study.name,
                "itemsIndices": list(range(len(paths))),
                "dataType": study.data_type,
                "metaData": json.dumps(dict(study.metadata)),
            }
        ],
        "metaData": json.dumps(dict(study.metadata)),
    }
    return {"items": paths, "body": body, **({"name": study.name} if named else {})}
