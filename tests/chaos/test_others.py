"""Nobody works alone: another run on the same queue, people who take tasks, and somebody who deletes some."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from chaos.scale import PATIENCE
from chaos.works import ASSIGN, PUT, REOPEN, REVIEW, WORKS, box, look
from sandbox_calls import REVIEW as REJECT
from sandbox_calls import claim, data, submit

from airflow_provider_redbrick.exceptions import RedBrickTasksFailedError
from airflow_provider_redbrick.operators.auto_review import RedBrickAutoReviewOperator, Review
from airflow_provider_redbrick.operators.prelabel import RedBrickPrelabelOperator

pytestmark = pytest.mark.timeout(PATIENCE)

FEW = 60
LOOK = ("task",)
CHANGE = (PUT, REVIEW, REOPEN)
CLAIMING = ["prelabel-submit", "prelabel-draft", "put-labels", "auto-review"]
TAKE = """mutation ($o: UUID!, $p: UUID!, $ids: [UUID!]!, $who: [String!], $anyway: Boolean!) {
    assignTasksMultipleUsers(orgId: $o, projectId: $p, taskIds: $ids, emails: $who, refresh: $anyway) { taskId } }"""


def counts(manifest) -> dict[str, int]:
    """Return what a manifest counted, without what there was none of."""
    return {status: number for status, number in manifest["counts"].items() if number}


@pytest.fixture
def take(sandbox):
    """Let somebody take tasks that nobody holds, or take them ``anyway``; answers which they got."""

    def ask(who: str, *ids: str, anyway: bool = False) -> set[str]:
        where = {"o": sandbox.org_id, "p": sandbox.project_id}
        answer = sandbox.graphql(TAKE, {**where, "ids": list(ids), "who": [who], "anyway": anyway}, strict=False)
        return {entry["taskId"] for entry in (answer["data"] or {}).get(ASSIGN) or ()}

    return ask


@pytest.fixture
def just_before(tap):
    """Do something right before the first request with one of some root fields that is about a task.

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


# Balance is not among them: two plans made at the same moment give tasks twice, to one person after the other.
@pytest.mark.parametrize("kind", [kind for kind in WORKS if kind != "balance"])
def test_two_runs_of_one_dag_over_one_queue(kind, seed, storm, tries, caplog):
    given = storm(kind, seed, slow=0)
    about = f"{kind}, {given.count} tasks, two runs, seed {seed}"
    together = threading.Barrier(2)

    def run() -> list:
        together.wait(timeout=10)
        return tries().finish(given.operator, about=about)

    with ThreadPoolExecutor(2) as pool:
        ended = [pool.submit(run) for _ in range(2)]
        both = [[counts(manifest) for manifest in one.result()] for one in ended]
    given.sandbox.faults("")
    print(f"{about}: {both}")
    assert not any(each[-1].keys() & {"failed", "unknown"} for each in both), about
    given.excuse(caplog.text)
    # Each of the two may save a draft.
    complaints = given.complaints(often=2 if kind == "prelabel-draft" else 1)
    assert not complaints, f"{about}: {len(complaints)} complaints, the first: {complaints[:10]}"


def test_a_claim_that_comes_too_late_is_given_back(work, just_before, run, sandbox):
    """Another run has submitted a task between the look and the claim: it waits for its reviewers now."""
    given = work("prelabel-submit", FEW)
    late = given.ids[3]

    def other_run() -> None:
        claim(sandbox, late)
        submit(sandbox, late)

    just_before((ASSIGN,), late, other_run)
    run.try_once(given.operator())
    assert sandbox.applied(PUT)[late] == 1
    assert (sandbox.stage_of(late), sandbox.task(late)["owner"]) == ("Review_1", None)


def test_a_claim_that_comes_too_late_takes_nobody_s_task(work, just_before, run, sandbox):
    """Another run has rejected a task between the look and the claim: its labeler has it back."""
    given = work("auto-review", FEW)
    late = next(task_id for task_id in given.ids[:10] if int(given.before[task_id].name[-1]) % 3 == 1)
    labeler = []

    def other_run() -> None:
        claim(sandbox, late)
        data(sandbox, REJECT, t=late, s="Review_1", v=False)
        labeler.append(sandbox.task(late)["owner"])

    just_before((ASSIGN,), late, other_run)
    run.try_once(given.operator())
    assert sandbox.applied(REVIEW)[late] == 1
    assert [sandbox.task(late)["owner"]] == labeler


