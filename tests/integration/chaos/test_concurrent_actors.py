"""Concurrent actors: another run on the same queue, people who take tasks, and deleted tasks."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from chaos.scale import TIMEOUT_S
from chaos.works import ASSIGN, PUT, REOPEN, REVIEW, WORKS, box, read_all_tasks
from sandbox_calls import REVIEW as REJECT
from sandbox_calls import claim, data, submit

from airflow_provider_redbrick.exceptions import RedBrickTasksFailedError
from airflow_provider_redbrick.operators.auto_review import RedBrickAutoReviewOperator, Review
from airflow_provider_redbrick.operators.prelabel import RedBrickPrelabelOperator

pytestmark = pytest.mark.timeout(TIMEOUT_S)

TASKS = 60
LOOK = ("task",)
CHANGE = (PUT, REVIEW, REOPEN)
CLAIMING = ["prelabel-submit", "prelabel-draft", "put-labels", "auto-review"]
TAKE = """mutation ($o: UUID!, $p: UUID!, $ids: [UUID!]!, $who: [String!], $anyway: Boolean!) {
    assignTasksMultipleUsers(orgId: $o, projectId: $p, taskIds: $ids, emails: $who, refresh: $anyway) { taskId } }"""


def counts(manifest) -> dict[str, int]:
    """Return the counts of a manifest that are not zero."""
    return {status: number for status, number in manifest["counts"].items() if number}


@pytest.fixture
def take(sandbox):
    """Assign tasks to a person, if unassigned or ``anyway``; returns the ids that the person got."""

    def ask(who: str, *ids: str, anyway: bool = False) -> set[str]:
        where = {"o": sandbox.org_id, "p": sandbox.project_id}
        answer = sandbox.graphql(TAKE, {**where, "ids": list(ids), "who": [who], "anyway": anyway}, strict=False)
        return {entry["taskId"] for entry in (answer["data"] or {}).get(ASSIGN) or ()}

    return ask


@pytest.fixture
def just_before(tap):
    """Run an action right before the first request with one of the root fields that names a task.

    ``just_before((PUT,), task_id, action)``
    """

    def when(root_fields, task_id, action) -> None:
        done, lock = [], threading.Lock()

        def before(text: str) -> None:
            with lock:
                if not done and task_id in text and any(f"{name}(" in text for name in root_fields):
                    done.append(True)
                    action()

        tap.before = before

    return when


# Without balance: two plans made at the same moment assign tasks twice, to one person after the other.
@pytest.mark.parametrize("kind", [kind for kind in WORKS if kind != "balance"])
def test_two_concurrent_runs_change_every_task_once(kind, seed, storm, attempts, caplog):
    created = storm(kind, seed, slow=0)
    about = f"{kind}, {created.count} tasks, two runs, seed {seed}"
    together = threading.Barrier(2)

    def run() -> list:
        together.wait(timeout=10)
        return attempts().finish(created.operator, about=about)

    with ThreadPoolExecutor(2) as pool:
        ended = [pool.submit(run) for _ in range(2)]
        both = [[counts(manifest) for manifest in one.result()] for one in ended]
    created.sandbox.faults("")
    print(f"{about}: {both}")
    assert not any(each[-1].keys() & {"failed", "unknown"} for each in both), about
    created.excuse(caplog.text)
    # Each of the two may save a draft.
    complaints = created.complaints(often=2 if kind == "prelabel-draft" else 1)
    assert not complaints, f"{about}: {len(complaints)} complaints, the first: {complaints[:10]}"


def test_claim_after_submission_by_other_run_is_released(work, just_before, run, sandbox):
    """Another run submits a task between the read and the claim, so that it waits for review."""
    created = work("prelabel-submit", TASKS)
    late = created.ids[3]

    def other_run() -> None:
        claim(sandbox, late)
        submit(sandbox, late)

    just_before((ASSIGN,), late, other_run)
    run.try_once(created.operator())
    assert sandbox.applied(PUT)[late] == 1
    assert (sandbox.stage_of(late), sandbox.task(late)["owner"]) == ("Review_1", None)


def test_claim_after_rejection_by_other_run_returns_task_to_labeler(work, just_before, run, sandbox):
    """Another run rejects a task between the read and the claim, so that its labeler holds it."""
    created = work("auto-review", TASKS)
    late = next(task_id for task_id in created.ids[:10] if int(created.before[task_id].name[-1]) % 3 == 1)
    labeler = []

    def other_run() -> None:
        claim(sandbox, late)
        data(sandbox, REJECT, t=late, s="Review_1", v=False)
        labeler.append(sandbox.task(late)["owner"])

    just_before((ASSIGN,), late, other_run)
    run.try_once(created.operator())
    assert sandbox.applied(REVIEW)[late] == 1
    assert [sandbox.task(late)["owner"]] == labeler


def test_release_after_rejection_by_other_run_leaves_task_with_labeler(sandbox, just_before, run):
    """Another run rejects a task between the read and the release."""
    ids = sandbox.seed_tasks(3, stage="Review_1", labels=[])
    late = ids[1]
    labeler = []

    def other_run() -> None:
        data(sandbox, REJECT, t=late, s="Review_1", v=False)
        labeler.append(sandbox.task(late)["owner"])

    def reviewer(task) -> Review:
        if task.task_id == late:
            just_before((ASSIGN,), late, other_run)
        return Review.leave()

    operator = RedBrickAutoReviewOperator(task_id="work", stage_name="Review_1", reviewer=reviewer)
    assert counts(run.try_once(operator)) == {"skipped": 3}
    assert [sandbox.task(late)["owner"]] == labeler != [None]


@pytest.mark.parametrize("kind", CLAIMING)
def test_task_held_by_person_when_read_stays_with_them(kind, work, just_before, take, run):
    created = work(kind, TASKS)
    taken_id = created.ids[-3]
    just_before(LOOK, taken_id, lambda: take(created.strangers_hold, taken_id))
    assert counts(run.try_once(created.operator())) == {"done": TASKS - 1, "skipped": 1}
    created.leave([taken_id])
    assert not created.complaints()


@pytest.mark.parametrize("kind", CLAIMING)
def test_task_taken_from_key_stays_with_person(kind, work, just_before, take, run):
    """E.g. an admin, while the model runs. The other tasks of the same request are completed."""
    created = work(kind, TASKS)
    taken_id = created.ids[3]
    just_before(CHANGE, taken_id, lambda: take(created.strangers_hold, taken_id, anyway=True))
    with pytest.raises(RedBrickTasksFailedError):
        run.try_once(created.operator())
    manifest = run.xcoms["manifest"]
    assert counts(manifest) == {"done": TASKS - 1, "failed": 1}
    assert [entry["task_id"] for entry in manifest["failed"]] == [taken_id]
    assert counts(run.try_once(created.operator())).keys() <= {"already_done", "skipped"}
    created.leave([taken_id])
    assert not created.complaints()


def test_tasks_taken_during_prelabel_are_theirs_or_done_once(seed, work, take, tap, run):
    created = work("prelabel-submit")
    who, draw = created.strangers_hold, random.Random(seed)
    about = f"{created.count} tasks, seed {seed}"
    stop, seen = threading.Event(), set()
    tap.after = lambda answer: seen.update(held_by(who, answer))

    def take_tasks() -> set[str]:
        got: set[str] = set()
        for task_id in draw.sample(created.ids, created.count):
            if stop.wait(draw.uniform(0, 0.01)):
                break
            got |= take(who, task_id)
        return got

    def labeler(task):
        stop.wait(0.002)
        return [{"boundingBoxes": [box(task.name)]}]

    with ThreadPoolExecutor(1) as pool:
        taking = pool.submit(take_tasks)
        try:
            operator = RedBrickPrelabelOperator(task_id="work", stage_name="Label", labeler=labeler, fail_on="never")
            manifest = run.try_once(operator)
        finally:
            stop.set()
        got = taking.result()
    after = read_all_tasks(created.sandbox)
    kept = {task_id for task_id in created.ids if after[task_id].holder == who}
    print(f"{about}: {len(got)} grabbed, {len(seen & got)} of them seen, {len(kept)} kept; {manifest['counts']}")
    # The operator leaves tasks that it read as held by a person. It may reassign tasks that were taken between its read
    # and its request, as the README says. Each task is either held by the person and unchanged, or done once.
    assert seen & set(created.ids) <= kept, f"{about}: taken away: {seen - kept}"
    assert kept <= got, f"{about}: {kept - got}"
    assert kept, f"{about}: the person kept no task"
    assert kept != set(created.ids), f"{about}: the operator got no task"
    assert manifest["counts"]["done"] == created.count - len(kept), about
    created.leave(kept)
    complaints = created.complaints()
    assert not complaints, f"{about}: {len(complaints)} complaints, the first: {complaints[:10]}"


def held_by(who, answer) -> set[str]:
    """Return the ids of the tasks that an answer shows as held by a person."""
    if isinstance(answer, list):
        return set().union(*(held_by(who, each) for each in answer))
    if not isinstance(answer, dict):
        return set()
    work = answer.get("currentStageSubTask") or {}
    holder = (work.get("assignedTo") or {}).get("email")
    task_ids = {answer["taskId"]} if holder == who and "taskId" in answer else set()
    return task_ids.union(*(held_by(who, each) for each in answer.values()))


@pytest.mark.parametrize(
    ("kind", "moment"),
    [
        *((kind, LOOK) for kind in [*CLAIMING, "reopen"]),
        *((kind, (ASSIGN,)) for kind in [*CLAIMING, "balance"]),
        *((kind, CHANGE) for kind in [*CLAIMING, "reopen"]),
    ],
    ids=lambda value: value if isinstance(value, str) else {LOOK: "read", CHANGE: "change"}.get(value, "claim"),
)
def test_deleted_task_fails_alone(kind, moment, work, just_before, run):
    created = work(kind, TASKS)
    gone = created.ids[3]
    just_before(moment, gone, lambda: created.delete(gone))
    with pytest.raises(RedBrickTasksFailedError):
        run.try_once(created.operator())
    manifest = run.xcoms["manifest"]
    assert counts(manifest) == {"done": TASKS - 1, "failed": 1}, manifest["failed"]
    (failure,) = manifest["failed"]
    assert failure["task_id"] == gone
    assert "There is no such task" in failure["reason"] or f"there is no task {gone}" in failure["reason"]
    assert not created.complaints()
