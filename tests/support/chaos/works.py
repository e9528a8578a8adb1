"""Work of each operator in the chaos suite, and the checks of the server's state afterwards.

A `Work` seeds its tasks, creates operators (one per attempt) and then checks the server. There are always tasks that
belong to other people, of which nothing may change. Labels carry the number of their task, so that an answer or a label
on the wrong task is detected.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_redbrick.operators.auto_review import RedBrickAutoReviewOperator, Review
from airflow_provider_redbrick.operators.balance_assignments import RedBrickBalanceAssignmentsOperator
from airflow_provider_redbrick.operators.prelabel import RedBrickPrelabelOperator
from airflow_provider_redbrick.operators.put_labels import RedBrickPutLabelsOperator
from airflow_provider_redbrick.operators.reopen_ground_truth import RedBrickReopenGroundTruthOperator
from airflow_provider_redbrick.operators.upload_tasks import RedBrickUploadTasksOperator

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sandbox_process import SandboxProcess

PUT = "putManualLabelingTaskAndLabels"
REVIEW = "putExpertReviewTask"
ASSIGN = "assignTasksMultipleUsers"
REOPEN = "moveTaskToStart"
CREATE = "createDatapoint"
PEOPLE = ["alice@example.com", "bob@example.com", "carol@example.com"]
STORAGE = "0a9c6e10-5b1d-4c8e-9f00-00000000abcd"
STRANGERS = 20
DAY = ("2026-03-14T00:00:00+00:00", "2026-03-14T12:00:00+00:00", "2026-03-15T00:00:00+00:00")
WRONG = [{"category": "finding", "bbox2d": {"xnorm": 0.9, "ynorm": 0.9, "wnorm": 0.05, "hnorm": 0.05}}]

_ALL = """query ($o: UUID!, $p: UUID!, $after: String) {
    genericTasks(orgId: $o, projectId: $p, first: 500, after: $after) { cursor entries {
        taskId currentStageName datapoint { name } latestTaskData { labelsData }
        currentStageSubTask { ... on LabelingTask { state assignedTo { userId email } } } } } }"""

_DELETE = (
    "mutation ($o: UUID!, $p: UUID!, $ids: [UUID!]!) { deleteTasks(orgId: $o, projectId: $p, taskIds: $ids) { ok } }"
)


@dataclass(frozen=True)
class TaskState:
    """A task on the server; ``holder`` is an email, the user id of the key, or None."""

    name: str
    stage: str
    state: str | None
    holder: str | None
    labels: str


def read_all_tasks(sandbox: SandboxProcess) -> dict[str, TaskState]:
    """Return all tasks of the project by id."""
    found: dict[str, TaskState] = {}
    after = None
    while True:
        ids = {"o": sandbox.org_id, "p": sandbox.project_id, "after": after}
        page = sandbox.graphql(_ALL, ids)["genericTasks"]
        for entry in page["entries"]:
            work = entry["currentStageSubTask"] or {}
            user = work.get("assignedTo") or {}
            labels = (entry["latestTaskData"] or {}).get("labelsData") or "[]"
            holder = user.get("email") or user.get("userId")
            name = entry["datapoint"]["name"]
            found[entry["taskId"]] = TaskState(name, entry["currentStageName"], work.get("state"), holder, labels)
        after = page["cursor"]
        if after is None:
            return found


def box(name: str) -> dict[str, Any]:
    """Return a box in the series format whose position encodes its task."""
    corner = {"xNorm": place(name), "yNorm": 0.25}
    return {"pointTopLeft": corner, "wNorm": 0.125, "hNorm": 0.25, "category": "finding"}


def place(name: str) -> float:
    """Return the left edge of a task's box."""
    return round(0.1 + int(name.rsplit("-", 1)[1]) / 10_000, 4)


def boxes(seen: TaskState) -> list[float]:
    """Return the left edges of the boxes on a task."""
    return [label["bbox2d"]["xnorm"] for label in json.loads(seen.labels)]