def test_a_task_that_is_given_back_too_late_stays_its_labeler_s(sandbox, just_before, run):
    """Another run has rejected a task between the look and the giving back."""
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
def test_who_holds_a_task_when_the_operator_looks_keeps_it(kind, work, just_before, take, run):
    given = work(kind, FEW)
    theirs = given.ids[-3]
    just_before(LOOK, theirs, lambda: take(given.strangers_hold, theirs))
    assert counts(run.try_once(given.operator())) == {"done": FEW - 1, "skipped": 1}
    given.leave([theirs])
    assert not given.complaints()


@pytest.mark.parametrize("kind", CLAIMING)
def test_who_takes_a_task_from_the_key_keeps_it(kind, work, just_before, take, run):
    """An admin, say, while the model is at work; the tasks beside it in the same request are done all the same."""
    given = work(kind, FEW)
    theirs = given.ids[3]
    just_before(CHANGE, theirs, lambda: take(given.strangers_hold, theirs, anyway=True))
    with pytest.raises(RedBrickTasksFailedError):
        run.try_once(given.operator())
    manifest = run.xcoms["manifest"]
    assert counts(manifest) == {"done": FEW - 1, "failed": 1}
    assert [entry["task_id"] for entry in manifest["failed"]] == [theirs]
    assert counts(run.try_once(given.operator())).keys() <= {"already_done", "skipped"}
    given.leave([theirs])
    assert not given.complaints()


def test_somebody_grabs_tasks_while_a_prelabel_claims_them(seed, work, take, tap, run):
    given = work("prelabel-submit")
    who, draw = given.strangers_hold, random.Random(seed)
    about = f"{given.count} tasks, seed {seed}"
    stop, seen = threading.Event(), set()
    tap.after = lambda answer: seen.update(held_by(who, answer))

    def grab() -> set[str]:
        got: set[str] = set()
        for task_id in draw.sample(given.ids, given.count):
            if stop.wait(draw.uniform(0, 0.01)):
                break
            got |= take(who, task_id)
        return got

    def labeler(task):
        stop.wait(0.002)
        return [{"boundingBoxes": [box(task.name)]}]

    with ThreadPoolExecutor(1) as pool:
        grabbing = pool.submit(grab)
        try:
            operator = RedBrickPrelabelOperator(task_id="work", stage_name="Label", labeler=labeler, fail_on="never")
            manifest = run.try_once(operator)
        finally:
            stop.set()
        got = grabbing.result()
    after = look(given.sandbox)
    kept = {task_id for task_id in given.ids if after[task_id].holder == who}
    print(f"{about}: {len(got)} grabbed, {len(seen & got)} of them seen, {len(kept)} kept; {manifest['counts']}")
    # What the operator saw in somebody's hands it left there. What was taken between its look and its request may have
    # gone back to it: the README says so. Whatever became of a task, it is theirs as it was, or done once.
    assert seen & set(given.ids) <= kept, f"{about}: taken away: {seen - kept}"
    assert kept <= got, f"{about}: {kept - got}"
    assert kept, f"{about}: nobody got anything"
    assert kept != set(given.ids), f"{about}: nothing was left"
    assert manifest["counts"]["done"] == given.count - len(kept), about
    given.leave(kept)
    complaints = given.complaints()
    assert not complaints, f"{about}: {len(complaints)} complaints, the first: {complaints[:10]}"


def held_by(who, answer) -> set[str]:
    """Return the ids of the tasks that an answer shows in somebody's hands."""
    if isinstance(answer, list):
        return set().union(*(held_by(who, each) for each in answer))
    if not isinstance(answer, dict):
        return set()
    work = answer.get("currentStageSubTask") or {}
    holder = (work.get("assignedTo") or {}).get("email")
    here = {answer["taskId"]} if holder == who and "taskId" in answer else set()
    return here.union(*(held_by(who, each) for each in answer.values()))


@pytest.mark.parametrize(
    ("kind", "moment"),
    [
        *((kind, LOOK) for kind in [*CLAIMING, "reopen"]),
        *((kind, (ASSIGN,)) for kind in [*CLAIMING, "balance"]),
        *((kind, CHANGE) for kind in [*CLAIMING, "reopen"]),
    ],
    ids=lambda value: value if isinstance(value, str) else {LOOK: "look", CHANGE: "change"}.get(value, "claim"),
)
def test_a_task_deleted_in_the_middle_is_that_task_s_failure(kind, moment, work, just_before, run):
    given = work(kind, FEW)
    gone = given.ids[3]
    just_before(moment, gone, lambda: given.delete(gone))
    with pytest.raises(RedBrickTasksFailedError):
        run.try_once(given.operator())
    manifest = run.xcoms["manifest"]
    assert counts(manifest) == {"done": FEW - 1, "failed": 1}, manifest["failed"]
    (failure,) = manifest["failed"]
    assert failure["task_id"] == gone
    assert "There is no such task" in failure["reason"] or f"there is no task {gone}" in failure["reason"]
    assert not given.complaints()
