"""Every operation of the client on answers that were good once and have changed in some places."""

from __future__ import annotations

import io
import json
from functools import cache
from itertools import islice
from typing import Any

import pytest
from fuzz.promises import promises
from fuzz.replay import Replayer, project_at, recorded
from fuzz.values import CHANGES, fuzzed
from fuzz.works import REMOTE, SERIES, a_mask
from hypothesis import given
from hypothesis import strategies as st
from sandbox_calls import BOX

from airflow_provider_redbrick.actions.balance import SharingRules, claim_tasks, plan_queue
from airflow_provider_redbrick.actions.export import export
from airflow_provider_redbrick.actions.prelabel import list_waiting
from airflow_provider_redbrick.actions.put_labels import find_mismatch
from airflow_provider_redbrick.annotations.conversion import Converter, Labels
from airflow_provider_redbrick.assignments.assign import check_people
from airflow_provider_redbrick.client.models.task import Detail, Task
from airflow_provider_redbrick.client.operations.task_reads import BulkRead, read_again
from airflow_provider_redbrick.client.operations.uploads import Datapoint
from airflow_provider_redbrick.engine.polling import QueueCondition, TasksCondition
from airflow_provider_redbrick.engine.task_reader import with_series_labels
from airflow_provider_redbrick.exceptions import RedBrickNotReadError
from airflow_provider_redbrick.labels.legacy import label_inputs
from airflow_provider_redbrick.labels.taxonomy import Taxonomy
from airflow_provider_redbrick.labels.validation import check_labels

STORAGE = "22222222-2222-2222-2222-222222222222"
BODY = {"series": SERIES, "classification": {"attributes": {"quality": "good"}}}


class World:
    """What there is in the sandbox when the answers are written down."""

    def __init__(self, sandbox: Any) -> None:
        self.sandbox = sandbox
        sandbox.reset()
        self.ids = sandbox.seed_tasks(3, stage="Label", images=True)
        self.reviewed = sandbox.seed_tasks(2, stage="Review_1", labels=[BOX])
        self.finished = sandbox.seed_tasks(2, ground_truth=True)
        self.held = sandbox.seed_tasks(1, stage="Label", assignee="API key")
        self.name = sandbox.task(self.ids[0])["name"]
        self.remote = sandbox.add_project(REMOTE)
        self.waiting = sandbox.seed_tasks(2, stage="Model", project_id=self.remote)


def used(found: Any) -> Any:
    """Look at a task in all the ways there are."""
    if isinstance(found, Task):
        told = (asked(found, name) for name in ("masks", "has_labels", "is_leaving"))
        return (found, str(found), found.where, found.held_by("x"), *told)
    return found


def asked(task: Task, name: str) -> Any:
    """Ask a task something that it may not know."""
    try:
        return getattr(task, name)
    except RedBrickNotReadError as error:
        return str(error)


def read_in_full(project: Any, world: World) -> list[Any]:
    found = project.read_tasks([*world.ids, *world.reviewed], detail=Detail.FULL)
    tasks = [task for task in found.values() if isinstance(task, Task)]
    return [used(with_series_labels(project, task)) for task in tasks] + list(found.values())


def converted(project: Any, world: World) -> list[Any]:
    made = Converter(project.client, lambda _: None).convert([Labels(world.ids[0], BODY), Labels(world.ids[1], BODY)])
    found = project.read_tasks(world.ids)
    return [
        (made[task_id].on_items_of(task.series_info), find_mismatch(made[task_id], task))
        for task_id, task in found.items()
        if isinstance(task, Task) and task_id in made and not isinstance(made[task_id], str)
    ]


def balanced(project: Any, _world: World) -> Any:
    stage = project.stage("Label")
    people = check_people(project.members(), stage, ["alice@example.com", "bob@example.com"])
    return plan_queue(project, stage, SharingRules(people, {}, None, rebalance=True)).plan.table()


def labelled_remotely(project: Any, world: World) -> Any:
    remote = project.remote(project.stage("Model"))
    ids = list(islice(list_waiting(remote, limit=None, page_size=1), 100))
    found = project.read_tasks(world.waiting, detail=Detail.FULL)
    for task in found.values():
        if isinstance(task, Task):
            labels = label_inputs([{**BOX, "category": [["object", "finding"]]}], remote.output)
            project.change(remote.submit(task, labels))
    return ids, remote.count(), found


def taxonomy(project: Any, _world: World) -> Any:
    return check_labels(BODY, Taxonomy.from_wire(project.taxonomy))