class Work:
    """Work of one operator on ``count`` tasks.

    :cvar requests: minimum number of requests of an attempt per 100 tasks.
    :cvar changes: the mutations that change tasks.
    """

    stage: ClassVar[str] = "Label"
    to: ClassVar[str] = "Review_1"
    strangers_hold: ClassVar[str] = PEOPLE[0]
    requests: ClassVar[int] = 20
    changes: ClassVar[frozenset[str]] = frozenset({PUT, REVIEW, REOPEN, CREATE})

    def __init__(self, sandbox: SandboxProcess, count: int) -> None:
        self.sandbox = sandbox
        self.count = count
        strangers = set(self.seed_strangers())
        self.ids = self.seed()
        self.before = read_all_tasks(sandbox)
        self.strangers = {task_id: self.before[task_id] for task_id in strangers}
        self.taken: set[str] = set()
        self.excused: set[str] = set()
        self.choosy = False
        self.deleted = 0

    def seed_strangers(self) -> list[str]:
        return self.sandbox.seed_tasks(STRANGERS, stage=self.stage, assignee=self.strangers_hold, prefix="theirs")

    def seed(self) -> list[str]:
        return self.sandbox.seed_tasks(self.count, stage=self.stage)

    def skips(self, name: str) -> bool:
        """Return whether the model or reviewer skips a task; never unless ``choosy`` is set."""
        return self.choosy and name.endswith("7")

    def operator(self) -> Any:
        """Create the operator of one attempt."""
        raise NotImplementedError

    def mutations(self, seen: TaskState) -> set[str]:
        """Return the mutations that must have been applied to a task."""
        raise NotImplementedError

    def wrong(self, before: TaskState, after: TaskState) -> str | None:
        """Return what is wrong with a task; None if nothing is."""
        raise NotImplementedError

    def untouched(self) -> int:
        """Return the number of tasks that are not changed yet."""
        applied = self.sandbox.stats()["applied"].values()
        return self.count - sum(1 for mutations in applied if mutations.keys() & self.changes)

    def reach(self) -> int:
        """Return the minimum number of requests of an attempt without faults."""
        return 3 + self.requests * self.untouched() // 100

    def delete(self, task_id: str) -> None:
        """Delete a task as another user."""
        ids = {"o": self.sandbox.org_id, "p": self.sandbox.project_id, "ids": [task_id]}
        self.sandbox.graphql(_DELETE, ids)
        self.ids.remove(task_id)
        del self.before[task_id]
        self.deleted += 1

    def leave(self, task_ids: Iterable[str]) -> None:
        """Exclude tasks that a person has taken; nothing else may have changed on them."""
        for task_id in task_ids:
            self.ids.remove(task_id)
            self.taken.add(task_id)

    def excuse(self, log_text: str) -> None:
        """Accept claims on unchanged tasks that, according to the log, could not be released."""
        named = set(re.findall(r"Task (\S+) stays assigned to the API key", log_text))
        applied = self.sandbox.stats()["applied"]
        self.excused = {i for i in named if i in self.before and applied[i].keys() == {ASSIGN}}

    # -- counting ------------------------------------------------------------------------------

    def complaints(self, *, often: int = 1) -> list[str]:
        """Check the server and return everything that breaks a promise.

        :param often: how many times a task may have been changed.
        """
        after, applied = read_all_tasks(self.sandbox), self.sandbox.stats()["applied"]
        found = [f"{task_id} is lost" for task_id in self.before if task_id not in after]
        found += [
            f"{task_id} of another person was changed: {seen} is now {after.get(task_id)}, by {applied.get(task_id)}"
            for task_id, seen in self.strangers.items()
            if after.get(task_id) != seen or task_id in applied
        ]
        found += [
            f"{i} is still claimed: {seen}"
            for i, seen in after.items()
            if (seen.holder or "").startswith("API:") and i not in self.excused
        ]
        found += [f"unexpected task: {i}" for i in after if i not in self.before and i not in self.new(after)]
        found += [
            f"{task_id} was taken, and is now {after[task_id]}, by {applied[task_id]}"
            for task_id in self.taken
            if replace(after[task_id], holder=None, state="UNASSIGNED") != self.before[task_id]
            or after[task_id].holder != self.strangers_hold
            or applied[task_id].keys() != {ASSIGN}
        ]
        for task_id in self.targets(after):
            found += self._of_one(task_id, after[task_id], dict(applied.get(task_id, {})), often)
        return found

    def targets(self, after: dict[str, TaskState]) -> list[str]:
        """Return the ids of the tasks that had to be changed."""
        return [task_id for task_id in self.ids if task_id in after]

    def new(self, after: dict[str, TaskState]) -> set[str]:
        """Return the ids of the tasks that had to be created."""
        return set()

    def _of_one(self, task_id: str, after: TaskState, applied: dict[str, int], often: int) -> list[str]:
        before = self.before.get(task_id, after)
        wanted = self.mutations(before)
        if ASSIGN not in wanted:
            # Claims and releases leave no trace, so their number is not promised.
            applied.pop(ASSIGN, None)
        right = applied.keys() == wanted and all(1 <= applied[name] <= often for name in wanted)
        problems = [] if right else [f"{task_id} got {applied}, not {wanted}"]
        problem = None if task_id in self.excused else self.wrong(before, after)
        return [*problems, f"{task_id} {problem}: {after}"] if problem else problems


class PrelabelSubmit(Work):
    """Submit a model's labels for the tasks of the queue."""

    write: ClassVar[str] = "submit"

    def operator(self) -> Any:
        def labeler(task: Any) -> Any:
            return None if self.skips(task.name) else [_series(task)]

        return RedBrickPrelabelOperator(task_id="work", stage_name="Label", labeler=labeler, write=self.write)

    def mutations(self, seen: TaskState) -> set[str]:
        return set() if self.skips(seen.name) else {PUT}

    def wrong(self, before: TaskState, after: TaskState) -> str | None:
        if self.skips(before.name):
            return _misplaced(after, "Label", "UNASSIGNED", boxes=[])
        return _misplaced(after, self.to, "UNASSIGNED", boxes=[place(before.name)])


class PrelabelDrafts(PrelabelSubmit):
    """Save a model's labels as drafts and release the tasks."""

    write = "draft_and_release"
    to = "Label"


class PutLabels(Work):
    """Submit finished labels, half of them by task id and half by task name."""

    def operator(self) -> Any:
        tasks = [
            {**({"taskId": i} if n % 2 else {"name": self.before[i].name}), "series": [_series(self.before[i])]}
            for n, i in enumerate(self.ids)
        ]
        return RedBrickPutLabelsOperator(task_id="work", stage_name="Label", tasks=tasks)

    def mutations(self, seen: TaskState) -> set[str]:
        return {PUT}

    def wrong(self, before: TaskState, after: TaskState) -> str | None:
        return _misplaced(after, self.to, "UNASSIGNED", boxes=[place(before.name)])


class AutoReview(Work):
    """Accept, reject and correct one third each."""

    stage = "Review_1"
    strangers_hold = PEOPLE[1]

    def seed(self) -> list[str]:
        return self.sandbox.seed_tasks(self.count, stage=self.stage, labels=WRONG)

    def operator(self) -> Any:
        def reviewer(task: Any) -> Review:
            if self.skips(task.name):
                return Review.leave()
            return (Review.accept(), Review.reject("Not so."), Review.correct([_series(task)]))[_third(task.name)]

        return RedBrickAutoReviewOperator(task_id="work", stage_name="Review_1", reviewer=reviewer)

    def mutations(self, seen: TaskState) -> set[str]:
        if self.skips(seen.name):
            return set()
        return {PUT} if _third(seen.name) == 2 else {REVIEW}

    def wrong(self, before: TaskState, after: TaskState) -> str | None:
        third = _third(before.name)
        if self.skips(before.name):
            return _misplaced(after, "Review_1", "UNASSIGNED", boxes=boxes(before))
        if third == 1:
            # A rejected task returns to its labeler.
            return _misplaced(after, "Label", "ASSIGNED", boxes=boxes(before), holders=PEOPLE)
        return _misplaced(after, "END", None, boxes=[place(before.name)] if third else boxes(before))