def uploaded(project: Any, _world: World) -> Any:
    (place,) = project.imports.request_targets([("a.dcm", "application/dicom")], task_name="new")
    project.imports.put(place, io.BytesIO(b"item"))
    labels = project.files.label_variables([BOX] * 1001, [], task_id="new")
    return place, project.imports.create(Datapoint("new", STORAGE, [place.path], {}, labels))


def masked(project: Any, world: World) -> Any:
    path = project.files.store_mask(io.BytesIO(a_mask()), world.ids[0], series=0)
    labels = project.files.label_variables([], [{"labelName": path, "seriesIndex": 0}], task_id=world.ids[0])
    project.change(project.put_labels_anywhere(world.reviewed[0], labels, extra={}))
    return path


def exported(project: Any, _world: World) -> Any:
    kept = []
    tasks = BulkRead(project, None)
    rows = [json.loads(each.line) for each in export(project, tasks, lambda path, _file: kept.append(path))]
    assert all(path.startswith("masks/") and ".." not in path for path in kept)
    return rows, kept, tasks.watermark


def changed(project: Any, world: World) -> Any:
    stage, labels = project.stage("Label"), project.files.label_variables([BOX], [], task_id="x")
    project.claim(world.ids)
    calls = [project.put_labels(stage, task_id, labels, finished=False) for task_id in world.ids]
    together = project.send(calls)
    project.change(project.submit_existing(stage, world.ids[0]))
    review = project.stage("Review_1")
    project.claim(world.reviewed)
    project.change(project.review(review, world.reviewed[0], accept=True))
    return together, project.send([project.move_to_start(task_id) for task_id in world.finished])


ACTS = {
    "me": lambda project, _: project.client.me(),
    "organization": lambda project, _: project.client.organization_name(project.org_id),
    "project": lambda project, _: (project.info, [project.info.workflow.position(name) for name in ("Label", "END")]),
    "taxonomy": taxonomy,
    "members": lambda project, _: [(each, each.may_work_in("Label")) for each in project.members()],
    "count": lambda project, _: project.count(project.stage("Label")),
    "list": lambda project, _: [used(task) for task in project.list_tasks()],
    "list unassigned": lambda project, _: [used(task) for task in project.list_tasks(unassigned=True)],
    "states": lambda project, world: list(map(used, project.read_tasks(world.ids).values())),
    "in full": read_in_full,
    "labelled": lambda project, world: project.are_labeled(world.ids, by="API:k"),
    "assignee changes": lambda project, world: project.assignee_changes(world.ids),
    "events": lambda project, world: project.output_events(world.reviewed),
    "names": lambda project, world: project.find_by_name([world.name, "unknown"]),
    "assign": lambda project, world: (project.assign(world.ids, "bob@example.com"), project.release(world.ids)),
    "convert": converted,
    "balance": balanced,
    "take": lambda project, _: list(map(used, claim_tasks(project, project.stage("Label"), 2, me=project.client.me()))),
    "change": changed,
    "upload": uploaded,
    "mask": masked,
    "export": exported,
    "again": lambda project, world: read_again(project, world.finished[0]),
    "queue": lambda project, _: QueueCondition("Label", at_least=1, unassigned=True).look(project),
    "tasks": lambda project, world: TasksCondition(world.ids, reached_stage="Review_1").look(project),
    "remote": labelled_remotely,
}


@pytest.fixture(scope="module")
def conversation(running_sandbox):
    """Return the world, the answers to an act, and the ids they are about: ``conversation(name)``."""

    @cache
    def record(name: str) -> Any:
        world = World(running_sandbox)
        ids = (running_sandbox.org_id, world.remote if name == "remote" else running_sandbox.project_id)
        return world, recorded(running_sandbox, ids, lambda project: ACTS[name](project, world)), ids

    return record


@pytest.mark.parametrize("name", list(ACTS))
@fuzzed(25)
@given(changes=st.dictionaries(st.integers(0, 6), CHANGES, min_size=1, max_size=3))
def test_answers_that_have_changed(conversation, running_sandbox, name, changes):
    world, answers, ids = conversation(name)
    project = project_at(running_sandbox.url, ids, Replayer(answers, {n % len(answers): c for n, c in changes.items()}))
    with promises(seconds=10) as watch:
        watch.tell(ACTS[name](project, world))
    project.client.close()
    watch.check()


def test_answers_that_have_not(conversation, running_sandbox):
    """What the others change is good as it is, or they would show little."""
    for name, act in ACTS.items():
        world, answers, ids = conversation(name)
        act(project_at(running_sandbox.url, ids, Replayer(answers, {})), world)