class Balance(Work):
    """Assign a queue to three people, one of whom holds tasks already."""

    requests = 2
    changes = frozenset({ASSIGN})

    def operator(self) -> Any:
        return RedBrickBalanceAssignmentsOperator(task_id="work", stage_name="Label", emails=PEOPLE)

    def mutations(self, seen: TaskState) -> set[str]:
        return {ASSIGN}

    def wrong(self, before: TaskState, after: TaskState) -> str | None:
        return _misplaced(after, "Label", "ASSIGNED", boxes=[], holders=PEOPLE)

    def complaints(self, *, often: int = 1) -> list[str]:
        queues = Counter(seen.holder for seen in read_all_tasks(self.sandbox).values())
        even = max(queues.values()) - min(queues[email] for email in PEOPLE) <= 1 + self.deleted
        return [*super().complaints(often=often), *([] if even else [f"the queues are uneven: {queues}"])]


class Reopen(Work):
    """Reopen the ground truth of one day, with its labels."""

    stage = "END"

    def seed_strangers(self) -> list[str]:
        return self.sandbox.seed_tasks(STRANGERS, ground_truth=True, updated_at=DAY[2], labels=WRONG, prefix="theirs")

    def seed(self) -> list[str]:
        return self.sandbox.seed_tasks(self.count, ground_truth=True, updated_at=DAY[1], labels=WRONG)

    def operator(self) -> Any:
        return RedBrickReopenGroundTruthOperator(
            task_id="work", selector=lambda _task: True, updated_after=DAY[0], updated_before=DAY[2]
        )

    def mutations(self, seen: TaskState) -> set[str]:
        return {REOPEN}

    def wrong(self, before: TaskState, after: TaskState) -> str | None:
        return _misplaced(after, "Label", "UNASSIGNED", boxes=boxes(before))


class Upload(Work):
    """Create tasks with labels; some of the names already exist."""

    requests = 100

    def seed(self) -> list[str]:
        self.names = [f"study-{number:04d}" for number in range(self.count)]
        return []

    def operator(self) -> Any:
        tasks = [
            {"name": name, "series": [{"items": f"{name}.dcm", "boundingBoxes": [box(name)]}]}
            for name in [*self.names, *(seen.name for seen in self.strangers.values())]
        ]
        return RedBrickUploadTasksOperator(task_id="work", tasks=tasks, storage_id=STORAGE)

    def new(self, after: dict[str, TaskState]) -> set[str]:
        return {task_id for task_id, seen in after.items() if seen.name in self.names}

    def targets(self, after: dict[str, TaskState]) -> list[str]:
        return sorted(self.new(after))

    def mutations(self, seen: TaskState) -> set[str]:
        return {CREATE}

    def wrong(self, before: TaskState, after: TaskState) -> str | None:
        return _misplaced(after, "Label", "UNASSIGNED", boxes=[place(before.name)])

    def complaints(self, *, often: int = 1) -> list[str]:
        counts = Counter(seen.name for seen in read_all_tasks(self.sandbox).values())
        twins = [f"{name} exists {counts[name]} times" for name in self.names if counts[name] != 1]
        return [*super().complaints(often=often), *twins]


WORKS = {
    "prelabel-submit": PrelabelSubmit,
    "prelabel-draft": PrelabelDrafts,
    "put-labels": PutLabels,
    "auto-review": AutoReview,
    "balance": Balance,
    "reopen": Reopen,
    "upload": Upload,
}


def _series(task: Any) -> dict[str, Any]:
    return {"boundingBoxes": [box(task.name)]}


def _third(name: str) -> int:
    return int(name.rsplit("-", 1)[1]) % 3


def _misplaced(
    after: TaskState, stage: str, state: str | None, *, boxes: list[float], holders: list[str] | None = None
) -> str | None:
    if after.stage != stage:
        return f"is not in {stage}"
    if after.state != state or after.holder not in (holders or [None]):
        return f"has the wrong state or holder, not {state} of {holders}"
    positions = [label["bbox2d"]["xnorm"] for label in json.loads(after.labels)]
    return None if positions == boxes else f"has boxes at {positions}, not {boxes}"
